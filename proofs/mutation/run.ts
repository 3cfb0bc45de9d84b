/** One target's mutation run: which tests reach a mutant, and whether one of them notices it. */

import { basename } from 'node:path';
import type { Mutant } from './instrument.js';
import { LOADING, type Report, SUITE, type TestFailure } from './orders.js';
import { startWorker, type Worker, type WorkerOptions } from './processes.js';

/** How long the tests may take when no mutant is on, in milliseconds. */
const RECORDING_MS_MAX = 900_000;
/** A run with a mutant may take this many times as long as without, and {@link SLACK_MS}. */
const SLOWNESS_MAX = 10;
const SLACK_MS = 15_000;
/** A worker may be silent for this many times the longest of its tests, and {@link SLACK_MS}: a test may compute in one turn. */
const SILENCE_MAX = 3;
/** For one mutant, tests run that take this long without it, in milliseconds; a mutant that only others kill counts as survivor. */
const TESTS_MS_MAX = 10_000;
/** So many of the fastest tests run before the others. */
const FAST_TESTS = 40;
/** A worker is replaced after this many mutants, because failed tests leave things open. */
const MUTANTS_PER_WORKER = 40;

/** What became of a mutant. */
export type Fate =
  /** A test failed, or the process ended or hung. */
  | 'killed'
  /** All tests that reach it passed. */
  | 'survived'
  /** No test reaches it. */
  | 'unreached';

export interface Outcome {
  readonly mutant: Mutant;
  readonly fate: Fate;
  /** The test that failed, if one did. */
  readonly by?: string | undefined;
}

/** The tests of a target without a mutant. */
interface Recording {
  /** The file of each test. */
  readonly fileOf: ReadonlyMap<string, string>;
  readonly msOf: ReadonlyMap<string, number>;
  /** Titles of the tests that reach a mutant. */
  readonly testsOf: ReadonlyMap<string, readonly string[]>;
  /** The mutants in code that runs while modules are loaded. */
  readonly loaded: ReadonlySet<string>;
}

/**
 * Runs a target's tests against its mutants.
 *
 * @throws Error when the tests do not end without a mutant
 */
export async function runMutants(
  mutants: readonly Mutant[],
  options: WorkerOptions & {
    readonly workers: number;
    readonly signal: AbortSignal;
    readonly onOutcome: (outcome: Outcome) => void;
    /** A test failed without a mutant, and is left out. */
    readonly onTestFailed: (failure: TestFailure) => void;
  },
): Promise<void> {
  const recording = await record(options);
  const queue = [...mutants].sort(
    (a, b) => Number(recording.loaded.has(a.id)) - Number(recording.loaded.has(b.id)),
  );
  await Promise.all(Array.from({ length: options.workers }, () => work(queue, recording, options)));
}

async function record(
  options: WorkerOptions & { readonly onTestFailed: (failure: TestFailure) => void },
): Promise<Recording> {
  const worker = await startWorker(options);
  const report = await worker?.ask(
    { kind: 'record' },
    { reportMs: RECORDING_MS_MAX, silenceMs: RECORDING_MS_MAX },
  );
  worker?.stop();
  if (report?.kind !== 'recorded') throw new Error('the tests did not end without a mutant');
  // A test that fails by itself proves nothing about a mutant.
  for (const failure of report.failed) options.onTestFailed(failure);
  const failed = new Set(report.failed.map(({ title }) => title));
  const tests = report.tests.filter(({ title }) => !failed.has(title));
  return recordingOf({ ...report, tests });
}

function recordingOf({ tests, coverage }: Report & { kind: 'recorded' }): Recording {
  const testsOf = new Map<string, string[]>();
  const passing = tests.map(({ title }) => title);
  for (const [id, reached] of Object.entries(coverage)) {
    const titles = titlesOf(id, passing);
    for (const mutant of reached)
      testsOf.set(mutant, [...new Set([...(testsOf.get(mutant) ?? []), ...titles])]);
  }
  return {
    fileOf: new Map(tests.map(({ title, file }) => [title, file])),
    msOf: new Map(tests.map(({ title, ms }) => [title, ms])),
    testsOf,
    loaded: new Set(coverage[LOADING] ?? []),
  };
}

function titlesOf(id: string, titles: readonly string[]): readonly string[] {
  if (id === LOADING) return titles;
  if (!id.startsWith(SUITE)) return titles.includes(id) ? [id] : [];
  const suite = id.slice(SUITE.length);
  return titles.filter((title) => suite === '' || title.startsWith(`${suite} `));
}

async function work(
  queue: Mutant[],
  recording: Recording,
  options: WorkerOptions & { signal: AbortSignal; onOutcome: (outcome: Outcome) => void },
): Promise<void> {
  const { msOf, testsOf, loaded } = recording;
  let worker: Worker | undefined;
  let used = 0;
  for (let mutant = queue.shift(); mutant !== undefined && !options.signal.aborted; mutant = queue.shift()) {
    const isLoaded = loaded.has(mutant.id);
    const reaching = testsOf.get(mutant.id) ?? [];
    const tests = testsToRun(mutant, reaching, recording);
    if (tests.length === 0) {
      options.onOutcome({ mutant, fate: 'unreached' });
      continue;
    }
    if (isLoaded || used >= MUTANTS_PER_WORKER || worker?.isAlive() !== true) {
      worker?.stop();
      worker = await startWorker({ ...options, loadedMutant: isLoaded ? mutant.id : undefined });
      used = 0;
    }
    used = isLoaded ? MUTANTS_PER_WORKER : used + 1;
    // Loading may fail because of the mutant.
    if (worker === undefined) {
      options.onOutcome({ mutant, fate: 'killed', by: '(loading)' });
      continue;
    }
    const ms = tests.flat().map((title) => msOf.get(title) ?? 0);
    const patience = {
      reportMs: SLACK_MS + SLOWNESS_MAX * ms.reduce((sum, one) => sum + one, 0),
      silenceMs: SLACK_MS + SILENCE_MAX * Math.max(...ms),
    };
    const order = { kind: 'run', mutant: isLoaded ? undefined : mutant.id, tests } as const;
    const report = await worker.ask(order, patience);
    if (report?.kind !== 'ran') options.onOutcome({ mutant, fate: 'killed', by: '(process ended)' });
    else if (report.failed !== undefined) options.onOutcome({ mutant, fate: 'killed', by: report.failed });
    else options.onOutcome({ mutant, fate: 'survived' });
  }
  worker?.stop();
}

/** The tests of the mutant's own file, then the fastest others, then more of them up to {@link TESTS_MS_MAX}. */
function testsToRun(
  { file }: Mutant,
  reaching: readonly string[],
  { fileOf, msOf }: Recording,
): readonly (readonly string[])[] {
  const own = basename(file, '.ts');
  const isOwn = (title: string): boolean => basename(fileOf.get(title) ?? '', '.test.ts') === own;
  const others = reaching
    .filter((title) => !isOwn(title))
    .sort((a, b) => (msOf.get(a) ?? 0) - (msOf.get(b) ?? 0));
  let totalMs = 0;
  const affordable = others.filter((title) => {
    totalMs += msOf.get(title) ?? 0;
    return totalMs <= TESTS_MS_MAX;
  });
  const groups = [reaching.filter(isOwn), affordable.slice(0, FAST_TESTS), affordable.slice(FAST_TESTS)];
  return groups.filter((group) => group.length > 0);
}
