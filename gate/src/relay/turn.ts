/** How long the frames of one peer may take before others are served: one read can bring thousands of them. */

/** The clock is read once in so many frames: most turns have fewer, and cost nothing then. */
const CHECK_INTERVAL_FRAMES = 64;

/** Measures the turn of one peer, which lasts until the event loop has served the others, over any number of reads. */
export class Turn {
  readonly #maxMs: number;
  readonly #nowMs: () => number;
  readonly #next: () => void;
  #frames = 0;
  #beganMs = Number.NaN;
  #isOver = false;

  /**
   * @param maxMs how long a turn may take, in milliseconds
   * @param next called when a turn that was over has made room for others
   */
  constructor(maxMs: number, nowMs: () => number, next: () => void) {
    this.#maxMs = maxMs;
    this.#nowMs = nowMs;
    this.#next = next;
  }

  /** Whether no further frame is taken in this turn. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Counts a frame. */
  count(): void {
    this.#frames += 1;
    if (this.#frames % CHECK_INTERVAL_FRAMES === 0) this.#check();
  }

  #check(): void {
    const nowMs = this.#nowMs();
    if (Number.isNaN(this.#beganMs)) {
      this.#beganMs = nowMs;
      setImmediate(this.#end);
    } else if (nowMs - this.#beganMs >= this.#maxMs) {
      this.#isOver = true;
    }
  }

  readonly #end = (): void => {
    this.#beganMs = Number.NaN;
    if (!this.#isOver) return;
    this.#isOver = false;
    this.#next();
  };
}
