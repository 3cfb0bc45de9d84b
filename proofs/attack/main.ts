/** `npm run attack`: tries to get past the guard of a private system in every way known, and counts. */

import { writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError, Option } from 'commander';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createRandom } from '../drill/random.js';
import { attackAccess } from './access.js';
import { attackLogin } from './login.js';
import { attackUnderWatch, judgeAlarms, ORDINARY_CALLS_DEFAULT } from './planted.js';
import { openRange } from './range.js';
import { recordEvents } from './recorder.js';
import { Scoreboard, tableOf } from './scoreboard.js';
import { attackTokens } from './tokens.js';

const MUTANTS_DEFAULT = 20_000;
const SEED_MAX = 2 ** 32 - 1;
/** As long as tokens may live: the one that is mutated must stay good to the end. */
const ACCESS_TOKEN_SECONDS = 3600;
/** Long, so that a busy machine is not taken for a stale list: revocations are not what is tried here. */
const LEASE_MS = 20_000;
const FINDINGS_SHOWN_MAX = 20;
const BAR_WIDTH = 30;
/** Raised, because everything comes from one network; the limit for a name is what the last class runs into. */
const LOGIN_LIMITS = {
  PORTCULLIS_LOGIN_FAILURES_PER_NAME: '50',
  PORTCULLIS_LOGIN_FAILURES_PER_PEER: '10000',
};

interface Options {
  readonly mutants: number;
  readonly ordinary: number;
  readonly seed: number;
  readonly json?: string;
  readonly record?: string;
  readonly part?: Part;
}

/** What can be attacked by itself. */
const PARTS = ['alarms', 'tokens', 'access', 'login'] as const;
type Part = (typeof PARTS)[number];

const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort());
process.exitCode = (await attack(readOptions())) ? 0 : 1;

function readOptions(): Options {
  const command = new Command('attack')
    .description('attacks a private system: tokens, access, login and refresh, and what it says of attacks')
    .option('--mutants <number>', 'mutants of a real token', parseCount, MUTANTS_DEFAULT)
    .option(
      '--ordinary <number>',
      'ordinary calls that must raise no alarm',
      parseCount,
      ORDINARY_CALLS_DEFAULT,
    )
    .option(
      '--seed <number>',
      'repeats the choices of an earlier run',
      parseCount,
      Math.floor(Math.random() * SEED_MAX),
    )
    .option('--json <file>', 'writes the figures there')
    .option('--record <file>', 'writes what auth has recorded there, for npm run traces')
    .addOption(new Option('--part <part>', 'attacks this alone').choices(PARTS))
    .parse();
  return command.opts<Options>();
}

function parseCount(text: string): number {
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 0) throw new InvalidArgumentError('must be a whole number.');
  return count;
}

async function attack({ mutants, ordinary, seed, json, record, part }: Options): Promise<boolean> {
  console.log(`Seed ${seed}, ${mutants} mutants.`);
  const startedMs = performance.now();
  const board = new Scoreboard();
  const progress = createProgress(board);
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
      signal: interrupted.signal,
    });
    const range = await openRange(system, board, (...how) => {
      interrupted.signal.throwIfAborted();
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
    progress('', 0, 0);
    await system?.stop();
    await folder.remove();
  }
  const seconds = (performance.now() - startedMs) / 1000;
  report(board, failure);
  console.log(`\nSeed ${seed}, ${seconds.toFixed(1)} s.`);
  if (json !== undefined)
    await writeFile(
      json,
      `${JSON.stringify(figuresOf(board, { seed, mutants, seconds, failure }), null, 2)}\n`,
    );
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

/** A bar that redraws itself for people; a line for each class for everybody else. */
function createProgress(board: Scoreboard): (what: string, done: number, of: number) => void {
  let shown = '';
  return (what, done, of) => {
    if (process.stdout.isTTY) {
      const filled = of === 0 ? 0 : Math.round((BAR_WIDTH * done) / of);
      const bar = '█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled);
      process.stdout.write(
        what === '' ? '\r\x1b[K' : `\r\x1b[K${bar} ${String(board.tried).padStart(7)} ${what}`,
      );
    } else if (what !== '' && what !== shown) {
      console.log(`${String(board.tried).padStart(7)} tried; ${what}`);
    }
    shown = what;
  };
}
