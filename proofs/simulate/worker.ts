/** A process that runs seeds: it receives a few at a time and returns their results. */

import type { GuardName } from './guards.js';
import { addRun, createTally } from './report.js';
import { runSeed } from './run.js';

/** Some seeds to run. */
export interface Job {
  readonly firstSeed: number;
  readonly count: number;
  readonly without: GuardName | undefined;
}

// Thousands of calls fail in every run, as expected; their stack traces are not used.
Error.stackTraceLimit = 0;

process.on('message', ({ firstSeed, count, without }: Job) => {
  const tally = createTally();
  for (let seed = firstSeed; seed < firstSeed + count; seed += 1) addRun(tally, runSeed(seed, { without }));
  process.send?.(tally);
});
