/** Receipts: which instances enforce a revocation already, and for how long a call waits to know it. */

import type { Clock, Timers } from '@portcullis/guard/clock';
import type { LogEntry } from '../records/revocations.js';
import type { InstanceRecord } from './instance-records.js';
import { enforcementBoundMs, type SyncPosition } from './log.js';

/** How often a waiting call looks for what other replicas know, in milliseconds. */
const WAIT_POLL_MS = 25;

/** Maximum number of calls that wait for instances at once. */
export const WAITS_MAX = 100;

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

/** Follows one revocation until a call has its receipt. */
export interface EnforcementWatch {
  /** A sync request arrived; what it acknowledges counts whatever the response will be. */
  requested(question: SyncPosition): void;
  /** A sync request was answered here, or another replica answered one. */
  answered(record: InstanceRecord): void;
  /**
   * How old the last request of an instance may be that can still hold a lease from before the commit, including the
   * time until other replicas share it, in milliseconds.
   */
  recordAgeMsMax(): number;
  isDone(wait: Wait): boolean;
  /** Waits until something is new or some time has passed. */
  pause(wait: Wait, signal: AbortSignal): Promise<void>;
  receipts(): InstanceReceipt[];
}

/** What a watch knows of one instance. */
interface Watched {
  readonly service: string;
  readonly instance: Buffer;
  /** Its last request before the commit, which bounds the lease that it may hold without the entry. */
  requestedBeforeMs: number;
  /** It sent a request after the commit, so its lease, if it has one, came with the entry. */
  requestedSince: boolean;
  enforcedAtMs: number | undefined;
}

/** Creates the watch of one revocation. */
export function createEnforcementWatch(
  committed: Committed,
  { clock, timers }: { readonly clock: Clock; readonly timers: Timers },
): EnforcementWatch {
  const { entry, committedAtMs, boundAtMs } = committed;
  const boundMs = enforcementBoundMs(committed.leaseMs);
  const watched = new Map<string, Watched>();
  let wake = (): void => {};

  const enforced = (one: Watched): void => {
    one.enforcedAtMs ??= clock.monotonicMs();
    wake();
  };
  const hasEntry = ({ seen }: Pick<SyncPosition, 'seen'>): boolean =>
    seen.some((id) => id.equals(entry.entryId));
  const mayEnforceLater = (one: Watched): boolean =>
    one.enforcedAtMs === undefined &&
    (one.requestedSince || clock.monotonicMs() < one.requestedBeforeMs + boundMs);

  return {
    requested: (question) => {
      const one = watched.get(keyOf(question));
      if (one !== undefined && hasEntry(question)) enforced(one);
    },
    answered: (record) => {
      const one = findOrAdd(watched, record, committedAtMs, boundMs);
      if (one === undefined) return;
      const isBefore = record.requestedAtMs <= committedAtMs;
      if (isBefore) one.requestedBeforeMs = Math.max(one.requestedBeforeMs, record.requestedAtMs);
      else one.requestedSince = true;
      // A request from before the commit with a place beyond it is about another log: the database was restored.
      const isSameLog = !isBefore && record.epoch.equals(committed.epoch);
      const hasApplied = isSameLog && record.applied >= entry.sequence;
      if (hasApplied || hasEntry(record)) enforced(one);
    },
    recordAgeMsMax: () =>
      boundMs + committed.leaseMs / SHARES_PER_LEASE + (clock.monotonicMs() - committedAtMs),
    isDone: (wait) => {
      if (clock.monotonicMs() >= boundAtMs) return true;
      return wait === 'KNOWN_INSTANCES' && ![...watched.values()].some(mayEnforceLater);
    },
    pause: async (wait, signal) => {
      const leftMs = Math.max(1, Math.ceil(boundAtMs - clock.monotonicMs()));
      const allEnforced = [...watched.values()].every((one) => one.enforcedAtMs !== undefined);
      // When every instance enforces it, only the bound is left to wait for.
      const pauseMs = wait === 'EVERYWHERE' && allEnforced ? leftMs : Math.min(leftMs, WAIT_POLL_MS);
      await new Promise<void>((resolve) => {
        const stop = timers.after(pauseMs, resolve);
        wake = () => {
          stop();
          resolve();
        };
        signal.addEventListener('abort', wake, { once: true });
        if (signal.aborted) wake();
      }).finally(() => signal.removeEventListener('abort', wake));
      wake = () => {};
    },
    receipts: () => [...watched.values()].map((one) => receiptOf(one, committedAtMs)),
  };
}

/** The instance of a record; undefined when its last lease was over before the commit. */
function findOrAdd(
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
