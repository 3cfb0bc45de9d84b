/** Taking tokens back, and telling every instance what has been taken back. */

import type { Clock } from '../../interceptors/clock.js';
import { invalidField, ServiceError } from '../../interceptors/errors.js';
import type { PublishedKeys } from './keys.js';
import { createNextRead } from './next-read.js';
import type {
  Appended,
  LiveSet,
  LogEntry,
  LogHead,
  LogReading,
  LogState,
  NewEntry,
  PullPart,
  Revocation,
  SyncAnswer,
  SyncQuestion,
} from './revocation-log.js';
import {
  answerOf,
  bytesOfUuid,
  checkInstance,
  checkQuestion,
  comparedPlaces,
  enforcedEverywhereBy,
  partsOf,
  REASON_CHARACTERS_MAX,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
  wantedAfter,
} from './revocation-log.js';
import type { SessionRows } from './sessions.js';
import type { UserRows } from './users.js';

/** Most entries that one transaction drops, so that it holds the log's lock for a moment only. */
export const PURGE_ENTRIES_MAX = 1000;

/** Most instances whose last question is remembered; beyond it the one that has been silent longest is forgotten. */
export const INSTANCES_MAX = 10_000;

/** Most Pulls that are answered at once. */
export const PULLS_MAX = 64;

/** The revocation log, inside a transaction. */
export interface RevocationRows {
  /**
   * Writes entries at the end of the log, and sees to it that they are broadcast after the commit. It locks the
   * end of the log until the transaction ends, so it comes last, after all other rows have been locked.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the lock cannot be had in time
   */
  append(entries: readonly NewEntry[]): Promise<Appended>;
}

/** Reads the log in one snapshot. */
export interface LogReader {
  readonly state: LogState;
  /** The entries of the epoch after a position, ascending. */
  entriesAfter(sequence: bigint): Promise<readonly LogEntry[]>;
  /** The ids of those entries at the positions that have not been dropped. */
  entryIdsAt(sequences: readonly bigint[]): Promise<ReadonlyMap<bigint, Buffer>>;
  /** The published keys of the epoch. */
  publishedKeys(): Promise<PublishedKeys>;
}

/** The revocation log, outside the transactions that write to it. */
export interface RevocationStore {
  /**
   * Reads in a snapshot that begins after this call, in a transaction that also commits a write: what it returns
   * was the end of the log of the one primary. Throws when the commit is not known to have succeeded.
   */
  read<T>(work: (log: LogReader) => Promise<T>): Promise<T>;
  /** All live entries, from one snapshot. */
  readLive(): Promise<LiveSet>;
  /** Drops at most `limit` entries whose time has passed, moves the horizon with them, and answers how many. */
  dropExpired(limit: number): Promise<number>;
  /** Sets the length of leases; after lowering it the former length counts until it has passed. */
  setLeaseMs(leaseMs: number): Promise<void>;
}

/** What a caller wants taken back. */
export type Target =
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'token-id'; readonly tokenId: string }
  | { readonly kind: 'session'; readonly sessionId: string }
  | { readonly kind: 'user'; readonly userId: string };

/** What is known of a revocation once it is in the log. */
export interface Receipt {
  readonly sequence: bigint;
  /** From this moment of database time on no instance admits what was revoked. */
  readonly enforcedEverywhereBy: Date;
}

/** An instance, as it last asked. */
export interface InstanceRecord {
  readonly service: string;
  readonly instance: Buffer;
  /** Monotonic time of this process at which its last question arrived. */
  readonly askedAtMs: number;
  /** What it had applied when it asked. */
  readonly applied: bigint;
  readonly epoch: Buffer;
  /** The head that it was answered. */
  readonly answered: bigint;
}

/** The part of a transaction that revoking uses. */
export interface RevocationTransaction {
  readonly users: Pick<UserRows, 'raiseGeneration'>;
  readonly sessions: Pick<SessionRows, 'end' | 'endAllOf'> & {
    /** The session, open or ended. */
    lockShared(sessionId: string): Promise<object | undefined>;
  };
  readonly revocations: RevocationRows;
}

/** What revocations need of the rest. */
export interface RevocationDeps {
  readonly store: { transaction<T>(work: (tx: RevocationTransaction) => Promise<T>): Promise<T> };
  readonly log: RevocationStore;
  /**
   * The `jti` of an access token of this issuer: signature, issuer and all claims are good and it has not expired;
   * its audience does not matter, nor whether it has been revoked already. Throws a ServiceError otherwise.
   */
  readonly tokenIdOf: (token: string) => Promise<string>;
  readonly clock: Clock;
  /** Called when an instance has seen entries that the log does not have: transactions were lost. */
  readonly onLogChanged: (question: SyncQuestion) => void;
}

/** Revocations, as the handlers use them. */
export interface Revocations {
  /**
   * Takes something back. When it returns, the log has it, and no fault can lose it.
   *
   * @throws ServiceError NOT_FOUND for an unknown session or user; FIELD_INVALID; DEPENDENCY_UNAVAILABLE, in which
   *   case it may or may not be in the log
   */
  revoke(request: { target: Target; reason: string; actor: string }): Promise<Receipt>;
  /**
   * Answers an instance from a reading of the log that began after the question had arrived.
   *
   * @throws ServiceError LOG_CHANGED, FIELD_INVALID, RATE_LIMITED, DEPENDENCY_UNAVAILABLE
   */
  sync(question: SyncQuestion): Promise<SyncAnswer>;
  /**
   * The live list in parts, the end last.
   *
   * @throws ServiceError FIELD_INVALID, RATE_LIMITED, DEPENDENCY_UNAVAILABLE
   */
  pull(request: { service: string; instance: Buffer }): AsyncIterable<PullPart>;
  /** Drops all entries whose time has passed and answers how many. */
  purge(): Promise<number>;
  /** The instances that have asked, the one that asked last at the end. */
  instances(): readonly InstanceRecord[];
}

/** Makes the operations on the revocation log. */
export function createRevocations(deps: RevocationDeps): Revocations {
  const instances = new Map<string, InstanceRecord>();
  const reads = createNextRead<SyncQuestion, SyncAnswer>(async (questions) => {
    const reading = await readFor(deps.log, questions);
    return (question) => answerOf(reading, question);
  });
  const liveReads = createNextRead<undefined, LiveSet>(async () => {
    const live = await deps.log.readLive();
    return () => live;
  });
  let pulls = 0;

  return {
    revoke: (request) => revoke(deps, request),

    sync: async (question) => {
      checkQuestion(question);
      const askedAtMs = deps.clock.monotonicMs();
      const answer = await reads.ask(question).catch((error: unknown) => {
        if (error instanceof ServiceError && error.code === 'LOG_CHANGED') deps.onLogChanged(question);
        throw error;
      });
      remember(instances, question, { askedAtMs, answered: answer.head });
      return answer;
    },

    pull: async function* (request) {
      checkInstance(request);
      if (pulls >= PULLS_MAX) {
        throw new ServiceError('RATE_LIMITED', 'too many instances pull the list', { retryAfterMs: 1000 });
      }
      pulls += 1;
      try {
        yield* partsOf(await liveReads.ask(undefined));
      } finally {
        pulls -= 1;
      }
    },

    purge: async () => {
      let dropped = 0;
      for (;;) {
        const now = await deps.log.dropExpired(PURGE_ENTRIES_MAX);
        dropped += now;
        if (now < PURGE_ENTRIES_MAX) return dropped;
      }
    },

    instances: () => [...instances.values()],
  };
}

async function revoke(
  deps: RevocationDeps,
  request: { readonly target: Target; readonly reason: string; readonly actor: string },
): Promise<Receipt> {
  checkReason(request.reason);
  const target = await identify(deps, request.target);
  const { reason, actor } = request;
  let startedMs = 0;
  const appended = await deps.store.transaction(async (tx) => {
    const revocation = await takeBack(tx, target);
    startedMs = deps.clock.monotonicMs();
    return await tx.revocations.append([{ ...revocation, reason, actor }]);
  });
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return {
    sequence: entry.sequence,
    enforcedEverywhereBy: enforcedEverywhereBy(appended, deps.clock.monotonicMs() - startedMs),
  };
}

/** What a target names, checked before a transaction begins. */
type Identified =
  | { readonly kind: 'token'; readonly revocation: Revocation }
  | { readonly kind: 'session'; readonly sessionId: string; readonly revocation: Revocation }
  | { readonly kind: 'user'; readonly userId: string };

async function identify(deps: RevocationDeps, target: Target): Promise<Identified> {
  switch (target.kind) {
    case 'token':
      return { kind: 'token', revocation: tokenRevocation(await tokenIdOf(deps, target.token)) };
    case 'token-id':
      return { kind: 'token', revocation: tokenRevocation(target.tokenId) };
    case 'session': {
      const sessionId = target.sessionId.toLowerCase();
      return { kind: 'session', sessionId, revocation: sessionRevocation(sessionId) };
    }
    case 'user':
      bytesOfUuid('user_id', target.userId);
      // The entry's key is compared with `sub` byte by byte, so it must have the one spelling that tokens have.
      return { kind: 'user', userId: target.userId.toLowerCase() };
  }
}

function tokenIdOf(deps: RevocationDeps, token: string): Promise<string> {
  return deps.tokenIdOf(token).catch((error: unknown) => {
    if (!(error instanceof ServiceError) || !error.code.startsWith('TOKEN_')) throw error;
    // TOKEN_INVALID and its like would tell callers that their own token is bad, and make them log in again.
    throw invalidField('token', 'must be an access token of this issuer that has not expired');
  });
}

async function takeBack(tx: RevocationTransaction, target: Identified): Promise<Revocation> {
  switch (target.kind) {
    case 'token':
      return target.revocation;
    case 'session': {
      const ended = await tx.sessions.end(target.sessionId, 'REVOKED');
      // A session that had ended before gets an entry again: a caller who missed the first answer may ask twice.
      if (!ended && (await tx.sessions.lockShared(target.sessionId)) === undefined) {
        throw new ServiceError('NOT_FOUND', 'there is no such session');
      }
      return target.revocation;
    }
    case 'user': {
      const generation = await tx.users.raiseGeneration(target.userId);
      if (generation === undefined) throw new ServiceError('NOT_FOUND', 'there is no such user');
      await tx.sessions.endAllOf(target.userId, 'USER_REVOKED');
      return userRevocation(target.userId, generation);
    }
  }
}

function checkReason(reason: string): void {
  if ([...reason].length > REASON_CHARACTERS_MAX) {
    throw invalidField('reason', `must have at most ${REASON_CHARACTERS_MAX} characters`);
  }
  if (reason.includes('\0')) throw invalidField('reason', 'must not contain NUL');
}

function readFor(log: RevocationStore, questions: readonly SyncQuestion[]): Promise<LogReading> {
  return log.read(async (reader) => {
    const { state } = reader;
    const after = wantedAfter(state, questions);
    const places = comparedPlaces(state, questions);
    return {
      state,
      keys: await reader.publishedKeys(),
      entries: after === undefined ? [] : await reader.entriesAfter(after),
      entryIds: places.length === 0 ? new Map() : await reader.entryIdsAt(places),
    };
  });
}

function remember(
  instances: Map<string, InstanceRecord>,
  question: SyncQuestion,
  answer: { readonly askedAtMs: number; readonly answered: LogHead['head'] },
): void {
  const key = question.instance.toString('hex');
  instances.delete(key);
  const { service, instance, applied, epoch } = question;
  instances.set(key, { service, instance, applied, epoch, ...answer });
  const [longestSilent] = instances.keys();
  if (instances.size > INSTANCES_MAX && longestSilent !== undefined) instances.delete(longestSilent);
}
