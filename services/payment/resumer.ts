/** What every instance does in the background: it finishes or undoes payments that were left behind. */

/** How long after one round the next begins. */
export const RESUME_INTERVAL_MS = 2_000;

/** What the resumer needs. */
export interface ResumerDeps {
  /** Finishes or undoes what was left behind; returns how many payments came to an end. */
  readonly resumeAbandoned: () => Promise<number>;
  readonly log: { warn(fields: object, message: string): void };
  readonly intervalMs?: number;
}

/** A loop that runs until it is stopped. */
export interface Resumer {
  /** Ends after the round under way. */
  stop(): Promise<void>;
}

/** Begins at once, because a payment may have been left behind by the process that was here before. */
export function startResumer(deps: ResumerDeps): Resumer {
  const { resumeAbandoned, log, intervalMs = RESUME_INTERVAL_MS } = deps;
  const stopping = new AbortController();

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      // A round that brought something to an end may have left more for the next one.
      const ended = await resumeAbandoned().catch((error: unknown) => {
        log.warn({ err: error }, 'could not look for payments that were left behind');
        return 0;
      });
      if (ended === 0) await pause(intervalMs, stopping.signal);
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

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, durationMs);
    signal.addEventListener('abort', end);
    if (signal.aborted) end();
  });
}
