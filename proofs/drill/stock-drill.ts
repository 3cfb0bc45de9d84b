/** The stock drill: in each round 1,000 buyers compete for 100 units over two instances of inventory. */

import { randomUUID } from 'node:crypto';
import { InventoryServiceService as methods } from '../../proto/gen/inventory/v1/inventory_service.js';
import { ask } from '../../scripts/system/calls.js';
import { createRandom, type Random } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { nowMs } from '../shared/waiting.js';
import type { DrillOptions } from './revocation-drill.js';
import { mapInBatches, openShop, type Shop } from './shop-environment.js';
import { type Findings, noFindings, note, violationsIn, watchInvariants } from './shop-oracle.js';
import { askUntil, type Outcome, sendOnce } from './shop-requests.js';

const BUYERS = 1_000;
const UNITS = 100;
const PRICE = 500n;
const PATIENCE_MS = 60_000;

/** All figures of the drill. */
export interface StockFigures {
  readonly drill: 'stock';
  readonly seed: number;
  readonly rounds: number;
  readonly buyers: number;
  readonly units: number;
  /** Units sold in each round. */
  readonly sold: readonly number[];
  readonly oversold: number;
  readonly lost: number;
  readonly stuck: number;
  readonly violations: number;
  /** Number of checks of all invariants. */
  readonly checks: number;
  readonly seconds: number;
  readonly details: readonly string[];
}

/** Runs the drill and prints its progress. */
export async function drillStock({ rounds, seed, signal }: DrillOptions): Promise<StockFigures> {
  const startedMs = nowMs();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout);
  progress.show(0, rounds, 'starting the system');
  const shop = await openShop({
    customers: BUYERS,
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') progress.show(0, rounds, `${part} ${detail}`.trim());
    },
  });
  const findings = noFindings();
  const sold: number[] = [];
  const watch = watchInvariants(shop, findings);
  try {
    progress.show(0, rounds, `${BUYERS} buyers log in`);
    const tokens = await mapInBatches(shop.customers, shop.logIn);
    for (let round = 1; round <= rounds && !signal.aborted; round += 1) {
      sold.push(await sellOut({ shop, findings, random, tokens }, `LAST-${round}`));
      progress.show(round, rounds, `${sold.at(-1)} of ${UNITS} units sold to ${BUYERS} buyers`);
    }
    progress.end();
  } finally {
    await watch.stop().finally(() => shop.stop());
  }
  const figures: StockFigures = {
    drill: 'stock',
    seed,
    rounds,
    buyers: BUYERS,
    units: UNITS,
    sold,
    ...findings,
    violations: violationsIn(findings),
    seconds: Math.round((nowMs() - startedMs) / 1_000),
  };
  const all = sold.every((units) => units === UNITS) ? `${UNITS} each time` : sold.join(', ');
  console.log(
    `\n${rounds} rounds in ${figures.seconds} s: sold ${all}; invariants read ${figures.checks} times`,
  );
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations:\n${figures.details.join('\n')}`);
  return figures;
}

interface Sale {
  readonly shop: Shop;
  readonly findings: Findings;
  readonly random: Random;
  readonly tokens: readonly string[];
}

/** All buyers reserve at once, and the operator hands out what each successful buyer has reserved. */
async function sellOut({ shop, findings, random, tokens }: Sale, sku: string): Promise<number> {
  await shop.stockUp(sku, PRICE, BigInt(UNITS));
  const untilMs = nowMs() + PATIENCE_MS;
  const outcomes = await Promise.all(
    random.shuffle(tokens).map((token, index) => buyOne(shop, sku, token, { index, untilMs })),
  );
  const sold = outcomes.filter(({ kind }) => kind === 'answered').length;
  const open = outcomes.filter(({ kind }) => kind === 'open').length;
  const turnedAway = outcomes.filter((outcome) => {
    return outcome.kind === 'refused' && outcome.reason === 'INSUFFICIENT_STOCK';
  }).length;
  if (open > 0) note(findings, 'stuck', `${open} buyers of ${sku} got no answer`, open);
  if (sold !== UNITS) note(findings, 'lost', `${sold} units of ${sku} were sold`, Math.abs(UNITS - sold));
  if (sold + open + turnedAway !== tokens.length)
    note(findings, 'lost', `${sku} was refused for another reason`);
  const [inventory] = shop.clients.inventory;
  const { item } = await ask(inventory.getItem.bind(inventory), { sku }, { token: shop.operator });
  if (item?.onHand !== 0n || item.reserved !== 0n) {
    note(findings, 'lost', `${item?.onHand} of ${sku} are left, ${item?.reserved} of them reserved`);
  }
  return sold;
}

async function buyOne(
  { clients, operator }: Shop,
  sku: string,
  token: string,
  { index, untilMs }: { index: number; untilMs: number },
): Promise<Outcome> {
  const [one, two] = clients.inventory;
  const reserve = { lines: [{ sku, quantity: 1n }], timeToLive: undefined, requestId: randomUUID() };
  const [mine, other] = index % 2 === 0 ? [one, two] : [two, one];
  const reserved = await askUntil(() => sendOnce(mine, methods.reserveStock, reserve, token), untilMs);
  if (reserved.kind !== 'answered') return reserved;
  const { reservation } = methods.reserveStock.responseDeserialize(reserved.bytes);
  const commit = { reservationId: reservation?.reservationId ?? '', requestId: randomUUID() };
  return await askUntil(() => sendOnce(other, methods.commitReservation, commit, operator), untilMs);
}
