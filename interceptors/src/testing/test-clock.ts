/** The clock of the kit: the machine's clocks, which a test sets forward. */

import { type Clock, systemClock } from '../clock.js';

/** A clock that runs, and that can be set forward. */
export class TestClock implements Clock {
  #wallAheadMs = 0;
  #monotonicAheadMs = 0;

  wallMs(): number {
    return systemClock.wallMs() + this.#wallAheadMs;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs() + this.#monotonicAheadMs;
  }

  /** Sets both clocks forward, as time does. */
  pass(ms: number): void {
    this.#wallAheadMs += ms;
    this.#monotonicAheadMs += ms;
  }

  /** Sets the monotonic clock forward: leases run out, and no token expires. */
  passMonotonic(ms: number): void {
    this.#monotonicAheadMs += ms;
  }
}
