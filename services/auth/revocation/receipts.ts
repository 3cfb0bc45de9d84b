/** Waiting for receipts: the clock and the timers around what a waiting call knows of the instances. */

import type { Clock, Timers } from '@portcullis/guard/clock';
import {
  beginWatch,
  type Committed,
  type InstanceReceipt,
  type InstanceWait,
  isDone,
  isEnforcedByAll,
  noteRecord,
  noteRequest,
  receiptsOf,
  recordAgeMsMax,
} from './enforcement-watch.js';
import type { InstanceRecord } from './instance-records.js';
import type { SyncPosition } from './log.js';

/** How often a waiting call looks for what other replicas know, in milliseconds. */
const WAIT_POLL_MS = 25;

/** Maximum number of calls that wait for instances at once. */
export const WAITS_MAX = 100;

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
  isDone(wait: InstanceWait): boolean;
  /** Waits until something is new or some time has passed. */
  pause(wait: InstanceWait, signal: AbortSignal): Promise<void>;
  receipts(): InstanceReceipt[];
}

/** Creates the watch of one revocation. */
export function createEnforcementWatch(
  committed: Committed,
  { clock, timers }: { readonly clock: Clock; readonly timers: Timers },
): EnforcementWatch {
  const watch = beginWatch(committed);
  let wake = (): void => {};
  return {
    requested: (question) => {
      if (noteRequest(watch, question, clock.monotonicMs())) wake();
    },
    answered: (record) => {
      if (noteRecord(watch, record, clock.monotonicMs())) wake();
    },
    recordAgeMsMax: () => recordAgeMsMax(watch, clock.monotonicMs()),
    isDone: (wait) => isDone(watch, wait, clock.monotonicMs()),
    pause: async (wait, signal) => {
      const leftMs = Math.max(1, Math.ceil(committed.boundAtMs - clock.monotonicMs()));
      // When every instance enforces it, only the bound is left to wait for.
      const pauseMs =
        wait === 'EVERYWHERE' && isEnforcedByAll(watch) ? leftMs : Math.min(leftMs, WAIT_POLL_MS);
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
    receipts: () => receiptsOf(watch),
  };
}
