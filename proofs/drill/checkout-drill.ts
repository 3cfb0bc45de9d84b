/**
 * The checkout drill: payment and inventory are killed at every failpoint of a purchase and at random moments, under
 * load, while every invariant is checked continuously. At the end nothing is lost, duplicated or left over.
 */

import { existsSync } from 'node:fs';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  PaymentServiceService as methods,
  type Payment,
} from '../../proto/gen/payment/v1/payment_service.js';
import { RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { createRandom, type Random } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { nowMs } from '../shared/waiting.js';
import { FAILPOINTS, type Failpoint, ORDERS_VARIABLE, type Orders } from './failpoints.js';
import type { DrillOptions } from './revocation-drill.js';
import { mapInBatches, openShop, type Shop, type Shopper } from './shop-environment.js';
import { Audit, type Findings, noFindings, note, violationsIn, watchInvariants } from './shop-oracle.js';
import { insist, Trade, type Ware } from './shop-requests.js';

const SHOPPERS = 8;
const BALANCE = 50_000n;
const WARES: readonly Ware[] = [
  { sku: 'DRILL-A', minorUnits: 137n, onHand: 1_000_000n },
  { sku: 'DRILL-B', minorUnits: 211n, onHand: 1_000_000n },
  { sku: 'DRILL-C', minorUnits: 89n, onHand: 1_000_000n },
];
/** After this many rounds all answers and balances are checked. */
const ROUNDS_PER_AUDIT = 4;
/** Once in this many rounds inventory is killed at the failpoint instead of payment. */
const ROUNDS_PER_INVENTORY = 5;
/** Once in this many rounds a buyer is revoked during a purchase. */
const ROUNDS_PER_REVOCATION = 8;
const FAILPOINT_MS_MAX = 4_000;
const AFTERMATH_MS_MAX = 250;
const DEAL_MS_MAX = 6_000;
const MARKER_POLL_MS = 5;
const SKIP_MAX = 6;
const NO_ORDERS = { failpoint: undefined, skip: 0, victim: 'wait' } as const;

/** All figures of the drill. */
export interface CheckoutFigures {
  readonly drill: 'checkout';
  readonly seed: number;
  readonly rounds: number;
  readonly operations: number;
  readonly lost: number;
  readonly doubled: number;
  readonly oversold: number;
  readonly imbalances: number;
  readonly stuck: number;
  readonly violations: number;
  /** Kills at each failpoint. */
  readonly failpoints: Readonly<Record<string, number>>;
  readonly kills: Readonly<Record<'payment' | 'inventory', number>>;
  /** Buyers who were revoked before the decision, and right after it. */
  readonly revoked: { readonly stopped: number; readonly finished: number };
  /** Number of checks of all invariants. */
  readonly checks: number;
  readonly seconds: number;
  readonly details: readonly string[];
}

/** Runs the drill and prints its progress. */
export async function drillCheckout({
  rounds,
  seed,
  faults,
  signal,
}: DrillOptions): Promise<CheckoutFigures> {
  const startedMs = nowMs();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout);
  const plan = planOf(random, rounds, faults);
  progress.show(0, rounds, 'starting the system');
  const files = { orders: '', marker: '' };
  const shop = await openShop({
    customers: SHOPPERS + 1,
    paymentProgram: (dataDir) => {
      Object.assign(files, { orders: join(dataDir, 'orders.json'), marker: join(dataDir, 'reached') });
      return {
        program: 'proofs/drill/killable-payment',
        environment: { [ORDERS_VARIABLE]: files.orders },
      };
    },
    prepare: () => writeOrders(files, NO_ORDERS),
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') progress.show(0, rounds, `${part} ${detail}`.trim());
    },
  });
  const findings = noFindings();
  const figures = {
    operations: 0,
    failpoints: Object.fromEntries(FAILPOINTS.map((name) => [name, 0])) as Record<Failpoint, number>,
    kills: { payment: 0, inventory: 0 },
    revoked: { stopped: 0, finished: 0 },
  };
  const watch = watchInvariants(shop, findings);
  try {
    const [victim, ...customers] = shop.customers;
    if (victim === undefined) throw new TypeError('the drill has too few customers');
    for (const { sku, minorUnits, onHand } of WARES) await shop.stockUp(sku, minorUnits, onHand);
    const shoppers = await mapInBatches(customers, (customer) => shop.admit(customer, BALANCE));
    const revocable = await shop.admit(victim, BALANCE);
    const trade = new Trade({ shop, wares: WARES, random });
    const allShoppers = [...shoppers, revocable].map((shopper) => [shopper, BALANCE] as const);
    const audit = new Audit({ shop, trade, wares: WARES, findings, shoppers: allShoppers });
    const drill: Drill = { shop, trade, shoppers, audit, findings, random, files, figures };
    for (const [index, failpoint] of plan.entries()) {
      if (signal.aborted) break;
      const said = await runRound(drill, index + 1, failpoint, revocable);
      const isAudited = (index + 1) % ROUNDS_PER_AUDIT === 0 || index + 1 === rounds;
      if (isAudited) await countUp(drill);
      progress.show(
        index + 1,
        rounds,
        `${said}${isAudited ? `, ${violationsIn(findings)} violations so far` : ''}`,
      );
    }
    progress.end();
  } finally {
    await watch.stop().finally(() => shop.stop());
  }
  const all: CheckoutFigures = {
    drill: 'checkout',
    seed,
    rounds,
    ...figures,
    ...findings,
    violations: violationsIn(findings),
    seconds: Math.round((nowMs() - startedMs) / 1_000),
  };
  print(all);
  return all;
}

interface Drill {
  readonly shop: Shop;
  readonly trade: Trade;
  readonly shoppers: readonly Shopper[];
  readonly audit: Audit;
  readonly findings: Findings;
  readonly random: Random;
  readonly files: { readonly orders: string; readonly marker: string };
  readonly figures: {
    operations: number;
    readonly failpoints: Record<Failpoint, number>;
    readonly kills: { payment: number; inventory: number };
    readonly revoked: { stopped: number; finished: number };
  };
}

/** All failpoints in random order, repeated, so that each is used about equally often. */
function planOf(random: Random, rounds: number, wanted: string): Failpoint[] {
  const failpoints = FAILPOINTS.filter((name) => name.includes(wanted));
  if (failpoints.length === 0) throw new Error(`no failpoint has ${wanted} in its name`);
  const plan: Failpoint[] = [];
  while (plan.length < rounds) plan.push(...random.shuffle(failpoints));
  return plan.slice(0, rounds);
}

async function runRound(
  drill: Drill,
  round: number,
  failpoint: Failpoint,
  revocable: Shopper,
): Promise<string> {
  if (round % ROUNDS_PER_REVOCATION === 0) {
    const isBefore = (round / ROUNDS_PER_REVOCATION) % 2 === 1;
    return await revokeInTheMiddle(drill, revocable, isBefore ? 'held:after' : 'committing:after');
  }
  return await killAt(drill, failpoint, round % ROUNDS_PER_INVENTORY === 0 ? 'inventory' : 'payment');
}

/** Kills payment, or both instances of inventory, at the failpoint and under load, then continues. */
async function killAt(drill: Drill, failpoint: Failpoint, who: 'payment' | 'inventory'): Promise<string> {
  const { shop, random, files, figures } = drill;
  const { payment, inventory } = shop.system;
  const victim = who === 'payment' ? 'self' : inventory.map(({ pid }) => pid);
  await writeOrders(files, { failpoint, skip: random.integer(0, SKIP_MAX), victim });
  const load = startLoad(drill);
  const isReached = await appears(files.marker, FAILPOINT_MS_MAX);
  if (isReached) figures.failpoints[failpoint] += 1;
  // A process that did not reach the failpoint is killed at a random moment.
  if (who === 'inventory' || !isReached) {
    if (who === 'inventory' && !isReached) for (const instance of inventory) instance.kill('SIGKILL');
    await sleep(random.integer(0, AFTERMATH_MS_MAX));
    payment.kill('SIGKILL');
  }
  if (who === 'inventory') figures.kills.inventory += inventory.length;
  figures.kills.payment += 1;
  await payment.ended();
  await sleep(random.integer(0, AFTERMATH_MS_MAX));
  await Promise.all(inventory.map((instance) => (instance.isRunning() ? undefined : instance.restart())));
  // The next process has the same load while it resumes what this one left.
  await writeOrders(files, NO_ORDERS);
  await payment.restart();
  figures.operations += await load.stop();
  return `${who} killed ${isReached ? `at ${failpoint}` : 'at random'}`;
}

let ordersWritten = 0;

/** The marker is removed last: a process that waits for it must not read old orders. */
async function writeOrders(
  { orders, marker }: Drill['files'],
  given: Omit<Orders, 'marker' | 'number'>,
): Promise<void> {
  ordersWritten += 1;
  const draft = `${orders}.draft`;
  await writeFile(draft, JSON.stringify({ ...given, marker, number: ordersWritten }));
  await rename(draft, orders);
  await rm(marker, { force: true });
}

async function appears(file: string, withinMs: number): Promise<boolean> {
  for (const untilMs = nowMs() + withinMs; nowMs() < untilMs; ) {
    if (existsSync(file)) return true;
    await sleep(MARKER_POLL_MS);
  }
  return false;
}

/** Every customer buys, cancels and receives refunds, one operation after another. */
function startLoad({ trade, shoppers, random }: Drill): { stop(): Promise<number> } {
  let isStopped = false;
  const isOver = () => isStopped;
  let operations = 0;

  async function shopOn(shopper: Shopper): Promise<void> {
    while (!isOver()) {
      const chance = random.next();
      const refund = chance < 0.15 ? trade.refund(shopper) : undefined;
      const deal = refund ?? (chance < 0.25 ? trade.deposit(shopper, 400n) : trade.checkout(shopper));
      const dealing = deal.send().then((outcome) => {
        deal.outcome = outcome;
      });
      operations += 1;
      if (deal.name === 'checkout' && random.next() < 0.15) {
        const cancelling = await trade.cancel(shopper);
        if (cancelling !== undefined) {
          operations += 1;
          cancelling.outcome = await cancelling.send();
        }
      }
      await dealing;
      // Some buyers do not retry when they get no answer; payment alone must settle what they left.
      if (random.next() < 0.6) await insist(deal, nowMs() + DEAL_MS_MAX);
    }
  }

  const loads = shoppers.map(shopOn);
  return {
    stop: async () => {
      isStopped = true;
      await Promise.all(loads);
      return operations;
    },
  };
}

async function countUp({ audit }: Drill): Promise<void> {
  await audit.quiet();
  await audit.count();
}

/**
 * A buyer is revoked while the purchase waits. Before the decision nothing may move. After it the next process finishes
 * the purchase, although no token of the buyer is left.
 */
async function revokeInTheMiddle(
  drill: Drill,
  { accountId, username, password }: Shopper,
  failpoint: 'held:after' | 'committing:after',
): Promise<string> {
  const { shop, audit, findings, figures, files, random } = drill;
  const { clients, operator, system } = shop;
  await countUp(drill);
  const victim: Shopper = { username, password, accountId, token: await shop.logIn({ username, password }) };
  await writeOrders(files, { failpoint, skip: 0, victim: 'wait' });
  const deal = new Trade({ shop, wares: WARES, random }).buy(victim, [{ sku: 'DRILL-A', quantity: 1n }]);
  const buying = deal.send();
  const isReached = await appears(files.marker, 2 * FAILPOINT_MS_MAX);
  if (!isReached) note(findings, 'stuck', `the purchase never came to ${failpoint}`);
  const revoke = {
    target: { $case: 'token' as const, value: victim.token },
    reason: 'the drill',
    wait: RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES,
    targets: [],
    dryRun: false,
    fences: [],
  };
  await ask(clients.revocation.revoke.bind(clients.revocation), revoke, { token: operator });
  const isDecided = failpoint === 'committing:after';
  if (isDecided) {
    system.payment.kill('SIGKILL');
    figures.kills.payment += 1;
    await system.payment.ended();
    await writeOrders(files, NO_ORDERS);
    await system.payment.restart();
  } else {
    // It continues when the marker is gone.
    await writeOrders(files, NO_ORDERS);
  }
  const outcome = await buying;
  figures.operations += 1;
  await audit.quiet();
  if (!isDecided && !(outcome.kind === 'refused' && outcome.reason === 'TOKEN_REVOKED')) {
    note(findings, 'lost', `a revoked buyer was told ${outcome.kind} instead of TOKEN_REVOKED`);
  }
  const token = await shop.logIn({ username, password });
  const page = { pageSize: 1, pageToken: '', filter: '' };
  const { payments } = await ask(clients.payment.listPayments.bind(clients.payment), page, { token });
  const captured = payments[0]?.refunded !== undefined ? payments[0] : undefined;
  if (isDecided) {
    if (captured === undefined)
      note(findings, 'lost', 'a decided purchase of a revoked buyer was not finished');
    else audit.account({ ...deal, outcome: { kind: 'answered', bytes: syncResultFor(captured) } });
  } else if (captured !== undefined) {
    note(findings, 'doubled', 'money of a revoked buyer has moved');
  }
  figures.revoked[isDecided ? 'finished' : 'stopped'] += 1;
  await audit.count();
  return `a buyer revoked at ${failpoint}`;
}

function syncResultFor(payment: Payment): Buffer {
  return methods.checkout.responseSerialize({ payment });
}

function print(figures: CheckoutFigures): void {
  const { rounds, operations, seconds, checks, kills, revoked, failpoints } = figures;
  const { lost, doubled, oversold, imbalances, stuck } = figures;
  console.log(
    `\n${rounds} rounds in ${seconds} s: ${operations} operations, payment killed ${kills.payment} times, inventory ${kills.inventory} times, ` +
      `${revoked.stopped + revoked.finished} buyers revoked in the middle; all invariants were read ${checks} times`,
  );
  for (const [name, count] of Object.entries(failpoints)) console.log(`  ${name.padEnd(18)} ${count}`);
  console.log(
    `${lost} lost, ${doubled} doubled, ${oversold} oversold, ${imbalances} imbalances, ${stuck} stuck`,
  );
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations:\n${figures.details.join('\n')}`);
}
