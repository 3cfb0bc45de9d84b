/** What a waiting call knows of the instances, and how sync requests change it. Without I/O: times go in as numbers. */

import type { LogEntry } from '../records/revocations.js';
import type { InstanceRecord } from './instance-records.js';
import type { SyncPosition } from './log.js';

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
export type Wait = 'NONE' | 'KNOWN_INSTANCES' | 'EVERYWHERE';

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
export interface Watched {
  readonly service: string;
  readonly instance: Buffer;
  /** Its last request before the commit, which bounds the lease that it may hold without the entry. */
  requestedBeforeMs: number;
  /** It sent a request after the commit, so its lease, if it has one, came with the entry. */
  requestedSince: boolean;
  enforcedAtMs: number | undefined;
}

/** The instance of a record; undefined when its last lease was over before the commit. */
export function findOrAdd(
  watched: Map<string, Watched>,
  { service, instance, requestedAtMs }: InstanceRecord,
  committedAtMs: number,
  boundMs: number,
): Watched | undefined {
  const key = keyOf({ service, instance });
  const known = watched.get(key);
  if (known !== undefined) return known;
  const isBefore = requestedAtMs <= committedAtMs;
  if (isBefore && requestedAtMs + boundMs <= committedAtMs) return undefined;
  const added: Watched = {
    service,
    instance,
    // A later request may have overwritten an earlier one, whose lease the instance may still hold.
    requestedBeforeMs: isBefore ? requestedAtMs : committedAtMs,
    requestedSince: false,
    enforcedAtMs: undefined,
  };
  watched.set(key, added);
  return added;
}

/** With the service, because replicas do not share which service an instance id belongs to. */
export function keyOf({ service, instance }: Pick<SyncPosition, 'service' | 'instance'>): string {
  return `${service} ${instance.toString('hex')}`;
}

export function receiptOf(
  { service, instance, requestedSince, enforcedAtMs }: Watched,
  committedAtMs: number,
): InstanceReceipt {
  if (enforcedAtMs === undefined) {
    return { service, instance, state: requestedSince ? 'PENDING' : 'UNKNOWN', milliseconds: 0 };
  }
  const milliseconds = Math.max(1, Math.ceil(enforcedAtMs - committedAtMs));
  return { service, instance, state: 'ENFORCED', milliseconds };
}
