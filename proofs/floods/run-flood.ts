/** One flood from quiet to quiet: measures, lets a process of its own flood the system, measures again. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { PROJECT_FOLDER, programArguments } from '../../scripts/system/project.js';
import { type Percentiles, percentilesOf } from '../shared/statistics.js';
import type { Environment } from './environment.js';
import type { Flood } from './flood.js';
import type { FloodInput, Tally } from './flood-input.js';
import { HONEST_CLASSES, type HonestClass, type HonestTraffic, type Sample } from './honest-traffic.js';
import type { Meters, Reading } from './meters.js';

const PROGRAM = 'proofs/floods/flood-process';
/**
 * The attacker shares the processors with the system. It yields to it, so that what is measured is what the services
 * do, and not who gets a processor.
 */
const NICENESS = 5;
/** The time that the process of a flood has to start. */
const START_SECONDS = 60;
/** What it may take beyond its time before it is killed; it ends by itself. */
const GRACE_SECONDS = 15;
const RECOVERY_POLL_MS = 100;
/** All is as before when it has been for this long. */
const RECOVERED_FOR_MS = 1_000;
const RECOVERED_CALLS_MIN = 40;
/** An honest class may always take so long. */
const LATENCY_ALLOWANCE_MS = 100;
/** An honest class may take so many times as long as before. */
const LATENCY_RATIO_MAX = 2;

/** The figures of one honest class. */
export interface ClassFigures {
  readonly quiet: Percentiles;
  readonly meanwhile: Percentiles;
  readonly calls: number;
}

/** What one flood did. */
export interface FloodResult {
  readonly flood: Flood;
  readonly honest: Readonly<Record<HonestClass, ClassFigures>>;
  /** Failed honest calls by class and reason, without those that name a limit. */
  readonly refused: Readonly<Record<string, number>>;
  /** Failed honest calls that say which limit, and when to retry. */
  readonly limited: number;
  readonly stale: number;
  readonly services: readonly Reading[];
  /** Seconds until all was as before; `undefined` when it was not within the time. */
  readonly recoveredSeconds: number | undefined;
  readonly tally: Tally;
  /** Why the flood itself failed; `undefined` when it did not. */
  readonly broken: string | undefined;
  /** What else went wrong. */
  readonly other: readonly string[];
  /** The load average of the machine at the end, over one minute. */
  readonly load: number;
}

/** Lengths of the phases. */
export interface Phases {
  readonly quietSeconds: number;
  readonly floodSeconds: number;
  readonly recoverySeconds: number;
}

/** Runs one flood. */
export async function runFlood(options: {
  readonly flood: Flood;
  readonly environment: Environment;
  readonly traffic: HonestTraffic;
  readonly meters: Meters;
  /** Samples of earlier quiet phases of the same system; this one is added. */
  readonly baseline: Sample[];
  readonly phases: Phases;
  readonly seed: number;
  readonly signal: AbortSignal;
  readonly onPhase: (phase: string) => void;
}): Promise<FloodResult> {
  const { flood, environment, traffic, meters, baseline, phases, seed, signal, onPhase } = options;
  const pause = async (seconds: number): Promise<void> => {
    await sleep(seconds * 1_000, undefined, { signal });
  };
  onPhase('quiet');
  traffic.forget();
  await pause(phases.quietSeconds);
  baseline.push(...traffic.samples.filter(({ failure }) => failure === undefined));
  const quiet = [...baseline];
  const input = { ...environment.input, name: flood.name, seed, seconds: phases.floodSeconds };
  onPhase('flooding');
  let floodFrom = performance.now();
  const outcome = await runAttacker(input, signal, async () => {
    await meters.reset();
    floodFrom = performance.now();
  });
  const floodTo = performance.now();
  onPhase('recovering');
  const recoveredSeconds = await recovery({ traffic, meters, quiet, floodTo, phases, signal });
  const during = traffic.samples.filter(({ startedMs }) => startedMs >= floodFrom && startedMs < floodTo);
  const services = meters.readings();
  const failed = during.filter(({ failure }) => failure !== undefined);
  return {
    flood,
    honest: figuresOf(quiet, during),
    refused: countByReason(failed.filter(({ limited }) => limited !== true)),
    limited: failed.filter(({ limited }) => limited === true).length,
    stale:
      failed.filter(({ stale }) => stale === true).length + services.reduce((sum, one) => sum + one.stale, 0),
    services,
    recoveredSeconds,
    ...outcome,
    other: [],
    load: loadavg()[0] ?? 0,
  };
}

/** The slowest that a class may be. */
export function allowedMs(quietP99Ms: number): number {
  return Math.max(LATENCY_ALLOWANCE_MS, LATENCY_RATIO_MAX * quietP99Ms);
}

function figuresOf(quiet: readonly Sample[], during: readonly Sample[]): FloodResult['honest'] {
  return Object.fromEntries(
    HONEST_CLASSES.map((kind) => {
      const of = (samples: readonly Sample[]): number[] =>
        samples.filter((sample) => sample.kind === kind).map(({ ms }) => ms);
      const meanwhile = of(during);
      return [
        kind,
        {
          quiet: percentilesOf(of(quiet), 1),
          meanwhile: percentilesOf(meanwhile, 1),
          calls: meanwhile.length,
        },
      ];
    }),
  ) as FloodResult['honest'];
}

function countByReason(failed: readonly Sample[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind, failure } of failed) {
    const key = `${kind}: ${failure}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

async function recovery(options: {
  readonly traffic: HonestTraffic;
  readonly meters: Meters;
  readonly quiet: readonly Sample[];
  readonly floodTo: number;
  readonly phases: Phases;
  readonly signal: AbortSignal;
}): Promise<number | undefined> {
  const { traffic, meters, quiet, floodTo, phases, signal } = options;
  const allowed = new Map(
    HONEST_CLASSES.map((kind) => {
      const values = quiet.filter((sample) => sample.kind === kind).map(({ ms }) => ms);
      return [kind, allowedMs(percentilesOf(values, 1).p99)];
    }),
  );
  const isAsBefore = (sample: Sample): boolean =>
    sample.failure === undefined && sample.ms <= (allowed.get(sample.kind) ?? 0);
  for (let goodFrom = floodTo; ; await sleep(RECOVERY_POLL_MS, undefined, { signal })) {
    const bad = traffic.samples.filter((sample) => sample.startedMs >= goodFrom && !isAsBefore(sample));
    for (const { startedMs } of bad) goodFrom = Math.max(goodFrom, startedMs + 1);
    const now = performance.now();
    if (!meters.current()) goodFrom = now;
    // Calls that hang are no samples, so there must be enough of those that succeed.
    const good = traffic.samples.filter(({ kind, startedMs }) => kind === 'known' && startedMs >= goodFrom);
    if (now - goodFrom >= RECOVERED_FOR_MS && good.length >= RECOVERED_CALLS_MIN) {
      return Math.max(0, goodFrom - floodTo) / 1_000;
    }
    if (now - floodTo > phases.recoverySeconds * 1_000) return undefined;
  }
}

/** Lets a process flood; its processor time is not the services'. */
async function runAttacker(
  input: FloodInput,
  signal: AbortSignal,
  onReady: () => Promise<void>,
): Promise<{ readonly tally: Tally; readonly broken: string | undefined }> {
  const child = spawn('nice', ['-n', String(NICENESS), process.execPath, ...programArguments(PROGRAM)], {
    cwd: PROJECT_FOLDER,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // A session of its own, see below.
    detached: true,
  });
  // Where Linux schedules by session, a niceness counts within the session alone, and the session has one of its own.
  void writeFile(`/proc/${child.pid}/autogroup`, String(NICENESS)).catch(() => undefined);
  const kill = (): void => void child.kill('SIGKILL');
  let timer = setTimeout(kill, START_SECONDS * 1_000);
  const onStart = async (): Promise<void> => {
    clearTimeout(timer);
    timer = setTimeout(kill, (input.seconds + GRACE_SECONDS) * 1_000);
    await onReady();
  };
  signal.addEventListener('abort', kill, { once: true });
  try {
    return { tally: await talkTo(child, input, onStart), broken: undefined };
  } catch (error) {
    signal.throwIfAborted();
    return { tally: {}, broken: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', kill);
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      kill();
      await ended;
    }
  }
}

async function talkTo(child: ChildProcess, input: FloodInput, onReady: () => Promise<void>): Promise<Tally> {
  return await new Promise<Tally>((resolve, reject) => {
    child.on('message', (message: { ready?: boolean; tally?: Tally }) => {
      if (message.ready === true) void onReady().then(() => child.send(input), reject);
      if (message.tally !== undefined) resolve(message.tally);
    });
    child.once('error', reject);
    child.once('exit', (code, killed) =>
      reject(new Error(`the process of ${input.name} ended: ${killed ?? `exit code ${code}`}`)),
    );
  });
}
