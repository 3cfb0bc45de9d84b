/** Clock, deadlines and polling. */

import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Milliseconds of the kernel's monotonic clock. All processes of one machine read the same clock, so timestamps of
 * different processes can be compared.
 */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/**
 * Polls a condition until it holds.
 *
 * @returns false when the condition did not hold within the timeout
 */
export async function holdsWithin(
  timeoutMs: number,
  pollMs: number,
  condition: () => boolean | Promise<boolean>,
): Promise<boolean> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) return false;
    await sleep(pollMs);
  }
  return true;
}

/**
 * Polls a condition until it holds.
 *
 * @param options.failure - the message of the error, as text or computed when the time is up
 * @throws Error when the condition did not hold within the timeout
 */
export async function waitUntil(
  condition: () => boolean | Promise<boolean>,
  options: {
    readonly timeoutMs: number;
    readonly pollMs: number;
    readonly failure: string | (() => string);
  },
): Promise<void> {
  const { timeoutMs, pollMs, failure } = options;
  if (await holdsWithin(timeoutMs, pollMs, condition)) return;
  throw new Error(typeof failure === 'string' ? failure : failure());
}
