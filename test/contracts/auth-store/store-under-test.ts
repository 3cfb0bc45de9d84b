/** The stores under contract, and helpers of the contract's tests. */

import { randomBytes, randomUUID } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import type { KeyPurpose, KeyRow, KeyState } from '../../../services/auth/records/keys.js';
import type { LogBatch, LogEntry, NewEntry, Revocation } from '../../../services/auth/records/revocations.js';
import type { Session } from '../../../services/auth/records/sessions.js';
import type { InstanceStore } from '../../../services/auth/revocation/instance-records.js';
import { tokenRevocation } from '../../../services/auth/revocation/log.js';
import type { RevocationStore } from '../../../services/auth/revocation/log-access.js';
import type { AuthStore, AuthTransaction } from '../../../services/auth/transaction.js';

/** The stores of one database, and what the suite needs to look at them. */
export interface AuthStoreUnderTest {
  readonly store: AuthStore;
  readonly log: RevocationStore;
  readonly instances: InstanceStore;
  /** The batches that were passed on after a commit, in order. */
  readonly passedOn: LogBatch[];
  addUser(): Promise<{ readonly userId: string; readonly username: string }>;
  addClient(): Promise<string>;
  /** Waits by the clock of the store's time limits. */
  sleep(ms: number): Promise<void>;
  /** Waits until the retention of the current entries is over. */
  expireEntries(): Promise<void>;
  close(): Promise<void>;
}

export type Under = () => AuthStoreUnderTest;

/** How long a waiting transaction is observed, in milliseconds. */
export const OBSERVED_MS = 100;

/** A transaction that waits for a lock, or is silent, for longer than this fails, in milliseconds. */
export const LIMIT_MS = 1000;

/** A session that is to be inserted. */
export function sessionOf(userId: string, over: Partial<Omit<Session, 'open'>> = {}): Omit<Session, 'open'> {
  const createTime = new Date();
  return {
    sessionId: randomUUID(),
    userId,
    clientId: 'direct',
    generation: 1n,
    clientGeneration: 1n,
    deviceName: 'test',
    audiences: ['inventory', 'auth'],
    scopes: ['inventory.read', 'auth.self'],
    amr: ['pwd'],
    certificateThumbprint: undefined,
    createTime,
    lastUseTime: createTime,
    expireTime: inDays(3650),
    ...over,
  };
}

export async function addSession(
  { store, addUser }: AuthStoreUnderTest,
  over: Partial<Omit<Session, 'open'>> = {},
): Promise<Omit<Session, 'open'>> {
  const session = sessionOf(over.userId ?? (await addUser()).userId, over);
  await store.transaction((tx) => tx.sessions.insert(session));
  return session;
}

export async function isOpen({ store }: AuthStoreUnderTest, sessionId: string): Promise<boolean | undefined> {
  return (await store.transaction((tx) => tx.sessions.lockShared(sessionId)))?.open;
}

export async function generationOf({ store }: AuthStoreUnderTest, userId: string): Promise<bigint> {
  const user = await store.transaction((tx) => tx.users.lockShared(userId));
  if (user === undefined) throw new Error(`there is no user ${userId}`);
  return user.generation;
}

/** Far enough ahead for every clock of these tests. */
export function inDays(days: number): Date {
  return new Date(Date.now() + days * 86_400_000);
}

export function keyOf(purpose: KeyPurpose, state: KeyState): KeyRow {
  const kid = randomBytes(16).toString('hex');
  const jwk = JSON.stringify({ kty: 'OKP', kid });
  return { kid, purpose, state, algorithm: 'EdDSA', jwk, sealedPrivateKey: Buffer.from(`sealed ${kid}`) };
}

/** The simulator finds a revocation by the name of its actor, so each has its own. */
export function actorOf(name: string): string {
  return `${name}-${randomUUID()}`;
}

export function entryOf(revocation: Revocation): NewEntry {
  return { ...revocation, reason: 'a test', actor: actorOf('test') };
}

export function anEntry(): NewEntry {
  return entryOf(tokenRevocation(randomUUID()));
}

export function demand(entry: LogEntry | undefined): LogEntry {
  if (entry === undefined) throw new Error('there is no such entry');
  return entry;
}

export async function append(
  { store }: AuthStoreUnderTest,
  ...entries: Revocation[]
): Promise<readonly LogEntry[]> {
  const appended = await store.transaction((tx) => tx.revocations.append(entries.map(entryOf)));
  return appended.entries;
}

export function headOf({ log }: AuthStoreUnderTest) {
  return log.read(async ({ state }) => state);
}

/** Drops every entry there is. */
export async function dropAll({ log, expireEntries }: AuthStoreUnderTest): Promise<void> {
  await expireEntries();
  while ((await log.dropExpired(1000)) > 0);
}

/** An entry as a read returns it, whichever other fields the store adds. */
export function plain(entry: LogEntry): LogEntry {
  const { entryId, sequence, kind, issuer, claim, key, minGeneration, keepUntil, cutOffTime } = entry;
  const about = { kind, issuer, claim, key, minGeneration };
  return { entryId, sequence, ...about, keepUntil, cutOffTime, acknowledge: false };
}

/** The reason of a rejected promise; undefined when it was fulfilled. */
export async function outcomeOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

export function codeOf(error: unknown): string {
  return error instanceof ServiceError ? error.code : String(error);
}

/** A promise whose state a test can read before awaiting it. */
export function settled<T>(promise: Promise<T>): { readonly promise: Promise<T>; isSettled(): boolean } {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  return { promise, isSettled: () => done };
}

/** Continues a transaction: one statement, after a pause. */
export async function goOn({ sleep }: AuthStoreUnderTest, tx: AuthTransaction): Promise<void> {
  await sleep(LIMIT_MS / 5);
  await tx.databaseTime();
}
