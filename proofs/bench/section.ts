/** What a section of the bench is: something measured, with figures for machines, tables for people, and goals. */

import { formatNumber, type Rows } from '../shared/reporting.js';
import type { Cores } from './worker.js';

/** One part of the bench. A new one is written in a file of its own and listed in `sections.ts`. */
export interface Section {
  /** By which it is chosen, and under which its figures stand in the JSON. */
  readonly name: string;
  /** What it measures, in one line. */
  readonly title: string;
  run(context: BenchContext): Promise<Findings>;
}

/** What every section is given. */
export interface BenchContext {
  /** Measure for seconds instead of minutes: enough to see a regression, not to quote a figure. */
  readonly isShort: boolean;
  /** The figures of earlier sections, by their names. */
  readonly earlier: Readonly<Record<string, unknown>>;
  /** Where servers and load generators run. */
  readonly cores: Cores;
  /** Aborted when the bench is to end; everything that was started must then be stopped. */
  readonly signal: AbortSignal;
  /** Says what is going on. */
  progress(text: string): void;
}

/** What a section has found. */
export interface Findings {
  /** For machines: keys in snake_case, units last. */
  readonly figures: Readonly<Record<string, unknown>>;
  readonly tables: readonly Table[];
  readonly goals: readonly Goal[];
  /** Sentences that belong to the figures: what was left out, say. */
  readonly notes?: readonly string[];
}

export interface Table {
  readonly title: string;
  readonly rows: Rows;
}

/** Something that a figure should reach. */
export interface Goal {
  readonly name: string;
  readonly wanted: string;
  readonly got: string;
  readonly isReached: boolean;
}

/** A goal that asks for at most so much. */
export function atMost(name: string, got: number, limit: number, unit = ''): Goal {
  return {
    name,
    wanted: `≤ ${limit}${unit}`,
    got: `${formatNumber(got)}${unit}`,
    isReached: got <= limit,
  };
}

/** A goal that asks for at least so much. */
export function atLeast(name: string, got: number, limit: number, unit = ''): Goal {
  return {
    name,
    wanted: `≥ ${limit}${unit}`,
    got: `${formatNumber(got)}${unit}`,
    isReached: got >= limit,
  };
}
