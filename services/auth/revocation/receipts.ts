/** Receipts: which instances enforce a revocation already, and for how long a call waits to know it. */

import type { Clock, Timers } from '@portcullis/guard/clock';
import {
  type Committed,
  findOrAdd,
  type InstanceReceipt,
  keyOf,
  receiptOf,
  type Wait,
  type Watched,
} from './enforcement-watch.js';
import type { InstanceRecord } from './instance-records.js';
import { enforcementBoundMs, type SyncPosition } from './log.js';

/** How often a waiting call looks for what other replicas know, in milliseconds. */
const WAIT_POLL_MS = 25;

/** Maximum number of calls that wait for instances at once. */
export const WAITS_MAX = 100;

/** How often a record is shared within the length of a lease; a record that a call waits for is shared at once. */
export const SHARES_PER_LEASE = 5;

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
