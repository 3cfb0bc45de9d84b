/** What a waiting call knows of the instances, and how sync requests change it. Without I/O: times go in as numbers. */

import type { LogEntry } from '../records/revocations.js';
import type { InstanceRecord } from './instance-records.js';
import { enforcementBoundMs, type SyncPosition } from './log.js';

/** How often a record is shared within the length of a lease; a record that a call waits for is shared at once. */
export const SHARES_PER_LEASE = 5;

/** Whether an instance enforces a revocation, as far as auth knows. */
type EnforcementState = 'ENFORCED' | 'PENDING' | 'UNKNOWN';

/** What is known of a revocation at one instance. */
export interface InstanceReceipt {
  readonly service: string;
  readonly instance: Buffer;
  readonly state: EnforcementState;
  /** From the commit until auth knew of the enforcement, in milliseconds; 0 unless ENFORCED. */
  readonly milliseconds: number;
}

/** What a call waits for. */
export type Wait = 'NONE' | InstanceWait | 'FENCED';

/** What a call waits for that waits for instances. */
export type InstanceWait = 'KNOWN_INSTANCES' | 'EVERYWHERE';

/** A committed revocation whose enforcement a call follows. */
export interface Committed {
  readonly epoch: Buffer;
  readonly entry: Pick<LogEntry, 'entryId' | 'sequence'>;
  /** Monotonic time at which the commit was confirmed. */
  readonly committedAtMs: number;
  /** The longest lease that may have been granted before the commit. */
  readonly leaseMs: number;
  /** Monotonic time from which on no instance admits what was revoked. */
  readonly boundAtMs: number;
}

/** What a watch knows of one instance. */
interface Watched {
  readonly service: string;
  readonly instance: Buffer;
  /**
   * Its last request before the commit that is known, which bounds the lease that it may hold without the entry; −∞ when
   * none is known.
   */
  requestedBeforeMs: number;
  /**
   * It sent a request after the commit, so it will acknowledge the entry soon. It is waited for, because that request may
   * have overwritten the record of an earlier one, whose lease it may still hold.
   */
  requestedSince: boolean;
  enforcedAtMs: number | undefined;
}

/** What a waiting call knows. It changes only through the functions below. */
export interface Watch {
  readonly committed: Committed;
  /** By service and instance id. */
  readonly instances: Map<string, Watched>;
}

export function beginWatch(committed: Committed): Watch {
  return { committed, instances: new Map() };
}

/**
 * A sync request arrived; what it acknowledges counts whatever the response will be.
 *
 * @returns whether it acknowledges the entry
 */
export function noteRequest(watch: Watch, question: SyncPosition, nowMs: number): boolean {
  const one = watch.instances.get(keyOf(question));
  if (one === undefined || !hasEntry(watch, question)) return false;
  one.enforcedAtMs ??= nowMs;
  return true;
}

/**
 * A sync request was answered here, or another replica answered one.
 *
 * @returns whether the instance has the entry
 */
export function noteRecord(watch: Watch, record: InstanceRecord, nowMs: number): boolean {
  const { committed } = watch;
  const one = findOrAdd(watch, record);
  if (one === undefined) return false;
  const isBefore = record.requestedAtMs <= committed.committedAtMs;
  if (isBefore) one.requestedBeforeMs = Math.max(one.requestedBeforeMs, record.requestedAtMs);
  else one.requestedSince = true;
  // A place beyond the entry that was named before the commit is about another log: the database was restored. So is one that
  // an earlier request had named, although the last one came after the commit.
  const isComparedSince = !isBefore && record.comparedAtMs > committed.committedAtMs;
  const isSameLog = isComparedSince && record.epoch.equals(committed.epoch);
  const hasApplied = isSameLog && record.applied >= committed.entry.sequence;
  if (!hasApplied && !hasEntry(watch, record)) return false;
  one.enforcedAtMs ??= nowMs;
  return true;
}

/**
 * How old the last request of an instance may be that can still hold a lease from before the commit, including the time
 * until other replicas share it, in milliseconds.
 */
export function recordAgeMsMax({ committed }: Watch, nowMs: number): number {
  const { leaseMs, committedAtMs } = committed;
  return enforcementBoundMs(leaseMs) + leaseMs / SHARES_PER_LEASE + (nowMs - committedAtMs);
}

/** Whether there is nothing left to wait for. */
export function isDone({ committed, instances }: Watch, wait: InstanceWait, nowMs: number): boolean {
  if (nowMs >= committed.boundAtMs) return true;
  const boundMs = enforcementBoundMs(committed.leaseMs);
  const mayEnforceLater = (one: Watched): boolean =>
    one.enforcedAtMs === undefined && (one.requestedSince || nowMs < one.requestedBeforeMs + boundMs);
  return wait === 'KNOWN_INSTANCES' && ![...instances.values()].some(mayEnforceLater);
}

export function isEnforcedByAll({ instances }: Watch): boolean {
  return [...instances.values()].every((one) => one.enforcedAtMs !== undefined);
}

export function receiptsOf({ committed, instances }: Watch): InstanceReceipt[] {
  return [...instances.values()].map((one) => receiptOf(one, committed.committedAtMs));
}

function hasEntry({ committed }: Watch, { seen }: Pick<SyncPosition, 'seen'>): boolean {
  return seen.some((id) => id.equals(committed.entry.entryId));
}

/** The instance of a record; undefined when its last lease was over before the commit. */
function findOrAdd(
  { committed, instances }: Watch,
  { service, instance, requestedAtMs }: InstanceRecord,
): Watched | undefined {
  const { committedAtMs, leaseMs } = committed;
  const key = keyOf({ service, instance });
  const known = instances.get(key);
  if (known !== undefined) return known;
  const isBefore = requestedAtMs <= committedAtMs;
  if (isBefore && requestedAtMs + enforcementBoundMs(leaseMs) <= committedAtMs) return undefined;
  const added: Watched = {
    service,
    instance,
    requestedBeforeMs: isBefore ? requestedAtMs : Number.NEGATIVE_INFINITY,
    requestedSince: false,
    enforcedAtMs: undefined,
  };
  instances.set(key, added);
  return added;
}

/** With the service, because replicas do not share which service an instance id belongs to. */
function keyOf({ service, instance }: Pick<SyncPosition, 'service' | 'instance'>): string {
  return `${service} ${instance.toString('hex')}`;
}

function receiptOf(
  { service, instance, requestedSince, enforcedAtMs }: Watched,
  committedAtMs: number,
): InstanceReceipt {
  if (enforcedAtMs === undefined) {
    return { service, instance, state: requestedSince ? 'PENDING' : 'UNKNOWN', milliseconds: 0 };
  }
  const milliseconds = Math.max(1, Math.ceil(enforcedAtMs - committedAtMs));
  return { service, instance, state: 'ENFORCED', milliseconds };
}
