/** Output of the drill: progress, summary and JSON. */

import { tableText } from '../shared/reporting.js';
import { sumOf } from '../shared/statistics.js';
import type { LatencyFigures } from './latency.js';
import type { RevocationOracle, RoundFigures } from './revocation-oracle.js';

const VIOLATIONS_SHOWN_MAX = 20;

/** All figures of a drill. */
export interface Figures {
  readonly drill: string;
  readonly seed: number;
  readonly lease_ms: number;
  readonly bound_ms: number;
  readonly rounds: number;
  readonly revocations: number;
  readonly checks: number;
  readonly violations: number;
  readonly violations_by_kind: Readonly<Record<string, number>>;
  readonly max_late_ms: number;
  readonly revoke_to_refused_ms: LatencyFigures;
  readonly revoke_to_refused_under_load_ms: LatencyFigures;
  /** The worst round of each fault: how long the worst instance admitted no good token. */
  readonly unavailable_ms: Readonly<Record<string, number>>;
  /** The worst round of each fault: time from healing until every instance served again. */
  readonly back_after_ms: Readonly<Record<string, number>>;
  /** The longest time for which the drill itself was not scheduled; its measurements are no more precise. */
  readonly drill_delay_ms_max: number;
  /** Calls refused as stale by instances that waited for a processor, without a fault as cause. */
  readonly starved: number;
  /** Instances whose steps were recorded and compared with the tables of the specification, and how many steps. */
  readonly traces: number;
  readonly compared_steps: number;
  /** The libraries of the servers behind gates, with their versions. */
  readonly gates: readonly string[];
  /** Load of the machine at the start, as context for the latencies. */
  readonly load_average: number;
  readonly seconds: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly violation_details: RevocationOracle['violations'];
}

/** The rounds, summarised by fault. */
export function summaryOf(rounds: readonly RoundFigures[]): string {
  const header = [
    'fault',
    'rounds',
    'revocations',
    'checks',
    'violations',
    'latest ms',
    'unavailable ms',
    'back ms',
  ];
  const rows = [...byFault(rounds)].map(([fault, all]) => rowOf(fault, all));
  return tableText([header, ...rows, rowOf('all', rounds)]);
}

function rowOf(name: string, all: readonly RoundFigures[]): string[] {
  return [
    name,
    String(all.length),
    String(sumOf(all, ({ revocations }) => revocations)),
    String(sumOf(all, ({ checks }) => checks)),
    String(sumOf(all, ({ violations }) => violations)),
    worst(all, ({ maxLateMs }) => maxLateMs).toFixed(0),
    worst(all, ({ unavailableMs }) => unavailableMs).toFixed(0),
    worst(all, ({ backAfterMs }) => backAfterMs).toFixed(0),
  ];
}

/** The first violations, one a line. */
export function violationsOf({ violations }: RevocationOracle): string {
  const shown = violations
    .slice(0, VIOLATIONS_SHOWN_MAX)
    .map(({ kind, round, fault, detail }) => `${kind} in round ${round} (${fault}): ${detail}`);
  const left = violations.length - shown.length;
  return [...shown, ...(left > 0 ? [`… and ${left} more`] : [])].join('\n');
}

/** The figures of all rounds. */
export function figuresOf(
  oracle: RevocationOracle,
  rest: Pick<
    Figures,
    | 'drill'
    | 'seed'
    | 'lease_ms'
    | 'revoke_to_refused_ms'
    | 'revoke_to_refused_under_load_ms'
    | 'drill_delay_ms_max'
    | 'gates'
    | 'load_average'
    | 'traces'
    | 'compared_steps'
    | 'seconds'
  >,
): Figures {
  const { rounds } = oracle;
  const faults = byFault(rounds);
  const perFault = (value: (all: readonly RoundFigures[]) => number): Record<string, number> =>
    Object.fromEntries([...faults].map(([fault, all]) => [fault, Math.round(value(all))]));
  return {
    ...rest,
    bound_ms: oracle.boundMs,
    starved: oracle.starved,
    rounds: rounds.length,
    revocations: sumOf(rounds, ({ revocations }) => revocations),
    checks: sumOf(rounds, ({ checks }) => checks),
    violations: sumOf(rounds, ({ violations }) => violations),
    violations_by_kind: Object.fromEntries(oracle.counts),
    max_late_ms: Math.round(worst(rounds, ({ maxLateMs }) => maxLateMs)),
    unavailable_ms: perFault((all) => worst(all, ({ unavailableMs }) => unavailableMs)),
    back_after_ms: perFault((all) => worst(all, ({ backAfterMs }) => backAfterMs)),
    faults: perFault((all) => all.length),
    violation_details: oracle.violations,
  };
}

function byFault(rounds: readonly RoundFigures[]): Map<string, RoundFigures[]> {
  const groups = new Map<string, RoundFigures[]>();
  for (const round of rounds) groups.set(round.fault, [...(groups.get(round.fault) ?? []), round]);
  return groups;
}

function worst(all: readonly RoundFigures[], value: (figures: RoundFigures) => number): number {
  return Math.max(0, ...all.map(value));
}
