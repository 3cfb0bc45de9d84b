/** Time, as a dependency: the only file that reads the machine's clocks, and the one whose timers the protocol uses. */

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

/** Work for later. None of it keeps a process alive. */
export interface Timers {
  /** Does the work once, after so many milliseconds. @returns a function that prevents it */
  after(ms: number, work: () => void): () => void;
  /** Does the work once others have had their turn. */
  soon(work: () => void): void;
}

/** The timers of this process. */
export const systemTimers: Timers = {
  after: (ms, work) => {
    const timer = setTimeout(work, ms).unref();
    return () => clearTimeout(timer);
  },
  soon: (work) => void setImmediate(work),
};
