/** The life of keys: rotation by schedule and in an emergency, and retirement. */

import { type Clock, systemClock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { KeyPage, KeyPurpose, KeyRecord, RotationOutlook } from '../records/keys.js';
import {
  checkReason,
  enforcedEverywhereBy,
  enforcementBoundMs,
  KEEP_SECONDS_MAX,
} from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import type { Keys } from './keys.js';
import { revokeKey } from './revoke-key.js';

/** Shortest time for which the next key is published before it signs by schedule, in seconds: verifiers cache keys. */
export const NEXT_PUBLISHED_SECONDS_MIN = 1800;

/** Default time for which a key signs, in days. */
export const KEY_ROTATION_DAYS_DEFAULT = 30;

/** Maximum number of keys of one purpose that are published at a time; instances refuse a set of more than 32. */
export const LIVE_KEYS_MAX = 30;

/** When a caller should retry while too many keys are published, in milliseconds. */
const TOO_MANY_KEYS_RETRY_MS = 60_000;

const PURPOSES: readonly KeyPurpose[] = ['token', 'broadcast', 'receipt'];
const DAY_MS = 86_400_000;

/** The result of a rotation. */
export interface Rotation {
  readonly signingKey: KeyRecord;
  readonly formerKey: KeyRecord;
  /** In an emergency: the sequence of the revocation, and the time from which on it is enforced everywhere. */
  readonly revocation?: { readonly sequence: bigint; readonly enforcedEverywhereBy: Date };
}

/** A request to rotate a key. */
interface RotateRequest {
  readonly purpose: KeyPurpose;
  readonly emergency: boolean;
  readonly reason: string;
  readonly actor: string;
  /** The network of the administrator, for the security event. */
  readonly network?: string;
  readonly requestId: string;
}

/** The life of this issuer's keys. */
export interface KeyLife {
  /** @throws ServiceError FIELD_INVALID */
  list(request: { pageSize: number; pageToken: string }): Promise<KeyPage>;
  /**
   * Lets the next key sign. An emergency does so at once, and revokes the former key in the same transaction. A routine
   * rotation waits until every instance can know the next key. The same request id rotates once.
   *
   * @throws ServiceError RATE_LIMITED when it is too early, FIELD_INVALID, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS,
   *   DEPENDENCY_UNAVAILABLE
   */
  rotate(request: RotateRequest): Promise<Rotation>;
  /** Since when the present keys sign. */
  signingSince(): Promise<ReadonlyMap<KeyPurpose, Date>>;
  /** Creates missing keys, rotates keys that are due, and retires old ones. Any number of replicas may do so at once. */
  maintain(): Promise<void>;
}

export interface KeyLifeDeps {
  readonly store: AuthStore;
  readonly keys: Pick<Keys, 'replenish'>;
  /** How long a key signs, in days. */
  readonly rotationDays: number;
  /** Called after the commit when a key has begun to sign. */
  readonly onRotated: (rotation: Rotation) => void;
  /** Called after the commit when another next key is needed; it must not throw. */
  readonly onNextMissing: () => void;
  readonly clock?: Clock;
}

/** Creates the operations on the life of keys. */
export function createKeyLife(deps: KeyLifeDeps): KeyLife {
  const { store } = deps;
  return {
    list: (request) => store.transaction((tx) => tx.keys.list(request)),
    rotate: (request) => rotate(deps, request),
    signingSince: () => store.transaction(signingSince),
    maintain: () => maintain(deps),
  };
}

async function rotate(deps: KeyLifeDeps, request: RotateRequest): Promise<Rotation> {
  const { store, keys, onRotated, onNextMissing, clock = systemClock } = deps;
  const { purpose, emergency, reason, actor } = request;
  checkReason(reason);
  const requestId = parseRequestId(request.requestId);
  // There must be a next key: the replica that should have created it may have stopped.
  await keys.replenish();
  const payload = JSON.stringify([purpose, emergency, reason]);
  let isNew = false;
  const rotation = await store.transaction((tx) => {
    isNew = false;
    return tx.once({ subject: actor, method: 'RotateKey', requestId, payload }, async () => {
      isNew = true;
      await tx.keys.lockCreation();
      if (emergency) return await rotateInEmergency(tx, request, clock);
      const rotationOutlook = await tx.keys.rotationOutlook(purpose);
      demandReady(rotationOutlook);
      const rotated = await rotateByRoutine(tx, purpose, rotationOutlook);
      await recordRotation(tx, rotated, { reason, actor, network: request.network, requestId });
      return rotated;
    });
  });
  if (isNew) {
    onRotated(rotation);
    // In the background: an emergency revokes the caller's own token, and the response must come before.
    onNextMissing();
  }
  return rotation;
}

async function signingSince(tx: AuthTransaction): Promise<ReadonlyMap<KeyPurpose, Date>> {
  const since = new Map<KeyPurpose, Date>();
  for (const purpose of PURPOSES) {
    const { signing } = await tx.keys.rotationOutlook(purpose);
    if (signing !== undefined) since.set(purpose, signing.signTime);
  }
  return since;
}

async function maintain(deps: KeyLifeDeps): Promise<void> {
  const { store, keys } = deps;
  await keys.replenish();
  for (const purpose of PURPOSES) await rotateWhenDue(deps, purpose);
  await store.transaction(async (tx) => {
    await tx.keys.lockCreation();
    // The last token was signed before the key stopped, and has the maximum lifetime of any token at most.
    await tx.keys.retireStopped(KEEP_SECONDS_MAX);
  });
}

/** Rotates when the schedule says so, under the lock, so that exactly one replica does. */
async function rotateWhenDue(
  { store, keys, rotationDays, onRotated }: KeyLifeDeps,
  purpose: KeyPurpose,
): Promise<void> {
  const rotation = await store.transaction(async (tx) => {
    await tx.keys.lockCreation();
    const rotationOutlook = await tx.keys.rotationOutlook(purpose);
    if (!isDue(rotationOutlook, rotationDays * DAY_MS)) return undefined;
    const rotated = await rotateByRoutine(tx, purpose, rotationOutlook);
    await recordRotation(tx, rotated, { reason: 'by schedule', actor: 'auth' });
    return rotated;
  });
  if (rotation === undefined) return;
  onRotated(rotation);
  await keys.replenish();
}

/**
 * The time until every instance that admits calls knows the next key, in milliseconds. An instance whose lease was
 * granted after the publication has the key, and every earlier lease is over by then.
 */
export function untilKnownMs(rotationOutlook: RotationOutlook): number {
  const { now, next, leaseMs, olderLeasesEndBy } = rotationOutlook;
  const boundMs = enforcementBoundMs(leaseMs);
  if (next?.publishTime === undefined) return boundMs;
  const knownMs = Math.max(next.publishTime.getTime() + boundMs, olderLeasesEndBy.getTime());
  return Math.max(0, knownMs - now.getTime());
}

/** Whether the next key is due: the present one has signed long enough, and verifiers know the next one. */
export function isDue(rotationOutlook: RotationOutlook, rotationMs: number): boolean {
  const { now, signing, next, live } = rotationOutlook;
  if (signing === undefined || next?.publishTime === undefined || live >= LIVE_KEYS_MAX) return false;
  return (
    now.getTime() >= signing.signTime.getTime() + rotationMs &&
    now.getTime() >= next.publishTime.getTime() + NEXT_PUBLISHED_SECONDS_MIN * 1000 &&
    untilKnownMs(rotationOutlook) === 0
  );
}

function demandReady(rotationOutlook: RotationOutlook): void {
  if (rotationOutlook.live >= LIVE_KEYS_MAX) {
    throw new AuthError('RATE_LIMITED', 'too many former keys are still published', {
      retryAfterMs: TOO_MANY_KEYS_RETRY_MS,
    });
  }
  const retryAfterMs = Math.ceil(untilKnownMs(rotationOutlook));
  if (retryAfterMs === 0) return;
  throw new AuthError('RATE_LIMITED', 'not every instance can know the next key yet', { retryAfterMs });
}

async function rotateByRoutine(
  tx: AuthTransaction,
  purpose: KeyPurpose,
  { signing, next }: RotationOutlook,
): Promise<Rotation> {
  if (signing === undefined || next === undefined) throw noKeyYet();
  await tx.keys.stopSigning(purpose);
  await tx.keys.promoteNext(purpose);
  return { signingKey: await recordOf(tx, next.kid), formerKey: await recordOf(tx, signing.kid) };
}

async function rotateInEmergency(
  tx: AuthTransaction,
  { purpose, reason, actor, network = '', requestId }: RotateRequest,
  clock: Clock,
): Promise<Rotation> {
  const { signing, next } = await tx.keys.rotationOutlook(purpose);
  if (signing === undefined || next === undefined) throw noKeyYet();
  const revocation = await revokeKey(tx.keys, signing.kid);
  const keys = { signingKey: await recordOf(tx, next.kid), formerKey: await recordOf(tx, signing.kid) };
  await recordRotation(tx, keys, { reason, actor, network, requestId, emergency: true });
  const startedMs = clock.monotonicMs();
  // An instance that receives it must sync at once, to learn the next key, which few instances may know.
  const appended = await tx.revocations.append([
    { ...revocation, reason, actor, network, requestId, acknowledge: true },
  ]);
  const elapsedMs = COMMIT_MS_MAX + clock.monotonicMs() - startedMs;
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return {
    ...keys,
    // The answer is stored with the request, so it is written before the commit.
    revocation: {
      sequence: entry.sequence,
      enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs),
    },
  };
}

async function recordRotation(
  tx: AuthTransaction,
  { signingKey, formerKey }: Pick<Rotation, 'signingKey' | 'formerKey'>,
  {
    emergency = false,
    reason,
    actor,
    network = '',
    requestId,
  }: Pick<RotateRequest, 'reason' | 'actor'> & {
    readonly network?: string | undefined;
    readonly requestId?: string | undefined;
    readonly emergency?: boolean;
  },
): Promise<void> {
  const { kid: keyId, purpose } = signingKey;
  const details = { purpose, formerKeyId: formerKey.kid, emergency };
  const by = { reason, actor, network, requestId };
  await tx.events.record({ ...by, type: 'key-rotated', subject: { keyId }, details });
  if (!emergency) return;
  const subject = { keyId: formerKey.kid };
  await tx.events.record({ ...by, type: 'key-revoked', subject, details: {} });
}

/** Longest commit that the stored answer allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

async function recordOf(tx: AuthTransaction, kid: string): Promise<KeyRecord> {
  const record = await tx.keys.record(kid);
  if (record === undefined) throw new TypeError(`key ${kid} is gone`);
  return record;
}

function noKeyYet(): ServiceError {
  return new AuthError('DEPENDENCY_UNAVAILABLE', 'there is no next key yet', { retryAfterMs: 500 });
}
