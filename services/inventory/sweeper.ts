/** The background task of every instance: it expires reservations and deletes old requests. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Reservations } from './reservations.js';

/** The pause after each sweep, in milliseconds. */
export const SWEEP_INTERVAL_MS = 1_000;
/** One sweep in this many deletes old requests. */
const SWEEPS_PER_REQUEST_CLEANUP = 60;

/** Stores requests, so that they can be repeated. */
export interface RequestStore {
  /** Deletes some of the requests that are too old to be repeated; returns how many. */
  deleteOldRequests(): Promise<number>;
}

interface SweeperLog {
  debug(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface SweeperDeps {
  readonly reservations: Pick<Reservations, 'sweep'>;
  readonly store: RequestStore;
  readonly log: SweeperLog;
}

/** A loop that runs until it is stopped. */
export interface Sweeper {
  /** Resolves when the sweep under way has ended. */
  stop(): Promise<void>;
}

/**
 * Starts the first sweep at once. A failure is logged, and the next sweep tries again. Meanwhile an expired reservation
 * cannot be committed; it only keeps its units reserved for longer.
 */
export function startSweeper({ reservations, store, log }: SweeperDeps): Sweeper {
  const stopping = new AbortController();
  const { signal } = stopping;

  async function sweep(count: number): Promise<void> {
    try {
      const expired = await reservations.sweep();
      if (expired > 0) log.debug({ expired }, 'reservations have expired');
      if (count % SWEEPS_PER_REQUEST_CLEANUP === 0) await store.deleteOldRequests();
    } catch (error) {
      log.warn({ err: error }, 'cannot expire reservations or delete old requests');
    }
  }

  async function run(): Promise<void> {
    for (let count = 0; !signal.aborted; count += 1) {
      await sweep(count);
      await sleep(SWEEP_INTERVAL_MS, undefined, { signal }).catch(() => {});
    }
  }

  const running = run();
  return {
    stop: async () => {
      stopping.abort();
      await running;
    },
  };
}
