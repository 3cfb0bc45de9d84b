/** Section `login`: Login, Refresh and ExchangeToken, beside the unavoidable part of their work. */

import { generateKeyPairSync, randomBytes, randomUUID, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hash, verify } from '@node-rs/argon2';
import { authenticate, createServiceTokenSource } from '@portcullis/guard/client';
import pg from 'pg';
import { AuthServiceClient, type LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber } from '../shared/reporting.js';
import { median, spreadOf } from '../shared/statistics.js';
import { processorTimeMs } from './processor-time.js';
import { atLeast, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { replay, type Statement, statementsOf } from './statements.js';

const WORKERS = 8;
const RATIO_MIN = 0.8;
/** As auth hashes (OWASP's figures for argon2id). */
const ARGON2 = { algorithm: 2, memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 } as const;
const TOKEN_BYTES = 600;
const NO_LIMITS = {
  PORTCULLIS_LOGIN_FAILURES_PER_NAME: '10000',
  PORTCULLIS_LOGIN_FAILURES_PER_PEER: '10000',
};

export const login: Section = {
  name: 'login',
  title: 'Login, Refresh and ExchangeToken, beside the unavoidable part of their work',
  run: measureLogin,
};

/** Runs an operation once; each worker has its own. */
type Work = () => Promise<unknown>;

async function measureLogin(context: BenchContext): Promise<Findings> {
  const folder = await makeTemporaryFolder();
  const system = await startSystem({
    dataDir: folder.path,
    ports: 'free',
    ephemeral: true,
    environment: NO_LIMITS,
    signal: context.signal,
    onProgress: ({ part }) => context.progress(`starting ${part}`),
  });
  const closers: Closer[] = [() => folder.remove(), () => system.stop()];
  try {
    const pairs = await preparePairs(system, closers);
    const rounds = context.isShort ? 2 : 6;
    const results: Result[] = [];
    for (const pair of pairs) results.push(resultOf(pair, await measurePair(context, system, pair, rounds)));
    return findingsOf(results, rounds);
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

type Closer = () => Promise<void> | void;

/** The rates of one round, through the service and without it. */
type Round = Readonly<Record<'own' | 'raw', Rate>>;

/** Lets both arms of a pair take turns; the first round warms up and does not count. */
async function measurePair(
  context: BenchContext,
  { auth, postgres }: System,
  { name, own, raw }: Pair,
  rounds: number,
): Promise<Round[]> {
  const servers = [auth.pid, postgres?.pid ?? 0];
  const seconds = context.isShort ? 0.7 : 2;
  const measured: Round[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    context.signal.throwIfAborted();
    context.progress(`${name}, round ${round} of ${rounds}`);
    // The raw arm runs in this process, which is only a client in the other arm.
    measured.push({
      own: await rateOf(own, seconds, () => processorTimeMs(servers)),
      raw: await rateOf(raw, seconds, async () => ownTimeMs() + (await processorTimeMs(servers))),
    });
  }
  return measured.slice(1);
}

/** What was measured of one pair, as figures and as a row of the table. */
interface Result {
  readonly name: string;
  readonly figures: object;
  readonly row: readonly string[];
  readonly goal: Goal;
}

function resultOf({ name, label }: Pair, rounds: readonly Round[]): Result {
  const ratio = spreadOf(rounds.map(({ own, raw }) => own.perSecond / raw.perSecond));
  const cpuRatio = median(rounds.map(({ own, raw }) => raw.cpuMs / own.cpuMs));
  const medianOf = (value: (round: Round) => number): number => median(rounds.map(value));
  const [ownRate, rawRate] = [medianOf(({ own }) => own.perSecond), medianOf(({ raw }) => raw.perSecond)];
  const [ownCpuMs, rawCpuMs] = [medianOf(({ own }) => own.cpuMs), medianOf(({ raw }) => raw.cpuMs)];
  return {
    name,
    figures: {
      per_second: ownRate,
      raw_per_second: rawRate,
      ratio: ratio.median,
      ratio_quartiles: [ratio.lower, ratio.upper],
      server_cpu_ms: ownCpuMs,
      raw_cpu_ms: rawCpuMs,
      server_cpu_ratio: cpuRatio,
    },
    row: [
      label,
      formatNumber(ownRate),
      formatNumber(rawRate),
      ratio.median.toFixed(2),
      `${ratio.lower.toFixed(2)}–${ratio.upper.toFixed(2)}`,
      ...[ownCpuMs, rawCpuMs].map(formatNumber),
      cpuRatio.toFixed(2),
    ],
    goal: atLeast(label, ratio.median, RATIO_MIN, ' ×'),
  };
}

function findingsOf(results: readonly Result[], rounds: number): Findings {
  const head = ['', 'per second', 'raw', 'ratio', 'quartiles', 'CPU ms, servers', 'raw', 'raw / servers'];
  return {
    figures: Object.fromEntries(results.map(({ name, figures }) => [name, figures])),
    goals: results.map(({ goal }) => goal),
    tables: [
      {
        title: `${WORKERS} at a time, ${rounds} rounds; client, service and database share the cores`,
        rows: [head, ...results.map(({ row }) => row)],
      },
    ],
    notes: [
      'The raw arm has no client, no gRPC and no audit: it is only argon2, or the SQL and one signature.',
      'The processor time of servers is that of auth and PostgreSQL, without the client on the same cores.',
    ],
  };
}

interface Pair {
  readonly name: string;
  readonly label: string;
  readonly own: readonly Work[];
  readonly raw: readonly Work[];
}

async function preparePairs(system: System, closers: Closer[]): Promise<Pair[]> {
  const auth = new AuthServiceClient(system.auth.address, system.credentials);
  const payment = await paymentTokenSource(system);
  closers.push(
    () => auth.close(),
    () => payment.close(),
  );
  const password = randomBytes(12).toString('base64url');
  const names = Array.from({ length: WORKERS }, (_, index) => `bench-${index + 1}`);
  await createUsers(system, auth, names, password);
  const sessions = await Promise.all(names.map((name) => logIn(auth, name, password)));
  const refreshes = sessions.map(({ refreshToken }) => refresher(auth, refreshToken));
  const interceptors = [authenticate(payment)];
  const exchanges = sessions.map(
    ({ accessToken }): Work =>
      () =>
        exchange(auth, interceptors, accessToken),
  );
  const sessionIds = sessions.map(({ session }) => session?.sessionId ?? '');
  const hashed = await hash(password, ARGON2);
  return [
    {
      name: 'login',
      label: 'Login, against argon2',
      own: names.map((name) => () => logIn(auth, name, password)),
      raw: names.map(() => () => verify(hashed, password)),
    },
    {
      name: 'refresh',
      label: 'Refresh, against SQL and signature',
      own: refreshes,
      raw: await capture(system, refreshes, sessionIds, closers),
    },
    {
      name: 'exchange',
      label: 'ExchangeToken, against SQL and signature',
      own: exchanges,
      raw: await capture(system, exchanges, sessionIds, closers),
    },
  ];
}

async function paymentTokenSource(system: System): Promise<ReturnType<typeof createServiceTokenSource>> {
  return createServiceTokenSource({
    address: system.auth.address,
    credentials: system.credentials,
    clientId: 'payment',
    clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
    issuer: system.issuer,
    audiences: ['auth'],
    scopes: ['auth.exchange'],
  });
}

async function createUsers(
  system: System,
  auth: AuthServiceClient,
  names: readonly string[],
  password: string,
): Promise<void> {
  const { username, password: operatorPassword } = system.users.olga;
  const { accessToken: token } = await logIn(auth, username, operatorPassword);
  const users = new UserServiceClient(system.auth.address, system.credentials);
  try {
    for (const name of names) {
      const request = { username: name, password, roles: ['customer'], requestId: randomUUID() };
      await ask(users.createUser.bind(users), request, { token });
    }
  } finally {
    users.close();
  }
}

function logIn(auth: AuthServiceClient, username: string, password: string): Promise<LoginResponse> {
  const request = { username, password, audiences: [], scopes: [], deviceName: 'bench' };
  return ask(auth.login.bind(auth), request);
}

/** Refreshes one session again and again, each time with the latest token. */
function refresher(auth: AuthServiceClient, refreshToken: string): Work {
  let current = refreshToken;
  return async () => {
    const next = await ask(auth.refresh.bind(auth), { refreshToken: current, requestId: randomUUID() });
    current = next.refreshToken;
  };
}

/** Takes the SQL statements of each operation from PostgreSQL's log. @returns work that runs them on their own */
async function capture(
  { postgres }: System,
  works: readonly Work[],
  sessionIds: readonly string[],
  closers: Closer[],
): Promise<Work[]> {
  if (postgres === undefined)
    throw new TypeError('this section needs a private PostgreSQL: unset DATABASE_URL');
  const all: Work[] = [];
  for (const [index, work] of works.entries()) {
    // The first run fills caches.
    await work();
    const statements = await statementsOf({
      url: postgres.url('portcullis_auth'),
      logFile: postgres.logFile,
      parameter: sessionIds[index] ?? '',
      operation: async () => void (await work()),
    });
    if (statements.length === 0) throw new Error('no statement of the operation was found in the log');
    all.push(await rawWork(postgres.url('portcullis_auth'), statements, closers));
  }
  return all;
}

function exchange(
  auth: AuthServiceClient,
  interceptors: readonly ReturnType<typeof authenticate>[],
  subjectToken: string,
): Promise<unknown> {
  const request = { subjectToken, audience: 'inventory', scopes: ['inventory.reserve'] };
  return ask((message: typeof request, metadata, options, callback) => {
    return auth.exchangeToken(message, metadata, { ...options, interceptors: [...interceptors] }, callback);
  }, request);
}

async function rawWork(url: string, statements: readonly Statement[], closers: Closer[]): Promise<Work> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  closers.push(() => client.end());
  const { privateKey } = generateKeyPairSync('ed25519');
  const claims = randomBytes(TOKEN_BYTES);
  return async () => {
    await replay(client, statements);
    sign(null, claims, privateKey);
  };
}

/** Operations a second, and the processor time of each. */
interface Rate {
  readonly perSecond: number;
  readonly cpuMs: number;
}

function ownTimeMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** Repeats the work of all workers for some seconds. */
async function rateOf(works: readonly Work[], seconds: number, cpuMs: () => Promise<number>): Promise<Rate> {
  const beforeMs = await cpuMs();
  const startedMs = performance.now();
  let done = 0;
  await Promise.all(
    works.map(async (work) => {
      while (performance.now() - startedMs < seconds * 1000) {
        await work();
        done += 1;
      }
    }),
  );
  const perSecond = done / ((performance.now() - startedMs) / 1000);
  return { perSecond, cpuMs: ((await cpuMs()) - beforeMs) / done };
}
