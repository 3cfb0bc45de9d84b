/** `npm run simulate`: checks the promise of revocation under random schedules of faults. */

import { fork } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { Command, Option } from 'commander';
import { integerBetween } from '../shared/command-line.js';
import { randomSeed, SEED_MAX } from '../shared/random.js';
import { createProgress, writeFigures } from '../shared/reporting.js';
import { GUARDS, type GuardName, NOTICED_BY } from './guards.js';
import { addTally, createTally, figuresOf, summaryOf, type Tally } from './report.js';
import { runSeedSoon } from './run.js';
import type { Job } from './worker.js';

const SEEDS_DEFAULT = 1000;
const SEEDS_MAX = 10_000_000;
const WORKERS_MAX = 2;

/** The shortest time between two updates of the progress bar, in milliseconds. */
const BAR_INTERVAL_MS = 200;
/** The shortest time between two lines of progress without a terminal, in milliseconds. */
const LINE_INTERVAL_MS = 5_000;

/** How many seeds a worker is sent at once. */
const JOB_SEEDS = 20;

/** Number of trace lines shown before a violation; running the seed alone shows all. */
const TRACE_LINES = 60;

const program = new Command('npm run simulate --')
  .description('Tries the promise of revocation against random schedules of faults, in virtual time.')
  .option(
    '--seeds <n>',
    `how many schedules (default: ${SEEDS_DEFAULT}, with --seed one)`,
    integerBetween(1, SEEDS_MAX),
  )
  .option('--seed <n>', 'the first schedule; alone it is shown event by event', integerBetween(0, SEED_MAX))
  .addOption(
    new Option(
      '--without <guard>',
      'leaves one rule of the protocol out, and stops when its absence was noticed (exit code 1)',
    ).choices(GUARDS),
  )
  .option('--json <file>', 'where to write the figures')
  .addHelpText('after', '\nExit code: 0 when no schedule violated anything, 1 otherwise.')
  .parse();
const flags = program.opts<{ seeds?: number; seed?: number; without?: GuardName; json?: string }>();
process.exitCode = await main();

async function main(): Promise<number> {
  const { without } = flags;
  const firstSeed = flags.seed ?? randomSeed();
  const seeds = flags.seeds ?? (flags.seed === undefined ? SEEDS_DEFAULT : 1);
  console.log(`seed ${firstSeed}, ${seeds} schedules${without === undefined ? '' : `, without ${without}`}`);
  const startedMs = performance.now();
  const tally = await runAll({ firstSeed, seeds, without });
  const seconds = (performance.now() - startedMs) / 1000;
  tally.violations.sort((a, b) => a.seed - b.seed);
  const figures = figuresOf(tally, { firstSeed, without, seconds });
  await show(tally, seeds === 1 ? firstSeed : undefined);
  console.log(`\n${summaryOf(figures)}\n`);
  await writeFigures(flags.json, figures);
  console.log(verdictOf(tally, firstSeed));
  return tally.violations.length === 0 ? 0 : 1;
}

function verdictOf(tally: Tally, firstSeed: number): string {
  const { without } = flags;
  const [first] = tally.violations;
  if (first === undefined) {
    return without === undefined ? 'The promise held.' : `No oracle detected that ${without} was missing.`;
  }
  const replay = `npm run simulate -- --seed ${first.seed}${without === undefined ? '' : ` --without ${without}`}`;
  if (without === undefined)
    return `${tally.violations.length} schedules violated the promise. Replay the first: ${replay}`;
  return `Without ${without} seed ${first.seed} (the ${first.seed - firstSeed + 1}th) violates the promise. Replay: ${replay}`;
}

/** Runs all seeds in several processes; without a guard, until a violation is found. */
async function runAll(run: {
  firstSeed: number;
  seeds: number;
  without: GuardName | undefined;
}): Promise<Tally> {
  const { firstSeed, seeds, without } = run;
  const total = createTally();
  const progress = createProgress(process.stderr, {
    barIntervalMs: BAR_INTERVAL_MS,
    lineIntervalMs: LINE_INTERVAL_MS,
  });
  const endSeed = firstSeed + seeds;
  let nextSeed = firstSeed;
  let noticed = false;
  const nextJob = (): Job | undefined => {
    if (nextSeed >= endSeed || noticed) return undefined;
    const count = Math.min(JOB_SEEDS, endSeed - nextSeed);
    const job = { firstSeed: nextSeed, count, without };
    nextSeed += count;
    return job;
  };
  const workers = Math.min(WORKERS_MAX, availableParallelism(), Math.ceil(seeds / JOB_SEEDS));
  await Promise.all(
    Array.from({ length: workers }, () =>
      runWorker(nextJob, (tally) => {
        addTally(total, tally);
        noticed ||=
          without !== undefined && tally.violations.some(({ first }) => first.oracle === NOTICED_BY[without]);
        progress.show(total.seeds, seeds, `schedules, ${total.violations.length} with violations`);
      }),
    ),
  );
  progress.end();
  return total;
}

function runWorker(nextJob: () => Job | undefined, done: (tally: Tally) => void): Promise<void> {
  const worker = fork(new URL('./worker.js', import.meta.url), {
    // Most objects die young; Node's default young generation is too small for them.
    execArgv: [...process.execArgv, '--max-semi-space-size=64'],
    serialization: 'advanced',
  });
  return new Promise((resolve, reject) => {
    const proceed = (): void => {
      const job = nextJob();
      if (job === undefined) worker.disconnect();
      else worker.send(job);
    };
    worker.on('error', reject);
    worker.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error('a worker of the simulation failed')),
    );
    worker.on('message', (tally: Tally) => {
      done(tally);
      proceed();
    });
    proceed();
  });
}

/** Prints the first violation event by event, or the whole schedule of the requested seed. */
async function show(tally: Tally, onlySeed: number | undefined): Promise<void> {
  const seed = onlySeed ?? tally.violations[0]?.seed;
  if (seed === undefined) return;
  const { trace, violations } = await runSeedSoon(seed, { without: flags.without, trace: true });
  const [first] = violations;
  const until =
    first === undefined ? trace.length : trace.findIndex((line) => Number.parseFloat(line) > first.atMs);
  const told = until < 0 ? trace : trace.slice(0, until);
  console.log(`\nseed ${seed}; true time in ms, who, what`);
  console.log((onlySeed === undefined ? told.slice(-TRACE_LINES) : trace).join('\n'));
  for (const { atMs, oracle, what } of violations.slice(0, 5)) {
    console.log(`${atMs.toFixed(1).padStart(9)}  VIOLATION (${oracle}): ${what}`);
  }
}
