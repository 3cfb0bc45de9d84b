/** What every instance does in the background: it expires reservations and forgets old requests. */

import { type ReservationStore, sweepReservations } from './reservations.js';

/** How long after one sweep the next begins. */
export const SWEEP_INTERVAL_MS = 1_000;
/** Old requests are forgotten with one sweep in this many. */
export const SWEEPS_PER_REQUEST_CLEANUP = 60;

/** What the sweeper needs of a store. */
export interface SweeperStore extends ReservationStore {
  /** Drops some of the requests that are too old to be repeated, and answers how many. */
  deleteOldRequests(): Promise<number>;
}

/** What the sweeper tells of. */
export interface SweeperLog {
  debug(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What {@link startSweeper} needs. */
export interface SweeperDeps {
  readonly store: SweeperStore;
  readonly log: SweeperLog;
}

/** A loop that runs until it is stopped. */
export interface Sweeper {
  /** Ends after the sweep under way. */
  stop(): Promise<void>;
}

/**
 * Begins to sweep. A failure is told to the log and waits for the next sweep: a reservation whose
 * time is up cannot be committed meanwhile, it only holds its units for longer.
 */
export function startSweeper({ store, log }: SweeperDeps): Sweeper {
  const stopping = new AbortController();

  async function sweep(count: number): Promise<void> {
    try {
      const expired = await sweepReservations({ store });
      if (expired > 0) log.debug({ expired }, 'reservations have expired');
      if (count % SWEEPS_PER_REQUEST_CLEANUP === 0) await store.deleteOldRequests();
    } catch (error) {
      log.warn({ err: error }, 'could not expire reservations');
    }
  }

  async function run(): Promise<void> {
    for (let count = 0; !stopping.signal.aborted; count += 1) {
      await sweep(count);
      await pause(stopping.signal);
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

function pause(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, SWEEP_INTERVAL_MS);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
