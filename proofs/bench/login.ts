/** Section `login`: Login, Refresh and ExchangeToken, beside the unavoidable part of their work. */

import { generateKeyPairSync, randomBytes, randomUUID, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { hash, verify } from '@node-rs/argon2';
import { authenticate, createServiceTokenSource } from '@portcullis/guard/client';
import pg from 'pg';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { UserServiceClient } from '../../proto/gen/auth/v1/user_service.js';
import { ask } from '../../scripts/system/calls.js';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber } from '../shared/reporting.js';
import { type Spread, spreadOf } from '../shared/statistics.js';
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
  const undo: (() => Promise<void> | void)[] = [() => folder.remove(), () => system.stop()];
  try {
    const pairs = await preparePairs(system, undo);
    const rounds = context.isShort ? 2 : 6;
    const figures: Record<string, unknown> = {};
    const rows: string[][] = [];
    const goals: Goal[] = [];
    for (const { name, label, own, raw } of pairs) {
      const rates: Record<'own' | 'raw', Rate>[] = [];
      const { auth, postgres } = system;
      const servers = [auth.pid, postgres?.pid ?? 0];
      for (let round = -1; round < rounds; round += 1) {
        context.signal.throwIfAborted();
        context.progress(`${name}, round ${round + 1} of ${rounds}`);
        const seconds = context.isShort ? 0.7 : 2;
        // The raw arm runs in this process, which is only a client in the other arm.
        const turn = {
          own: await rateOf(own, seconds, () => processorTimeMs(servers)),
          raw: await rateOf(raw, seconds, async () => ownTimeMs() + (await processorTimeMs(servers))),
        };
        if (round >= 0) rates.push(turn);
      }
      const ratio: Spread = spreadOf(rates.map((rate) => rate.own.perSecond / rate.raw.perSecond));
      const cpuRatio: Spread = spreadOf(rates.map((rate) => rate.raw.cpuMs / rate.own.cpuMs));
      const medianOf = (value: (rate: Record<'own' | 'raw', Rate>) => number): number =>
        spreadOf(rates.map(value)).median;
      const [ownRate, rawRate] = [
        medianOf((rate) => rate.own.perSecond),
        medianOf((rate) => rate.raw.perSecond),
      ];
      const [ownCpuMs, rawCpuMs] = [medianOf((rate) => rate.own.cpuMs), medianOf((rate) => rate.raw.cpuMs)];
      figures[name] = {
        per_second: ownRate,
        raw_per_second: rawRate,
        ratio: ratio.median,
        ratio_quartiles: [ratio.lower, ratio.upper],
        server_cpu_ms: ownCpuMs,
        raw_cpu_ms: rawCpuMs,
        server_cpu_ratio: cpuRatio.median,
      };
      rows.push([
        label,
        formatNumber(ownRate),
        formatNumber(rawRate),
        ratio.median.toFixed(2),
        `${ratio.lower.toFixed(2)}–${ratio.upper.toFixed(2)}`,
        ...[ownCpuMs, rawCpuMs].map(formatNumber),
        cpuRatio.median.toFixed(2),
      ]);
      goals.push(atLeast(label, ratio.median, RATIO_MIN, ' ×'));
    }
    return {
      figures,
      goals,
      tables: [
        {
          title: `${WORKERS} at a time, ${rounds} rounds; client, service and database share the cores`,
          rows: [
            ['', 'per second', 'raw', 'ratio', 'quartiles', 'CPU ms, servers', 'raw', 'raw / servers'],
            ...rows,
          ],
        },
      ],
      notes: [
        'The raw arm has no client, no gRPC and no audit: it is only argon2, or the SQL and one signature.',
        'The processor time of servers is that of auth and PostgreSQL, without the client on the same cores.',
      ],
    };
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

interface Pair {
  readonly name: string;
  readonly label: string;
  readonly own: readonly Work[];
  readonly raw: readonly Work[];
}

async function preparePairs(system: System, undo: (() => Promise<void> | void)[]): Promise<Pair[]> {
  const auth = new AuthServiceClient(system.auth.address, system.credentials);
  const users = new UserServiceClient(system.auth.address, system.credentials);
  const payment = createServiceTokenSource({
    address: system.auth.address,
    credentials: system.credentials,
    clientId: 'payment',
    clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
    issuer: system.issuer,
    audiences: ['auth'],
    scopes: ['auth.exchange'],
  });
  undo.push(
    () => auth.close(),
    () => users.close(),
    () => payment.close(),
  );
  const logIn = (username: string, password: string) =>
    ask(auth.login.bind(auth), { username, password, audiences: [], scopes: [], deviceName: 'bench' });
  const olga = await logIn(system.users.olga.username, system.users.olga.password);
  const password = randomBytes(12).toString('base64url');
  const names = Array.from({ length: WORKERS }, (_, index) => `bench-${index + 1}`);
  for (const username of names) {
    const request = { username, password, roles: ['customer'], requestId: randomUUID() };
    await ask(users.createUser.bind(users), request, { token: olga.accessToken });
  }
  const sessions = await Promise.all(names.map((name) => logIn(name, password)));
  const refreshes = sessions.map(({ refreshToken }) => {
    let current = refreshToken;
    return async (): Promise<void> => {
      const next = await ask(auth.refresh.bind(auth), { refreshToken: current, requestId: randomUUID() });
      current = next.refreshToken;
    };
  });
  const interceptors = [authenticate(payment)];
  const exchanges = sessions.map(
    ({ accessToken }) =>
      () =>
        exchange(auth, interceptors, accessToken),
  );
  const postgres = system.postgres;
  if (postgres === undefined)
    throw new TypeError('this section needs a private PostgreSQL: unset DATABASE_URL');
  const captured = async (works: readonly Work[]): Promise<Work[]> => {
    const all: Work[] = [];
    for (const [index, work] of works.entries()) {
      // The first run fills caches.
      await work();
      const statements = await statementsOf({
        url: postgres.url('portcullis_auth'),
        logFile: postgres.logFile,
        parameter: sessions[index]?.session?.sessionId ?? '',
        operation: async () => void (await work()),
      });
      if (statements.length === 0) throw new Error('no statement of the operation was found in the log');
      all.push(await rawWork(postgres.url('portcullis_auth'), statements, undo));
    }
    return all;
  };
  const hashed = await hash(password, ARGON2);
  return [
    {
      name: 'login',
      label: 'Login, against argon2',
      own: names.map((name) => () => logIn(name, password)),
      raw: names.map(() => () => verify(hashed, password)),
    },
    {
      name: 'refresh',
      label: 'Refresh, against SQL and signature',
      own: refreshes,
      raw: await captured(refreshes),
    },
    {
      name: 'exchange',
      label: 'ExchangeToken, against SQL and signature',
      own: exchanges,
      raw: await captured(exchanges),
    },
  ];
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

async function rawWork(
  url: string,
  statements: readonly Statement[],
  undo: (() => Promise<void> | void)[],
): Promise<Work> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  undo.push(() => client.end());
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
