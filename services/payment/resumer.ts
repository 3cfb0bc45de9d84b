/** The background task of every instance: it finishes or undoes abandoned payments. */

import { setTimeout as sleep } from 'node:timers/promises';

/** The pause after each round, in milliseconds. */
export const RESUME_INTERVAL_MS = 2_000;

interface ResumerDeps {
  /** Finishes or undoes abandoned payments; returns how many ended. */
  readonly resumeAbandoned: () => Promise<number>;
  readonly log: { warn(fields: object, message: string): void };
  readonly intervalMs?: number;
}

/** A loop that runs until it is stopped. */
export interface Resumer {
  /** Resolves when the round under way has ended. */
  stop(): Promise<void>;
}

/** Starts the first round at once, because the previous process may have abandoned payments. */
export function startResumer(deps: ResumerDeps): Resumer {
  const { resumeAbandoned, log, intervalMs = RESUME_INTERVAL_MS } = deps;
  const stopping = new AbortController();
  const { signal } = stopping;

  async function run(): Promise<void> {
    while (!signal.aborted) {
      // A round that ended payments may have left more for the next one.
      const ended = await resumeAbandoned().catch((error: unknown) => {
        log.warn({ err: error }, 'cannot look for abandoned payments');
        return 0;
      });
      if (ended === 0) await sleep(intervalMs, undefined, { signal }).catch(() => {});
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
