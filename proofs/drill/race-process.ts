/** The program that serves {@link RACES}: guarded like every service, with a database of its own. */

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { type AnyCall, createGuard, type FenceQuery, passFence } from '@portcullis/guard';
import { ServiceError } from '@portcullis/guard/errors';
import pg from 'pg';
import { createRandom, type Random } from '../shared/random.js';
import { nowMs } from '../shared/waiting.js';
import {
  decodeRequest,
  encodeResults,
  OUTCOMES,
  type Outcome,
  RACE_CLIENT,
  RACE_SCHEMA,
  RACES,
  type RaceResult,
} from './race-service.js';

const CONNECTIONS = 24;
/** The share of transactions that take longer, half of them before the fence and half behind it. */
const SLOW_SHARE = 0.03;
const SLOW_MS_MAX = 50;
/** Raising the fence must not wait for a connection. */
const RAISING_CONNECTIONS = 2;
/** When the server ends a transaction whose process is frozen, in milliseconds. */
const IDLE_MS_MAX = 2_000;
const READY = 200;
const NOT_READY = 503;

const log = (level: string) => (fields: object, message: string) =>
  console.log(JSON.stringify({ level, time: new Date().toISOString(), ...fields, message }));

const database = { connectionString: variable('DRILL_DATABASE_URL') };
const pool = new pg.Pool({
  ...database,
  max: CONNECTIONS,
  idle_in_transaction_session_timeout: IDLE_MS_MAX,
});
const raising = new pg.Pool({ ...database, max: RAISING_CONNECTIONS });
for (const each of [pool, raising]) {
  const onError = (error: Error): void => log('warn')({ err: String(error) }, 'a connection was lost');
  each.on('error', onError);
  // The server ends connections whose transactions are idle for too long. Their statements fail, too.
  each.on('connect', (client) => client.on('error', onError));
}

const guard = await createGuard({
  issuer: variable('DRILL_ISSUER'),
  audience: RACE_CLIENT,
  auth: {
    address: variable('DRILL_AUTH_ADDRESS'),
    credentials: credentials.createInsecure(),
    clientId: RACE_CLIENT,
    clientKey: await readFile(variable('DRILL_CLIENT_KEY_FILE'), 'utf8'),
  },
  nats: { url: variable('DRILL_NATS_URL') },
  fences: [{ transaction: (work) => inTransaction(raising, 'BEGIN', (client) => work(queryOf(client))) }],
  // One caller makes all calls of the drill.
  limits: { callsPerUser: Number.POSITIVE_INFINITY, callsPerService: Number.POSITIVE_INFINITY },
  log: { info: log('info'), warn: log('warn'), error: log('error') },
});

let results: RaceResult[] = [];
/** The calls whose loops have not ended, and what ends them. */
const open = new Map<Promise<unknown>, AbortController>();

const server = new Server({ interceptors: [guard.interceptor] });
guard.addService(server, RACES, RACE_SCHEMA, {
  Race: async (request: Buffer, call: AnyCall) => {
    const { batch, loops, seed } = decodeRequest(request);
    const ending = new AbortController();
    const all = Array.from({ length: loops }, (_, loop) =>
      raceUntilRefused({
        batch,
        call,
        random: createRandom(seed + loop, { discard: 1 }),
        end: ending.signal,
      }),
    );
    const racing = Promise.all(all);
    open.set(racing, ending);
    await racing.finally(() => open.delete(racing));
    return Buffer.alloc(0);
  },
  Results: async () => {
    for (const ending of open.values()) ending.abort();
    while (open.size > 0) await Promise.all(open.keys());
    const told = encodeResults(results);
    results = [];
    return told;
  },
});
await new Promise<void>((resolve, reject) => {
  server.bindAsync(variable('DRILL_LISTEN'), ServerCredentials.createInsecure(), (error) =>
    error === null ? resolve() : reject(error),
  );
});
const [host = '', port = ''] = variable('DRILL_OPS_LISTEN').split(':');
createServer((_request, response) => {
  const { current, staleReason } = guard.state();
  response.writeHead(current ? READY : NOT_READY).end(staleReason);
}).listen(Number(port), host);
process.once('SIGTERM', () => process.exit(0));

/** Runs one transaction after the other, whether their call is cut meanwhile or not. */
async function raceUntilRefused(options: {
  readonly batch: number;
  readonly call: AnyCall;
  readonly random: Random;
  readonly end: AbortSignal;
}): Promise<void> {
  while (!options.end.aborted) {
    const result = await race(options);
    if (result === undefined) return;
    results.push(result);
    if (result.outcome !== 'committed') return;
  }
}

/** @returns undefined when the loops were ended before there was a connection */
async function race({
  batch,
  call,
  random,
  end,
}: {
  readonly batch: number;
  readonly call: AnyCall;
  readonly random: Random;
  readonly end: AbortSignal;
}): Promise<RaceResult | undefined> {
  const slowMs = random.chance(SLOW_SHARE) ? random.real(1, SLOW_MS_MAX) : 0;
  const isBehind = random.chance(0.5);
  let beganMs: number | undefined;
  // A number that this program has decoded: a statement with parameters could not be sent together with BEGIN.
  const begin = `BEGIN; INSERT INTO race_commits VALUES (${Math.trunc(batch)})`;
  const outcome = await inTransaction(
    pool,
    begin,
    async (client) => {
      if (slowMs > 0 && !isBehind) await sleep(slowMs);
      const validForMs = await passFence(call, queryOf(client));
      // The server would end a transaction of a frozen process too late.
      if (validForMs < IDLE_MS_MAX) throw new RangeError(`the token is good for ${validForMs} ms only`);
      if (slowMs > 0 && isBehind) await sleep(slowMs);
    },
    () => {
      if (!end.aborted) beganMs = nowMs();
      return beganMs !== undefined;
    },
  ).then(() => 'committed' as const, outcomeOf);
  return beganMs === undefined ? undefined : { outcome, beganMs, endedMs: nowMs() };
}

function outcomeOf(error: unknown): Outcome {
  const outcome = error instanceof ServiceError ? OUTCOMES.find((each) => each === error.code) : undefined;
  if (outcome === undefined) log('warn')({ err: String(error) }, 'a transaction failed');
  return outcome ?? 'failed';
}

async function inTransaction(
  from: pg.Pool,
  begin: string,
  work: (client: pg.PoolClient) => Promise<void>,
  mayBegin: () => boolean = () => true,
): Promise<void> {
  const client = await from.connect();
  let isGood = false;
  try {
    if (!mayBegin()) {
      isGood = true;
      return;
    }
    await client.query(begin);
    await work(client);
    const { command } = await client.query('COMMIT');
    if (command !== 'COMMIT') throw new Error(`PostgreSQL answered COMMIT with ${command}`);
    isGood = true;
  } catch (error) {
    isGood = await client.query('ROLLBACK').then(
      () => true,
      () => false,
    );
    throw error;
  } finally {
    client.release(!isGood);
  }
}

function queryOf(client: pg.PoolClient): FenceQuery {
  return (text, values = []) => client.query<object>(text, [...values]);
}

function variable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}
