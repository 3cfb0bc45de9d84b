/** Bounds the number of log lines about one kind of event, so that a flood of events does not flood the log. */

import type { Clock } from '../clock.js';

export class LogQuota {
  readonly #linesPerSecond: number;
  readonly #clock: Clock;
  #second = Number.NaN;
  #lines = 0;
  #unlogged = 0;

  constructor(linesPerSecond: number, clock: Clock) {
    this.#linesPerSecond = linesPerSecond;
    this.#clock = clock;
  }

  /** Counts an event. @returns how many events a line about it stands for; 0 when no line may be written now */
  count(): number {
    this.#unlogged += 1;
    const second = Math.floor(this.#clock.monotonicMs() / 1000);
    if (second !== this.#second) this.#lines = 0;
    this.#second = second;
    if (this.#lines >= this.#linesPerSecond) return 0;
    this.#lines += 1;
    const count = this.#unlogged;
    this.#unlogged = 0;
    return count;
  }
}
