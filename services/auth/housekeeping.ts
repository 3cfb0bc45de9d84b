/** Periodic work that does not depend on calls. */

/** Default pause between two rounds, in milliseconds. */
const HOUSEKEEPING_INTERVAL_MS = 60_000;

interface HousekeepingLog {
  warn(fields: object, message: string): void;
}

/** Runs all chores in rounds. A failed chore is logged and does not stop the others. */
export function startHousekeeping(options: {
  readonly chores: { readonly [name: string]: () => Promise<unknown> };
  readonly log: HousekeepingLog;
  readonly intervalMs?: number;
}): { stop(): Promise<void> } {
  const { chores, log, intervalMs = HOUSEKEEPING_INTERVAL_MS } = options;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let round = Promise.resolve();

  const work = async (): Promise<void> => {
    for (const [chore, run] of Object.entries(chores)) {
      if (stopped) return;
      await run().catch((error: unknown) =>
        log.warn({ chore, err: error }, 'a housekeeping task failed; it runs again in the next round'),
      );
    }
    plan();
  };
  const plan = (): void => {
    if (stopped) return;
    timer = setTimeout(() => {
      round = work();
    }, intervalMs).unref();
  };
  plan();

  return {
    stop: async () => {
      stopped = true;
      clearTimeout(timer);
      await round;
    },
  };
}
