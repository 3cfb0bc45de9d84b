/** The rules of the revocation log: its entries, the response to a sync request, and the bound of enforcement. */

import { randomBytes } from 'node:crypto';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACKNOWLEDGEMENTS_MAX,
  CLOCK_SKEW_SECONDS,
  HELD_ENTRIES_MAX,
  ID_BYTES,
  REVOCABLE_CLAIMS_MAX,
  TRUSTED_ISSUERS_MAX,
} from '@portcullis/guard/limits';
import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { PublishedKey, PublishedKeys } from '../records/keys.js';
import type {
  EntryKind,
  EpochStanding,
  LiveSet,
  LogEntry,
  LogHead,
  LogLock,
  LogState,
  LostEpoch,
  PackedIds,
  Revocation,
  TimedRevocation,
} from '../records/revocations.js';
import { checkFences, type FencePosition } from './fence-watch.js';

/** Largest step of the database's clock that drops no entry too early, in seconds. */
export const DATABASE_CLOCK_STEP_SECONDS = 60;

/** How long an entry is kept after the last token that it revokes has expired, in seconds, because clocks differ. */
export const KEEP_MARGIN_SECONDS = CLOCK_SKEW_SECONDS + DATABASE_CLOCK_STEP_SECONDS;

/** How long an entry is kept that may revoke any token, in seconds. */
export const KEEP_SECONDS_MAX = ACCESS_TOKEN_LIFETIME_MAX_SECONDS + KEEP_MARGIN_SECONDS;

/** Maximum number of entries in one sync response; an instance that lacks more must pull. */
export const SYNC_ENTRIES_MAX = 1000;

/** Maximum number of identifiers in one packed part of a Pull (128 KiB). */
export const PULL_IDS_MAX = 8192;

/** Maximum number of entries in one part of a Pull that lists them. */
export const PULL_ENTRIES_MAX = 1000;

/** Maximum number of claim ids in one sync request: one for each trusted issuer, and one for each of its claims. */
const CLAIM_IDS_MAX = TRUSTED_ISSUERS_MAX * (1 + REVOCABLE_CLAIMS_MAX);

/** Longest reason of a revocation, in characters. */
const REASON_CHARACTERS_MAX = 200;

/** A sync request: an instance asks whether its list is up to date. */
export interface SyncPosition {
  readonly service: string;
  readonly instance: Buffer;
  /** Empty before the instance's first response. */
  readonly epoch: Buffer;
  readonly applied: bigint;
  /** Empty when `applied` is 0. */
  readonly entryIdAtApplied: Buffer;
  readonly keySetVersion: Buffer;
  /** Entries that asked for an acknowledgement and are in the instance's list. */
  readonly seen: readonly Buffer[];
  /** The fences of the service's databases. */
  readonly fences: readonly FencePosition[];
  /** The instance has every entry after `applied` up to here by broadcasts; 0 when there is none. */
  readonly heldTo: bigint;
  /** The XOR of the ids of these entries; empty when there is none. */
  readonly heldDigest: Buffer;
  /** What the instance has stated of itself. */
  readonly abilities?: Abilities | undefined;
  /** Where and what the instance is, for operators. */
  readonly description?: InstanceDescription | undefined;
  /** The instance has stopped serving. Its lease counts until its end all the same. */
  readonly leaving?: boolean | undefined;
}

/** Where and what an instance is, as it states itself. Texts that are not fit to be shown are empty. */
export interface InstanceDescription {
  readonly host: string;
  readonly version: string;
  readonly startTime: Date | undefined;
}

/** What an instance can apply. It stays the same as long as the instance runs. */
export interface Abilities {
  /** The kinds of entries that it knows; those that this version does not know are left out. */
  readonly kinds: readonly EntryKind[];
  /** What stands for the issuers that it trusts and for the claims that it reads: see `SyncRequest.claim_ids`. */
  readonly claimIds: readonly Buffer[];
}

/** The entries that an instance holds beyond its place: those after `applied` up to `heldTo`. */
export type HeldRange = Pick<SyncPosition, 'applied' | 'heldTo'>;

/** One read of the log, which answers every sync request that arrived before it began. */
export interface LogReading {
  readonly state: LogState;
  /** The keys of the same snapshot. */
  readonly keys: PublishedKeys;
  /** Ascending, up to the head: all entries that the requests need, and perhaps some before. */
  readonly entries: readonly LogEntry[];
  /** The ids of the entries that the requests name as applied; entries that were dropped are missing. */
  readonly entryIds: ReadonlyMap<bigint, Buffer>;
  /** The digests of the ranges that the requests name, by {@link rangeName}; those that are not known are missing. */
  readonly digests: ReadonlyMap<string, Buffer>;
  /** What is known of other epochs in the requests, by their hexadecimal text; unknown epochs are missing. */
  readonly otherEpochs: ReadonlyMap<string, EpochStanding>;
}

/** The response to a {@link SyncPosition}. */
export interface SyncResult extends LogState {
  readonly entries: readonly LogEntry[];
  /** The entries of the read, of which `entries` are the last: many responses share them. */
  readonly reading?: readonly LogEntry[];
  /** The instance must pull: it follows another epoch, lags too far, or the entry at its place was dropped. */
  readonly pull: boolean;
  /** The keys that verify access tokens, unless the instance already has them. */
  readonly keySet: PublishedKeys['keySet'] | undefined;
  readonly broadcastKeys: readonly PublishedKey[];
}

/** One part of the response to a Pull; the parts count only once `end` has arrived. */
export type PullPart =
  | { readonly part: 'packed'; readonly packed: PackedIds }
  | { readonly part: 'entries'; readonly entries: readonly LogEntry[] }
  | { readonly part: 'end'; readonly end: LogHead };

/** Revokes the token with this `jti`, and every token derived from it. */
export function tokenRevocation(tokenId: string): Revocation {
  return ownRevocation('TOKEN', bytesOfUuid('token_id', tokenId));
}

/** Revokes every token of the session with this `sid`. */
export function sessionRevocation(sessionId: string): Revocation {
  return ownRevocation('SESSION', bytesOfUuid('session_id', sessionId));
}

/** Revokes every token of a user of a generation below `minGeneration`. */
export function userRevocation(userId: string, minGeneration: bigint): Revocation {
  return ownRevocation('USER', Buffer.from(userId, 'utf8'), minGeneration);
}

/** Revokes every token whose chain names the client at a generation below `minGeneration`. */
export function clientRevocation(clientId: string, minGeneration: bigint): Revocation {
  return ownRevocation('CLIENT', Buffer.from(clientId, 'utf8'), minGeneration);
}

/** Revokes every token signed by the key with this `kid`. */
export function keyRevocation(kid: string): Revocation {
  return ownRevocation('KEY', Buffer.from(kid, 'utf8'));
}

/**
 * When the last token that an entry revokes expires: at a known time, after the lifetime with which this issuer mints
 * (`OWN`), or after the longest one that instances accept (`ANY`).
 */
export type TokensEnd = Date | 'OWN' | 'ANY';

/**
 * When the last token that an entry revokes expires. This issuer does not set the lifetime of other issuers' tokens, nor
 * that of tokens which a thief signs with a stolen key.
 */
export function tokensEndOf({ kind, issuer, tokenExpireTime }: TimedRevocation): TokensEnd {
  if (issuer !== '' || kind === 'KEY') return 'ANY';
  // No token outlives the one from which it was derived.
  return kind === 'TOKEN' && tokenExpireTime !== undefined ? tokenExpireTime : 'OWN';
}

/** A token, session or user of another issuer, or all tokens with a value in a claim, in the words of its tokens. */
export type ForeignTarget =
  | {
      readonly issuer: string;
      readonly what: 'TOKEN' | 'SESSION' | 'USER';
      /** Its `jti`, `sid` or `sub`. */
      readonly id: string;
    }
  | {
      readonly issuer: string;
      readonly what: 'CLAIM';
      /** The JSON Pointer of the claim. */
      readonly claim: string;
      /** The value. */
      readonly id: string;
    };

/** Revokes what another issuer has issued; for a user or a claim, the tokens that were issued before the revocation. */
export function foreignRevocation(target: ForeignTarget): Revocation {
  const { what, issuer, id } = target;
  const revocation = { kind: what, issuer, key: Buffer.from(id, 'utf8'), minGeneration: 0n };
  return target.what === 'CLAIM' ? { ...revocation, claim: target.claim } : revocation;
}

/** A new random epoch, entry id or instance id. */
export function createId(): Buffer {
  return randomBytes(ID_BYTES);
}

/**
 * The 16 bytes of a UUID.
 *
 * @param field - the request's field, for the error
 * @throws ServiceError FIELD_INVALID when `text` is not a UUID
 */
export function bytesOfUuid(field: string, text: string): Buffer {
  const uuid = parseUuid(text);
  if (uuid === undefined) throw invalidField(field, 'must be a UUID');
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

/** The keys of entries about an identifier: its text, and the 16 bytes of a UUID. */
export function keysOf(target: string): readonly Buffer[] {
  const uuid = parseUuid(target);
  const text = Buffer.from(uuid ?? target, 'utf8');
  return uuid === undefined ? [text] : [text, Buffer.from(uuid.replaceAll('-', ''), 'hex')];
}

/**
 * The bound of the promise, in milliseconds: the longest time after its commit for which a revocation is unknown to an
 * instance that still trusts its list. It is the lease, plus 1 % because the clocks of two machines may differ in rate,
 * plus 100 ms between reading a clock and acting on it.
 */
export function enforcementBoundMs(leaseMs: number): number {
  return Math.ceil(leaseMs * 1.01) + 100;
}

/**
 * The time from which on no instance admits what was revoked, whatever fails.
 *
 * @param elapsedMs - from before the log was locked until the commit was confirmed: the time of the lock plus this is not
 *   before the commit
 */
export function enforcedEverywhereBy(lock: LogLock, elapsedMs: number): Date {
  const committedMs = lock.lockedTime.getTime() + Math.ceil(elapsedMs);
  const boundMs = committedMs + enforcementBoundMs(lock.leaseMs);
  return new Date(Math.max(boundMs, lock.olderLeasesEndBy.getTime()));
}

/**
 * Checks the reason of an operation.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkReason(reason: string): void {
  if ([...reason].length > REASON_CHARACTERS_MAX) {
    throw invalidField('reason', `must have at most ${REASON_CHARACTERS_MAX} characters`);
  }
  if (reason.includes('\0')) throw invalidField('reason', 'must not contain NUL');
}

/**
 * Checks a sync request.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkQuestion(question: SyncPosition): void {
  checkInstance(question);
  if (question.epoch.length !== 0 && question.epoch.length !== ID_BYTES) {
    throw invalidField('epoch', `must be empty or of ${ID_BYTES} bytes`);
  }
  if (question.applied < 0n || question.applied > SEQUENCE_MAX) {
    throw invalidField('applied', 'must be a position of the log');
  }
  if (question.entryIdAtApplied.length !== (question.applied === 0n ? 0 : ID_BYTES)) {
    throw invalidField('entry_id_at_applied', `must be of ${ID_BYTES} bytes, or empty when applied is 0`);
  }
  if (question.seen.length > ACKNOWLEDGEMENTS_MAX || question.seen.some((id) => id.length !== ID_BYTES)) {
    throw invalidField('seen', `must hold at most ${ACKNOWLEDGEMENTS_MAX} entry ids of ${ID_BYTES} bytes`);
  }
  if (question.heldTo < 0n || question.heldTo > SEQUENCE_MAX) {
    throw invalidField('held_to', 'must be a position of the log');
  }
  if (question.heldDigest.length !== 0 && question.heldDigest.length !== ID_BYTES) {
    throw invalidField('held_digest', `must be empty or of ${ID_BYTES} bytes`);
  }
  checkFences(question.fences);
  const { claimIds = [] } = question.abilities ?? {};
  if (claimIds.length > CLAIM_IDS_MAX || claimIds.some((id) => id.length !== ID_BYTES)) {
    throw invalidField('claim_ids', `must hold at most ${CLAIM_IDS_MAX} ids of ${ID_BYTES} bytes`);
  }
}

/**
 * Checks the service and the instance id of a request.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkInstance(request: { readonly service: string; readonly instance: Buffer }): void {
  checkServiceName(request.service);
  if (request.instance.length !== ID_BYTES) throw invalidField('instance', `must be of ${ID_BYTES} bytes`);
}

/**
 * Checks the name of a service.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function checkServiceName(service: string): void {
  if (SERVICE.test(service)) return;
  throw invalidField('service', 'must have 1 to 100 printable characters of ASCII, none of them a space');
}

/**
 * The sequence after which the requests need all entries; undefined when no request needs any.
 */
export function entriesNeededAfter(state: LogHead, questions: readonly SyncPosition[]): bigint | undefined {
  let after: bigint | undefined;
  for (const question of questions) {
    const { epoch, applied, heldTo } = question;
    if (!epoch.equals(state.epoch) || applied >= state.head) continue;
    const from = isInReach(state, applied) || !isComparable(state, question) ? applied : heldTo;
    if (!isInReach(state, from)) continue;
    if (after === undefined || from < after) after = from;
  }
  return after;
}

/** The ranges of entries whose digests must be compared with the requests. */
export function rangesToCompare(state: LogHead, questions: readonly SyncPosition[]): HeldRange[] {
  return questions.filter((question) => isComparable(state, question));
}

/** The name of a range in {@link LogReading.digests}. */
export function rangeName({ applied, heldTo }: HeldRange): string {
  return `${applied} ${heldTo}`;
}

/** Whether the digest in a request can be that of the log, and would spare entries or a pull. */
function isComparable(state: LogHead, { epoch, applied, heldTo, heldDigest }: SyncPosition): boolean {
  return (
    heldDigest.length > 0 &&
    epoch.equals(state.epoch) &&
    applied < heldTo &&
    heldTo <= state.head &&
    isInReach(state, heldTo) &&
    state.head - applied <= BigInt(HELD_ENTRIES_MAX)
  );
}

/** Whether one response can list all entries after a sequence. */
function isInReach({ head }: LogHead, sequence: bigint): boolean {
  return head - sequence <= BigInt(SYNC_ENTRIES_MAX);
}

/** The sequences whose entry ids must be compared with the requests. */
export function sequencesToCompare(state: LogHead, questions: readonly SyncPosition[]): bigint[] {
  const places = new Set<bigint>();
  for (const { epoch, applied } of questions) {
    if (epoch.equals(state.epoch) && applied > 0n && applied < state.head) places.add(applied);
  }
  return [...places];
}

/** The epochs in the requests other than the present one. */
export function otherEpochs(state: LogHead, questions: readonly SyncPosition[]): Buffer[] {
  const others = new Map<string, Buffer>();
  for (const { epoch } of questions) {
    if (epoch.length > 0 && !epoch.equals(state.epoch)) others.set(epoch.toString('hex'), epoch);
  }
  return [...others.values()];
}

/** The epoch of a request if the database does not know it and has not recorded it as lost. */
export function newlyLost(
  { state, otherEpochs: known }: LogReading,
  { epoch }: SyncPosition,
): LostEpoch | undefined {
  if (epoch.length === 0 || epoch.equals(state.epoch) || known.has(epoch.toString('hex'))) return undefined;
  return { epoch, foundUnder: state.epoch };
}

/**
 * The response to one sync request that arrived before the read began.
 *
 * @throws ServiceError LOG_CHANGED when the instance has entries that this log does not have, or follows an epoch that
 *   this database does not have: it was restored or has lost transactions, and may have lost more
 */
export function syncResultFor(reading: LogReading, question: SyncPosition): SyncResult {
  const { state, keys } = reading;
  const after = completeUpTo(reading, question);
  const pull = mustPull(reading, question, after);
  return {
    ...state,
    entries: pull ? [] : suffixOf(reading.entries, after),
    reading: reading.entries,
    pull,
    keySet: keys.keySet.version.equals(question.keySetVersion) ? undefined : keys.keySet,
    broadcastKeys: keys.broadcastKeys,
  };
}

/** The entries after a sequence, of entries in ascending order. */
export function suffixOf(entries: readonly LogEntry[], after: bigint): readonly LogEntry[] {
  return entries.slice(indexAfter(entries, after));
}

/** The index of the first entry after a sequence. */
export function indexAfter(entries: readonly LogEntry[], after: bigint): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entries[middle];
    if (entry === undefined || entry.sequence > after) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The parts of a live set; the end comes last. */
export function* partsOf(live: LiveSet): Iterable<PullPart> {
  for (const { kind, keepUntil, ids } of live.packed) {
    for (let start = 0; start < ids.length; start += PULL_IDS_MAX * ID_BYTES) {
      const part = ids.subarray(start, start + PULL_IDS_MAX * ID_BYTES);
      yield { part: 'packed', packed: { kind, keepUntil, ids: part } };
    }
  }
  for (let start = 0; start < live.entries.length; start += PULL_ENTRIES_MAX) {
    yield { part: 'entries', entries: live.entries.slice(start, start + PULL_ENTRIES_MAX) };
  }
  yield { part: 'end', end: { epoch: live.epoch, head: live.head, headEntryId: live.headEntryId } };
}

function ownRevocation(kind: EntryKind, key: Buffer, minGeneration = 0n): Revocation {
  return { kind, issuer: '', key, minGeneration };
}

/** The largest sequence that the database can hold. */
const SEQUENCE_MAX = 2n ** 63n - 1n;

/** The name of a service: an audience, which may be a URI. */
const SERVICE = /^[!-~]{1,100}$/;

/**
 * The sequence after which the response must list entries. If the digest in the request is that of the log, the instance has
 * every entry up to there: ids are random, so other entries have another digest. The id of the last one alone would not do,
 * because after a restore the entries before it may be those of the lost log.
 */
function completeUpTo(reading: LogReading, question: SyncPosition): bigint {
  const digest = reading.digests.get(rangeName(question));
  return digest?.equals(question.heldDigest) ? question.heldTo : question.applied;
}

function mustPull(reading: LogReading, question: SyncPosition, after: bigint): boolean {
  const { state } = reading;
  if (question.epoch.length === 0) return true;
  if (!question.epoch.equals(state.epoch)) {
    if (reading.otherEpochs.get(question.epoch.toString('hex')) !== 'OVER') throw logChanged();
    return true;
  }
  if (question.applied > state.head) throw logChanged();
  if (question.applied > 0n) {
    const known =
      question.applied === state.head ? state.headEntryId : reading.entryIds.get(question.applied);
    if (known === undefined) return true;
    if (!known.equals(question.entryIdAtApplied)) throw logChanged();
  }
  return !isInReach(state, after);
}

function logChanged(): ServiceError {
  return new AuthError('LOG_CHANGED', 'the revocation log is not the one this instance has followed');
}
