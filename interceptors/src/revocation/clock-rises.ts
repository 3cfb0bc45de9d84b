/** How far the wall clock has risen above the monotonic clock. A sleep shows there, even if the wall clock is set back. */

/**
 * When the difference between the clocks falls by more than this, the wall clock was set back; in milliseconds. A smaller
 * fall is jitter: one clock counts whole milliseconds, and the two are not read at the same moment.
 */
export const CLOCK_JITTER_MS = 10;

/**
 * Sums the rises of (wall − monotonic) over all readings. The monotonic clock does not count a sleep, so a sleep is a rise.
 * The sum never falls, so setting the wall clock back does not cancel it.
 *
 * The readings are split into segments that end where the wall clock was set back. In each segment only the largest rise
 * counts, so that jitter is counted once and not with every reading. A set-back of up to {@link CLOCK_JITTER_MS} ends no
 * segment: a sleep that it hides stays uncounted, up to that length for each such pair within one lease.
 */
export class ClockRises {
  /** The sum of the rises of earlier segments. */
  #endedMs = 0;
  /** The lowest and highest difference in this segment, and the largest rise from a difference to a later one. */
  #lowestMs = Number.POSITIVE_INFINITY;
  #highestMs = Number.NEGATIVE_INFINITY;
  #riseMs = 0;

  /** Adds a reading of both clocks. @returns the sum of the rises, in milliseconds */
  read(monotonicMs: number, wallMs: number): number {
    const differenceMs = wallMs - monotonicMs;
    if (differenceMs < this.#highestMs - CLOCK_JITTER_MS) {
      this.#endedMs += this.#riseMs;
      this.#riseMs = 0;
      this.#lowestMs = differenceMs;
      this.#highestMs = differenceMs;
    }
    this.#lowestMs = Math.min(this.#lowestMs, differenceMs);
    this.#highestMs = Math.max(this.#highestMs, differenceMs);
    this.#riseMs = Math.max(this.#riseMs, differenceMs - this.#lowestMs);
    return this.#endedMs + this.#riseMs;
  }
}
