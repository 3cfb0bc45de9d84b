/** What the drill says: on the way, at the end, and to machines. */

import { tableText } from '../shared/reporting.js';
import { sumOf } from '../shared/statistics.js';
import type { CalmFigures } from './latency.js';
import type { Ledger, RoundFigures } from './revocation-oracle.js';

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
  readonly revoke_to_refused_ms: CalmFigures;
  readonly revoke_to_refused_under_load_ms: CalmFigures;
  /** The worst round of each fault: how long the worst instance served no good token. */
  readonly unavailable_ms: Readonly<Record<string, number>>;
  /** The worst round of each fault: from healing until everything was served again. */
  readonly back_after_ms: Readonly<Record<string, number>>;
  /** How long the drill itself was kept from looking at its clock, at worst; it measures no better than that. */
  readonly drill_delay_ms_max: number;
  /** Calls refused as stale by instances that had to wait for a processor; no fault was the cause. */
  readonly starved: number;
  /** How many processes wanted to run when it began, to judge the latencies by. */
  readonly load_average: number;
  readonly seconds: number;
  readonly faults: Readonly<Record<string, number>>;
  readonly violation_details: Ledger['violations'];
}

/** The rounds, summed up by fault. */
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
export function violationsOf({ violations }: Ledger): string {
  const shown = violations
    .slice(0, VIOLATIONS_SHOWN_MAX)
    .map(({ kind, round, fault, detail }) => `${kind} in round ${round} (${fault}): ${detail}`);
  const left = violations.length - shown.length;
  return [...shown, ...(left > 0 ? [`… and ${left} more`] : [])].join('\n');
}

/** The figures of all rounds. */
export function figuresOf(
  ledger: Ledger,
  rest: Pick<
    Figures,
    | 'drill'
    | 'seed'
    | 'lease_ms'
    | 'revoke_to_refused_ms'
    | 'revoke_to_refused_under_load_ms'
    | 'drill_delay_ms_max'
    | 'load_average'
    | 'seconds'
  >,
): Figures {
  const { rounds } = ledger;
  const faults = byFault(rounds);
  const perFault = (value: (all: readonly RoundFigures[]) => number): Record<string, number> =>
    Object.fromEntries([...faults].map(([fault, all]) => [fault, Math.round(value(all))]));
  return {
    ...rest,
    bound_ms: ledger.boundMs,
    starved: ledger.starved,
    rounds: rounds.length,
    revocations: sumOf(rounds, ({ revocations }) => revocations),
    checks: sumOf(rounds, ({ checks }) => checks),
    violations: sumOf(rounds, ({ violations }) => violations),
    violations_by_kind: Object.fromEntries(ledger.counts),
    max_late_ms: Math.round(worst(rounds, ({ maxLateMs }) => maxLateMs)),
    unavailable_ms: perFault((all) => worst(all, ({ unavailableMs }) => unavailableMs)),
    back_after_ms: perFault((all) => worst(all, ({ backAfterMs }) => backAfterMs)),
    faults: perFault((all) => all.length),
    violation_details: ledger.violations,
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
