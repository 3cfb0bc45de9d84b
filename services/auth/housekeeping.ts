/** What has to be done now and then, whether anybody calls or not. */

/** The pause between two rounds, in milliseconds. */
export const HOUSEKEEPING_INTERVAL_MS = 60_000;

/** Where it is told when something could not be done. */
export interface HousekeepingLog {
  warn(fields: object, message: string): void;
}

/** Runs the chores in rounds; each goes on when another one fails. */
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
      await run().catch((error: unknown) => log.warn({ chore, err: error }, 'a chore failed'));
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
