/** Taking tokens back, and telling every instance what has been taken back. */

import type { Clock, Timers } from '@portcullis/guard/clock';
import { invalidField, ServiceError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';
import { retireKey } from '../keys/keys.js';
import type { ClientRows } from '../records/clients.js';
import type { KeyRows, PublishedKeys } from '../records/keys.js';
import type {
  EpochStanding,
  LiveSet,
  LogEntry,
  LogState,
  LostEpoch,
  Receipt,
  Revocation,
  RevocationRows,
} from '../records/revocations.js';
import type { NewSecurityEvent, SecurityEventRows, Subject } from '../records/security-events.js';
import type { SessionRows } from '../records/sessions.js';
import type { UserRows } from '../records/users.js';
import { type InstanceReceipt, type Instances, WAITS_MAX, type Wait } from './instances.js';
import type { ForeignTarget, LogReading, PullPart, SyncAnswer, SyncQuestion } from './log.js';
import {
  answerOf,
  bytesOfUuid,
  checkInstance,
  checkQuestion,
  checkReason,
  clientRevocation,
  comparedPlaces,
  enforcedEverywhereBy,
  foreignRevocation,
  keyRevocation,
  newlyLost,
  otherEpochs,
  partsOf,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
  wantedAfter,
} from './log.js';
import { createSharedReads, READ_BLOCKING_MS_MAX } from './shared-reads.js';

/** Most entries that one transaction drops, so that it holds the log's lock for a moment only. */
export const PURGE_ENTRIES_MAX = 1000;

/**
 * Most lost epochs that are remembered of those found under one present epoch. A restore loses a few at most; the rest is for
 * a service that makes epochs up.
 */
export const LOST_EPOCHS_MAX = 1000;

/** Most Pulls that are answered at once. */
export const PULLS_MAX = 64;

/** Longest name of a client or key, and longest issuer or identifier of another issuer, in characters. */
export const NAME_CHARACTERS_MAX = 255;

/** Reads the log in one snapshot. */
export interface LogReader {
  readonly state: LogState;
  /** The entries of the epoch after a position, ascending. */
  entriesAfter(sequence: bigint): Promise<readonly LogEntry[]>;
  /** The ids of those entries at the positions that have not been dropped. */
  entryIdsAt(sequences: readonly bigint[]): Promise<ReadonlyMap<bigint, Buffer>>;
  /** What is known of epochs that are not the present one, by their hexadecimal text; nothing of some. */
  standingOf(epochs: readonly Buffer[]): Promise<ReadonlyMap<string, EpochStanding>>;
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
  /**
   * Writes down epochs that were lost, for as long as the epoch under which that was found is the present one: once another
   * one is opened they are over. No more than {@link LOST_EPOCHS_MAX} of each present epoch are kept, the latest ones.
   */
  noteLostEpochs(lost: readonly LostEpoch[]): Promise<void>;
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
  | { readonly kind: 'user'; readonly userId: string }
  | { readonly kind: 'client'; readonly clientId: string }
  | { readonly kind: 'key'; readonly keyId: string }
  | { readonly kind: 'foreign'; readonly foreign: ForeignTarget };

/** What is known of a revocation once it has been waited for. */
export interface RevokeReceipt extends Receipt {
  /** The instances that had asked shortly before; empty when nothing was waited for. */
  readonly instances: readonly InstanceReceipt[];
}

/** Who wants what taken back, why, and how long to wait. */
export interface RevokeRequest {
  readonly target: Target;
  readonly reason: string;
  readonly actor: string;
  readonly wait?: Wait;
  /** Ends the waiting, not the revocation. */
  readonly signal?: AbortSignal;
}

/** The part of a transaction that revoking uses. */
export interface RevocationTransaction {
  readonly users: Pick<UserRows, 'raiseGeneration'>;
  readonly sessions: Pick<SessionRows, 'end' | 'endAllOf'> & {
    /** The session, open or ended. */
    lockShared(sessionId: string): Promise<{ readonly userId: string } | undefined>;
  };
  readonly clients: Pick<ClientRows, 'raiseGeneration'>;
  readonly keys: Pick<KeyRows, 'lockMaking' | 'retire' | 'promoteNext'>;
  readonly revocations: RevocationRows;
  readonly events: SecurityEventRows;
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
  /** Those of this process unless told otherwise. */
  readonly timers?: Timers;
  /** This issuer (`iss`), which is nobody else's. */
  readonly issuer: string;
  readonly instances: Pick<Instances, 'heard' | 'answered' | 'waits' | 'wait'>;
  /** Called after the commit when a key was taken out of publication, so that another one is made. */
  readonly onKeyRevoked: () => void;
  /** Called when an instance has seen entries that the log does not have: transactions were lost. */
  readonly onLogChanged: (question: SyncQuestion) => void;
}

/** Revocations, as the handlers use them. */
export interface Revocations {
  /**
   * Takes something back. When it returns, the log has it, and no fault can lose it.
   *
   * @throws ServiceError NOT_FOUND for an unknown session, user, client or key; FIELD_INVALID; RATE_LIMITED when
   *   too many wait; DEPENDENCY_UNAVAILABLE, in which case it may or may not be in the log
   */
  revoke(request: RevokeRequest): Promise<RevokeReceipt>;
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
}

/** Makes the operations on the revocation log. */
export function createRevocations(deps: RevocationDeps): Revocations {
  const readHead = async (questions: readonly SyncQuestion[]) => {
    const reading = await readFor(deps.log, questions);
    return () => reading;
  };
  const noteLost = async (lost: readonly LostEpoch[]) => {
    await deps.log.noteLostEpochs(lost);
    return () => undefined;
  };
  const readLive = async () => {
    const live = await deps.log.readLive();
    return () => live;
  };
  const reads = createSharedReads<SyncQuestion, LogReading>(readHead, READ_BLOCKING_MS_MAX, deps.timers);
  const liveReads = createSharedReads<undefined, LiveSet>(readLive, READ_BLOCKING_MS_MAX, deps.timers);
  // Together, like reads: whoever makes up epochs must not keep all connections to the database.
  const losses = createSharedReads<LostEpoch, undefined>(noteLost, READ_BLOCKING_MS_MAX, deps.timers);
  let pulls = 0;

  const changed = async (reading: LogReading, question: SyncQuestion): Promise<void> => {
    deps.onLogChanged(question);
    const lost = newlyLost(reading, question);
    // What could not be written down now is found again by the instance's next question.
    if (lost !== undefined) await losses.read(lost).catch(() => undefined);
  };

  return {
    revoke: (request) => revoke(deps, request),

    sync: async (question) => {
      checkQuestion(question);
      const askedAtMs = deps.clock.monotonicMs();
      deps.instances.heard(question);
      const reading = await reads.read(question);
      let answer: SyncAnswer;
      try {
        answer = answerOf(reading, question);
      } catch (error) {
        if (error instanceof ServiceError && error.code === 'LOG_CHANGED') await changed(reading, question);
        throw error;
      }
      deps.instances.answered(question, askedAtMs, answer);
      return answer;
    },

    pull: async function* (request) {
      checkInstance(request);
      if (pulls >= PULLS_MAX) {
        throw new AuthError('RATE_LIMITED', 'too many instances pull the list', { retryAfterMs: 1000 });
      }
      pulls += 1;
      try {
        yield* partsOf(await liveReads.read(undefined));
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
  };
}

async function revoke(deps: RevocationDeps, request: RevokeRequest): Promise<RevokeReceipt> {
  const { reason, actor, wait = 'NONE', signal = NEVER } = request;
  checkReason(reason);
  // Before anything is written: a caller who is turned away must know that nothing was revoked.
  if (wait !== 'NONE' && deps.instances.waits() >= WAITS_MAX) {
    throw new AuthError('RATE_LIMITED', 'too many revocations wait for instances', { retryAfterMs: 1000 });
  }
  const target = await identify(deps, request.target);
  let startedMs = 0;
  const appended = await deps.store.transaction(async (tx) => {
    const { revocation, event } = await takeBack(tx, target, { reason, actor, network: '' });
    startedMs = deps.clock.monotonicMs();
    // Who hears that a key is revoked asks at once, and so learns which key signs in its place.
    const acknowledge = wait !== 'NONE' || target.kind === 'key';
    const [, written] = await Promise.all([
      tx.events.record(event),
      tx.revocations.append([{ ...revocation, reason, actor, acknowledge }]),
    ]);
    return written;
  });
  const committedAtMs = deps.clock.monotonicMs();
  if (target.kind === 'key') deps.onKeyRevoked();
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  const elapsedMs = committedAtMs - startedMs;
  const everywhereBy = enforcedEverywhereBy(appended, elapsedMs);
  const receipt = { sequence: entry.sequence, enforcedEverywhereBy: everywhereBy };
  if (wait === 'NONE') return { ...receipt, instances: [] };
  const { epoch, leaseMs, lockedTime } = appended;
  const boundAtMs = committedAtMs + everywhereBy.getTime() - lockedTime.getTime() - Math.ceil(elapsedMs);
  const committed = { epoch, entry, committedAtMs, leaseMs, boundAtMs };
  return { ...receipt, instances: await deps.instances.wait(committed, wait, signal) };
}

const NEVER = new AbortController().signal;

/** What a target names, checked before a transaction begins. */
type Identified =
  | { readonly kind: 'token'; readonly tokenId: string; readonly revocation: Revocation }
  | { readonly kind: 'session'; readonly sessionId: string; readonly revocation: Revocation }
  | { readonly kind: 'user'; readonly userId: string }
  | { readonly kind: 'client'; readonly clientId: string }
  | { readonly kind: 'key'; readonly keyId: string }
  | { readonly kind: 'foreign'; readonly foreign: ForeignTarget; readonly revocation: Revocation };

async function identify(deps: RevocationDeps, target: Target): Promise<Identified> {
  switch (target.kind) {
    case 'token':
      return identifyToken(await tokenIdOf(deps, target.token));
    case 'token-id':
      return identifyToken(target.tokenId);
    case 'session': {
      const sessionId = target.sessionId.toLowerCase();
      return { kind: 'session', sessionId, revocation: sessionRevocation(sessionId) };
    }
    case 'user':
      bytesOfUuid('user_id', target.userId);
      // The entry's key is compared with `sub` byte by byte, so it must have the one spelling that tokens have.
      return { kind: 'user', userId: target.userId.toLowerCase() };
    case 'client':
      return { kind: 'client', clientId: checkName('client_id', target.clientId) };
    case 'key':
      return { kind: 'key', keyId: checkName('key_id', target.keyId) };
    case 'foreign':
      return {
        kind: 'foreign',
        foreign: target.foreign,
        revocation: checkForeign(deps.issuer, target.foreign),
      };
  }
}

function identifyToken(tokenId: string): Identified {
  return { kind: 'token', tokenId: tokenId.toLowerCase(), revocation: tokenRevocation(tokenId) };
}

function checkForeign(ownIssuer: string, target: ForeignTarget): Revocation {
  checkName('foreign.issuer', target.issuer);
  // Our own tokens are taken back by what we know of them, which two times within one second cannot confuse.
  if (target.issuer === ownIssuer) throw invalidField('foreign.issuer', 'must be another issuer');
  checkName('foreign.what', target.id);
  return foreignRevocation(target);
}

function checkName(field: string, text: string): string {
  if (text === '' || [...text].length > NAME_CHARACTERS_MAX || text.includes('\0') || !text.isWellFormed()) {
    throw invalidField(field, `must have 1 to ${NAME_CHARACTERS_MAX} characters, none of them NUL`);
  }
  return text;
}

function tokenIdOf(deps: RevocationDeps, token: string): Promise<string> {
  return deps.tokenIdOf(token).catch((error: unknown) => {
    if (!(error instanceof ServiceError) || !error.code.startsWith('TOKEN_')) throw error;
    // TOKEN_INVALID and its like would tell callers that their own token is bad, and make them log in again.
    throw invalidField('token', 'must be an access token of this issuer that has not expired');
  });
}

/**
 * Retires a key in this transaction, lets the next one sign, and answers what is to be written to the log: a key
 * that is still published would be trusted by whoever forgets the entry.
 *
 * @throws ServiceError NOT_FOUND
 */
export async function takeBackKey(
  tx: Pick<RevocationTransaction, 'keys'>,
  keyId: string,
): Promise<Revocation> {
  if (await retireKey(tx.keys, keyId)) return keyRevocation(keyId);
  throw new AuthError('NOT_FOUND', 'there is no such key');
}

/** Does what a revocation does beside the log, and answers what is to be written there and to the record. */
async function takeBack(
  tx: RevocationTransaction,
  target: Identified,
  by: RevokedBy,
): Promise<{ readonly revocation: Revocation; readonly event: NewSecurityEvent }> {
  switch (target.kind) {
    case 'token': {
      const { tokenId, revocation } = target;
      return { revocation, event: { ...by, type: 'token-revoked', subject: { tokenId }, details: {} } };
    }
    case 'foreign':
      return { revocation: target.revocation, event: foreignEventOf(target.foreign, by) };
    case 'session': {
      const { sessionId, revocation } = target;
      // A session that had ended before gets an entry again: a caller who missed the first answer may ask twice.
      const [, session] = await Promise.all([
        tx.sessions.end(sessionId, 'REVOKED'),
        tx.sessions.lockShared(sessionId),
      ]);
      if (session === undefined) throw new AuthError('NOT_FOUND', 'there is no such session');
      return { revocation, event: sessionsRevoked({ userId: session.userId, sessionId }, by) };
    }
    case 'user': {
      const { userId } = target;
      const generation = await tx.users.raiseGeneration(userId);
      if (generation === undefined) throw new AuthError('NOT_FOUND', 'there is no such user');
      await tx.sessions.endAllOf(userId, 'USER_REVOKED');
      return { revocation: userRevocation(userId, generation), event: sessionsRevoked({ userId }, by) };
    }
    case 'client': {
      const { clientId } = target;
      const generation = await tx.clients.raiseGeneration(clientId);
      if (generation === undefined) throw new AuthError('NOT_FOUND', 'there is no such client');
      const event = { ...by, type: 'client-revoked', subject: { clientId }, details: {} } as const;
      return { revocation: clientRevocation(clientId, generation), event };
    }
    case 'key': {
      const { keyId } = target;
      const event = { ...by, type: 'key-revoked', subject: { keyId }, details: {} } as const;
      return { revocation: await takeBackKey(tx, keyId), event };
    }
  }
}

/** What all events of one revocation have. */
type RevokedBy = Pick<NewSecurityEvent, 'reason' | 'actor' | 'network'>;

/** Without a session in the subject: all sessions and tokens of the user (CAEP §3.1). */
function sessionsRevoked(subject: Subject, by: RevokedBy): NewSecurityEvent {
  return { ...by, type: 'session-revoked', subject, details: { initiator: 'admin' } };
}

function foreignEventOf({ issuer, what, id }: ForeignTarget, by: RevokedBy): NewSecurityEvent {
  if (what === 'TOKEN')
    return { ...by, type: 'token-revoked', subject: { issuer, tokenId: id }, details: {} };
  return sessionsRevoked(what === 'SESSION' ? { issuer, sessionId: id } : { issuer, userId: id }, by);
}

function readFor(log: RevocationStore, questions: readonly SyncQuestion[]): Promise<LogReading> {
  return log.read(async (reader) => {
    const { state } = reader;
    const after = wantedAfter(state, questions);
    const places = comparedPlaces(state, questions);
    const others = otherEpochs(state, questions);
    const [keys, entries, entryIds, known] = await Promise.all([
      reader.publishedKeys(),
      after === undefined ? [] : reader.entriesAfter(after),
      places.length === 0 ? new Map<bigint, Buffer>() : reader.entryIdsAt(places),
      others.length === 0 ? new Map<string, EpochStanding>() : reader.standingOf(others),
    ]);
    return { state, keys, entries, entryIds, otherEpochs: known };
  });
}
