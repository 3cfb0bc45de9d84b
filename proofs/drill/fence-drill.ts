/**
 * The fence drill: two instances of payment move money with the same tokens, one of them is cut off or frozen, and the
 * tokens are revoked. Once Revoke has returned FENCED, the database commits nothing that they ordered.
 */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import pg from 'pg';
import { AuthServiceClient } from '../../proto/gen/auth/v1/auth_service.js';
import { PaymentServiceClient } from '../../proto/gen/payment/v1/payment_service.js';
import {
  FenceState,
  RevocationServiceClient,
  RevokeWait,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { type Progress, type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createRandom, type Random } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { nowMs, waitUntil } from '../shared/waiting.js';
import { freePair } from './environment.js';
import { type Link, openLink } from './link.js';
import type { DrillOptions } from './revocation-drill.js';

/** Long, so that an instance that is cut off trusts its list until well after Revoke has returned. */
const LEASE_MS = 20_000;
const ACCESS_TOKEN_SECONDS = 3_600;
/** The tokens of one round: each is a race of its money with its revocation. */
const TOKENS = 24;
const SESSIONS = 4;
/** Loops of deposits for each token at each instance. */
const LOOPS = 2;
/** One account for each. */
const CURRENCIES = ['EUR', 'USD', 'GBP', 'CHF', 'SEK', 'NOK', 'DKK', 'PLN', 'CZK', 'HUF', 'JPY', 'CAD'];
const FENCE = 'payment';
/** How long after the beginning of the fault the tokens are revoked, at most. */
const REVOKE_AFTER_MS_MAX = 150;
const WARM_UP_MS = 100;
/** How long commits are looked for after Revoke has returned, while the fault lasts. */
const WATCH_MS = 400;
const CALL_TIMEOUT_MS = 2_000;
const REVOKE_TIMEOUT_MS = 20_000;
const BACK_WITHIN_MS = 60_000;

/** What happens to the second instance of payment while the tokens are revoked. */
const FAULTS = [
  'none',
  'cut off from auth and broker',
  'cut off from auth',
  'frozen',
  'thawed at the answer',
] as const;

type FaultName = (typeof FAULTS)[number];

/** Figures of the drill. */
export interface FenceFigures {
  readonly drill: 'fence';
  readonly seed: number;
  readonly rounds: number;
  /** Tokens that were revoked while both instances moved money with them. */
  readonly races: number;
  /** Revocations whose fence was not there when Revoke returned. */
  readonly unfenced: number;
  readonly commits: number;
  /** Commits after Revoke had returned FENCED. */
  readonly late_commits: number;
  readonly violations: number;
  /** How long Revoke took, in milliseconds. */
  readonly revoke_ms: { readonly p50: number; readonly max: number };
  readonly faults: Readonly<Record<string, number>>;
  readonly seconds: number;
}

/** Runs the drill and prints its progress. */
export async function drillFence({ rounds, seed, faults, signal }: DrillOptions): Promise<FenceFigures> {
  const startedMs = nowMs();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout);
  progress.show(0, rounds, 'starting the system');
  const bank = await openBank({
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') progress.show(0, rounds, `${part} ${detail}`.trim());
    },
  });
  const chosen = FAULTS.filter((name) => name.includes(faults));
  const totals = { races: 0, unfenced: 0, commits: 0, late: 0 };
  const byFault: Record<string, number> = {};
  const revokeMs: number[] = [];
  try {
    for (let round = 1; round <= rounds && !signal.aborted; round += 1) {
      const fault = chosen[(round - 1) % chosen.length] ?? 'none';
      const outcome = await runRound(bank, random, fault);
      byFault[fault] = (byFault[fault] ?? 0) + 1;
      revokeMs.push(outcome.revokeMs);
      totals.commits += outcome.commits;
      if (outcome.isFenced) {
        totals.races += TOKENS;
        totals.late += outcome.late;
      } else totals.unfenced += 1;
      progress.show(round, rounds, `${totals.races} races, ${totals.late} late commits (${fault})`);
    }
    progress.end();
  } finally {
    await bank.stop();
  }
  const sorted = revokeMs.toSorted((one, other) => one - other);
  const figures: FenceFigures = {
    drill: 'fence',
    seed,
    rounds: revokeMs.length,
    races: totals.races,
    unfenced: totals.unfenced,
    commits: totals.commits,
    late_commits: totals.late,
    violations: totals.late,
    revoke_ms: {
      p50: Math.round(sorted[Math.floor(sorted.length / 2)] ?? 0),
      max: Math.round(sorted.at(-1) ?? 0),
    },
    faults: byFault,
    seconds: Math.round((nowMs() - startedMs) / 1_000),
  };
  print(figures);
  return figures;
}

interface Account {
  readonly accountId: string;
  readonly currencyCode: string;
}

/** The system of the drill, with two instances of payment. */
interface Bank {
  readonly system: System;
  readonly auth: AuthServiceClient;
  readonly revocation: RevocationServiceClient;
  readonly payments: readonly [PaymentServiceClient, PaymentServiceClient];
  readonly second: ServiceProcess;
  /** The way of the second instance to auth, and to the broker. */
  readonly links: { readonly auth: Link; readonly broker: Link };
  readonly database: pg.Client;
  readonly accounts: readonly Account[];
  /** Refresh tokens of the operator's sessions. */
  readonly refreshTokens: string[];
  stop(): Promise<void>;
}

async function openBank(options: {
  signal: AbortSignal;
  onProgress: (progress: Progress) => void;
}): Promise<Bank> {
  const folder = await makeTemporaryFolder();
  const undo: (() => Promise<void> | void)[] = [() => folder.remove()];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    return { ...(await openIn(folder.path, options, undo)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function openIn(
  dataDir: string,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (progress: Progress) => void },
  undo: (() => Promise<void> | void)[],
): Promise<Omit<Bank, 'stop'>> {
  const ports = { auth: await freePair(), nats: await findFreePort(), second: await freePair() };
  const links = { auth: await openLink(ports.auth), broker: await openLink(ports.nats) };
  undo.push(async () => void (await Promise.all([links.auth.close(), links.broker.close()])));
  const system = await startSystem({
    dataDir,
    ports: 'free',
    portOverrides: { auth: ports.auth, nats: ports.nats },
    paymentReplicaPort: ports.second,
    ephemeral: true,
    leaseMs: LEASE_MS,
    withoutDemo: true,
    environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(ACCESS_TOKEN_SECONDS) },
    signal,
    onProgress,
    linkOf: ({ from, to, address }) => {
      if (from !== 'payment-replica') return address;
      return to === 'auth' ? links.auth.address : links.broker.address;
    },
  });
  undo.push(() => system.stop());
  const { paymentReplica: second } = system;
  if (second === undefined) throw new TypeError('the drill needs two instances of payment');
  await second.launch();
  await second.ready({ signal });
  const plain = credentials.createInsecure();
  const auth = new AuthServiceClient(system.auth.address, plain);
  const revocation = new RevocationServiceClient(system.auth.address, plain);
  const payments = [
    new PaymentServiceClient(system.payment.address, plain),
    new PaymentServiceClient(second.address, plain),
  ] as const;
  const database = new pg.Client({ connectionString: system.databases.payment });
  await database.connect();
  undo.push(async () => {
    for (const client of [auth, revocation, ...payments]) client.close();
    await database.end();
  });
  const refreshTokens: string[] = [];
  let token = '';
  for (let session = 0; session < SESSIONS; session += 1) {
    const login = await logIn(auth, system);
    refreshTokens.push(login.refreshToken);
    token = login.accessToken;
  }
  const accounts: Account[] = [];
  for (const currencyCode of CURRENCIES) {
    const request = { currencyCode, requestId: randomUUID() };
    const { account } = await ask(payments[0].openAccount.bind(payments[0]), request, { token });
    accounts.push({ accountId: account?.accountId ?? '', currencyCode });
  }
  return { system, auth, revocation, payments, second, links, database, accounts, refreshTokens };
}

function logIn(auth: AuthServiceClient, { users }: System) {
  const { username, password } = users.olga;
  return ask(auth.login.bind(auth), { username, password, audiences: [], scopes: [], deviceName: 'drill' });
}

interface RoundOutcome {
  readonly isFenced: boolean;
  /** Commits of the round, and those after Revoke had returned. */
  readonly commits: number;
  readonly late: number;
  readonly revokeMs: number;
}

async function runRound(bank: Bank, random: Random, fault: FaultName): Promise<RoundOutcome> {
  const { revocation, system } = bank;
  const tokens = await freshTokens(bank);
  const operator = (await logIn(bank.auth, system)).accessToken;
  const commitsBefore = await countDeposits(bank);
  const load = { isOver: false };
  const loops = tokens.flatMap((token) =>
    bank.payments.flatMap((payment) =>
      Array.from({ length: LOOPS }, () => depositUntilOver(payment, bank, { token, random, load })),
    ),
  );
  await sleep(WARM_UP_MS);
  const heal = strike(bank, fault);
  await sleep(random.next() * REVOKE_AFTER_MS_MAX);
  const beganMs = nowMs();
  const request = {
    target: undefined,
    targets: tokens.map((value) => ({ target: { $case: 'token' as const, value } })),
    reason: 'the drill',
    wait: RevokeWait.REVOKE_WAIT_FENCED,
    dryRun: false,
    fences: [FENCE],
  };
  const receipt = await ask(revocation.revoke.bind(revocation), request, {
    token: operator,
    timeoutMs: REVOKE_TIMEOUT_MS,
  });
  if (fault === 'thawed at the answer') bank.second.kill('SIGCONT');
  // The statement begins after Revoke has returned, and sees what was committed by then.
  const commitsAtReturn = await countDeposits(bank);
  const revokeMs = nowMs() - beganMs;
  const failed = receipt.results.find(({ errorReason }) => errorReason !== '');
  if (failed !== undefined) throw new Error(`a token was not revoked: ${failed.errorReason}`);
  await sleep(WATCH_MS);
  await heal();
  await sleep(WATCH_MS);
  load.isOver = true;
  await Promise.all(loops);
  await waitUntil(async () => (await bank.second.readiness())?.ready === true, {
    timeoutMs: BACK_WITHIN_MS,
    pollMs: 20,
    failure: 'the second instance of payment did not come back',
  });
  const commits = await countDeposits(bank);
  return {
    isFenced: receipt.fences.every(({ state }) => state === FenceState.FENCE_STATE_FENCED),
    commits: commits - commitsBefore,
    late: commits - commitsAtReturn,
    revokeMs,
  };
}

/** New tokens of the operator. */
async function freshTokens({ auth, refreshTokens }: Bank): Promise<string[]> {
  const perSession = await Promise.all(
    refreshTokens.map(async (_, session) => {
      const tokens: string[] = [];
      while (tokens.length < TOKENS / SESSIONS) {
        const request = { refreshToken: refreshTokens[session] ?? '', requestId: randomUUID() };
        const pair = await ask(auth.refresh.bind(auth), request);
        refreshTokens[session] = pair.refreshToken;
        tokens.push(pair.accessToken);
      }
      return tokens;
    }),
  );
  return perSession.flat();
}

/** Deposits again and again, whatever the answers are: a revoked token must be of no use, however often it is shown. */
async function depositUntilOver(
  payment: PaymentServiceClient,
  { accounts }: Bank,
  { token, random, load }: { token: string; random: Random; load: { readonly isOver: boolean } },
): Promise<void> {
  while (!load.isOver) {
    const { accountId, currencyCode } = random.pick(accounts);
    const request = { accountId, amount: { minorUnits: 1n, currencyCode }, requestId: randomUUID() };
    const isDone = await ask(payment.deposit.bind(payment), request, {
      token,
      timeoutMs: CALL_TIMEOUT_MS,
    }).then(
      () => true,
      () => false,
    );
    // Refusals are quick, and must not take the time that the race needs.
    if (!isDone) await sleep(5);
  }
}

/** Lets the second instance suffer. @returns what ends it */
function strike({ links, second }: Bank, fault: FaultName): () => Promise<void> {
  switch (fault) {
    case 'none':
      return () => Promise.resolve();
    case 'frozen':
    case 'thawed at the answer':
      second.kill('SIGSTOP');
      return async () => second.kill('SIGCONT');
    default: {
      const cut = fault === 'cut off from auth' ? [links.auth] : [links.auth, links.broker];
      for (const link of cut) link.set({ kind: 'cut' });
      return async () => {
        for (const link of cut) {
          link.set({ kind: 'pass' });
          link.reset();
        }
      };
    }
  }
}

/** How many deposits are committed. */
async function countDeposits({ database }: Bank): Promise<number> {
  const { rows } = await database.query<{ count: string }>(
    "SELECT count(*) FROM transfers WHERE kind = 'DEPOSIT'",
  );
  return Number(rows[0]?.count);
}

function print(figures: FenceFigures): void {
  const { races, unfenced, commits, late_commits: late, revoke_ms: revoke, seconds } = figures;
  console.log(
    `\n${races} races in ${figures.rounds} rounds and ${seconds} s: ${commits} commits, ${late} after Revoke had returned FENCED; ${unfenced} rounds not fenced`,
  );
  console.log(`Revoke took ${revoke.p50} ms (p50), at most ${revoke.max} ms`);
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations`);
}
