/** Warnings that callers can cause: one line a second at most. */

import type { Clock } from '@portcullis/guard/clock';
import type { EventLog } from './event-recorder.js';

/** Minimum time between two lines, in milliseconds. */
const WARNING_INTERVAL_MS = 1000;

/** Creates a function that logs a warning; the next line states the number of those it has left out. */
export function createSampledWarning(log: EventLog, clock: Clock): EventLog['warn'] {
  let nextMs = Number.NEGATIVE_INFINITY;
  let omitted = 0;
  return (fields, message) => {
    const now = clock.monotonicMs();
    if (now < nextMs) {
      omitted += 1;
      return;
    }
    log.warn(omitted > 0 ? { ...fields, omitted } : fields, message);
    nextMs = now + WARNING_INTERVAL_MS;
    omitted = 0;
  };
}
