/** The ledger drill: many clients do everything at once, and money is conserved at every check. */

import { randomUUID } from 'node:crypto';
import { InventoryServiceService } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceService } from '../../proto/gen/payment/v1/payment_service.js';
import { createRandom, type Random } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { nowMs } from '../shared/waiting.js';
import type { DrillOptions } from './revocation-drill.js';
import { mapInBatches, openShop, type Shop, type Shopper } from './shop-environment.js';
import { Audit, noFindings, violationsIn, watchInvariants } from './shop-oracle.js';
import { askUntil, type Deal, insist, sendOnce, Trade, type Ware } from './shop-requests.js';

const CLIENTS = 64;
const OPERATIONS_PER_ROUND = 1_000;
const BALANCE = 20_000n;
const PATIENCE_MS = 30_000;
const REPEATED_EVERY = 20;
const WARES: readonly Ware[] = Array.from({ length: 16 }, (_, index) => {
  return { sku: `WARE-${index + 1}`, minorUnits: BigInt(40 + 7 * index), onHand: 1_000_000n };
});

/** All figures of the drill. */
export interface MoneyFigures {
  readonly drill: 'money';
  readonly seed: number;
  readonly clients: number;
  readonly operations: number;
  readonly operations_by_kind: Readonly<Record<string, number>>;
  readonly operations_per_second: number;
  readonly lost: number;
  readonly doubled: number;
  readonly oversold: number;
  readonly imbalances: number;
  readonly stuck: number;
  readonly violations: number;
  /** Number of checks of all invariants. */
  readonly checks: number;
  readonly seconds: number;
  readonly details: readonly string[];
}

/** Runs the drill and prints its progress. */
export async function drillMoney({ rounds, seed, signal }: DrillOptions): Promise<MoneyFigures> {
  const startedMs = nowMs();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout);
  progress.show(0, rounds, 'starting the system');
  const shop = await openShop({
    customers: CLIENTS,
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') progress.show(0, rounds, `${part} ${detail}`.trim());
    },
  });
  const findings = noFindings();
  const kinds: Record<string, number> = {};
  let loadMs = 0;
  const watch = watchInvariants(shop, findings);
  try {
    for (const { sku, minorUnits, onHand } of WARES) await shop.stockUp(sku, minorUnits, onHand);
    const shoppers = await mapInBatches(shop.customers, (customer) => shop.admit(customer, BALANCE));
    const trade = new Trade({ shop, wares: WARES, random });
    const balances = shoppers.map((shopper) => [shopper, BALANCE] as const);
    const audit = new Audit({ shop, trade, wares: WARES, findings, shoppers: balances });
    for (let round = 1; round <= rounds && !signal.aborted; round += 1) {
      const beganMs = nowMs();
      let left = OPERATIONS_PER_ROUND;
      await Promise.all(
        shoppers.map(async (shopper) => {
          while (left > 0) {
            left -= 1;
            const kind = await operate({ shop, trade, random }, shopper);
            kinds[kind] = (kinds[kind] ?? 0) + 1;
          }
        }),
      );
      loadMs += nowMs() - beganMs;
      progress.show(
        round,
        rounds,
        `${round * OPERATIONS_PER_ROUND} operations, ${violationsIn(findings)} violations`,
      );
    }
    await audit.quiet();
    await audit.count(REPEATED_EVERY);
    progress.end();
  } finally {
    await watch.stop().finally(() => shop.stop());
  }
  const operations = Object.values(kinds).reduce((sum, count) => sum + count, 0);
  const figures: MoneyFigures = {
    drill: 'money',
    seed,
    clients: CLIENTS,
    operations,
    operations_by_kind: kinds,
    operations_per_second: Math.round(operations / (loadMs / 1_000)),
    ...findings,
    violations: violationsIn(findings),
    seconds: Math.round((nowMs() - startedMs) / 1_000),
  };
  print(figures);
  return figures;
}

interface Market {
  readonly shop: Shop;
  readonly trade: Trade;
  readonly random: Random;
}

/** Runs one operation until it has a definite outcome. @returns the operation */
async function operate({ shop, trade, random }: Market, shopper: Shopper): Promise<string> {
  const chance = random.next();
  const untilMs = nowMs() + PATIENCE_MS;
  const { payment, inventory } = shop.clients;
  const { token, accountId } = shopper;
  const settle = async (deal: Deal): Promise<string> => {
    await insist(deal, untilMs);
    return deal.name;
  };
  if (chance < 0.3) return await settle(trade.checkout(shopper));
  if (chance < 0.5) return await settle(trade.deposit(shopper, BigInt(random.integer(1, 900))));
  if (chance < 0.6) return await settle(trade.refund(shopper) ?? trade.deposit(shopper, 1n));
  if (chance < 0.65) {
    // Sent twice at once: one of them is carried out.
    const deal = trade.deposit(shopper, 5n);
    const twin = askUntil(deal.send, untilMs);
    await Promise.all([insist(deal, untilMs), twin]);
    return 'deposit twice';
  }
  if (chance < 0.75) {
    const lines = [{ sku: random.pick(WARES).sku, quantity: 1n }];
    const reserve = { lines, timeToLive: undefined, requestId: randomUUID() };
    const { reserveStock, releaseReservation } = InventoryServiceService;
    const [here, there] = random.shuffle(inventory);
    if (here === undefined || there === undefined) throw new TypeError('there are two instances');
    const reserved = await askUntil(() => sendOnce(here, reserveStock, reserve, token), untilMs);
    if (reserved.kind !== 'answered') return 'reserve';
    const { reservation } = reserveStock.responseDeserialize(reserved.bytes);
    const release = { reservationId: reservation?.reservationId ?? '', requestId: randomUUID() };
    await askUntil(() => sendOnce(there, releaseReservation, release, token), untilMs);
    return 'reserve and release';
  }
  const page = { pageSize: 20, pageToken: '' };
  const { getAccount, listEntries, listPayments } = PaymentServiceService;
  if (chance < 0.85) {
    await askUntil(() => sendOnce(payment, getAccount, { accountId }, token), untilMs);
    return 'read an account';
  }
  if (chance < 0.95) {
    const request = { accountId, ...page, filter: 'kind = CAPTURE' };
    await askUntil(() => sendOnce(payment, listEntries, request, token), untilMs);
    return 'list entries';
  }
  await askUntil(
    () => sendOnce(payment, listPayments, { ...page, filter: 'state = CAPTURED' }, token),
    untilMs,
  );
  return 'list payments';
}

function print(figures: MoneyFigures): void {
  const { operations, clients, seconds, checks, operations_per_second: rate } = figures;
  const { lost, doubled, oversold, imbalances, stuck } = figures;
  console.log(
    `\n${operations} operations by ${clients} clients in ${seconds} s (${rate} a second); all invariants were read ${checks} times`,
  );
  console.log(
    `${lost} lost, ${doubled} doubled, ${oversold} oversold, ${imbalances} imbalances, ${stuck} stuck`,
  );
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations:\n${figures.details.join('\n')}`);
}
