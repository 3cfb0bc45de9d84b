/** Section `warm`: the cost of the guard for a call with a known token. */

import { formatNumber } from '../shared/reporting.js';
import type { Spread } from '../shared/statistics.js';
import type { DecisionCommands, DecisionFigures } from './decision-process.js';
import { profileTable, type Shares, sharesOf } from './profile.js';
import { atLeast, atMost, type BenchContext, type Findings, type Section, type Table } from './section.js';
import { type ArmFigures, type Bench, compare, openBench } from './side-by-side.js';
import { startWorker } from './worker.js';

const ARMS = ['bare', 'bare-again', 'guard', 'naive-cache'] as const;
const KNOWN_TOKENS = 1000;
const PROFILED_CALLS = 60_000;
const CPU_RATIO_MAX = 1.06;
const THROUGHPUT_RATIO_MIN = 0.94;

export const warm: Section = {
  name: 'warm',
  title: 'a call with a known token, beside a server without a guard',
  run: measureWarm,
};

async function measureWarm(context: BenchContext): Promise<Findings> {
  const decision = await measureDecision(context);
  const bench = await openBench(context, { arms: ARMS, algorithm: 'EdDSA' });
  try {
    const tokens = await bench.server.call('tokens', KNOWN_TOKENS);
    const rounds = context.isShort ? 30 : 32;
    const all = await compare(context, bench, {
      arms: ARMS,
      tokens: () => tokens,
      rounds,
      callsPerTurn: () => (context.isShort ? 1_500 : 12_000),
    });
    const profiles = context.isShort ? undefined : await profileArms(bench);
    const [bare, again, guard, naive] = ARMS.map((arm) => all.get(arm)) as [
      ArmFigures,
      ArmFigures,
      ArmFigures,
      ArmFigures,
    ];
    return {
      figures: {
        cpu_ratio: guard.cpuRatio.median,
        cpu_ratio_quartiles: [guard.cpuRatio.lower, guard.cpuRatio.upper],
        throughput_ratio: guard.throughputRatio.median,
        throughput_ratio_quartiles: [guard.throughputRatio.lower, guard.throughputRatio.upper],
        aa_cpu_ratio: again.cpuRatio.median,
        aa_cpu_ratio_quartiles: [again.cpuRatio.lower, again.cpuRatio.upper],
        aa_throughput_ratio: again.throughputRatio.median,
        naive_cache_cpu_ratio: naive.cpuRatio.median,
        naive_cache_cpu_ratio_quartiles: [naive.cpuRatio.lower, naive.cpuRatio.upper],
        cpu_us_bare: bare.cpuMicroseconds.median,
        cpu_us_guard: guard.cpuMicroseconds.median,
        per_second_bare: bare.perSecond.median,
        decision_ns: decision.guardNs.median,
        decision_clocks_ns: decision.clocksNs.median,
        decision_map_ns: decision.mapNs.median,
        decision_to_map_ratio: decision.ratio.median,
        decision_to_map_ratio_without_clocks: decision.ratioWithoutClocks.median,
        decision_digest_ns: decision.digestNs.median,
        decision_to_digest_ratio: decision.digestRatio.median,
        rounds,
        ...(profiles !== undefined && { profile_us: profiles }),
      },
      tables: [
        { title: `${rounds} rounds, ${KNOWN_TOKENS} known tokens`, rows: [HEAD, ...[...all].map(rowOf)] },
        decisionTable(decision),
        ...(profiles === undefined ? [] : [profileTable(profiles)]),
      ],
      goals: [
        atMost('CPU a call, known token', guard.cpuRatio.median, CPU_RATIO_MAX, ' ×'),
        atLeast('calls a second, known token', guard.throughputRatio.median, THROUGHPUT_RATIO_MIN, ' ×'),
      ],
    };
  } finally {
    await bench.stop();
  }
}

/** Measures the decision without a server, beside one look-up in a Map of whole tokens. */
async function measureDecision(context: BenchContext): Promise<DecisionFigures> {
  const worker = startWorker<DecisionCommands>({ program: 'decision-process', core: context.cores.server });
  try {
    return await worker.call('measure', { rounds: context.isShort ? 20 : 100 });
  } finally {
    await worker.stop();
  }
}

/** Profiles the server with and without the guard. */
async function profileArms({ server, load }: Bench): Promise<Readonly<Record<string, Shares>>> {
  const profiles: Record<string, Shares> = {};
  for (const arm of ['bare', 'guard'] as const) {
    await server.call('startProfile');
    const flow = { connections: arm, calls: arm, until: { calls: PROFILED_CALLS }, inFlight: 32 };
    const [result] = await load.call('run', [flow]);
    profiles[arm] = sharesOf(await server.call('stopProfile'), result?.calls ?? 0);
  }
  return profiles;
}

function decisionTable(figures: DecisionFigures): Table {
  const { guardNs, clocksNs, mapNs, digestNs, ratio, ratioWithoutClocks, digestRatio } = figures;
  const timeRow = (name: string, { median, lower, upper }: Spread): string[] => [
    name,
    formatNumber(median),
    `${formatNumber(lower)}–${formatNumber(upper)}`,
  ];
  return {
    title:
      'the decision without a server: all checks, beside look-ups in a Map of whole tokens, and of their SHA-256',
    rows: [
      ['', 'ns', 'quartiles'],
      timeRow('guard', guardNs),
      timeRow('its two clocks', clocksNs),
      timeRow('Map', mapNs),
      timeRow('SHA-256 and Map', digestNs),
      ['to Map', ratio.median.toFixed(3), quartilesOf(ratio)],
      ['to Map, without clocks', ratioWithoutClocks.median.toFixed(3), quartilesOf(ratioWithoutClocks)],
      ['to SHA-256, without clocks', digestRatio.median.toFixed(3), quartilesOf(digestRatio)],
    ],
  };
}

/** The header of a table of arms. */
export const HEAD = ['', 'CPU µs a call', 'CPU ×', 'quartiles', 'calls/s', 'calls/s ×', 'quartiles'];

/** A row of a table of arms. */
export function rowOf([arm, figures]: readonly [string, ArmFigures]): string[] {
  return [
    arm,
    formatNumber(figures.cpuMicroseconds.median),
    figures.cpuRatio.median.toFixed(3),
    quartilesOf(figures.cpuRatio),
    formatNumber(figures.perSecond.median),
    figures.throughputRatio.median.toFixed(3),
    quartilesOf(figures.throughputRatio),
  ];
}

function quartilesOf({ lower, upper }: Spread): string {
  return `${lower.toFixed(3)}–${upper.toFixed(3)}`;
}
