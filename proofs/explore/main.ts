/** `npm run explore`: visits every state of small worlds, and shows that each guard is needed. */

import { readFile, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { PROJECT_FOLDER } from '../../scripts/system/project.js';
import { integerBetween } from '../shared/command-line.js';
import { createProgress, tableText, writeFigures } from '../shared/reporting.js';
import { roundTo } from '../shared/statistics.js';
import { createThreads } from './crew.js';
import { eventsOf } from './events.js';
import { exploreFence, type FenceFigures } from './fence/report.js';
import { GUARDS, guardOf } from './guards.js';
import { LIFETIME_GUARD_NAMES, searchLifetimes } from './lifetimes.js';
import { replay, type Trace, traceOf } from './replay.js';
import { type Found, search, type Violation } from './search.js';
import { WORLDS, worldOf } from './worlds.js';

const WORKERS_MAX = 64;
const MINUTES_MAX = 7 * 24 * 60;

/** Time of the short run, in minutes. */
const SHORT_MINUTES = 3;

/** The shortest time between two updates of the progress bar, in milliseconds. */
const BAR_INTERVAL_MS = 200;
/** The shortest time between two lines of progress without a terminal, in milliseconds. */
const LINE_INTERVAL_MS = 5_000;

/** The figures of a run that leaves the fence out. */
const NO_FENCE: FenceFigures = { worlds: {}, without: {}, ok: true };

/** The names of all worlds, or of all guards. */
const ALL = 'all';

function parseMinutes(text: string): number {
  const number = Number(text);
  if (number > 0 && number <= MINUTES_MAX) return number;
  throw new InvalidArgumentError(`Expected a number above 0 and up to ${MINUTES_MAX}.`);
}

/** The JSON figures of one world. */
interface WorldFigures {
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  readonly fix_point: boolean;
  /** The world has as many states as were recorded, or no number was recorded. */
  readonly as_recorded: boolean;
  readonly violations: number;
  readonly seconds: number;
  readonly states_per_second: number;
  /** Bytes of the table, and of the states that were not expanded yet at their most, for each state. */
  readonly bytes_per_state: number;
}

/** The JSON figures of one guard that was left out. */
interface GuardFigures {
  /** A violation was found. */
  readonly found: boolean;
  /** Number of events until the violation; null without one. */
  readonly steps: number | null;
  readonly world: string;
  /** No violation is expected, because what the guard is for is outside of the worlds. */
  readonly outside: boolean;
  /** The expectation was met. */
  readonly ok: boolean;
}

const program = new Command('npm run explore --')
  .description(
    'Visits every state of small worlds of the revocation protocol, and leaves out its guards one by one.',
  )
  .option('--worlds <names>', 'the worlds, separated by commas, or "all"')
  .option('--without <guard>', 'a guard to leave out, several separated by commas, or "all"')
  .addOption(
    new Option(
      '--short',
      `the short worlds and guards alone, for at most ${SHORT_MINUTES} minutes`,
    ).conflicts('worlds'),
  )
  .addOption(
    new Option('--fence', 'the worlds and guards of the fence alone').conflicts([
      'worlds',
      'without',
      'short',
    ]),
  )
  .option('--minutes <n>', 'stops after this time', parseMinutes)
  .option('--workers <n>', 'number of threads', integerBetween(1, WORKERS_MAX))
  .option(
    '--bare',
    'keeps no predecessors of states: half of the memory, and a violation without its history',
  )
  .option('--trace <file>', 'where to write the last counterexample, for a test that replays it')
  .option('--record', 'records the number of states of each world in proofs/explore/worlds.ts')
  .option('--json <file>', 'where to write the figures')
  .addHelpText('after', '\nWithout --worlds and --without: all worlds, then all guards.')
  .addHelpText('after', '\nExit code: 0 when every world holds and every guard is needed, 1 otherwise.')
  .addHelpText(
    'after',
    `\nWorlds:\n${WORLDS.map(({ name, about }) => `  ${name.padEnd(18)}${about}`).join('\n')}`,
  )
  .addHelpText(
    'after',
    `\nGuards:\n${GUARDS.map(({ name, about }) => `  ${name.padEnd(22)}${about}`).join('\n')}`,
  )
  .parse();
const flags = program.opts<{
  worlds?: string;
  without?: string;
  short?: boolean;
  fence?: boolean;
  minutes?: number;
  workers?: number;
  bare?: boolean;
  trace?: string;
  record?: boolean;
  json?: string;
}>();

const workers = flags.workers ?? Math.min(WORKERS_MAX, availableParallelism());
const minutes = flags.minutes ?? (flags.short === true ? SHORT_MINUTES : undefined);
const untilMs = minutes === undefined ? Number.POSITIVE_INFINITY : performance.now() + minutes * 60_000;

const crew = createThreads(workers);
process.exitCode = await main().finally(() => crew.close());

async function main(): Promise<number> {
  const worlds = chosenWorlds();
  const guards = chosenGuards();
  const inWorlds: Record<string, WorldFigures> = {};
  const withoutGuards: Record<string, GuardFigures> = {};
  for (const world of worlds) inWorlds[world] = await exploreWorld(world);
  for (const guard of guards) withoutGuards[guard] = await leaveOut(guard);
  const isKept = exploresAll() ? exploreLifetimes() : true;
  const fence = flags.fence === true || exploresAll() ? await exploreFence() : NO_FENCE;
  await writeFigures(flags.json, { worlds: inWorlds, without: withoutGuards, workers, fence });
  showSummary(inWorlds, withoutGuards);
  if (flags.record === true) await record(inWorlds);
  // The short run ends in time on any machine; what it has not searched to the end, the long run does.
  const isHolding = Object.values(inWorlds).every(
    ({ violations, fix_point, as_recorded }) =>
      violations === 0 && as_recorded && (fix_point || flags.short === true),
  );
  const isNeeded = Object.values(withoutGuards).every(({ ok }) => ok);
  console.log(
    isHolding && isNeeded && isKept && fence.ok
      ? '\nThe protocol holds.'
      : '\nThe protocol does not hold, the time was too short, or a world has changed.',
  );
  return isHolding && isNeeded && isKept && fence.ok ? 0 : 1;
}

function exploresAll(): boolean {
  return [flags.worlds, flags.without].every((chosen) => chosen === undefined || chosen === ALL);
}

/** Searches how long entries are kept. @returns whether the rules hold, and each is needed */
function exploreLifetimes(): boolean {
  const { states, violation } = searchLifetimes();
  console.log(
    `lifetimes of tokens: ${states.toLocaleString('en-US')} states, ${violation === undefined ? 'every' : 'not every'} entry outlives its tokens`,
  );
  for (const step of violation ?? []) console.log(`      ${step}`);
  const unneeded = LIFETIME_GUARD_NAMES.filter((guard) => searchLifetimes(guard).violation === undefined);
  if (unneeded.length > 0)
    console.log(`      no history shows that these are missing: ${unneeded.join(', ')}`);
  return violation === undefined && unneeded.length === 0;
}

function chosenWorlds(): string[] {
  if (flags.fence === true) return [];
  if (flags.worlds === undefined && flags.without !== undefined) return [];
  const short = WORLDS.filter((world) => flags.short !== true || world.short === true);
  if (flags.worlds === undefined || flags.worlds === ALL) return short.map(({ name }) => name);
  return flags.worlds.split(',').map((name) => worldOf(name).name);
}

function chosenGuards(): string[] {
  if (flags.fence === true) return [];
  if (flags.without === undefined && (flags.worlds !== undefined || flags.short === true)) return [];
  if (flags.without === undefined || flags.without === ALL) return GUARDS.map(({ name }) => name);
  return flags.without.split(',').map((name) => guardOf(name).name);
}

async function exploreWorld(name: string): Promise<WorldFigures> {
  const found = await searchWith(name, undefined);
  const missing = found.isFixPoint
    ? eventsOf(worldOf(name)).filter((kind) => !found.kinds.includes(kind))
    : [];
  for (const kind of missing) console.log(`${name}: ${kind} has never happened`);
  const end = found.isFixPoint
    ? 'the fix point is reached'
    : found.violation === undefined
      ? 'the time is over'
      : 'a violation';
  const statesPerSecond = Math.round(found.states / found.seconds);
  const bytesPerState = roundTo(found.bytes / found.states, 1);
  console.log(
    `${name}: ${found.states.toLocaleString('en-US')} states, ${end}; ${statesPerSecond.toLocaleString('en-US')} a second, ${bytesPerState} bytes each`,
  );
  if (found.violation !== undefined) await printCounterexample(name, undefined, found.violation);
  const { states: recorded } = worldOf(name);
  const isAsRecorded =
    flags.record === true || !found.isFixPoint || recorded === 0 || found.states === recorded;
  if (!isAsRecorded) {
    console.log(
      `${name}: expected ${recorded.toLocaleString('en-US')} states. If the protocol was changed, record the new number with --record`,
    );
  }
  return {
    states: found.states,
    transitions: found.transitions,
    depth: found.depth,
    fix_point: found.isFixPoint,
    as_recorded: isAsRecorded,
    violations: (found.violation === undefined ? 0 : 1) + missing.length,
    seconds: roundTo(found.seconds, 1),
    states_per_second: statesPerSecond,
    bytes_per_state: bytesPerState,
  };
}

/** Writes the numbers of states of the worlds that have reached their fix points into the source. */
async function record(figures: Readonly<Record<string, WorldFigures>>): Promise<void> {
  const file = join(PROJECT_FOLDER, 'proofs', 'explore', 'worlds.ts');
  let text = await readFile(file, 'utf8');
  for (const [name, { states, fix_point, violations }] of Object.entries(figures)) {
    if (!fix_point || violations > 0) continue;
    const number = states < 10_000 ? String(states) : states.toLocaleString('en-US').replaceAll(',', '_');
    text = text.replace(
      new RegExp(`(name: '${name}',[^}]*? states: )[\\d_]+`),
      (_, head: string) => head + number,
    );
  }
  await writeFile(file, text);
}

/** Searches the worlds of a guard until its absence shows. */
async function leaveOut(name: string): Promise<GuardFigures> {
  const guard = guardOf(name);
  const outside = guard.outside !== undefined;
  let isSearchedToTheEnd = true;
  let last = '';
  for (const world of guard.worlds) {
    last = world;
    const found = await searchWith(world, name);
    isSearchedToTheEnd &&= found.isFixPoint;
    if (found.violation === undefined) continue;
    const steps = found.violation.events?.length ?? found.depth;
    console.log(`without ${name}: ${world} is violated after ${steps} events`);
    await printCounterexample(world, name, found.violation);
    return { found: true, steps, world, outside, ok: !outside };
  }
  const ok = outside && isSearchedToTheEnd;
  console.log(`without ${name}: no violation${outside ? ` was expected (${guard.outside})` : ' was found'}`);
  return { found: false, steps: null, world: last, outside, ok };
}

async function searchWith(world: string, without: string | undefined): Promise<Found> {
  const progress = createProgress(process.stderr, {
    barIntervalMs: BAR_INTERVAL_MS,
    lineIntervalMs: LINE_INTERVAL_MS,
  });
  const startedMs = performance.now();
  const title = without === undefined ? world : `${world} without ${without}`;
  const found = await search({
    world: worldOf(world),
    without,
    crew,
    isBare: flags.bare ?? false,
    untilMs,
    onProgress: ({ states, depth, frontier }) => {
      const perSecond = Math.round(states / ((performance.now() - startedMs) / 1000));
      progress.show(
        0,
        0,
        `${title}: ${states} states, ${perSecond} a second, depth ${depth}, ${frontier} in front`,
      );
    },
  });
  progress.end();
  return found;
}

/** Prints a counterexample, replayed with the real objects. */
async function printCounterexample(
  name: string,
  without: string | undefined,
  { what: expected, events }: Violation,
): Promise<void> {
  const world = worldOf(name);
  if (events === undefined) {
    console.log(`      ${expected}; search again without --bare for its history`);
    return;
  }
  const { story, violation: what } = await replay(world, without, events, { checksStates: true });
  for (const [index, line] of story.entries()) console.log(`${String(index + 1).padStart(4)}  ${line}`);
  console.log(`      ${what ?? `The replay does not show what the search has found: ${expected}`}`);
  const trace: Trace = traceOf(world, without, { what: expected, events });
  await writeFigures(flags.trace, trace);
}

function showSummary(
  worlds: Readonly<Record<string, WorldFigures>>,
  guards: Readonly<Record<string, GuardFigures>>,
): void {
  const rows = Object.entries(worlds).map(
    ([name, { states, transitions, depth, fix_point, violations, seconds }]) => [
      name,
      states.toLocaleString('en-US'),
      transitions.toLocaleString('en-US'),
      String(depth),
      String(fix_point),
      String(violations),
      String(seconds),
      worldOf(name).states.toLocaleString('en-US'),
    ],
  );
  if (rows.length > 0) {
    console.log(
      `\n${tableText([['world', 'states', 'transitions', 'depth', 'fix point', 'violations', 'seconds', 'recorded'], ...rows])}`,
    );
  }
  const left = Object.entries(guards).map(([name, { steps, world, outside, ok }]) => [
    name,
    world,
    steps === null ? (outside ? 'outside' : 'not found') : String(steps),
    ok ? 'as expected' : 'UNEXPECTED',
  ]);
  if (left.length > 0) console.log(`\n${tableText([['without', 'world', 'events', ''], ...left])}`);
}
