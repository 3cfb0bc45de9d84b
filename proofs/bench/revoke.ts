/** Section `revoke`: the time from a revocation to the refusal, beside the time of its parts alone. */

import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { errorOf } from '@portcullis/guard/client';
import { CompactSign, generateKeyPair } from 'jose';
import { connect, type NatsConnection } from 'nats';
import pg from 'pg';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { InventoryServiceClient } from '../../proto/gen/inventory/v1/inventory_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import { RevocationServiceClient, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber } from '../shared/reporting.js';
import { quantile } from '../shared/statistics.js';
import type { LoadCommands } from './load-process.js';
import { atMost, type BenchContext, type Findings, type Goal, type Section, type Table } from './section.js';
import { startWorker } from './worker.js';

const TRIALS = { idle: 200, loaded: 300 };
const TRIALS_SHORT = { idle: 24, loaded: 12 };
/** Trials that warm V8 up and do not count. */
const WARM_UP_TRIALS = 8;
/** The pause between two trials, in milliseconds. */
const REST_MS = 15;
const WARM_CALLS = 3;
/** The longest time until a refusal, in milliseconds. */
const REFUSAL_MS_MAX = 5_000;
const LOAD_SHARE = 0.5;
const CALIBRATION_SECONDS = 1;
const LOAD_SECONDS = 120;
const LOAD_CONNECTIONS = 2;
const LOAD_IN_FLIGHT = 16;
const LOADED_PATH = '/inventory.v1.InventoryService/GetReservation';
/** About the size of a broadcast of one entry. */
const BROADCAST_BYTES = 130;
const BROADCAST_SUBJECT = 'bench.publish';

const SENT_TO_PARTS_MAX = 2;
const LOADED_P99_MS_MAX = 20;
const RETURNED_P50_MS_MAX = 3;
const RETURNED_P99_MS_MAX = 15;

export const revoke: Section = {
  name: 'revoke',
  title: 'from Revoke to the refusal at each instance, idle and under load',
  run: measureRevoke,
};

async function measureRevoke(context: BenchContext): Promise<Findings> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  let parts: Parts | undefined;
  try {
    context.progress('starting a system');
    const { signal } = context;
    system = await startSystem({ dataDir: folder.path, ports: 'free', withTestUser: true, signal });
    parts = await openParts(system);
    const trials = context.isShort ? TRIALS_SHORT : TRIALS;
    await repeat(context, 'warming up', WARM_UP_TRIALS, system, parts);
    const idle = await repeat(context, 'idle', trials.idle, system, parts);
    const loaded = await underLoad(context, system, parts, trials.loaded);
    return findingsOf(idle, loaded);
  } finally {
    await parts?.close();
    await system?.stop();
    await folder.remove();
  }
}

/** The times of one revocation and of its parts, in milliseconds. */
interface Trial {
  readonly instance: string;
  readonly sentToRefused: number;
  readonly returnedToRefused: number;
  readonly commit: number;
  readonly publish: number;
  readonly roundTrip: number;
}

/** The parts of a revocation, measured on their own. */
interface Parts {
  /** Commits one row durably. */
  commit(): Promise<void>;
  /** Signs and publishes as many bytes as a broadcast has, and waits until another connection receives them. */
  publish(): Promise<void>;
  close(): Promise<void>;
}

async function openParts(system: System): Promise<Parts> {
  const { postgres, nats } = system;
  if (postgres === undefined || nats === undefined) {
    throw new TypeError('this section needs private servers: unset DATABASE_URL and NATS_URL');
  }
  const database = new pg.Client({ connectionString: postgres.url('postgres') });
  await database.connect();
  await database.query('CREATE TABLE bench_commits (at timestamptz)');
  const url = new URL(nats.url('test'));
  const connecting = { servers: url.host, user: url.username, pass: decodeURIComponent(url.password) };
  const [publisher, subscriber] = [await connect(connecting), await connect(connecting)];
  let onReceived: () => void = () => {};
  subscriber.subscribe(BROADCAST_SUBJECT, { callback: () => onReceived() });
  await subscriber.flush();
  const { privateKey } = await generateKeyPair('EdDSA');
  const payload = Buffer.alloc(BROADCAST_BYTES, 1);
  return {
    commit: async () => {
      await database.query('INSERT INTO bench_commits VALUES (clock_timestamp())');
    },
    publish: async () => {
      const arrived = new Promise<void>((resolve) => {
        onReceived = resolve;
      });
      const signer = new CompactSign(payload).setProtectedHeader({
        alg: 'EdDSA',
        kid: 'bench',
        typ: 'bench',
      });
      publisher.publish(BROADCAST_SUBJECT, await signer.sign(privateKey));
      await arrived;
    },
    close: async () => {
      await database.end();
      await Promise.all([publisher, subscriber].map((connection: NatsConnection) => connection.close()));
    },
  };
}

/** Revokes one session at a time, and calls one instance after the other until it refuses. */
async function repeat(
  context: BenchContext,
  what: string,
  times: number,
  system: System,
  parts: Parts,
): Promise<Trial[]> {
  const clients = connectTo(system);
  const trials: Trial[] = [];
  try {
    const operator = await clients.logIn('olga');
    for (let time = 0; time < times; time += 1) {
      context.signal.throwIfAborted();
      context.progress(`${what}: ${time + 1} of ${times}`);
      const probe = clients.probes[time % clients.probes.length];
      if (probe === undefined) throw new TypeError('there is no instance to call');
      const { token, sessionId } = await clients.logIn('alice');
      for (let call = 0; call < WARM_CALLS; call += 1) await probe.isRefused(token);
      const partial = {
        instance: probe.instance,
        commit: await timed(parts.commit),
        publish: await timed(parts.publish),
        roundTrip: await timed(() => probe.isRefused(token)),
      };
      await sleep(REST_MS);
      const sentMs = performance.now();
      await clients.revokeSession(sessionId, operator.token);
      const returnedMs = performance.now();
      while (!(await probe.isRefused(token))) {
        if (performance.now() - returnedMs > REFUSAL_MS_MAX) throw new Error('a revoked token is admitted');
      }
      const refusedMs = performance.now();
      trials.push({
        ...partial,
        sentToRefused: refusedMs - sentMs,
        returnedToRefused: refusedMs - returnedMs,
      });
    }
    return trials;
  } finally {
    clients.close();
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  await sleep(REST_MS);
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

/** Calls of one instance that its handler rejects at once, so that only admission is measured. */
interface Probe {
  readonly instance: string;
  isRefused(token: string): Promise<boolean>;
}

function connectTo(system: System) {
  const { credentials } = system;
  const auth = new AuthServiceClient(system.auth.address, credentials);
  const revocation = new RevocationServiceClient(system.auth.address, credentials);
  const payment = new PaymentServiceClient(system.payment.address, credentials);
  const inventories = system.inventory.map(({ name, address }) => ({
    name,
    client: new InventoryServiceClient(address, credentials),
  }));
  const badPage = { pageSize: -1, pageToken: '' };
  const probes: Probe[] = [
    {
      instance: 'auth',
      isRefused: (token) => isRefused(ask(auth.listSessions.bind(auth), badPage, { token })),
    },
    {
      instance: 'payment',
      isRefused: (token) => isRefused(ask(payment.getPayment.bind(payment), { paymentId: '-' }, { token })),
    },
    ...inventories.map(({ name, client }) => ({
      instance: name,
      isRefused: (token: string) =>
        isRefused(ask(client.getReservation.bind(client), { reservationId: '-' }, { token })),
    })),
  ];
  return {
    probes,
    logIn: async (name: 'alice' | 'olga') => {
      const { username, password } = system.users[name];
      const request = { username, password, audiences: [], scopes: [], deviceName: 'bench' };
      const { accessToken, session } = await ask(auth.login.bind(auth), request);
      return { token: accessToken, sessionId: session?.sessionId ?? '' };
    },
    revokeSession: (sessionId: string, token: string) => {
      const target = { $case: 'sessionId' as const, value: sessionId };
      const request = {
        target,
        reason: 'bench',
        wait: RevokeWait.REVOKE_WAIT_NONE,
        targets: [],
        dryRun: false,
        fences: [],
      };
      return ask(revocation.revoke.bind(revocation), request, { token });
    },
    close: () => {
      for (const client of [auth, revocation, payment, ...inventories.map((one) => one.client)])
        client.close();
    },
  };
}

async function isRefused(answer: Promise<unknown>): Promise<boolean> {
  try {
    await answer;
    return false;
  } catch (error) {
    return errorOf(error).code === status.UNAUTHENTICATED;
  }
}

/** The same while one instance serves half of its maximum load. */
async function underLoad(
  context: BenchContext,
  system: System,
  parts: Parts,
  trials: number,
): Promise<Trial[]> {
  const load = startWorker<LoadCommands>({ program: 'load-process', core: undefined });
  const clients = connectTo(system);
  try {
    const { token } = await clients.logIn('alice');
    const name = 'load';
    // A malformed message: the guard admits the call, and the handler rejects it.
    const message = Uint8Array.from([10, 1, 45]);
    await load.call('prepare', { name, path: LOADED_PATH, tokens: [token], message });
    const port = Number(system.inventory[0].address.split(':').at(-1));
    await load.call('open', { name, port, calls: name, connections: LOAD_CONNECTIONS });
    const flow = { connections: name, calls: name, inFlight: LOAD_IN_FLIGHT };
    const [calibration] = await load.call('run', [{ ...flow, until: { seconds: CALIBRATION_SECONDS } }]);
    const perSecond = LOAD_SHARE * ((calibration?.calls ?? 0) / CALIBRATION_SECONDS);
    const loading = load.call('run', [{ ...flow, until: { seconds: LOAD_SECONDS }, perSecond }]);
    const measured = await repeat(context, 'under load', trials, system, parts);
    loading.catch(() => undefined);
    return measured;
  } finally {
    clients.close();
    await load.stop();
  }
}

/** One quantile of one time of all trials. */
function quantileOf(trials: readonly Trial[], value: (trial: Trial) => number, share: number): number {
  return quantile(trials.map(value), share);
}

const sent = (trial: Trial): number => trial.sentToRefused;
const returned = (trial: Trial): number => trial.returnedToRefused;

function findingsOf(idle: readonly Trial[], loaded: readonly Trial[]): Findings {
  const commit = quantileOf(idle, (trial) => trial.commit, 0.5);
  const publish = quantileOf(idle, (trial) => trial.publish, 0.5);
  const roundTrip = quantileOf(idle, (trial) => trial.roundTrip, 0.5);
  const parts = { commit, publish, roundTrip, sum: commit + publish + 2 * roundTrip };
  return {
    figures: {
      trials: idle.length,
      idle_p50_ms: quantileOf(idle, sent, 0.5),
      idle_p99_ms: quantileOf(idle, sent, 0.99),
      loaded_p50_ms: quantileOf(loaded, sent, 0.5),
      loaded_p99_ms: quantileOf(loaded, sent, 0.99),
      returned_p50_ms: quantileOf(idle, returned, 0.5),
      returned_p99_ms: quantileOf(idle, returned, 0.99),
      parts_p50_ms: parts.sum,
      commit_p50_ms: commit,
      publish_p50_ms: publish,
      round_trip_p50_ms: roundTrip,
    },
    tables: [refusalTable(idle, loaded), partsTable(parts)],
    goals: goalsOf(idle, loaded, parts.sum),
  };
}

function refusalTable(idle: readonly Trial[], loaded: readonly Trial[]): Table {
  const rowOf = (name: string, trials: readonly Trial[]): string[] => [
    name,
    ...[0.5, 0.99].map((share) => formatNumber(quantileOf(trials, sent, share))),
    ...[0.5, 0.99].map((share) => formatNumber(quantileOf(trials, returned, share))),
  ];
  const instances = [...new Set(idle.map(({ instance }) => instance))];
  const ofInstance = (name: string): Trial[] => idle.filter(({ instance }) => instance === name);
  return {
    title: 'milliseconds until a client is refused',
    rows: [
      ['', 'sent: p50', 'p99', 'returned: p50', 'p99'],
      rowOf('idle', idle),
      ...instances.map((name) => rowOf(`  ${name}`, ofInstance(name))),
      rowOf('inventory-1 under 50 % load', loaded),
    ],
  };
}

function partsTable(parts: { commit: number; publish: number; roundTrip: number; sum: number }): Table {
  const { commit, publish, roundTrip, sum } = parts;
  return {
    title: 'its parts alone, p50 in ms',
    rows: [
      ['commit', 'signed publish', 'two round trips', 'sum'],
      [commit, publish, 2 * roundTrip, sum].map(formatNumber),
    ],
  };
}

function goalsOf(idle: readonly Trial[], loaded: readonly Trial[], partsMs: number): Goal[] {
  const sentToParts = quantileOf(idle, sent, 0.5) / partsMs;
  const loadedP99Ms = quantileOf(loaded, sent, 0.99);
  return [
    atMost('Revoke sent → refused, p50, beside the sum of its parts', sentToParts, SENT_TO_PARTS_MAX, ' ×'),
    atMost('Revoke sent → refused under load, p99', loadedP99Ms, LOADED_P99_MS_MAX, ' ms'),
    atMost('Revoke returned → refused, p50', quantileOf(idle, returned, 0.5), RETURNED_P50_MS_MAX, ' ms'),
    atMost('Revoke returned → refused, p99', quantileOf(idle, returned, 0.99), RETURNED_P99_MS_MAX, ' ms'),
  ];
}
