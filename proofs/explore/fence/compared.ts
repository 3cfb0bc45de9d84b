/** Compares what the library does with a fence in a state with the rows of the specification. */

import { FenceChecker } from '../../spec/fence-checker.js';
import type { FenceState, FenceStep, PlaceStep } from '../../spec/fence-rows.js';

/** The parts of a state that the rows are about. */
export interface ComparedState {
  readonly fence: PlaceStep;
  readonly instances: readonly {
    readonly known: PlaceStep | undefined;
    readonly work: { readonly step: 'BEGUN' | 'LOCKED' | 'PASSED'; readonly fence: PlaceStep } | undefined;
    readonly raising: PlaceStep | undefined;
  }[];
}

/** The names of the instances and of their transactions. */
export const instanceName = (number: number): string => `instance ${number + 1}`;
export const workName = (number: number): string => `work ${number + 1}`;
export const raiseName = (number: number): string => `raise ${number + 1}`;

/**
 * Runs steps from a state.
 *
 * @throws Error when a decision is not that of the rows
 */
export function compareFence(state: ComparedState, ...steps: readonly FenceStep[]): void {
  const checker = new FenceChecker({ from: stateOf(state) });
  for (const step of steps) {
    const mismatch = checker.check(step);
    if (mismatch !== undefined) {
      throw new Error(`the fence and the tables of the specification differ: ${mismatch.what}`);
    }
  }
}

function stateOf({ fence, instances }: ComparedState): Partial<FenceState> {
  const seen = new Map<string, PlaceStep>();
  const sharing = new Set<string>();
  const known = new Map<string, PlaceStep>();
  let raising: { readonly transaction: string; readonly to: PlaceStep } | undefined;
  for (const [number, instance] of instances.entries()) {
    const { work } = instance;
    if (work !== undefined) seen.set(workName(number), work.fence);
    if (work !== undefined && work.step !== 'BEGUN') sharing.add(workName(number));
    if (instance.known !== undefined) known.set(instanceName(number), instance.known);
    if (instance.raising === undefined) continue;
    raising = { transaction: raiseName(number), to: instance.raising };
    seen.set(raiseName(number), instance.raising);
  }
  return { place: fence, seen, sharing, known, raising };
}
