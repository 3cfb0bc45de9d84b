/** A section of the bench: measurements with figures (JSON), tables (text) and goals. */

import { formatNumber, type Rows } from '../shared/reporting.js';
import type { Cores } from './worker.js';

/** One section. A new one gets a file of its own and is listed in `sections.ts`. */
export interface Section {
  /** The name for `--only`, and the key of its figures in the JSON. */
  readonly name: string;
  /** What it measures, in one line. */
  readonly title: string;
  run(context: BenchContext): Promise<Findings>;
}

export interface BenchContext {
  /** Measure for seconds instead of minutes: enough to detect a regression, not to quote a figure. */
  readonly isShort: boolean;
  /** The figures of earlier sections, by name. */
  readonly earlier: Readonly<Record<string, unknown>>;
  /** The cores of servers and load generators. */
  readonly cores: Cores;
  /** Aborted when the bench is interrupted; the section must then stop everything that it started. */
  readonly signal: AbortSignal;
  /** Shows what is being measured. */
  progress(text: string): void;
}

export interface Findings {
  /** JSON; keys in snake_case, units last. */
  readonly figures: Readonly<Record<string, unknown>>;
  readonly tables: readonly Table[];
  readonly goals: readonly Goal[];
  /** Remarks on the figures, such as what was omitted. */
  readonly notes?: readonly string[];
}

export interface Table {
  readonly title: string;
  readonly rows: Rows;
}

/** A target for a figure. */
export interface Goal {
  readonly name: string;
  readonly wanted: string;
  readonly got: string;
  readonly isReached: boolean;
}

export function atMost(name: string, got: number, limit: number, unit = ''): Goal {
  return {
    name,
    wanted: `≤ ${limit}${unit}`,
    got: `${formatNumber(got)}${unit}`,
    isReached: got <= limit,
  };
}

export function atLeast(name: string, got: number, limit: number, unit = ''): Goal {
  return {
    name,
    wanted: `≥ ${limit}${unit}`,
    got: `${formatNumber(got)}${unit}`,
    isReached: got >= limit,
  };
}
