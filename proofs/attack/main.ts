/** `npm run attack`: attacks a private system with every known technique, and counts the outcomes. */

import { join } from 'node:path';
import { Command, Option } from 'commander';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { createRandom, randomSeed, SEED_MAX } from '../shared/random.js';
import { createProgress, writeFigures } from '../shared/reporting.js';
import { attackAccess, attackRules } from './access.js';
import { attackAnomalyRules, checkNoRepetition, ORDINARY_CALLS_DEFAULT } from './anomaly-attacks.js';
import { attackWithRevokedClaims } from './claim-attacks.js';
import { type Environment, openEnvironment } from './environment.js';
import { type GatedEnvironment, openGates } from './gates.js';
import { attackLogin } from './login.js';
import { attackPolicy } from './policy.js';
import { recordEvents } from './recorder.js';
import { attackRights } from './rights.js';
import { Scoreboard, tableOf } from './scoreboard.js';
import { attackTokens } from './tokens.js';
import { attackWithWeakKeys, createWeakIssuer, type WeakIssuer } from './weak-key-attacks.js';

const MUTANTS_DEFAULT = 20_000;
const COUNT_MAX = 1_000_000_000;
/** The longest lifetime: the token that is mutated must stay valid to the end. */
const ACCESS_TOKEN_SECONDS = 3600;
/** Long, so that a busy machine does not make lists stale; revocation is not under attack here. */
const LEASE_MS = 20_000;
const FINDINGS_SHOWN_MAX = 20;
/** The shortest time between two lines of progress where there is no terminal. */
const LINE_INTERVAL_MS = 2_000;
/** Higher than the defaults, because all attempts come from one network; the last class tests the limit for a name. */
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
  readonly through?: Through;
}

/** The parts that `--part` selects. */
const PARTS = ['alarms', 'tokens', 'keys', 'access', 'login'] as const;
type Part = (typeof PARTS)[number];

/** What `--through` puts between the attacks and the processes. */
const THROUGH = ['gate'] as const;
type Through = (typeof THROUGH)[number];

/** The parts whose attacks a gate decides; the others are about handlers, or about issuers that a gate does not know. */
const PARTS_THROUGH_GATES: readonly Part[] = ['tokens', 'access'];

const stopping = stopSignal();
process.exitCode = (await attack(readOptions())) ? 0 : 1;

function readOptions(): Options {
  const count = integerBetween(0, COUNT_MAX);
  const command = new Command('npm run attack --')
    .description(
      'Attacks a private system: tokens, keys, access, login and refresh, and the detection of attacks.',
    )
    .option('--mutants <n>', 'number of mutants of a valid token', count, MUTANTS_DEFAULT)
    .option(
      '--ordinary <n>',
      'number of ordinary calls, which must raise no alarm',
      count,
      ORDINARY_CALLS_DEFAULT,
    )
    .option('--seed <n>', 'repeat the random choices of an earlier run', integerBetween(0, SEED_MAX))
    .option('--json <file>', 'write the figures to this file')
    .option('--record <file>', 'write the security events to this file, for npm run traces')
    .addOption(new Option('--part <part>', 'attack one part only').choices(PARTS))
    .addOption(
      new Option(
        '--through <what>',
        `attack gates in the place of the processes: the parts ${PARTS_THROUGH_GATES.join(' and ')}`,
      ).choices(THROUGH),
    )
    .parse();
  const options = command.opts<Options>();
  const { part, through } = options;
  if (through !== undefined && part !== undefined && !PARTS_THROUGH_GATES.includes(part)) {
    command.error(`error: --through ${through} attacks ${PARTS_THROUGH_GATES.join(' and ')}, not ${part}`);
  }
  return options;
}

async function attack({
  mutants,
  ordinary,
  seed = randomSeed(),
  json,
  record,
  part,
  through,
}: Options): Promise<boolean> {
  console.log(`Seed ${seed}, ${mutants} mutants.`);
  const startedMs = performance.now();
  const board = new Scoreboard();
  const display = createProgress(process.stdout, { lineIntervalMs: LINE_INTERVAL_MS });
  const progress: Environment['progress'] = (what, done, of) =>
    display.show(done, of, `${what}; ${board.tried} tried so far`);
  const failure = await attackPrivateSystem(board, {
    progress,
    mutants,
    ordinary,
    seed,
    record,
    part,
    through,
  }).then(
    () => undefined,
    (error: unknown) => error ?? new Error('unknown failure'),
  );
  display.end();
  const seconds = (performance.now() - startedMs) / 1000;
  report(board, failure);
  console.log(`\nSeed ${seed}, ${seconds.toFixed(1)} s.`);
  await writeFigures(json, figuresOf(board, { seed, mutants, seconds, failure }));
  return failure === undefined && board.held;
}

interface Attack extends Pick<Options, 'mutants' | 'ordinary'> {
  readonly seed: number;
  readonly part: Part | undefined;
  readonly record: string | undefined;
  readonly through: Through | undefined;
  readonly progress: Environment['progress'];
}

async function attackPrivateSystem(board: Scoreboard, attack: Attack): Promise<void> {
  const folder = await makeTemporaryFolder();
  let system: System | undefined;
  try {
    attack.progress('starting the system', 0, 0);
    const issuer = await createWeakIssuer(join(folder.path, 'weak-keys.json'));
    system = await startSystem({
      dataDir: folder.path,
      ports: 'free',
      ephemeral: true,
      leaseMs: LEASE_MS,
      environment: {
        PORTCULLIS_ACCESS_TOKEN_SECONDS: String(ACCESS_TOKEN_SECONDS),
        PORTCULLIS_TRUSTED_ISSUERS: issuer.configuration,
        ...LOGIN_LIMITS,
      },
      signal: stopping,
    });
    const environment = await openEnvironment(system, board, (...step) => {
      stopping.throwIfAborted();
      attack.progress(...step);
    });
    try {
      if (attack.through === 'gate') await attackGates(environment, attack, folder.path);
      else await attackParts(environment, attack, issuer);
      const database = system.postgres?.url('portcullis_auth');
      if (attack.record !== undefined && database !== undefined) await recordEvents(database, attack.record);
    } finally {
      environment.close();
    }
  } finally {
    await system?.stop();
    await folder.remove();
  }
}

async function attackParts(environment: Environment, attack: Attack, issuer: WeakIssuer): Promise<void> {
  const { mutants, ordinary, seed, part } = attack;
  const random = createRandom(seed);
  if (part === undefined || part === 'alarms') await attackAnomalyRules(environment, ordinary);
  await environment.recordRefusals();
  if (part === undefined || part === 'tokens') await attackTokens(environment, { mutants, random });
  if (part === undefined || part === 'keys') await attackWithWeakKeys(environment, issuer);
  if (part === undefined || part === 'keys') await attackWithRevokedClaims(environment, issuer);
  if (part === undefined || part === 'access') await attackAccess(environment);
  if (part === undefined || part === 'access') await attackRights(environment);
  if (part === undefined || part === 'access') await attackPolicy(environment);
  if (part === undefined || part === 'login') await attackLogin(environment, random);
  await checkNoRepetition(environment);
}

/** What gates decide, through a gate in front of each process. */
async function attackGates(direct: Environment, attack: Attack, folder: string): Promise<void> {
  const { mutants, seed, part, progress } = attack;
  progress('starting gates', 0, 0);
  const gates: GatedEnvironment = await openGates(direct, folder);
  try {
    const { environment } = gates;
    if (part !== 'access') await attackTokens(environment, { mutants, random: createRandom(seed) });
    if (part !== 'tokens') await attackRules(environment);
    gates.checkServers();
  } finally {
    await gates.stop();
  }
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
      `The attack was aborted: ${failure instanceof Error ? (failure.stack ?? failure.message) : String(failure)}`,
    );
  }
  const { tried, accepted, crashes, differing } = total;
  console.log(
    `${tried} tried, ${accepted} accepted, ${crashes} crashes, ${differing} refused with wrong bytes.`,
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
    tried,
    refused,
    accepted,
    crashes,
    differing,
    ...rest,
    complete: failure === undefined,
    findings: board.findings,
  };
}
