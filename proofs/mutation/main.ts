/** `npm run mutation`: changes the code that guards, one place at a time, and checks that a test notices. */

import { createHash } from 'node:crypto';
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Command } from 'commander';
import { type Postgres, startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { createProgress, tableText, writeFigures } from '../shared/reporting.js';
import { instrument, type Mutant, type Source } from './instrument.js';
import type { TestFailure } from './orders.js';
import { type Outcome, runMutants } from './run.js';
import { type Explanations, readExplanations } from './survivors.js';
import { TARGETS, type Target, TESTS_LEFT_OUT } from './targets.js';

/** The score that each file must reach, in percent. */
const SCORE_MIN = 95;
const WORKERS_MAX = 64;
/** The parts of a checkout that a run needs. */
const PARTS = [
  'package.json',
  'tsconfig.json',
  'tsconfig.build.json',
  'interceptors',
  'services',
  'scripts',
  'proofs',
  'proto',
  'test',
];
/** The scores of the last full run, by file; a file whose text has changed since is to be run again. */
const RECORD = join('proofs', 'mutation', 'scores.json');

interface Options {
  readonly only: readonly string[];
  readonly workers: number;
  readonly changed: boolean;
  readonly record: boolean;
  readonly minutes?: number;
  readonly json?: string;
}

/** The score of one file. */
interface Score {
  /** SHA-256 of the file's text. */
  readonly sha256: string;
  readonly mutants: number;
  readonly killed: number;
  /** Survivors that are explained. */
  readonly explained: number;
}

const root = process.cwd();
const stopping = stopSignal();
process.exitCode = (await main(readOptions())) ? 0 : 1;

function readOptions(): Options {
  const command = new Command('npm run mutation --')
    .description(
      'Changes the code that guards, one place at a time, and checks that a test notices each change.',
    )
    .option('--only <file...>', 'only files whose path contains one of these texts', [])
    .option('--changed', 'only files that have changed since their score was recorded', false)
    .option('--workers <n>', 'number of processes', integerBetween(1, WORKERS_MAX), 2)
    .option('--minutes <n>', 'stop after this time; what is left counts as not run', integerBetween(1, 600))
    .option('--record', `write the scores to ${RECORD}`, false)
    .option('--json <file>', 'write the figures to this file');
  return command.parse().opts<Options>();
}

async function main(options: Options): Promise<boolean> {
  const explanations = await readExplanations(root);
  const recorded: Record<string, Score> = JSON.parse(
    await readFile(join(root, RECORD), 'utf8').catch(() => '{}'),
  );
  const limit = options.minutes === undefined ? [] : [AbortSignal.timeout(options.minutes * 60_000)];
  const signal = AbortSignal.any([stopping, ...limit]);
  const folder = await makeTemporaryFolder();
  let postgres: Postgres | undefined;
  const outcomes: Outcome[] = [];
  let left = 0;
  const sources = new Map<string, string>();
  try {
    const copy = join(folder.path, 'project');
    await copyTo(copy);
    for (const target of TARGETS) {
      const chosen = (await sourcesOf(target)).filter(({ file, text }) => {
        if (options.only.length > 0 && !options.only.some((part) => file.includes(part))) return false;
        return !options.changed || recorded[file]?.sha256 !== hashOf(text);
      });
      if (chosen.length === 0 || signal.aborted) continue;
      for (const { file, text } of chosen) sources.set(file, text);
      if (target.name === 'auth') {
        await mkdir(join(folder.path, 'postgres'), { recursive: true });
        postgres ??= await startPostgres({
          dataDir: join(folder.path, 'postgres'),
          port: 0,
          ephemeral: true,
        });
      }
      const environment = postgres === undefined ? {} : { DATABASE_URL: postgres.url('postgres') };
      const done = await runTarget(target, chosen, copy, { ...options, signal, environment });
      outcomes.push(...done.outcomes);
      left += done.left;
    }
  } finally {
    await postgres?.destroy();
    await folder.remove();
  }
  return await report({ outcomes, left, sources, recorded, explanations }, options);
}

async function runTarget(
  target: Target,
  chosen: readonly Source[],
  copy: string,
  options: Options & { signal: AbortSignal; environment: NodeJS.ProcessEnv },
): Promise<{ outcomes: readonly Outcome[]; left: number }> {
  const { instrumented, mutants } = await instrument(chosen);
  for (const { file, text } of instrumented) await writeFile(join(copy, file), text);
  const progress = createProgress(process.stdout, { lineIntervalMs: 10_000 });
  progress.show(0, mutants.length, `${target.name}: running the tests once without a change`);
  const outcomes: Outcome[] = [];
  const onTestFailed = ({ title, message }: TestFailure) => {
    progress.end();
    console.log(`left out, because it fails without a change: ${title}: ${message}`);
  };
  const environment = {
    ...process.env,
    ...options.environment,
    XDG_CACHE_HOME: join(dirname(copy), 'cache'),
  };
  await runMutants(mutants, {
    folder: copy,
    tests: await testsOf(target),
    environment,
    workers: options.workers,
    signal: options.signal,
    onTestFailed,
    onOutcome: (outcome) => {
      outcomes.push(outcome);
      const survivors = outcomes.filter(({ fate }) => fate !== 'killed').length;
      progress.show(
        outcomes.length,
        mutants.length,
        `${target.name}: ${survivors} survive; ${outcome.mutant.file}`,
      );
    },
  });
  progress.end();
  // Later targets run against the original.
  for (const { file, text } of chosen) await writeFile(join(copy, file), text);
  return { outcomes, left: mutants.length - outcomes.length };
}

/** Prints the scores and what survived without an explanation; returns whether all is as it must be. */
async function report(
  found: {
    outcomes: readonly Outcome[];
    left: number;
    sources: ReadonlyMap<string, string>;
    recorded: Readonly<Record<string, Score>>;
    explanations: Explanations;
  },
  { json, record }: Options,
): Promise<boolean> {
  const { outcomes, left, sources, recorded, explanations } = found;
  const scores: Record<string, Score> = {};
  const unexplained: (Mutant & { fate: string })[] = [];
  for (const [file, text] of sources) {
    const ofFile = outcomes.filter(({ mutant }) => mutant.file === file);
    const survivors = ofFile.filter(({ fate }) => fate !== 'killed');
    const open = survivors.filter(({ mutant }) => explanations.reasonFor(mutant) === undefined);
    unexplained.push(...open.map(({ mutant, fate }) => ({ ...mutant, fate })));
    const killed = ofFile.length - survivors.length;
    const explained = survivors.length - open.length;
    scores[file] = { sha256: hashOf(text), mutants: ofFile.length, killed, explained };
  }
  const rows = Object.entries(scores).map(([file, score]) => rowOf(file, score));
  const total = Object.values(scores).reduce(
    (a, b) => ({
      sha256: '',
      mutants: a.mutants + b.mutants,
      killed: a.killed + b.killed,
      explained: a.explained + b.explained,
    }),
    { sha256: '', mutants: 0, killed: 0, explained: 0 },
  );
  if (rows.length === 0) {
    console.log('No file has changed since its score was recorded.');
    return true;
  }
  console.log(
    `\n${tableText([['file', 'mutants', 'killed', 'explained', 'score'], ...rows, rowOf('all', total)])}`,
  );
  for (const { file, line, mutator, from, to, fate } of unexplained) {
    console.log(`\n${file}:${line} ${fate} (${mutator})\n  - ${from.slice(0, 200)}\n  + ${to.slice(0, 200)}`);
  }
  if (left > 0) console.log(`\n${left} mutants were not run.`);
  await writeFigures(json, { scores, unexplained, left });
  if (record && left === 0) {
    await writeFile(join(root, RECORD), `${JSON.stringify({ ...recorded, ...scores }, null, 2)}\n`);
  }
  return unexplained.length === 0 && Object.values(scores).every((score) => scoreOf(score) >= SCORE_MIN);
}

function rowOf(file: string, score: Score): string[] {
  const { mutants, killed, explained } = score;
  return [file, String(mutants), String(killed), String(explained), `${scoreOf(score).toFixed(1)} %`];
}

/** The share of killed mutants among those that can be killed. */
function scoreOf({ mutants, killed, explained }: Score): number {
  return mutants === explained ? 100 : (100 * killed) / (mutants - explained);
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

async function sourcesOf({ sources }: Target): Promise<Source[]> {
  const files = (await Promise.all(sources.map((source) => filesIn(source, '.ts')))).flat();
  return await Promise.all(
    files.map(async (file) => ({ file, text: await readFile(join(root, file), 'utf8') })),
  );
}

async function testsOf({ tests }: Target): Promise<string[]> {
  const files = (await Promise.all(tests.map((folder) => filesIn(folder, '.test.ts')))).flat();
  return files.filter((file) => !TESTS_LEFT_OUT.includes(file));
}

async function filesIn(place: string, ending: string): Promise<string[]> {
  if (!place.endsWith('/')) return [place];
  const names = await readdir(join(root, place), { recursive: true });
  return names
    .filter((name) => name.endsWith(ending))
    .map((name) => `${place}${name}`)
    .sort();
}

/** Copies the checkout; the copy uses the installed packages, but its own library. */
async function copyTo(copy: string): Promise<void> {
  for (const part of PARTS) {
    await cp(resolve(root, part), join(copy, part), {
      recursive: true,
      filter: (path) => !path.endsWith('/node_modules') && !path.endsWith('/dist'),
    });
  }
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@portcullis'), { recursive: true });
  await symlink(join(copy, 'interceptors'), join(modules, '@portcullis', 'guard'));
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== '@portcullis') await symlink(join(root, 'node_modules', name), join(modules, name));
  }
}
