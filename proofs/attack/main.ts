/** `npm run attack`: tries to get past the guard of a private system in every way known, and counts. */

import { Command, Option } from 'commander';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { createRandom, randomSeed, SEED_MAX } from '../shared/random.js';
import { createProgress, writeFigures } from '../shared/reporting.js';
import { attackAccess } from './access.js';
import { attackUnderWatch, judgeAlarms, ORDINARY_CALLS_DEFAULT } from './anomaly-attacks.js';
import { openRange } from './environment.js';
import { attackLogin } from './login.js';
import { recordEvents } from './recorder.js';
import { Scoreboard, tableOf } from './scoreboard.js';
import { attackTokens } from './tokens.js';

const MUTANTS_DEFAULT = 20_000;
const COUNT_MAX = 1_000_000_000;
/** As long as tokens may live: the one that is mutated must stay good to the end. */
const ACCESS_TOKEN_SECONDS = 3600;
/** Long, so that a busy machine is not taken for a stale list: revocations are not what is tried here. */
const LEASE_MS = 20_000;
const FINDINGS_SHOWN_MAX = 20;
/** The shortest time between two lines of progress where there is no terminal. */
const LINE_INTERVAL_MS = 2_000;
/** Raised, because everything comes from one network; the limit for a name is what the last class runs into. */
const LOGIN_LIMITS = {
  PORTCULLIS_LOGIN_FAILURES_PER_NAME: '50',
  PORTCULLIS_LOGIN_FAILURES_PER_PEER: '10000',
};

interface Options {
  readonly mutants: number;
  readonly ordinary: number;
  readonly seed?: number;
  readonly json?: string;
  readonly record?: string;
  readonly part?: Part;
}

/** What can be attacked by itself. */
const PARTS = ['alarms', 'tokens', 'access', 'login'] as const;
type Part = (typeof PARTS)[number];

const stopping = stopSignal();
process.exitCode = (await attack(readOptions())) ? 0 : 1;

function readOptions(): Options {
  const count = integerBetween(0, COUNT_MAX);
  const command = new Command('npm run attack --')
    .description('attacks a private system: tokens, access, login and refresh, and what it says of attacks')
    .option('--mutants <n>', 'mutants of a real token', count, MUTANTS_DEFAULT)
    .option('--ordinary <n>', 'ordinary calls that must raise no alarm', count, ORDINARY_CALLS_DEFAULT)
    .option('--seed <n>', 'repeats the choices of an earlier run', integerBetween(0, SEED_MAX))
    .option('--json <file>', 'writes the figures there')
    .option('--record <file>', 'writes what auth has recorded there, for npm run traces')
    .addOption(new Option('--part <part>', 'attacks this alone').choices(PARTS))
    .parse();
  return command.opts<Options>();
}

async function attack({
  mutants,
  ordinary,
  seed = randomSeed(),
  json,
  record,
  part,
}: Options): Promise<boolean> {
  console.log(`Seed ${seed}, ${mutants} mutants.`);
  const startedMs = performance.now();
  const board = new Scoreboard();
  const display = createProgress(process.stdout, { lineIntervalMs: LINE_INTERVAL_MS });
  const progress = (what: string, done: number, of: number): void =>
    display.show(done, of, `${what}; ${board.tried} tried so far`);
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  let failure: unknown;
  try {
    progress('starting the system', 0, 0);
    system = await startSystem({
      dataDir: folder.path,
      ports: 'free',
      ephemeral: true,
      leaseMs: LEASE_MS,
      environment: { PORTCULLIS_ACCESS_TOKEN_SECONDS: String(ACCESS_TOKEN_SECONDS), ...LOGIN_LIMITS },
      signal: stopping,
    });
    const range = await openRange(system, board, (...how) => {
      stopping.throwIfAborted();
      progress(...how);
    });
    try {
      const random = createRandom(seed);
      if (part === undefined || part === 'alarms') await attackUnderWatch(range, ordinary);
      await range.learnRefusals();
      if (part === undefined || part === 'tokens') await attackTokens(range, { mutants, random });
      if (part === undefined || part === 'access') await attackAccess(range);
      if (part === undefined || part === 'login') await attackLogin(range, random);
      await judgeAlarms(range);
      const database = system.postgres?.url('portcullis_auth');
      if (record !== undefined && database !== undefined) await recordEvents(database, record);
    } finally {
      range.close();
    }
  } catch (error) {
    failure = error;
  } finally {
    display.end();
    await system?.stop();
    await folder.remove();
  }
  const seconds = (performance.now() - startedMs) / 1000;
  report(board, failure);
  console.log(`\nSeed ${seed}, ${seconds.toFixed(1)} s.`);
  await writeFigures(json, figuresOf(board, { seed, mutants, seconds, failure }));
  return failure === undefined && board.held;
}

function report(board: Scoreboard, failure: unknown): void {
  const { total, findings } = board;
  console.log(`\n${tableOf(board.classes, total)}\n`);
  for (const { className, outcome, what } of findings.slice(0, FINDINGS_SHOWN_MAX)) {
    console.log(`${outcome.toUpperCase()} ${className}: ${what.replaceAll('\n', ' ').slice(0, 300)}`);
  }
  const hidden = findings.length - FINDINGS_SHOWN_MAX;
  if (hidden > 0) console.log(`… and ${hidden} more`);
  if (failure !== undefined) {
    console.error(
      `The attack broke off: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}`,
    );
  }
  const { tried, accepted, crashes, differing } = total;
  console.log(
    `${tried} tried, ${accepted} accepted, ${crashes} crashes, ${differing} in other bytes than they must be.`,
  );
}

function figuresOf(
  board: Scoreboard,
  run: { seed: number; mutants: number; seconds: number; failure: unknown },
): object {
  const { tried, refused, accepted, crashes, differing } = board.total;
  const { failure, ...rest } = run;
  return {
    classes: Object.fromEntries(board.classes),
    ...{ tried, refused, accepted, crashes, differing },
    ...rest,
    complete: failure === undefined,
    findings: board.findings,
  };
}
