/** `npm run mutation`: changes the code that guards, one place at a time, and checks that a test notices. */

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { type Postgres, startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { createProgress, writeFigures } from '../shared/reporting.js';
import { type EarlierRun, readEarlierRun } from './earlier-run.js';
import { instrument, type Mutant, type Source } from './instrument.js';
import type { TestFailure } from './orders.js';
import { copyProject, sourcesOf, testsOf } from './project.js';
import { type Outcome, runMutants } from './run.js';
import {
  findingsOf,
  hasChanged,
  isGood,
  type Run,
  readScores,
  recordScores,
  type Score,
  textOf,
} from './scores.js';
import { readExplanations } from './survivors.js';
import { TARGETS, type Target } from './targets.js';

const WORKERS_DEFAULT = 2;
const WORKERS_MAX = 64;
const MINUTES_MAX = 600;
/** The shortest time between two lines of progress where there is no terminal. */
const LINE_INTERVAL_MS = 10_000;

interface Options {
  readonly only: readonly string[];
  readonly changed: boolean;
  readonly again?: string;
  readonly workers: number;
  readonly minutes?: number;
  readonly record: boolean;
  readonly json?: string;
}

const root = process.cwd();
const stopping = stopSignal();
process.exitCode = (await main(readOptions())) ? 0 : 1;

function readOptions(): Options {
  const command = new Command('npm run mutation --')
    .description(
      'Changes the code that guards, one place at a time, and checks that a test notices each change.',
    )
    .option('--only <text...>', 'only files whose path contains one of these texts', [])
    .option('--changed', 'only files with a recorded score that have changed since', false)
    .option(
      '--again <file>',
      'of unchanged files, only the mutants that survived in the run that wrote this file with --json',
    )
    .option('--workers <n>', 'number of processes', integerBetween(1, WORKERS_MAX), WORKERS_DEFAULT)
    .option('--minutes <n>', 'stop after this time', integerBetween(1, MINUTES_MAX))
    .option('--record', 'record the scores of the files that were run to the end', false)
    .option('--json <file>', 'write the figures to this file');
  return command.parse().opts<Options>();
}

async function main(options: Options): Promise<boolean> {
  const explanations = await readExplanations(root);
  const run = await runTargets(options);
  if (run.sources.length === 0) {
    console.log('No file with a recorded score has changed.');
    return true;
  }
  const findings = findingsOf(run, explanations);
  console.log(`\n${textOf(findings)}`);
  await writeFigures(options.json, findings);
  if (options.record) await recordScores(root, findings);
  return isGood(findings);
}

async function runTargets({ only, changed, again, workers, minutes }: Options): Promise<Run> {
  const limit = minutes === undefined ? [] : [AbortSignal.timeout(minutes * 60_000)];
  const signal = AbortSignal.any([stopping, ...limit]);
  const recorded = await readScores(root);
  const earlierRun = again === undefined ? undefined : await readEarlierRun(again);
  const isChosen = ({ file, text }: Source): boolean =>
    (only.length === 0 || only.some((part) => file.includes(part))) &&
    (!changed || hasChanged(recorded[file], text));
  const run = {
    sources: [] as Source[],
    outcomes: [] as Outcome[],
    left: [] as Mutant[],
    earlier: new Map<string, Score>(),
  };
  const folder = await makeTemporaryFolder();
  const copy = join(folder.path, 'project');
  let postgres: Postgres | undefined;
  try {
    for (const target of TARGETS) {
      const chosen = (await sourcesOf(root, target)).filter(isChosen);
      if (chosen.length === 0 || signal.aborted) continue;
      if (run.sources.length === 0) await copyProject(root, copy);
      run.sources.push(...chosen);
      if (target.needsDatabase) postgres ??= await openPostgres(join(folder.path, 'postgres'));
      const environment =
        postgres === undefined
          ? {}
          : { DATABASE_URL: postgres.url('postgres'), TEST_DATABASES_REUSED: 'yes' };
      const context = { copy, environment, workers, signal, earlierRun };
      const { outcomes, left, earlier } = await runTarget(target, chosen, context);
      run.outcomes.push(...outcomes);
      run.left.push(...left);
      for (const [file, score] of earlier) run.earlier.set(file, score);
    }
  } finally {
    await postgres?.destroy();
    await folder.remove();
  }
  return run;
}

async function openPostgres(dataDir: string): Promise<Postgres> {
  await mkdir(dataDir, { recursive: true });
  return await startPostgres({ dataDir, port: 0, ephemeral: true });
}

async function runTarget(
  target: Target,
  chosen: readonly Source[],
  context: {
    copy: string;
    environment: NodeJS.ProcessEnv;
    workers: number;
    signal: AbortSignal;
    earlierRun: EarlierRun | undefined;
  },
): Promise<Omit<Run, 'sources'>> {
  const { copy, environment, workers, signal, earlierRun } = context;
  const { instrumented, mutants: all } = await instrument(chosen);
  const earlier = new Map(
    chosen.flatMap((source): [string, Score][] => {
      const score = earlierRun?.scoreOf(source);
      return score === undefined ? [] : [[source.file, score]];
    }),
  );
  const mutants = all.filter((mutant) => !earlier.has(mutant.file) || earlierRun?.hasSurvivor(mutant));
  for (const { file, text } of instrumented) await writeFile(join(copy, file), text);
  const progress = createProgress(process.stdout, { lineIntervalMs: LINE_INTERVAL_MS });
  progress.show(0, mutants.length, `${target.name}: running the tests once without a change`);
  const outcomes: Outcome[] = [];
  let survivors = 0;
  await runMutants(mutants, {
    folder: copy,
    tests: await testsOf(root, target),
    environment: { ...process.env, ...environment },
    workers,
    signal,
    onTestFailed: ({ title, message }: TestFailure) => {
      progress.end();
      console.log(`left out, because it fails without a change: ${title}: ${message}`);
    },
    onOutcome: (outcome) => {
      outcomes.push(outcome);
      if (outcome.fate !== 'killed') survivors += 1;
      const text = `${target.name}: ${survivors} survive; ${outcome.mutant.file}`;
      progress.show(outcomes.length, mutants.length, text);
    },
  });
  progress.end();
  // Later targets run against the original.
  for (const { file, text } of chosen) await writeFile(join(copy, file), text);
  const done = new Set(outcomes.map(({ mutant }) => mutant));
  return { outcomes, left: mutants.filter((mutant) => !done.has(mutant)), earlier };
}
