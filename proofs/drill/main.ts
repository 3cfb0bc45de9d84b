/** `npm run drill`: injects faults into a private system of real processes and checks that its promises hold. */

import { Command, InvalidArgumentError, Option } from 'commander';
import { SystemError } from '../../scripts/system/system-error.js';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { randomSeed, SEED_MAX } from '../shared/random.js';
import { writeFigures } from '../shared/reporting.js';
import { drillCheckout } from './checkout-drill.js';
import { drillFence } from './fence-drill.js';
import { raceFence } from './fence-races.js';
import { drillMoney } from './money-drill.js';
import { type DrillOptions, drillRevocation } from './revocation-drill.js';
import { drillStock } from './stock-drill.js';

const ROUNDS_DEFAULT = 16;
const ROUNDS_MAX = 10_000;
const RACES_MAX = 100_000_000;
/** Tokens live for five minutes; every round uses new ones. */
const FAULT_SECONDS_MAX = 120;

/** Figures of every drill, beside its own. */
interface Figures {
  readonly drill: string;
  readonly violations: number;
}

/** Every drill by name. */
const DRILLS: Readonly<Record<string, (options: DrillOptions) => Promise<Figures>>> = {
  revocation: drillRevocation,
  checkout: drillCheckout,
  stock: drillStock,
  money: drillMoney,
  fence: (options) =>
    options.races === undefined ? drillFence(options) : raceFence({ ...options, races: options.races }),
};

const program = new Command('npm run drill --')
  .description('Breaks a private system in every way we know, and proves that its promises hold.')
  .option('--rounds <n>', 'how often something is broken', integerBetween(1, ROUNDS_MAX), ROUNDS_DEFAULT)
  .option(
    '--races <n>',
    'the drill of the fence: so many races of one transaction each, in the place of rounds',
    integerBetween(1, RACES_MAX),
  )
  .addOption(
    new Option('--only <drill>', 'one drill alone')
      .choices(Object.keys(DRILLS))
      .argParser((text) => choice(text.toLowerCase())),
  )
  .option('--faults <text>', 'only faults, or failpoints, with this text in their names', '')
  .option(
    '--fault-seconds <n>',
    'how long each fault of the revocation drill lasts',
    integerBetween(1, FAULT_SECONDS_MAX),
  )
  .option(
    '--gates',
    'the revocation drill: with servers in Python and Go behind gates, which are broken as well',
    false,
  )
  .option('--seed <n>', 'chooses the same faults in the same order again', integerBetween(0, SEED_MAX))
  .option('--json <file>', 'where to write the figures')
  .parse();
const flags = program.opts<{
  rounds: number;
  races?: number;
  only?: string;
  faults: string;
  faultSeconds?: number;
  gates: boolean;
  seed?: number;
  json?: string;
}>();
const stopping = stopSignal();

try {
  process.exitCode = await main();
} catch (error) {
  process.exitCode = 1;
  if (stopping.aborted) console.error('\nInterrupted.');
  else console.error(error instanceof SystemError ? error.message : error);
}

async function main(): Promise<number> {
  const seed = flags.seed ?? randomSeed();
  let violations = 0;
  const all: Figures[] = [];
  for (const [name, drill] of Object.entries(DRILLS)) {
    if (flags.only !== undefined && flags.only !== name) continue;
    console.log(`${name}: ${flags.rounds} rounds, seed ${seed}`);
    const figures = await drill({
      rounds: flags.rounds,
      races: flags.races,
      seed,
      faults: flags.faults,
      faultSeconds: flags.faultSeconds,
      gates: flags.gates,
      signal: stopping,
    });
    all.push(figures);
    violations += figures.violations;
  }
  const told = all.length === 1 ? all[0] : Object.fromEntries(all.map((figures) => [figures.drill, figures]));
  if (told !== undefined) await writeFigures(flags.json, told);
  console.log(`seed ${seed}`);
  if (stopping.aborted) console.error('Interrupted.');
  return violations === 0 && !stopping.aborted ? 0 : 1;
}

function choice(text: string): string {
  if (text in DRILLS) return text;
  throw new InvalidArgumentError(`Allowed are ${Object.keys(DRILLS).join(', ')}.`);
}
