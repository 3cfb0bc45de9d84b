/** The revocation drill: real processes, real servers, faults, and no revoked token admitted after the bound. */

import { loadavg } from 'node:os';
import { SystemError } from '../../scripts/system/system-error.js';
import { createRandom, type Random } from '../shared/random.js';
import { createProgress } from '../shared/reporting.js';
import { nowMs } from '../shared/waiting.js';
import { checkTraceFolder } from '../spec/trace-file.js';
import { connectTo, questionsOf, streamKindsOf } from './calls.js';
import { buildEnvironment } from './environment.js';
import { FAULTS, type Fault } from './faults.js';
import { connectAttacker } from './forgeries.js';
import { GATE_FAULTS } from './gate-faults.js';
import { findUpstreams, type UpstreamProgram } from './gates.js';
import { type LatencyFigures, measureLatency } from './latency.js';
import { Load } from './load.js';
import { CUSTOMERS_PER_ROUND, gatherParticipants, Revoker } from './participants.js';
import { type Figures, figuresOf, summaryOf, violationsOf } from './report.js';
import { RevocationOracle } from './revocation-oracle.js';
import { type Rounds, runRound } from './rounds.js';
import { watchStarvation } from './starvation.js';

/** How long an instance may trust its list, in milliseconds. */
const LEASE_MS = 1_500;

/** After this many milliseconds a revocation must hold everywhere: the lease, and a margin for clocks and timers. */
const BOUND_MS = LEASE_MS + 100;

const CALM_TIMES_MAX = 60;
const CALM_TIMES_PER_ROUND = 4;
/** An instance that waits for a processor for half of a lease, within two leases, may lose its lease. */
const STARVED_MS = LEASE_MS / 2;

/** Options of the drill. */
export interface DrillOptions {
  readonly rounds: number;
  /** For the drill of the fence: how many races of single transactions; rounds when undefined. */
  readonly races: number | undefined;
  readonly seed: number;
  /** Only faults whose names contain this text. */
  readonly faults: string;
  /** Duration of every fault, in seconds; its own default when undefined. */
  readonly faultSeconds: number | undefined;
  /** Whether servers in other languages take part, behind gates. */
  readonly gates: boolean;
  readonly signal: AbortSignal;
}

/** Runs the drill and prints its progress. */
export async function drillRevocation({
  rounds: count,
  seed,
  faults,
  faultSeconds,
  gates,
  signal,
}: DrillOptions): Promise<Figures> {
  const startedMs = nowMs();
  const [busy = 0] = loadavg();
  const random = createRandom(seed);
  const progress = createProgress(process.stdout);
  const plan = planOf(random, count, { wanted: faults, gates });
  const upstreams = gates ? await upstreamsFor(progress) : [];
  progress.show(0, count, 'starting the system');
  const environment = await buildEnvironment({
    leaseMs: LEASE_MS,
    customers: CUSTOMERS_PER_ROUND,
    upstreams,
    signal,
    onProgress: ({ part, state, detail }) => {
      if (state !== 'starting') progress.show(0, count, `${part} ${detail}`.trim());
    },
  });
  const starvation = watchStarvation(environment, { withinMs: 2 * LEASE_MS, muchMs: STARVED_MS });
  const clients = connectTo(environment);
  const oracle = new RevocationOracle(BOUND_MS, (instance, atMs) =>
    environment.instances.some((name) => name === instance && starvation.isCause(name, atMs)),
  );
  const revoker = new Revoker({ environment, clients, oracle });
  const intruder = await connectAttacker(environment, random);
  try {
    const times = Math.min(CALM_TIMES_MAX, CALM_TIMES_PER_ROUND * count);
    progress.show(0, count, 'no fault, no load');
    const quiet = await measureLatency({ environment, clients, revoker, times, signal });
    progress.show(0, count, 'no fault, under load');
    const loaded = await measureUnderLoad({ environment, clients, oracle, revoker, random, times, signal });
    const rounds: Rounds = {
      environment,
      clients,
      oracle,
      revoker,
      intruder,
      starvation,
      random,
      leaseMs: LEASE_MS,
      faultMs: faultSeconds === undefined ? undefined : faultSeconds * 1000,
      signal,
      remembered: [],
      turns: new Map(),
    };
    for (const [index, fault] of plan.entries()) {
      if (signal.aborted) break;
      progress.show(index, count, fault.name);
      const { revocations, checks, violations, maxLateMs, unavailableMs } = await runRound(
        rounds,
        index + 1,
        fault,
      );
      progress.show(
        index + 1,
        count,
        `${fault.name}: ${revocations} revocations, ${checks} checks, ${violations} violations, latest ${maxLateMs.toFixed(0)} ms, unavailable ${unavailableMs.toFixed(0)} ms`,
      );
    }
    progress.show(count, count, 'comparing what the instances decided with the specification');
    const { traces, steps, mismatches } = await checkTraceFolder(environment.traceFolder);
    for (const mismatch of mismatches) oracle.report('OTHER_DECISION', mismatch);
    progress.end();
    const figures = figuresOf(oracle, {
      drill: 'revocation',
      seed,
      lease_ms: LEASE_MS,
      revoke_to_refused_ms: quiet,
      revoke_to_refused_under_load_ms: loaded,
      drill_delay_ms_max: Math.round(starvation.worstDelayMs()),
      gates: upstreams.map(({ library }) => library),
      load_average: busy,
      traces,
      compared_steps: steps,
      seconds: Math.round((nowMs() - startedMs) / 1_000),
    });
    print(figures, oracle);
    return figures;
  } finally {
    starvation.stop();
    await intruder.close();
    clients.close();
    await environment.stop();
  }
}

/** The servers that can be had here. @throws SystemError when there is none */
async function upstreamsFor(
  progress: Pick<ReturnType<typeof createProgress>, 'show'>,
): Promise<readonly UpstreamProgram[]> {
  progress.show(0, 0, 'fetching servers in other languages');
  const { programs, missing } = await findUpstreams();
  if (programs.length === 0) throw new SystemError(`No server can be had: ${missing.join('; ')}.`);
  if (missing.length > 0) console.log(`Without ${missing.join(' and ')}.`);
  return programs;
}

/** All faults in random order, repeated, so that each occurs about equally often. */
function planOf(
  random: Random,
  count: number,
  { wanted, gates }: { readonly wanted: string; readonly gates: boolean },
): Fault[] {
  const possible = gates ? [...FAULTS, ...GATE_FAULTS] : FAULTS;
  const faults = possible.filter(({ name }) => name.includes(wanted));
  if (faults.length === 0) throw new Error(`no fault has ${wanted} in its name`);
  const plan: Fault[] = [];
  while (plan.length < count) plan.push(...random.shuffle(faults));
  return plan.slice(0, count);
}

async function measureUnderLoad(
  options: Parameters<typeof measureLatency>[0] & {
    oracle: RevocationOracle;
    random: Random;
  },
): Promise<LatencyFigures> {
  const { environment, clients, oracle, random } = options;
  oracle.beginRound(0, 'none', false);
  oracle.rounds.pop();
  const { players } = await gatherParticipants({ environment, clients, random, round: 0 });
  const load = new Load({
    oracle,
    clients,
    instances: environment.instances,
    questions: questionsOf(clients),
    kinds: streamKindsOf(clients, () => undefined),
    players,
  });
  load.start();
  try {
    return await measureLatency(options);
  } finally {
    await load.stop();
  }
}

function print(figures: Figures, oracle: RevocationOracle): void {
  const { revoke_to_refused_ms: quiet, revoke_to_refused_under_load_ms: loaded } = figures;
  console.log(`\n${summaryOf(oracle.rounds)}\n`);
  for (const [name, { p50, p99, max, instances }] of [
    ['quiet', quiet],
    ['under load', loaded],
  ] as const) {
    console.log(`revoke returned → refused, ${name}: p50 ${p50} ms, p99 ${p99} ms, max ${max} ms`);
    for (const [instance, at] of Object.entries(instances)) {
      console.log(`  ${instance}: p50 ${at.p50} ms, p99 ${at.p99} ms, max ${at.max} ms`);
    }
  }
  console.log(`when the drill began, ${figures.load_average.toFixed(1)} processes wanted to run`);
  console.log(
    `\n${figures.rounds} rounds in ${figures.seconds} s, ${figures.revocations} revocations, ${figures.checks} checks; ` +
      `a revoked token was last admitted ${figures.max_late_ms} ms after Revoke had returned (bound ${figures.bound_ms} ms); ` +
      `the drill itself was late by ${figures.drill_delay_ms_max} ms at worst`,
  );
  if (figures.starved > 0) {
    console.log(
      `${figures.starved} calls were refused as stale because instances had to wait for a processor`,
    );
  }
  console.log(
    `${figures.compared_steps} steps of ${figures.traces} instances were compared with the tables of the specification`,
  );
  if (figures.violations === 0) console.log('No violation.');
  else console.error(`${figures.violations} violations:\n${violationsOf(oracle)}`);
}
