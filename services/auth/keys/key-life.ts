/** The life of keys: who signs next and when, by routine and in an emergency, and when a key is forgotten. */

import { type Clock, systemClock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { KeyPage, KeyPurpose, KeyRecord, RotationOutlook } from '../records/keys.js';
import { checkReason, enforcedEverywhereBy, enforcementBoundMs, KEEP_SECONDS } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import type { Keys } from './keys.js';
import { revokeKey } from './revoke-key.js';

/** For how long the next key is published before it signs by schedule, in seconds: others keep copies of the keys. */
export const NEXT_PUBLISHED_SECONDS_MIN = 1800;

/** How many days a key signs unless configured otherwise. */
export const KEY_ROTATION_DAYS_DEFAULT = 30;

/** Most keys of one purpose that are published at a time; instances refuse a set of more than 32. */
export const LIVE_KEYS_MAX = 30;

/** When to ask again while too many keys are published, in milliseconds. */
export const TOO_MANY_KEYS_RETRY_MS = 60_000;

const PURPOSES: readonly KeyPurpose[] = ['token', 'broadcast'];
const DAY_MS = 86_400_000;

/** The next key that has begun to sign. */
export interface Rotation {
  readonly signingKey: KeyRecord;
  readonly formerKey: KeyRecord;
  /** In an emergency: the place of the revocation in the log, and from when on it bites everywhere. */
  readonly revocation?: { readonly sequence: bigint; readonly enforcedEverywhereBy: Date };
}

/** Who wants which key rotated, how, and why. */
export interface RotateRequest {
  readonly purpose: KeyPurpose;
  readonly emergency: boolean;
  readonly reason: string;
  readonly actor: string;
  readonly requestId: string;
}

/** The life of this issuer's keys. */
export interface KeyLife {
  /** @throws ServiceError FIELD_INVALID */
  list(request: { pageSize: number; pageToken: string }): Promise<KeyPage>;
  /**
   * Lets the next key sign. In an emergency at once, and the former one is revoked in the same transaction; else
   * only when every instance can know the next one. The same request id rotates once.
   *
   * @throws ServiceError RATE_LIMITED when it is too early, FIELD_INVALID, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS,
   *   DEPENDENCY_UNAVAILABLE
   */
  rotate(request: RotateRequest): Promise<Rotation>;
  /** Since when the keys sign that sign now. */
  signingSince(): Promise<ReadonlyMap<KeyPurpose, Date>>;
  /** Makes what is missing, rotates what is due, forgets what is over. Any number of replicas may do so. */
  maintain(): Promise<void>;
}

/** What {@link createKeyLife} needs. */
export interface KeyLifeDeps {
  readonly store: AuthStore;
  readonly keys: Pick<Keys, 'replenish'>;
  /** How long a key signs. */
  readonly rotationDays: number;
  /** Called after the commit when a key has begun to sign. */
  readonly onRotated: (rotation: Rotation) => void;
  /** Called after the commit when another next key is to be made; it must not throw. */
  readonly onNextMissing: () => void;
  readonly clock?: Clock;
}

/** Makes what looks after the keys. */
export function createKeyLife(deps: KeyLifeDeps): KeyLife {
  const { store, keys, rotationDays, onRotated, onNextMissing, clock = systemClock } = deps;

  /** Rotates when the schedule says so; under the lock, so that of all replicas exactly one does. */
  const rotateWhenDue = async (purpose: KeyPurpose): Promise<void> => {
    const rotation = await store.transaction(async (tx) => {
      await tx.keys.lockMaking();
      const outlook = await tx.keys.outlook(purpose);
      if (!isDue(outlook, rotationDays * DAY_MS)) return undefined;
      const rotated = await rotateByRoutine(tx, purpose, outlook);
      await recordRotation(tx, rotated, { reason: 'by schedule', actor: 'auth' });
      return rotated;
    });
    if (rotation === undefined) return;
    onRotated(rotation);
    await keys.replenish();
  };

  return {
    list: (request) => store.transaction((tx) => tx.keys.list(request)),

    rotate: async (request) => {
      const { purpose, emergency, reason, actor } = request;
      checkReason(reason);
      const requestId = parseRequestId(request.requestId);
      // There must be a key to promote, and it may have been made by a replica that has died since.
      await keys.replenish();
      const payload = JSON.stringify([purpose, emergency, reason]);
      let isNew = false;
      const rotation = await store.transaction((tx) => {
        isNew = false;
        return tx.once({ subject: actor, method: 'RotateKey', requestId, payload }, async () => {
          isNew = true;
          await tx.keys.lockMaking();
          if (emergency) return await rotateInEmergency(tx, request, clock);
          const outlook = await tx.keys.outlook(purpose);
          demandReady(outlook);
          const rotated = await rotateByRoutine(tx, purpose, outlook);
          await recordRotation(tx, rotated, { reason, actor });
          return rotated;
        });
      });
      if (isNew) {
        onRotated(rotation);
        // Nobody waits for it: in an emergency the caller's own token dies, and the answer must come before.
        onNextMissing();
      }
      return rotation;
    },

    signingSince: () =>
      store.transaction(async (tx) => {
        const since = new Map<KeyPurpose, Date>();
        for (const purpose of PURPOSES) {
          const { signing } = await tx.keys.outlook(purpose);
          if (signing !== undefined) since.set(purpose, signing.signTime);
        }
        return since;
      }),

    maintain: async () => {
      await keys.replenish();
      for (const purpose of PURPOSES) await rotateWhenDue(purpose);
      await store.transaction(async (tx) => {
        await tx.keys.lockMaking();
        // The last token was signed before the key stopped, and lives no longer than any token may.
        await tx.keys.retireStopped(KEEP_SECONDS);
      });
    },
  };
}

/**
 * How long it takes until every instance that admits calls knows the next key, in milliseconds. An instance whose
 * lease was granted after the publication has it; every lease granted before is over by then.
 */
export function untilKnownMs(outlook: RotationOutlook): number {
  const { now, next, leaseMs, olderLeasesEndBy } = outlook;
  const boundMs = enforcementBoundMs(leaseMs);
  if (next?.publishTime === undefined) return boundMs;
  const knownMs = Math.max(next.publishTime.getTime() + boundMs, olderLeasesEndBy.getTime());
  return Math.max(0, knownMs - now.getTime());
}

/** Whether the schedule lets the next key sign: the present one has done so for long, and others know the next. */
export function isDue(outlook: RotationOutlook, rotationMs: number): boolean {
  const { now, signing, next, live } = outlook;
  if (signing === undefined || next?.publishTime === undefined || live >= LIVE_KEYS_MAX) return false;
  return (
    now.getTime() >= signing.signTime.getTime() + rotationMs &&
    now.getTime() >= next.publishTime.getTime() + NEXT_PUBLISHED_SECONDS_MIN * 1000 &&
    untilKnownMs(outlook) === 0
  );
}

function demandReady(outlook: RotationOutlook): void {
  if (outlook.live >= LIVE_KEYS_MAX) {
    throw new AuthError('RATE_LIMITED', 'too many former keys are still published', {
      retryAfterMs: TOO_MANY_KEYS_RETRY_MS,
    });
  }
  const retryAfterMs = Math.ceil(untilKnownMs(outlook));
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
  { purpose, reason, actor }: RotateRequest,
  clock: Clock,
): Promise<Rotation> {
  const { signing, next } = await tx.keys.outlook(purpose);
  if (signing === undefined || next === undefined) throw noKeyYet();
  const revocation = await revokeKey(tx.keys, signing.kid);
  const keys = { signingKey: await recordOf(tx, next.kid), formerKey: await recordOf(tx, signing.kid) };
  await recordRotation(tx, keys, { reason, actor, emergency: true });
  const startedMs = clock.monotonicMs();
  // Whoever hears of it asks at once, and is told of the next key, which may be known to few.
  const appended = await tx.revocations.append([{ ...revocation, reason, actor, acknowledge: true }]);
  const elapsedMs = COMMIT_MS_MAX + clock.monotonicMs() - startedMs;
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return {
    ...keys,
    // The answer is kept with the request, so it is made before the commit.
    revocation: {
      sequence: entry.sequence,
      enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs),
    },
  };
}

async function recordRotation(
  tx: AuthTransaction,
  { signingKey, formerKey }: Pick<Rotation, 'signingKey' | 'formerKey'>,
  { emergency = false, ...by }: { reason: string; actor: string; emergency?: boolean },
): Promise<void> {
  const { kid: keyId, purpose } = signingKey;
  const details = { purpose, formerKeyId: formerKey.kid, emergency };
  await tx.events.record({ ...by, type: 'key-rotated', subject: { keyId }, network: '', details });
  if (!emergency) return;
  const subject = { keyId: formerKey.kid };
  await tx.events.record({ ...by, type: 'key-revoked', subject, network: '', details: {} });
}

/** How long the commit of a rotation may take, in milliseconds. */
const COMMIT_MS_MAX = 1000;

async function recordOf(tx: AuthTransaction, kid: string): Promise<KeyRecord> {
  const record = await tx.keys.record(kid);
  if (record === undefined) throw new TypeError(`key ${kid} is gone`);
  return record;
}

function noKeyYet(): ServiceError {
  return new AuthError('DEPENDENCY_UNAVAILABLE', 'there is no next key yet', { retryAfterMs: 500 });
}
