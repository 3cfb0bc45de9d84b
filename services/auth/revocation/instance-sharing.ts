/** Shares records with other replicas in batches, one batch at a time. */

import type { Clock, Timers } from '@portcullis/guard/clock';

/** Shares what is known under keys. */
export interface Sharing {
  /** Shares a key within this time, together with other keys. */
  within(key: string, ms: number): void;
  /** Shares all pending keys at once and waits for the result. */
  now(): Promise<void>;
  close(): Promise<void>;
}

/** Creates the sharing; `share` writes one batch. */
export function createSharing(options: {
  readonly share: (keys: readonly string[]) => Promise<void>;
  readonly clock: Clock;
  readonly timers: Timers;
}): Sharing {
  const { share, clock, timers } = options;
  const pending = new Set<string>();
  let planned: { readonly stop: () => void; readonly atMs: number } | undefined;
  let underWay = Promise.resolve();
  let closed = false;

  const shareBatch = async (): Promise<void> => {
    const keys = [...pending];
    pending.clear();
    if (keys.length === 0) return;
    try {
      await share(keys);
    } catch {
      // The next sync request of each instance makes its key pending again.
    }
  };
  const start = (): Promise<void> => {
    planned?.stop();
    planned = undefined;
    underWay = underWay.then(shareBatch);
    return underWay;
  };

  return {
    within: (key, ms) => {
      if (closed) return;
      pending.add(key);
      const atMs = clock.monotonicMs() + ms;
      if (planned !== undefined && planned.atMs <= atMs) return;
      planned?.stop();
      planned = { stop: timers.after(ms, () => void start()), atMs };
    },
    now: start,
    close: async () => {
      closed = true;
      planned?.stop();
      await underWay;
    },
  };
}
