/** Payment as the bench runs it: the service's own parts, with a timer around each port of the saga. */

import { writeFileSync } from 'node:fs';
import { runMain } from '../../services/common/host/run-main.js';
import { runPayment } from '../../services/payment/compose.js';
import { parseConfig } from '../../services/payment/config.js';
import type { CheckoutStore } from '../../services/payment/saga.js';

const timesFile = process.env['BENCH_TIMES'] ?? '';
const WRITE_INTERVAL_MS = 250;

const spent = new Map<string, { count: number; milliseconds: number }>();

async function timed<T>(name: string, work: () => Promise<T>): Promise<T> {
  const begin = performance.now();
  try {
    return await work();
  } finally {
    const known = spent.get(name) ?? { count: 0, milliseconds: 0 };
    known.count += 1;
    known.milliseconds += performance.now() - begin;
    spent.set(name, known);
  }
}

function timedStore(store: CheckoutStore): CheckoutStore {
  return {
    ...store,
    begin: (...rest) => timed('begin', () => store.begin(...rest)),
    advance: (saga, from, ...rest) => timed(`after ${from[0]}`, () => store.advance(saga, from, ...rest)),
  };
}

setInterval(
  () => writeFileSync(timesFile, JSON.stringify(Object.fromEntries(spent))),
  WRITE_INTERVAL_MS,
).unref();

await runMain(() =>
  runPayment(parseConfig(process.env), {
    store: timedStore,
    inventory: ({ reserve }) => ({ reserve: (request) => timed('reserve', () => reserve(request)) }),
    settlement: ({ settle }) => ({ settle: (request) => timed('hand out', () => settle(request)) }),
  }),
);
