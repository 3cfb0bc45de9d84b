/**
 * Where the lines of the log go. A log that cannot be written (a full disk, a pipe whose reader stands still) loses
 * lines and counts them; it never blocks the event loop, and never delays the stop.
 */

import { fstatSync, write as writeFile } from 'node:fs';
import { type Clock, systemClock } from '@portcullis/guard';

/** Lines are handed over together up to this many characters. */
const BATCH_CHARACTERS = 64 * 1024;
/** Pause after a failed attempt. */
const RETRY_MS = 500;
/** A write that takes longer stands still, and is not waited for. */
const STALLED_MS = 1_000;

/** Writes a text, and reports when it is written or has failed. `cut` says that a part of it was written. */
export type Sink = (text: string, done: (error?: Error | null, cut?: boolean) => void) => void;

/** Lines on their way to a sink, in order. */
export class LogOutput {
  readonly #sink: Sink;
  readonly #charactersMax: number;
  readonly #onRestored: (lines: number) => void;
  readonly #clock: Clock;
  readonly #lines: string[] = [];
  #characters = 0;
  #isWriting = false;
  #writingSinceMs = 0;
  #isFailing = false;
  /** A cut line must be ended before the next one begins. */
  #isCut = false;
  /** The report of a loss must not be lost, or the number would be unknown. */
  #isReporting = false;
  #lost = 0;
  #unreported = 0;
  readonly #waiting: (() => void)[] = [];

  /**
   * @param charactersMax - what may wait; further lines are lost
   * @param onRestored - is called when a text was written after lines were lost, with their number
   */
  constructor(
    sink: Sink,
    charactersMax: number,
    onRestored: (lines: number) => void,
    clock: Clock = systemClock,
  ) {
    this.#sink = sink;
    this.#charactersMax = charactersMax;
    this.#onRestored = onRestored;
    this.#clock = clock;
  }

  /** Lines lost since the start. */
  get lost(): number {
    return this.#lost;
  }

  write(line: string): void {
    if (this.#characters + line.length > this.#charactersMax && !this.#isReporting) {
      this.#lose(1);
      return;
    }
    this.#lines.push(line);
    this.#characters += line.length;
    this.#writeNext();
  }

  /** Calls back when the lines so far are written; at once while they cannot be. */
  flush(done: () => void): void {
    const isStalled = this.#isWriting && this.#clock.monotonicMs() - this.#writingSinceMs > STALLED_MS;
    if (isStalled || this.#isFailing || (!this.#isWriting && this.#lines.length === 0)) done();
    else this.#waiting.push(done);
  }

  #writeNext(): void {
    if (this.#isWriting || this.#isFailing || this.#lines.length === 0) return;
    const batch = this.#takeBatch();
    this.#isWriting = true;
    this.#writingSinceMs = this.#clock.monotonicMs();
    this.#sink((this.#isCut ? '\n' : '') + batch.join(''), (error, isCut = false) => {
      this.#isWriting = false;
      this.#isCut = isCut;
      if (error === undefined || error === null) this.#written();
      else this.#failed(batch.length);
    });
  }

  #takeBatch(): string[] {
    let characters = 0;
    let count = 0;
    for (const { length } of this.#lines) {
      if (count > 0 && characters + length > BATCH_CHARACTERS) break;
      characters += length;
      count += 1;
    }
    this.#characters -= characters;
    return this.#lines.splice(0, count);
  }

  #written(): void {
    const lines = this.#unreported;
    this.#unreported = 0;
    this.#isReporting = true;
    if (lines > 0) this.#onRestored(lines);
    this.#isReporting = false;
    if (this.#lines.length === 0) this.#endWaiting();
    this.#writeNext();
  }

  #failed(lines: number): void {
    this.#lose(lines);
    this.#isFailing = true;
    this.#endWaiting();
    setTimeout(() => {
      this.#isFailing = false;
      this.#writeNext();
    }, RETRY_MS).unref();
  }

  #lose(lines: number): void {
    this.#lost += lines;
    this.#unreported += lines;
  }

  #endWaiting(): void {
    for (const done of this.#waiting.splice(0)) done();
  }
}

/** Standard output, without blocking: a file is written by the thread pool, a pipe or a socket by the event loop. */
export function standardOutput(): Sink {
  if (isFile(1)) return fileSink(1);
  // Node reports a broken pipe here as well as to the callback.
  process.stdout.on('error', () => {});
  return (text, done) => void process.stdout.write(text, done);
}

/** A regular file, or a device that is no terminal, such as `/dev/null`. */
function isFile(fd: number): boolean {
  const kind = fstatSync(fd);
  return kind.isFile() || (kind.isCharacterDevice() && !process.stdout.isTTY);
}

function fileSink(fd: number): Sink {
  return (text, done) => {
    const bytes = Buffer.from(text, 'utf8');
    const writeFrom = (start: number): void =>
      writeFile(fd, bytes, start, bytes.length - start, null, (error, count) => {
        if (error !== null) done(error, start > 0);
        else if (start + count < bytes.length) writeFrom(start + count);
        else done();
      });
    writeFrom(0);
  };
}
