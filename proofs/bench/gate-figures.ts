/** The figures of the section `gate`, and its goals and tables: computed from what was measured, and from nothing else. */

import { formatNumber } from '../shared/reporting.js';
import { quantile, type Spread, spreadOf } from '../shared/statistics.js';
import type { GateArmName, MissingArm } from './gate-arms.js';
import type { CheckFigures } from './gate-checks.js';
import type { GateLoad, GateTurns } from './gate-comparison.js';
import type { CrowdFigures } from './gate-crowd.js';
import { atMost, type Findings, type Goal, type Table } from './section.js';

/** What the section has measured. */
export interface GateMeasured {
  readonly loads: readonly { readonly kind: GateLoad; readonly turns: GateTurns }[];
  readonly missing: readonly MissingArm[];
  /** Milliseconds from the return of Revoke to the status at a client that reads, and at one that does not. */
  readonly revokedMs: readonly number[];
  readonly unreadMs: readonly number[];
  readonly streams: number;
  readonly crowd: CrowdFigures;
  readonly checks: CheckFigures;
  /** The versions of the proxies, by name. */
  readonly versions: Readonly<Record<string, string>>;
}

const CPU_RATIO_NGINX_MAX = 0.5;
const CPU_RATIO_HAPROXY_MAX = 1;
const IDLE_CPU_RATIO_NGINX_MAX = 1;
const REVOKE_P50_MS_MAX = 3;
const REVOKE_P99_MS_MAX = 25;
const CUT_MS_MAX = 1_000;

/** The processor time of an arm beside that of another one of the same round; undefined when one was not measured. */
export function ratioOf(turns: GateTurns, arm: GateArmName, beside: GateArmName): Spread | undefined {
  const [own, others] = [turns.get(arm), turns.get(beside)];
  if (own === undefined || others === undefined) return undefined;
  return spreadOf(
    own.map(({ cpuMicroseconds }, round) => cpuMicroseconds / (others[round]?.cpuMicroseconds ?? Number.NaN)),
  );
}

/** Everything that the section reports. */
export function gateFindings(measured: GateMeasured): Findings {
  const { loads, missing, revokedMs, unreadMs, crowd, checks } = measured;
  const turnsOf = (name: GateLoad['name']): GateTurns =>
    loads.find(({ kind }) => kind.name === name)?.turns ?? new Map();
  const medianRatio = (name: GateLoad['name'], beside: GateArmName): number | undefined =>
    ratioOf(turnsOf(name), 'gate', beside)?.median;
  const ratios = {
    cpu_ratio_nginx: medianRatio('busy', 'nginx'),
    cpu_ratio_haproxy: medianRatio('busy', 'haproxy'),
    idle_cpu_ratio_nginx: medianRatio('idle', 'nginx'),
    idle_connections_cpu_ratio_nginx: medianRatio('idle-connections', 'nginx'),
  };
  const times = {
    revoke_p50_ms: quantile(revokedMs, 0.5),
    revoke_p99_ms: quantile(revokedMs, 0.99),
    unread_p50_ms: quantile(unreadMs, 0.5),
    unread_p99_ms: quantile(unreadMs, 0.99),
    [`cut_${measured.streams}_ms`]: quantile(crowd.cutMs, 0.5),
  };
  return {
    figures: {
      // What was not measured is null.
      ...Object.fromEntries(Object.entries(ratios).map(([name, ratio]) => [name, ratio ?? null])),
      ...times,
      bytes_per_stream: crowd.bytes,
      resident_bytes_per_stream: crowd.residentBytes,
      check_cpu_us: checks.cpuMicroseconds.median,
      checks_per_second: checks.perSecond.median,
      versions: measured.versions,
      loads: Object.fromEntries(
        loads.map(({ kind, turns }) => [kind.name.replaceAll('-', '_'), loadFigures(turns)]),
      ),
    },
    goals: [
      ...ratioGoal(
        'CPU a call, 64 B, 32 in flight, beside nginx',
        ratios.cpu_ratio_nginx,
        CPU_RATIO_NGINX_MAX,
      ),
      ...ratioGoal('… beside haproxy', ratios.cpu_ratio_haproxy, CPU_RATIO_HAPROXY_MAX),
      ...ratioGoal('… 1 in flight, beside nginx', ratios.idle_cpu_ratio_nginx, IDLE_CPU_RATIO_NGINX_MAX),
      ...ratioGoal(
        '… 1 in flight on each of 4 connections',
        ratios.idle_connections_cpu_ratio_nginx,
        IDLE_CPU_RATIO_NGINX_MAX,
      ),
      atMost('Revoke returned → TOKEN_REVOKED, p50', times.revoke_p50_ms, REVOKE_P50_MS_MAX, ' ms'),
      atMost('… p99', times.revoke_p99_ms, REVOKE_P99_MS_MAX, ' ms'),
      atMost('… p99, at a client that does not read', times.unread_p99_ms, REVOKE_P99_MS_MAX, ' ms'),
      atMost(
        `cutting ${measured.streams.toLocaleString('en-US')} streams`,
        quantile(crowd.cutMs, 0.5),
        CUT_MS_MAX,
        ' ms',
      ),
    ],
    tables: [
      ...loads.map(({ kind, turns }) => loadTable(kind, turns)),
      streamTable(measured),
      crowdTable(measured),
      checkTable(checks),
    ],
    notes: missing.map(
      ({ name, why }) => `${name} could not be had, so its arm and its goals are missing: ${why}`,
    ),
  };
}

function ratioGoal(name: string, ratio: number | undefined, limit: number): Goal[] {
  return ratio === undefined ? [] : [atMost(name, ratio, limit, ' ×')];
}

function loadFigures(turns: GateTurns): Record<string, unknown> {
  return Object.fromEntries(
    [...turns].map(([arm, own]) => {
      const spread = (value: (turn: (typeof own)[number]) => number): Spread => spreadOf(own.map(value));
      const cpu = spread(({ cpuMicroseconds }) => cpuMicroseconds);
      const ratio = ratioOf(turns, 'gate', arm);
      return [
        arm.replaceAll('-', '_'),
        {
          ...(arm !== 'direct' && {
            cpu_us: cpu.median,
            cpu_us_quartiles: [cpu.lower, cpu.upper],
            gate_cpu_ratio: ratio?.median,
            gate_cpu_ratio_quartiles: [ratio?.lower, ratio?.upper],
          }),
          upstream_cpu_us: spread(({ upstreamMicroseconds }) => upstreamMicroseconds).median,
          calls_per_second: spread(({ perSecond }) => perSecond).median,
          p50_ms: spread(({ p50Ms }) => p50Ms).median,
        },
      ];
    }),
  );
}

function loadTable(kind: GateLoad, turns: GateTurns): Table {
  const head = [
    '',
    'CPU µs a call',
    'quartiles',
    'gate ÷ it',
    'quartiles',
    'calls/s',
    'p50 ms',
    'server, CPU µs',
  ];
  const rows = [...turns].map(([arm, own]) => {
    const spread = (value: (turn: (typeof own)[number]) => number): Spread => spreadOf(own.map(value));
    const cpu = spread(({ cpuMicroseconds }) => cpuMicroseconds);
    const ratio = arm === 'gate' || arm === 'direct' ? undefined : ratioOf(turns, 'gate', arm);
    return [
      arm,
      ...(arm === 'direct' ? ['–', '–'] : [formatNumber(cpu.median), quartilesOf(cpu, 1)]),
      ...(ratio === undefined ? ['–', '–'] : [ratio.median.toFixed(3), quartilesOf(ratio, 3)]),
      formatNumber(spread(({ perSecond }) => perSecond).median),
      formatNumber(spread(({ p50Ms }) => p50Ms).median),
      formatNumber(spread(({ upstreamMicroseconds }) => upstreamMicroseconds).median),
    ];
  });
  return { title: `${kind.title}; ${kind.rounds} rounds`, rows: [head, ...rows] };
}

function streamTable({ revokedMs, unreadMs }: GateMeasured): Table {
  const rowOf = (name: string, times: readonly number[]): string[] => [
    name,
    String(times.length),
    ...[0.5, 0.99, 1].map((share) => formatNumber(quantile(times, share))),
  ];
  return {
    title: 'milliseconds from the return of Revoke to TOKEN_REVOKED at the client of a stream',
    rows: [
      ['', 'streams', 'p50', 'p99', 'max'],
      rowOf('a client that reads', revokedMs),
      rowOf('a client that does not read', unreadMs),
    ],
  };
}

function crowdTable({ streams, crowd }: GateMeasured): Table {
  const { bytes, residentBytes, cutMs } = crowd;
  const cut = spreadOf(cutMs);
  return {
    title: `${streams.toLocaleString('en-US')} streams through one gate process`,
    rows: [
      ['bytes a stream', 'of the process', 'all are cut: ms', 'quartiles', 'times'],
      [
        formatNumber(bytes),
        formatNumber(residentBytes),
        formatNumber(cut.median),
        quartilesOf(cut, 0),
        String(cutMs.length),
      ],
    ],
  };
}

function checkTable({ cpuMicroseconds, perSecond }: CheckFigures): Table {
  return {
    title: 'Check of ext_authz, a known token, 32 in flight',
    rows: [
      ['CPU µs', 'quartiles', 'checks/s, one core', 'quartiles'],
      [
        formatNumber(cpuMicroseconds.median),
        quartilesOf(cpuMicroseconds, 1),
        formatNumber(perSecond.median),
        quartilesOf(perSecond, 0),
      ],
    ],
  };
}

function quartilesOf({ lower, upper }: Spread, decimals: number): string {
  return `${lower.toFixed(decimals)}–${upper.toFixed(decimals)}`;
}
