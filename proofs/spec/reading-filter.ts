/** Decides which steps a trace must contain: the clocks are read with every call, and most readings change nothing. */

import { CLOCK_JITTER_MS } from './clock-rows.js';
import type { Step } from './steps.js';

/** A reading that changes nothing is recorded at most once in this time, in milliseconds. */
const UNCHANGED_INTERVAL_MS = 100;

/**
 * A filter for the steps of one feed. It leaves out readings of the lease that change neither the sum of rises nor whether
 * the lease runs. If it left out one that matters, the lease of a later step would differ from the tables.
 */
export function createReadingFilter(): (step: Step) => boolean {
  let lowestMs = Number.POSITIVE_INFINITY;
  let highestMs = Number.NEGATIVE_INFINITY;
  let riseMs = 0;
  let recordedMs = Number.NEGATIVE_INFINITY;
  let wasRunning = false;

  const changes = (differenceMs: number): boolean => {
    if (differenceMs < highestMs - CLOCK_JITTER_MS) {
      lowestMs = differenceMs;
      highestMs = differenceMs;
      riseMs = 0;
      return true;
    }
    const isNew = differenceMs < lowestMs || differenceMs > highestMs || differenceMs - lowestMs > riseMs;
    lowestMs = Math.min(lowestMs, differenceMs);
    highestMs = Math.max(highestMs, differenceMs);
    riseMs = Math.max(riseMs, differenceMs - lowestMs);
    return isNew;
  };

  return (step) => {
    if (step.do !== 'ask' && step.do !== 'lease') return true;
    const [monotonicMs, wallMs] = step.at;
    const isNew = changes(wallMs - monotonicMs);
    if (step.do === 'ask') return true;
    const isRunning = step.expect > 0;
    if (!isNew && isRunning === wasRunning && monotonicMs < recordedMs + UNCHANGED_INTERVAL_MS) return false;
    wasRunning = isRunning;
    recordedMs = monotonicMs;
    return true;
  };
}
