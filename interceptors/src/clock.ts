/** Clocks and timers as a dependency. The only file that reads the machine's clocks. */

/** The two clocks of a process. */
export interface Clock {
  /** Milliseconds since the Unix epoch. An operator may set it forward or back. */
  wallMs(): number;
  /** Milliseconds since an arbitrary start. Never goes back; does not count the time that the machine sleeps. */
  monotonicMs(): number;
}

/** The clocks of this machine. */
export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};

/** Timers. None of them keeps the process alive. */
export interface Timers {
  /** Runs `work` once, after `ms` milliseconds. @returns a function that cancels it */
  after(ms: number, work: () => void): () => void;
  /** Runs `work` in a later turn of the event loop, after pending I/O. */
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
