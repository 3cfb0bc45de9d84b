/** Runs the steps of a fence against the rows, and compares what was decided with what the rows say. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Mismatch } from './checker.js';
import {
  CONFIRM_ROWS,
  type FenceState,
  type FenceStep,
  LOCK_ROWS,
  NOWHERE,
  PASS_ROWS,
  RAISE_ROWS,
} from './fence-rows.js';
import { decide } from './rows.js';
import { SPECIFICATION_FOLDER } from './vectors.js';

/** Compares the steps of one fence with the rows. */
export class FenceChecker {
  readonly state: FenceState;
  readonly #without: ReadonlySet<string>;
  #steps = 0;

  /**
   * @param options.from - a part of the state, if the fence is not new
   * @param options.without - the rows that are left out
   */
  constructor(options: { from?: Partial<FenceState>; without?: ReadonlySet<string> } = {}) {
    const { from = {}, without = new Set() } = options;
    this.#without = without;
    this.state = {
      place: NOWHERE,
      seen: new Map(),
      sharing: new Set(),
      raising: undefined,
      unseen: undefined,
      known: new Map(),
      ...from,
    };
  }

  /** Applies a step. @returns undefined when its decision is that of the rows */
  check(step: FenceStep): Mismatch | undefined {
    this.#steps += 1;
    const decision = this.#decisionOf(step);
    if (!('expect' in step) || JSON.stringify(decision) === JSON.stringify(step.expect)) return undefined;
    const what = `${step.do}: found ${JSON.stringify(step.expect)}, but the tables say ${JSON.stringify(decision)}`;
    return { step: this.#steps, what };
  }

  #decisionOf(step: FenceStep): unknown {
    const { state } = this;
    const without = this.#without;
    switch (step.do) {
      case 'begin':
        state.seen.set(step.transaction, state.place);
        return undefined;
      case 'lock':
        return decide(LOCK_ROWS, state, step, without) ?? state.seen.get(step.transaction) ?? NOWHERE;
      case 'pass':
        return decide(PASS_ROWS, state, step, without) ?? 'passed';
      case 'raise':
        return decide(RAISE_ROWS, state, step, without) ?? 'idle';
      case 'commit':
        if (state.raising?.transaction !== step.transaction) return undefined;
        state.unseen = { transaction: step.transaction, from: state.place };
        state.place = state.raising.to;
        return undefined;
      case 'end':
        state.sharing.delete(step.transaction);
        if (state.raising?.transaction === step.transaction) state.raising = undefined;
        if (state.unseen?.transaction === step.transaction) state.unseen = undefined;
        return undefined;
      case 'confirm':
        decide(CONFIRM_ROWS, state, step, without);
        return undefined;
      case 'report':
        return state.known.get(step.instance) ?? null;
    }
  }
}

/** The history of a fence, with the decisions that must be made. */
export interface FenceVector {
  readonly name: string;
  /** Rows of the specification: without one of them, the vector fails. */
  readonly rows: readonly string[];
  readonly steps: readonly FenceStep[];
}

/** The vectors of a fence. @throws Error when the file is of another version */
export function readFenceVectors(): readonly FenceVector[] {
  const text = readFileSync(join(SPECIFICATION_FOLDER, 'vectors', 'fence.json'), 'utf8');
  const { version, vectors } = JSON.parse(text) as { version: number; vectors: readonly FenceVector[] };
  if (version !== 1) throw new Error(`expected vectors of version 1, got ${version}`);
  return vectors;
}

/** Runs a history up to the first step that differs. */
export function fenceMismatch(
  { steps }: FenceVector,
  without: ReadonlySet<string> = new Set(),
): Mismatch | undefined {
  const checker = new FenceChecker({ without });
  for (const step of steps) {
    const mismatch = checker.check(step);
    if (mismatch !== undefined) return mismatch;
  }
  return undefined;
}
