/** Waits for events, so that no test waits for a time in which something has probably happened. */

import { setTimeout as sleep } from 'node:timers/promises';

/** Long enough for a loaded machine, shorter than mocha's timeout, so that the failure names the condition. */
const WITHIN_MS_DEFAULT = 45_000;
const POLL_MS_DEFAULT = 5;

/** Limits of one wait. */
export interface WaitOptions {
  /** Default 45,000. */
  readonly withinMs?: number;
  /** The pause between two checks, in milliseconds; default 5. */
  readonly pollMs?: number;
}

/**
 * Waits until a condition holds.
 *
 * @throws Error with the source text of the condition when it does not hold in time
 */
export async function until(
  holds: () => boolean | Promise<boolean>,
  { withinMs = WITHIN_MS_DEFAULT, pollMs = POLL_MS_DEFAULT }: WaitOptions = {},
): Promise<void> {
  const startedMs = performance.now();
  while (!(await holds())) {
    if (performance.now() - startedMs > withinMs) throw new Error(`not so after ${withinMs} ms: ${holds}`);
    await sleep(pollMs);
  }
}
