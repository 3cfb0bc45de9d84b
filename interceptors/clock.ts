/** Time, as a dependency: the only file that reads the machine's clocks. */

/** The two clocks of a process. */
export interface Clock {
  /** Milliseconds since the Unix epoch; may be set forward and back by an operator. */
  wallMs(): number;
  /** Milliseconds since an arbitrary start; never goes back, does not count a machine's sleep. */
  monotonicMs(): number;
}

/** The clocks of this machine. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};
