/** Output of the simulation: progress, summary and JSON. */

import { type Percentiles, percentilesOf, roundTo } from '../shared/statistics.js';
import type { RunResult } from './run.js';
import type { Violation } from './world.js';

/** The sums of some runs. It can be sent between processes. */
export interface Tally {
  seeds: number;
  revocations: number;
  checks: number;
  commits: number;
  fenced: number;
  comparedSteps: number;
  maxLateMs: number;
  readonly violations: { readonly seed: number; readonly first: Violation }[];
  readonly revokeToRefusedMs: number[];
  readonly unavailableMs: number[];
  readonly recoveryMs: number[];
  readonly faults: { [name: string]: number };
}

/** The JSON figures. */
export interface Figures {
  readonly seeds: number;
  readonly first_seed: number;
  readonly without: string | null;
  readonly revocations: number;
  readonly checks: number;
  /** Transactions behind the fence, and revocations whose fence stood when Revoke returned. */
  readonly commits: number;
  readonly fenced: number;
  /** Steps of feeds that were compared with the tables of the specification; 0 when a guard is left out. */
  readonly compared_steps: number;
  readonly violations: number;
  readonly violating_seeds: readonly number[];
  /** Latest admission of a revoked token after Revoke returned, in milliseconds; within the bound unless it is a violation. */
  readonly max_late_ms: number;
  readonly revoke_to_refused_ms: Percentiles;
  /** How long an instance refused without a lease during faults, in milliseconds. */
  readonly unavailable_ms: Percentiles;
  /** Time from the healing of all faults until every instance served again, in milliseconds. */
  readonly recovery_ms: Percentiles;
  readonly seconds: number;
  readonly seeds_per_second: number;
  readonly faults: { readonly [name: string]: number };
}

export function createTally(): Tally {
  return {
    seeds: 0,
    revocations: 0,
    checks: 0,
    commits: 0,
    fenced: 0,
    comparedSteps: 0,
    maxLateMs: 0,
    violations: [],
    revokeToRefusedMs: [],
    unavailableMs: [],
    recoveryMs: [],
    faults: {},
  };
}

/** Adds one run. */
export function addRun(tally: Tally, { seed, violations, measures }: RunResult): void {
  const [first] = violations;
  tally.seeds += 1;
  tally.revocations += measures.revocations;
  tally.checks += measures.checks;
  tally.commits += measures.commits;
  tally.fenced += measures.fenced;
  tally.comparedSteps += measures.comparedSteps;
  tally.maxLateMs = Math.max(tally.maxLateMs, measures.maxLateMs);
  if (first !== undefined) tally.violations.push({ seed, first });
  tally.revokeToRefusedMs.push(...measures.revokeToRefusedMs);
  tally.unavailableMs.push(...measures.unavailableMs);
  tally.recoveryMs.push(...measures.recoveryMs);
  for (const [name, count] of measures.faults) tally.faults[name] = (tally.faults[name] ?? 0) + count;
}

/** Adds other runs. */
export function addTally(tally: Tally, other: Tally): void {
  tally.seeds += other.seeds;
  tally.revocations += other.revocations;
  tally.checks += other.checks;
  tally.commits += other.commits;
  tally.fenced += other.fenced;
  tally.comparedSteps += other.comparedSteps;
  tally.maxLateMs = Math.max(tally.maxLateMs, other.maxLateMs);
  tally.violations.push(...other.violations);
  tally.revokeToRefusedMs.push(...other.revokeToRefusedMs);
  tally.unavailableMs.push(...other.unavailableMs);
  tally.recoveryMs.push(...other.recoveryMs);
  for (const [name, count] of Object.entries(other.faults))
    tally.faults[name] = (tally.faults[name] ?? 0) + count;
}

export function figuresOf(
  tally: Tally,
  run: { readonly firstSeed: number; readonly without: string | undefined; readonly seconds: number },
): Figures {
  return {
    seeds: tally.seeds,
    first_seed: run.firstSeed,
    without: run.without ?? null,
    revocations: tally.revocations,
    checks: tally.checks,
    commits: tally.commits,
    fenced: tally.fenced,
    compared_steps: tally.comparedSteps,
    violations: tally.violations.length,
    violating_seeds: tally.violations.map(({ seed }) => seed).sort((a, b) => a - b),
    max_late_ms: roundTo(tally.maxLateMs, 1),
    revoke_to_refused_ms: spreadOf(tally.revokeToRefusedMs),
    unavailable_ms: spreadOf(tally.unavailableMs),
    recovery_ms: spreadOf(tally.recoveryMs),
    seconds: roundTo(run.seconds, 1),
    seeds_per_second: roundTo(tally.seeds / run.seconds, 1),
    faults: Object.fromEntries(Object.entries(tally.faults).sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

/** The figures as text. */
export function summaryOf(figures: Figures): string {
  const spread = ({ p50, p99, max }: Percentiles): string => `p50 ${p50}  p99 ${p99}  max ${max} ms`;
  const rows: [string, string][] = [
    ['schedules', `${figures.seeds} in ${figures.seconds} s, ${figures.seeds_per_second} a second`],
    ['revocations', String(figures.revocations)],
    ['checks', String(figures.checks)],
    ['commits', `${figures.commits}, with ${figures.fenced} revocations that were fenced`],
    ['compared steps', String(figures.compared_steps)],
    ['violations', String(figures.violations)],
    ['latest admission', `${figures.max_late_ms} ms after Revoke had returned`],
    ['revoked to refused', spread(figures.revoke_to_refused_ms)],
    ['unavailable', spread(figures.unavailable_ms)],
    ['back after healing', spread(figures.recovery_ms)],
    [
      'faults',
      Object.entries(figures.faults)
        .map(([name, count]) => `${name} ${count}`)
        .join(', '),
    ],
  ];
  return rows.map(([name, value]) => `${name.padEnd(20)}${value}`).join('\n');
}

function spreadOf(values: readonly number[]): Percentiles {
  return percentilesOf(values, 1);
}
