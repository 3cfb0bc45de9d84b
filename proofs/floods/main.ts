/** `npm run floods`: floods a private system, and measures what honest callers notice. */

import { Command, InvalidArgumentError } from 'commander';
import { integerBetween, stopSignal } from '../shared/command-line.js';
import { randomSeed, SEED_MAX } from '../shared/random.js';
import { createProgress, tableText, writeFigures } from '../shared/reporting.js';
import { FLOODS, SHORT_FLOODS } from './catalogue.js';
import type { Flood } from './flood.js';
import type { Phases } from './run-flood.js';
import { Session } from './session.js';
import { type FloodFigures, figuresOf, isAccepted, needsSecondRun, reasonsOf, tableOf } from './verdict.js';

const SECONDS_DEFAULT = 10;
const SECONDS_MAX = 60;
const QUIET_SECONDS = 5;
const RECOVERY_SECONDS = 30;
const SHORT: Phases = { quietSeconds: 2, floodSeconds: 3, recoverySeconds: 10 };
/** The shortest time between two lines of progress where there is no terminal. */
const LINE_INTERVAL_MS = 2_000;

interface Options {
  readonly only?: readonly Flood[];
  readonly seconds: number;
  readonly short?: boolean;
  readonly list?: boolean;
  readonly seed?: number;
  readonly json?: string;
}

const stopping = stopSignal();
process.exitCode = (await main(readOptions())) ? 0 : 1;

function readOptions(): Options {
  return new Command('npm run floods --')
    .description('Floods a private system, and measures what honest callers notice.')
    .option('--only <names>', 'run these floods only, separated by commas', floodsNamed)
    .option('--seconds <n>', 'how long each flood lasts', integerBetween(1, SECONDS_MAX), SECONDS_DEFAULT)
    .option('--short', 'run a few floods for a few seconds each')
    .option('--list', 'list the floods and exit')
    .option('--seed <n>', 'repeat the random choices of an earlier run', integerBetween(0, SEED_MAX))
    .option('--json <file>', 'write the figures to this file')
    .parse()
    .opts<Options>();
}

function floodsNamed(names: string): Flood[] {
  return names.split(',').map((name) => {
    const flood = FLOODS.find((one) => one.name === name.trim());
    if (flood === undefined) {
      throw new InvalidArgumentError(`There is no flood "${name.trim()}"; --list shows them.`);
    }
    return flood;
  });
}

async function main(options: Options): Promise<boolean> {
  if (options.list === true) {
    console.log(
      tableText([
        ['flood', 'by', 'sends'],
        ...FLOODS.map(({ name, attacker, title }) => [name, attacker, title]),
      ]),
    );
    return true;
  }
  const short = options.short === true;
  const seed = options.seed ?? randomSeed();
  const floods = options.only ?? FLOODS.filter(({ name }) => !short || SHORT_FLOODS.includes(name));
  const phases = short
    ? SHORT
    : { quietSeconds: QUIET_SECONDS, floodSeconds: options.seconds, recoverySeconds: RECOVERY_SECONDS };
  console.log(
    `${floods.length} floods of ${phases.floodSeconds} s, seed ${seed}. ` +
      'Attacker, honest callers and system share the processors of this machine; the attacker has a lower priority.',
  );
  const { figures, failure } = await floodAll(floods, phases, seed);
  report(figures, failure);
  const complete = failure === undefined && !stopping.aborted;
  await writeFigures(options.json, { seed, complete, floods: figures });
  console.log(`Seed ${seed}.`);
  return complete && Object.values(figures).every(isAccepted);
}

async function floodAll(
  floods: readonly Flood[],
  phases: Phases,
  seed: number,
): Promise<{ figures: Readonly<Record<string, FloodFigures>>; failure: unknown }> {
  const figures: Record<string, FloodFigures> = {};
  const display = createProgress(process.stdout, { lineIntervalMs: LINE_INTERVAL_MS });
  const session = new Session({ phases, seed, signal: stopping });
  let failure: unknown;
  try {
    for (const [index, flood] of floods.entries()) {
      const run = async (note = ''): Promise<FloodFigures> => {
        const show = (phase: string): void =>
          display.show(index, floods.length, `${flood.name} (${flood.title})${note}: ${phase}`);
        return figuresOf(await session.run(flood, show));
      };
      const first = await run();
      figures[flood.name] = first;
      if (needsSecondRun(first)) figures[flood.name] = await run(', once more');
    }
  } catch (error) {
    failure = error;
  } finally {
    display.end();
    await session.close();
  }
  return { figures, failure };
}

function report(figures: Readonly<Record<string, FloodFigures>>, failure: unknown): void {
  console.log(`\n${tableText(tableOf(figures))}\n`);
  for (const reason of reasonsOf(figures)) console.log(reason);
  if (failure !== undefined) {
    const text = failure instanceof Error ? (failure.stack ?? failure.message) : String(failure);
    console.error(`The floods were aborted: ${text}`);
  }
  const all = Object.values(figures);
  const violated = all.filter((one) => !isAccepted(one)).length;
  const known = reasonsOf(figures).length - violated;
  console.log(`${all.length} floods, ${violated} broke a limit, ${known} more for a reason that is known.`);
}
