/** A clock that a test controls. */

import type { Clock } from '@portcullis/guard/clock';

/** The machine's clocks, which a test can set forward. */
export class MovableClock implements Clock {
  #aheadMs = 0;

  wallMs(): number {
    return Date.now() + this.#aheadMs;
  }

  monotonicMs(): number {
    return performance.now() + this.#aheadMs;
  }

  /** Sets both clocks forward. */
  pass(ms: number): void {
    this.#aheadMs += ms;
  }
}
