/**
 * Section `domain`: the cost of reserving through the service beside the same SQL statements through `pg` alone, and the
 * time of each step of a checkout.
 */

import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { InventoryServiceService } from '../../proto/gen/inventory/v1/inventory_service.js';
import { ask } from '../../scripts/system/calls.js';
import { openShop, type Shop, type Shopper } from '../drill/shop-environment.js';
import { formatNumber } from '../shared/reporting.js';
import { quantile } from '../shared/statistics.js';
import { nowMs } from '../shared/waiting.js';
import { Connection } from './connection.js';
import { type PreparedCall, prepareCalls } from './prepared-calls.js';
import { atLeast, type Findings, type Section, type Table } from './section.js';
import { type Statement, statementsOf } from './statements.js';

const POOL_SIZE = 10;
const CALLERS = 32;
const SKUS = 64;
const SLICES = 5;
const SLICE_MS = 4_000;
const SLICE_SHORT_MS = 1_000;
const CHECKOUT_CALLERS = [1, 8] as const;
/** The timed process writes its times to a file four times a second. */
const TIMES_WAIT_MS = 400;
const RATIO_WANTED = 0.5;
const MONEY = 1_000_000_000n;
const STOCK = 1_000_000_000n;

/** The steps of a checkout in order: the name in the timed process, and the label. */
const STEPS = [
  ['begin', 'record that it begins'],
  ['reserve', 'exchange the token once, reserve at inventory'],
  ['after reserving', 'record the reservation and its price'],
  ['after reserved', 'hold the money'],
  ['after held', 'check that the buyer is still allowed, decide'],
  ['hand out', 'hand out at inventory'],
  ['after committing', 'capture'],
] as const;

export const domain: Section = {
  name: 'domain',
  title: 'ReserveStock beside its own statements, and the steps of a checkout',
  run: async ({ isShort, signal, progress }) => {
    const times = { file: '' };
    const shop = await openShop({
      customers: Math.max(...CHECKOUT_CALLERS),
      isDurable: true,
      // One user reserves as fast as possible and releases nothing.
      environment: {
        PORTCULLIS_RESERVATIONS_PER_USER_MAX: '1000000',
        PORTCULLIS_RESERVED_SHARE_PERCENT_MAX: '100',
        PORTCULLIS_RESERVATION_SECONDS_MAX: '3600',
      },
      paymentProgram: (dataDir) => {
        times.file = join(dataDir, 'times.json');
        return { program: 'proofs/bench/timed-payment', environment: { BENCH_TIMES: times.file } };
      },
      signal,
      onProgress: ({ part, state }) => {
        if (state === 'starting') progress(`starting ${part}`);
      },
    });
    try {
      const skus = Array.from({ length: SKUS }, (_, index) => `BENCH-${String(index).padStart(3, '0')}`);
      for (const sku of skus) await shop.stockUp(sku, 1n, STOCK);
      const shoppers: Shopper[] = [];
      for (const customer of shop.customers) shoppers.push(await shop.admit(customer, MONEY));
      const sliceMs = isShort ? SLICE_SHORT_MS : SLICE_MS;
      const reserving = await measureReserving({ shop, shoppers, skus, sliceMs, progress, signal });
      const checkouts: Awaited<ReturnType<typeof measureCheckout>>[] = [];
      for (const callers of CHECKOUT_CALLERS) {
        progress(`checkout, ${callers} at once`);
        const wanted = { shop, shoppers: shoppers.slice(0, callers), skus, times: times.file };
        checkouts.push(await measureCheckout(wanted, 2 * sliceMs));
      }
      return findingsOf(reserving, checkouts);
    } finally {
      await shop.stop();
    }
  },
};

interface Reserving {
  readonly direct: readonly number[];
  readonly service: readonly number[];
  readonly statements: number;
}

async function measureReserving(wanted: {
  shop: Shop;
  shoppers: readonly Shopper[];
  skus: readonly string[];
  sliceMs: number;
  progress: (text: string) => void;
  signal: AbortSignal;
}): Promise<Reserving> {
  const { shop, shoppers, skus, sliceMs, progress, signal } = wanted;
  const { system, clients } = shop;
  if (system.postgres === undefined)
    throw new TypeError('this section needs a private PostgreSQL: unset DATABASE_URL');
  const [inventory] = clients.inventory;
  const [{ token } = { token: '' }] = shoppers;
  const [first = ''] = skus;
  const reserve = async (sku: string, requestId: string): Promise<string> => {
    const request = { lines: [{ sku, quantity: 1n }], timeToLive: { seconds: 3_600n, nanos: 0 }, requestId };
    const { reservation } = await ask(inventory.reserveStock.bind(inventory), request, { token });
    return reservation?.reservationId ?? '';
  };
  const { postgres } = system;
  const requestId = `bench-${randomUUID()}`;
  let reservationId = '';
  const statements = await statementsOf({
    url: postgres.url('postgres'),
    logFile: postgres.logFile,
    parameter: requestId,
    operation: async () => {
      reservationId = await reserve(first, requestId);
    },
  });
  if (statements.length === 0) throw new Error('no statement of the reservation was found in the log');
  const recording = { statements, requestId, reservationId, sku: first };
  const pool = new pg.Pool({ connectionString: system.databases.inventory, max: POOL_SIZE });
  pool.on('error', () => undefined);
  const direct: number[] = [];
  const service: number[] = [];
  const caller = await prepareCaller(system.inventory[0].address, token, skus);
  try {
    // One slice of each to warm up, then in turns, so that a slow moment of the machine hits both.
    for (let slice = 0; slice <= SLICES && !signal.aborted; slice += 1) {
      progress(`reserving, ${slice} of ${SLICES}`);
      const rates = [
        await rateOf(sliceMs, (turn) => reserveDirectly(pool, recording, skus[turn % SKUS] ?? first)),
        await rateOf(sliceMs, caller.call),
      ] as const;
      if (slice === 0) continue;
      direct.push(rates[0]);
      service.push(rates[1]);
    }
  } finally {
    caller.close();
    await pool.end();
  }
  return { direct, service, statements: statements.length };
}

/** The placeholder of the request id in a prepared call. */
const REQUEST_ID_BLANK = `bench-${'0'.repeat(36)}`;

/** Reserves repeatedly with prepared bytes; a grpc-js client would cost as much as the service. */
async function prepareCaller(
  address: string,
  token: string,
  skus: readonly string[],
): Promise<{ call: (turn: number) => Promise<void>; close: () => void }> {
  const { path, requestSerialize } = InventoryServiceService.reserveStock;
  const [first = ''] = skus;
  const request = {
    lines: [{ sku: first, quantity: 1n }],
    timeToLive: { seconds: 3_600n, nanos: 0 },
    requestId: REQUEST_ID_BLANK,
  };
  const prepared = await prepareCalls({ path, tokens: [token], message: requestSerialize(request) });
  const [blank] = prepared.calls;
  if (blank === undefined) throw new TypeError('one call was prepared');
  const connection = await Connection.connect({ port: Number(address.split(':')[1]) }, prepared);
  const waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
  connection.listener = {
    ended: (_connection, answered, _ms, stream) => {
      const caller = waiting.get(stream);
      waiting.delete(stream);
      if (answered) caller?.resolve();
      else caller?.reject(new Error('a reservation was refused'));
    },
  };
  return {
    call: (turn) =>
      new Promise((resolve, reject) => {
        const stream = connection.send(filled(blank, first, skus[turn % skus.length] ?? first));
        waiting.set(stream, { resolve, reject });
        connection.flush();
      }),
    close: () => connection.close(),
  };
}

/** The prepared call for another item, with a new request id. */
function filled({ bytes, streamAt }: PreparedCall, from: string, to: string): PreparedCall {
  const mine = Buffer.from(bytes);
  mine.write(to, mine.indexOf(from), 'latin1');
  mine.write(`bench-${randomUUID()}`, mine.indexOf(REQUEST_ID_BLANK), 'latin1');
  return { bytes: mine, streamAt };
}

/** The statements of one reservation, and the values that each repetition replaces. */
interface Recording {
  readonly statements: readonly Statement[];
  readonly requestId: string;
  readonly reservationId: string;
  readonly sku: string;
}

/** Runs the same statements, including the commit, for another item, request and reservation. */
async function reserveDirectly(pool: pg.Pool, recording: Recording, sku: string): Promise<void> {
  const requestId = `bench-${randomUUID()}`;
  let { reservationId } = recording;
  const mine = (value: string | null): string | null =>
    value
      ?.replaceAll(recording.requestId, requestId)
      .replaceAll(recording.reservationId, reservationId)
      .replaceAll(recording.sku, sku) ?? null;
  const client = await pool.connect();
  try {
    for (const { name, text, values } of recording.statements) {
      const query = { ...(name !== undefined && { name: `direct ${name}` }), text, values: values.map(mine) };
      const { rows } = await client.query<{ reservation_id?: string }>(values.length === 0 ? text : query);
      // COMMIT is sent together with a setting, so it has two results.
      reservationId = rows?.[0]?.reservation_id ?? reservationId;
    }
  } finally {
    client.release();
  }
}

/** The rate at which {@link CALLERS} callers can repeat something, per second. */
async function rateOf(durationMs: number, work: (caller: number) => Promise<unknown>): Promise<number> {
  const beganMs = nowMs();
  let count = 0;
  await Promise.all(
    Array.from({ length: CALLERS }, async (_, caller) => {
      for (let turn = 0; nowMs() - beganMs < durationMs; turn += 1) {
        await work(caller + turn * CALLERS);
        count += 1;
      }
    }),
  );
  return count / ((nowMs() - beganMs) / 1_000);
}

type Spent = Readonly<Record<string, { readonly count: number; readonly milliseconds: number }>>;

async function measureCheckout(
  wanted: { shop: Shop; shoppers: readonly Shopper[]; skus: readonly string[]; times: string },
  durationMs: number,
): Promise<{
  callers: number;
  perSecond: number;
  meanMs: number;
  p99Ms: number;
  steps: Map<string, number>;
}> {
  const { shop, shoppers, skus, times } = wanted;
  const { payment } = shop.clients;
  const buy = async ({ accountId, token }: Shopper, turn: number): Promise<number> => {
    const lines = [{ sku: skus[turn % skus.length] ?? '', quantity: 1n }];
    const beganMs = nowMs();
    const request = { accountId, lines, requestId: randomUUID() };
    await ask(payment.checkout.bind(payment), request, { token });
    return nowMs() - beganMs;
  };
  for (const shopper of shoppers) for (let turn = 0; turn < 10; turn += 1) await buy(shopper, turn);
  await sleep(TIMES_WAIT_MS);
  const before = JSON.parse(await readFile(times, 'utf8')) as Spent;
  const latencies: number[] = [];
  const beganMs = nowMs();
  await Promise.all(
    shoppers.map(async (shopper, index) => {
      for (let turn = index; nowMs() - beganMs < durationMs; turn += shoppers.length) {
        latencies.push(await buy(shopper, turn));
      }
    }),
  );
  const perSecond = latencies.length / ((nowMs() - beganMs) / 1_000);
  await sleep(TIMES_WAIT_MS);
  const after = JSON.parse(await readFile(times, 'utf8')) as Spent;
  const steps = new Map(STEPS.map(([name]) => [name, meanBetween(before[name], after[name])]));
  const meanMs = latencies.reduce((sum, latency) => sum + latency, 0) / latencies.length;
  return { callers: shoppers.length, perSecond, meanMs, p99Ms: quantile(latencies, 0.99), steps };
}

function meanBetween(before: Spent[string] | undefined, after: Spent[string] | undefined): number {
  const count = (after?.count ?? 0) - (before?.count ?? 0);
  return ((after?.milliseconds ?? 0) - (before?.milliseconds ?? 0)) / count;
}

function findingsOf(
  { direct, service, statements }: Reserving,
  checkouts: readonly Awaited<ReturnType<typeof measureCheckout>>[],
): Findings {
  const [directRate, serviceRate] = [quantile(direct, 0.5), quantile(service, 0.5)];
  const ratio = quantile(
    service.map((rate, index) => rate / (direct[index] ?? Number.NaN)),
    0.5,
  );
  const reserve: Table = {
    title: `ReserveStock, ${CALLERS} callers, ${POOL_SIZE} connections`,
    rows: [
      ['', 'a second'],
      [`its ${statements} statements through pg`, formatNumber(directRate)],
      ['through the service', formatNumber(serviceRate)],
      ['ratio', formatNumber(ratio)],
    ],
  };
  const rest = checkouts.map(({ meanMs, steps }) => {
    return meanMs - [...steps.values()].reduce((sum, step) => sum + step, 0);
  });
  const checkout: Table = {
    title: 'Checkout, mean milliseconds',
    rows: [
      ['', ...checkouts.map(({ callers }) => `${callers} at once`)],
      ...STEPS.map(([name, title]) => [
        title,
        ...checkouts.map(({ steps }) => formatNumber(steps.get(name) ?? Number.NaN)),
      ]),
      ['wire, guard, checks, waiting', ...rest.map(formatNumber)],
      ['total', ...checkouts.map(({ meanMs }) => formatNumber(meanMs))],
      ['p99', ...checkouts.map(({ p99Ms }) => formatNumber(p99Ms))],
      ['checkouts a second', ...checkouts.map(({ perSecond }) => formatNumber(perSecond))],
    ],
  };
  return {
    figures: {
      reserve_stock: {
        direct_per_second: directRate,
        service_per_second: serviceRate,
        ratio,
        statements,
        callers: CALLERS,
      },
      checkout: checkouts.map(({ callers, perSecond, meanMs, p99Ms, steps }, index) => ({
        callers,
        per_second: perSecond,
        mean_ms: meanMs,
        p99_ms: p99Ms,
        steps_ms: { ...Object.fromEntries(steps), rest: rest[index] },
      })),
    },
    tables: [reserve, checkout],
    goals: [atLeast('ReserveStock beside its statements through pg', ratio, RATIO_WANTED, ' ×')],
    notes: [
      'The database syncs to the disk with every commit; callers, services and database share the machine.',
    ],
  };
}
