/**
 * Payment as the drill runs it: the service's own parts, with a wrapper around each port of the saga that can kill the
 * process there. The service itself contains no failpoint.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { runMain } from '../../services/common/host/run-main.js';
import { runPayment } from '../../services/payment/compose.js';
import { parseConfig } from '../../services/payment/config.js';
import type { Inventory, Settlement } from '../../services/payment/inventory-port.js';
import type { CheckoutStore, Step } from '../../services/payment/saga.js';
import { type Failpoint, ORDERS_VARIABLE, type Orders } from './failpoints.js';

/** Short, so that abandoned payments are resumed soon. */
const TIMES = { leaseMs: 1_500, reservationTtlSeconds: 5, attempts: 4, backoffMs: 50, patienceMs: 1_000 };
const RESUME_INTERVAL_MS = 200;
const WAIT_MS_MAX = 20_000;
const POLL_MS = 10;

const ordersFile = process.env[ORDERS_VARIABLE] ?? '';
/** How often the failpoint of the current order was passed. */
const passed = { number: 0, times: 0 };

await runMain(() =>
  runPayment(parseConfig(process.env), {
    store: mortalStore,
    inventory: mortalInventory,
    settlement: mortalSettlement,
    times: TIMES,
    resumeIntervalMs: RESUME_INTERVAL_MS,
  }),
);

async function reach(failpoint: Failpoint): Promise<void> {
  const orders = JSON.parse(readFileSync(ordersFile, 'utf8')) as Orders;
  if (failpoint !== orders.failpoint) return;
  if (passed.number !== orders.number) Object.assign(passed, { number: orders.number, times: 0 });
  if (passed.times++ !== orders.skip) return;
  // Before the kill, so that the drill knows its cause.
  writeFileSync(orders.marker, failpoint);
  if (orders.victim === 'self') {
    process.kill(process.pid, 'SIGKILL');
    await new Promise(() => {});
  } else if (orders.victim === 'wait') {
    for (let waitedMs = 0; existsSync(orders.marker) && waitedMs < WAIT_MS_MAX; waitedMs += POLL_MS) {
      await sleep(POLL_MS);
    }
  } else {
    for (const pid of orders.victim) kill(pid);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has died for another reason.
  }
}

type Around = 'begin' | 'reserve' | 'hand-out' | 'give-back' | WrittenStep;

async function around<T>(name: Around, work: () => Promise<T>): Promise<T> {
  await reach(`${name}:before`);
  const result = await work();
  await reach(`${name}:after`);
  return result;
}

type WrittenStep = 'reserved' | 'held' | 'committing' | 'captured' | 'undoing' | 'failed';

/** A failpoint has the name of the step that it leads to on success. */
function nameOf(from: readonly Step[]): WrittenStep {
  const [first, ...others] = from;
  if (others.length > 0) return 'undoing';
  switch (first) {
    case 'reserving':
      return 'reserved';
    case 'reserved':
      return 'held';
    case 'held':
      return 'committing';
    case 'committing':
      return 'captured';
    default:
      return 'failed';
  }
}

function mortalStore(store: CheckoutStore): CheckoutStore {
  return {
    ...store,
    begin: (...rest) => around('begin', () => store.begin(...rest)),
    advance: (saga, from, leaseMs, work, permit) => {
      const name = nameOf(from);
      const mortalWork: typeof work = async (books) => {
        const change = await work(books);
        await reach(`${name}:inside`);
        return change;
      };
      return around(name, () => store.advance(saga, from, leaseMs, mortalWork, permit));
    },
  };
}

function mortalInventory(inventory: Inventory): Inventory {
  return { reserve: (request) => around('reserve', () => inventory.reserve(request)) };
}

function mortalSettlement(settlement: Settlement): Settlement {
  return {
    settle: (request) =>
      around(request.outcome === 'COMMITTED' ? 'hand-out' : 'give-back', () => settlement.settle(request)),
  };
}
