/** Steps of a start that need a dependency: each is repeated until the dependency answers. */

import { setTimeout as sleep } from 'node:timers/promises';
import { ServiceError } from '@portcullis/guard/errors';
import type { Log } from './log.js';

/** Pause between two attempts, in milliseconds. */
const RETRY_MS = 250;

/** What passes by itself. */
const PASSING = new Set(['DEPENDENCY_UNAVAILABLE', 'RATE_LIMITED']);

/**
 * Runs a step until it succeeds or fails with something that does not pass by itself. One lost connection must not end a
 * process that starts.
 *
 * @throws the signal's reason when aborted; else what the step throws
 */
export async function untilAvailable<T>(
  step: () => Promise<T>,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Pick<Log, 'warn'> },
): Promise<T> {
  for (let isLogged = false; ; isLogged = true) {
    signal.throwIfAborted();
    try {
      return await step();
    } catch (error) {
      if (!(error instanceof ServiceError) || !PASSING.has(error.code)) throw error;
      if (!isLogged) log.warn({ err: error }, 'a step of the start failed; it is repeated until it succeeds');
    }
    await sleep(RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}
