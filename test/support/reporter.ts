/** Mocha's spec reporter with the progress of the run and, at its end, the tests and files that took longest. */

import { relative } from 'node:path';
import Mocha from 'mocha';

const SLOWEST_SHOWN = 10;
const { Base, Spec } = Mocha.reporters;
const { constants } = Mocha.Runner;

/** The duration of a test or a file. */
interface Timed {
  readonly name: string;
  readonly ms: number;
}

/**
 * On a terminal the last line shows how far the run is. Elsewhere a line is printed after each file:
 * `[ 312/1240 ] 25 % after 184 s: test/contracts/schema.test.ts 1.2 s`.
 */
class ProgressReporter extends Spec {
  readonly #startedMs = performance.now();
  readonly #tests: Timed[] = [];
  /** Durations of files, with their hooks. */
  readonly #files = new Map<string, number>();
  readonly #live = process.stdout.isTTY;
  #ended = 0;
  #file: string | undefined;
  #fileStartedMs = 0;

  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options);
    // Before the title of the next file's first suite is printed.
    runner.prependListener(constants.EVENT_SUITE_BEGIN, (suite: Mocha.Suite) => this.#enter(suite));
    runner.on(constants.EVENT_TEST_END, (test) => this.#count(test));
    if (this.#live) {
      runner.on(constants.EVENT_TEST_BEGIN, (test) => this.#draw(test.title));
      this.#keepLineLast();
    }
  }

  override epilogue(): void {
    this.#leaveFile();
    if (this.#live) process.stdout.write('\x1b[2K\r');
    this.#printSlowest('Slowest tests', this.#tests);
    const files = [...this.#files].map(([name, ms]) => ({ name, ms }));
    this.#printSlowest('Slowest files, with their hooks', files);
    super.epilogue();
  }

  #enter(suite: Mocha.Suite): void {
    if (suite.file === undefined || suite.file === this.#file) return;
    this.#leaveFile();
    this.#file = suite.file;
    this.#fileStartedMs = performance.now();
  }

  #leaveFile(): void {
    if (this.#file === undefined) return;
    const ms = performance.now() - this.#fileStartedMs;
    const name = relative('.', this.#file);
    this.#files.set(name, (this.#files.get(name) ?? 0) + ms);
    this.#file = undefined;
    if (!this.#live) Base.consoleLog(`${this.#progress()}: ${name} ${seconds(ms)}`);
  }

  #count(test: Mocha.Test): void {
    this.#ended += 1;
    this.#tests.push({ name: test.fullTitle(), ms: test.duration ?? 0 });
  }

  #progress(): string {
    const { total } = this.runner;
    const percent = total === 0 ? 100 : Math.floor((100 * this.#ended) / total);
    const count = String(this.#ended).padStart(String(total).length);
    return `[ ${count}/${total} ] ${percent} % after ${seconds(performance.now() - this.#startedMs)}`;
  }

  #draw(title: string): void {
    const line = `${this.#progress()}: ${title}`;
    process.stdout.write(`\x1b[2K\r${line.slice(0, (process.stdout.columns ?? 80) - 1)}`);
  }

  /** Clears the line of the progress before mocha prints, so that it stays the last one. */
  #keepLineLast(): void {
    const print = Base.consoleLog;
    Base.consoleLog = (...data: unknown[]) => {
      process.stdout.write('\x1b[2K\r');
      print(...data);
    };
  }

  #printSlowest(heading: string, all: readonly Timed[]): void {
    const slowest = all.toSorted((a, b) => b.ms - a.ms).slice(0, SLOWEST_SHOWN);
    Base.consoleLog(`\n  ${heading}`);
    for (const { name, ms } of slowest) Base.consoleLog(`  ${seconds(ms).padStart(9)}  ${name}`);
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

// Mocha looks a reporter up by its name here, once the files that it requires are loaded.
Object.assign(Mocha.reporters, { portcullis: ProgressReporter });
