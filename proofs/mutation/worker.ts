/**
 * A process of the mutation run, inside the instrumented copy of the project. It loads tests once and runs some of them
 * for each mutant, by order of its parent.
 */

import { relative } from 'node:path';
import Mocha from 'mocha';
import {
  ALIVE_INTERVAL_MS,
  LOADING,
  type Order,
  type Report,
  SUITE,
  type TestFailure,
  type TestRecord,
} from './orders.js';

const HOOK_BEGIN = 'hook';
const TEST_BEGIN = 'test';

/** The switch and the counters inside instrumented code. */
const namespace: {
  activeMutant?: string | undefined;
  currentTestId?: string;
  hitCount?: number;
  hitLimit?: number;
  mutantCoverage?: { static: Record<string, number>; perTest: Record<string, Record<string, number>> };
} = {};
Object.assign(globalThis, { __stryker__: namespace });

/** More than any test needs; a loop that a mutant made endless stops here. */
const HITS_MAX = 1_000_000;

/** Instrumented code is slower: a test has three times the time of an ordinary run. */
const TEST_MS_MAX = 60_000;

const files: string[] = JSON.parse(process.env['MUTATION_TESTS'] ?? '[]');
// A mutant of code that runs while modules are loaded is on from the beginning.
namespace.activeMutant = process.env['MUTATION_STATIC'];

const mocha = new Mocha({ timeout: TEST_MS_MAX, reporter: function Silent() {} as never });
mocha.cleanReferencesAfterRun(false);
for (const file of files) mocha.addFile(file);

try {
  await mocha.loadFilesAsync();
  setBail(mocha.suite, true);
} catch (error) {
  send({ kind: 'broken', reason: String(error) });
  process.exit(1);
}
process.on('message', (order: Order) => void obey(order));
process.on('disconnect', () => process.exit(0));
setInterval(() => send({ kind: 'alive' }), ALIVE_INTERVAL_MS);
send({ kind: 'loaded' });

async function obey(order: Order): Promise<void> {
  if (order.kind === 'record') send({ kind: 'recorded', ...(await record()) });
  else send({ kind: 'ran', failed: await run(order.mutant, order.tests) });
}

/** Runs all tests, and records which code each of them reaches. */
async function record(): Promise<{
  tests: TestRecord[];
  coverage: Record<string, string[]>;
  failed: TestFailure[];
}> {
  const tests: TestRecord[] = [];
  const failed: TestFailure[] = [];
  setBail(mocha.suite, false);
  await new Promise<void>((resolve) => {
    const runner = mocha.run(() => resolve());
    runner.on(HOOK_BEGIN, (hook: Mocha.Hook) => {
      namespace.currentTestId = idOfHook(hook);
    });
    runner.on(TEST_BEGIN, (test: Mocha.Test) => {
      namespace.currentTestId = test.fullTitle();
    });
    runner.on('pass', (test: Mocha.Test) =>
      tests.push({ title: test.fullTitle(), file: relative('.', test.file ?? ''), ms: test.duration ?? 0 }),
    );
    runner.on('fail', (test: Mocha.Test, error: Error) =>
      failed.push({ title: test.fullTitle(), message: error.message }),
    );
  });
  setBail(mocha.suite, true);
  const { static: loaded = {}, perTest = {} } = namespace.mutantCoverage ?? {};
  const coverage: Record<string, string[]> = { [LOADING]: Object.keys(loaded) };
  for (const [id, hits] of Object.entries(perTest)) coverage[id] = Object.keys(hits);
  return { tests, coverage, failed };
}

/** Sets whether the first failure ends a run. Each suite has a flag of its own, which it takes from its parent when loaded. */
function setBail(suite: Mocha.Suite, isOn: boolean): void {
  suite.bail(isOn);
  for (const child of suite.suites) setBail(child, isOn);
}

/** Runs groups of tests with a mutant on, until one of a group fails; returns it. */
async function run(
  mutant: string | undefined,
  groups: readonly (readonly string[])[],
): Promise<string | undefined> {
  if (mutant !== undefined) namespace.activeMutant = mutant;
  namespace.hitCount = 0;
  namespace.hitLimit = HITS_MAX;
  let failed: string | undefined;
  for (const titles of groups) failed ??= await runGroup(titles);
  if (mutant !== undefined) namespace.activeMutant = undefined;
  return failed;
}

/** Mocha runs the tests in its own order, and stops at the first that fails. */
async function runGroup(titles: readonly string[]): Promise<string | undefined> {
  const wanted = new Set(titles);
  // Mocha asks the pattern about each title; a set answers faster than a pattern of thousands of titles.
  Object.assign(mocha.options, { grep: { test: (title: string) => wanted.has(title) } });
  let failed: string | undefined;
  await new Promise<void>((resolve) => {
    const runner = mocha.run(() => resolve());
    runner.on('fail', (test: Mocha.Test) => {
      failed ??= test.fullTitle();
    });
  });
  return failed;
}

/** A hook of a suite counts for all tests of the suite, one of a test for the test. */
function idOfHook(hook: Mocha.Hook): string {
  const { currentTest } = hook.ctx ?? {};
  const isEach = /^"(?:before|after) each"/.test(hook.title);
  if (isEach && currentTest !== undefined) return currentTest.fullTitle();
  return `${SUITE}${hook.parent?.fullTitle() ?? ''}`;
}

function send(report: Report): void {
  process.send?.(report);
}
