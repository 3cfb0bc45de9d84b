/** How far the wall clock has risen above the monotonic clock: a sleep leaves its trace there, whatever is set back. */

/**
 * A fall of the difference between the clocks that is larger than this is a wall clock that was set back, in milliseconds.
 * A smaller one is jitter: one clock counts whole milliseconds, and the two are never read at the same moment.
 */
export const CLOCK_JITTER_MS = 10;

/**
 * Adds up the rises of (wall − monotonic) over all readings. The sum never falls, so that a wall clock that is set back does
 * not cancel a sleep, which the monotonic clock does not count.
 *
 * The readings are taken as legs that end where the wall clock was set back. Within a leg the largest rise counts, not the
 * sum of all: so jitter is counted once and not with every reading.
 */
export class ClockRises {
  /** The rises of the legs that have ended. */
  #endedMs = 0;
  /** The lowest and the highest difference in this leg, and the largest rise from a difference to a later one. */
  #lowestMs = Number.POSITIVE_INFINITY;
  #highestMs = Number.NEGATIVE_INFINITY;
  #riseMs = 0;

  /** Takes a reading of both clocks. @returns all rises up to now, in milliseconds */
  read(monotonicMs: number, wallMs: number): number {
    const differenceMs = wallMs - monotonicMs;
    if (differenceMs < this.#highestMs - CLOCK_JITTER_MS) {
      this.#endedMs += this.#riseMs;
      this.#riseMs = 0;
      this.#lowestMs = differenceMs;
      this.#highestMs = differenceMs;
    } else {
      if (differenceMs < this.#lowestMs) this.#lowestMs = differenceMs;
      else if (differenceMs - this.#lowestMs > this.#riseMs) this.#riseMs = differenceMs - this.#lowestMs;
      if (differenceMs > this.#highestMs) this.#highestMs = differenceMs;
    }
    return this.#endedMs + this.#riseMs;
  }
}
