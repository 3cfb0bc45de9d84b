/** The rows of fences, and the steps of their histories: what happens to the one fence of a database. */

import { always, effect, type Row } from './rows.js';

/** A place in the logs of all epochs. */
export type PlaceStep = readonly [epochNumber: number, sequence: number];

/** A step of the history of a fence, and the decision that is expected. */
export type FenceStep =
  /** A transaction of a call takes its snapshot. */
  | { readonly do: 'begin'; readonly transaction: string }
  /** It has locked the fence, and has read this place; or it has to wait. */
  | { readonly do: 'lock'; readonly transaction: string; readonly expect: PlaceStep | 'waits' }
  /** It asks whether it may commit, at the place of its instance. `refused` is what the list says of its token now. */
  | {
      readonly do: 'pass';
      readonly transaction: string;
      readonly place: PlaceStep;
      readonly lease: boolean;
      readonly refused: boolean;
      readonly expect: 'passed' | 'failed';
    }
  /**
   * A transaction raises the fence for an instance, and has found this place at its end; or it has to wait, or there is
   * nothing to do. With `reads`, another one is raising it, and this one only reads.
   */
  | {
      readonly do: 'raise';
      readonly transaction: string;
      readonly instance: string;
      readonly place: PlaceStep;
      readonly wanted: PlaceStep;
      readonly reads?: boolean;
      readonly expect: PlaceStep | 'waits' | 'idle';
    }
  /** The database commits a transaction; not every instance learns it. */
  | { readonly do: 'commit'; readonly transaction: string }
  /** A transaction ends, committed or not. */
  | { readonly do: 'end'; readonly transaction: string }
  /** The instance learns that its transaction is committed. */
  | { readonly do: 'confirm'; readonly transaction: string; readonly instance: string }
  /** The instance sends where the fence stands; null: nothing. */
  | { readonly do: 'report'; readonly instance: string; readonly expect: PlaceStep | null };

/** A fence, the transactions that are open, and what instances know. */
export interface FenceState {
  /** The latest committed version. */
  place: PlaceStep;
  /** What open transactions have seen of it: at first what stood in their snapshot. */
  readonly seen: Map<string, PlaceStep>;
  /** The transactions that have locked it for sharing. */
  readonly sharing: Set<string>;
  /** The transaction that has locked it against them, and what it has written. */
  raising: { readonly transaction: string; readonly to: PlaceStep } | undefined;
  /** A raise that is durable, and that other transactions may not see before its transaction ends; and the place before. */
  unseen: { readonly transaction: string; readonly from: PlaceStep } | undefined;
  /** Where instances know it to stand. */
  readonly known: Map<string, PlaceStep>;
}

type StepOf<D extends FenceStep['do']> = Extract<FenceStep, { readonly do: D }>;

/** A transaction asks to pass: it locks the fence and reads it. */
export const LOCK_ROWS: readonly Row<FenceState, StepOf<'lock'>, 'waits'>[] = [
  {
    id: 'X1',
    when: always,
    act: (state, { transaction }) => {
      if (state.raising !== undefined) return 'waits';
      state.sharing.add(transaction);
      return undefined;
    },
  },
  {
    id: 'X2',
    when: always,
    act: effect((state, { transaction }) => {
      state.seen.set(transaction, state.place);
    }),
  },
];

/** Whether it passes. */
export const PASS_ROWS: readonly Row<FenceState, StepOf<'pass'>, 'failed'>[] = [
  {
    id: 'X3',
    when: ({ seen }, { transaction, place }) => isBelow(place, seen.get(transaction) ?? NOWHERE),
    act: () => 'failed',
  },
  { id: 'X4', when: (_, { lease, refused }) => !lease || refused, act: () => 'failed' },
];

/** An instance may raise the fence. */
export const RAISE_ROWS: readonly Row<FenceState, StepOf<'raise'>, 'waits' | PlaceStep>[] = [
  {
    id: 'X5',
    when: ({ known }, { instance, place, wanted }) =>
      !isBelow(place, wanted) && isBelow(known.get(instance) ?? UNKNOWN, wanted),
    act: (state, { transaction, wanted, reads = false, expect }) => {
      const place = reads && isUnseen(state, expect) ? state.unseen.from : state.place;
      // Where it stands there already, nothing is written.
      if (reads || !isBelow(place, wanted)) {
        state.seen.set(transaction, place);
        return place;
      }
      if (state.sharing.size > 0 || state.raising !== undefined) return 'waits';
      state.raising = { transaction, to: wanted };
      state.seen.set(transaction, wanted);
      return wanted;
    },
  },
];

/**
 * Whether a transaction that only reads has found the place before a commit that is durable: databases make a commit durable
 * first and visible then. The instance then knows, and reports, less than there is, which is safe.
 */
function isUnseen(
  state: FenceState,
  found: StepOf<'raise'>['expect'],
): state is FenceState & { readonly unseen: NonNullable<FenceState['unseen']> } {
  return JSON.stringify(state.unseen?.from) === JSON.stringify(found);
}

/** An instance learns that its transaction is committed. */
export const CONFIRM_ROWS: readonly Row<FenceState, StepOf<'confirm'>, never>[] = [
  {
    id: 'X6',
    when: always,
    act: effect((state, { transaction, instance }) => {
      const place = state.seen.get(transaction);
      if (place !== undefined) state.known.set(instance, place);
    }),
  },
];

/** The numbers of all rows, in the order of the page. */
export const FENCE_ROWS: readonly string[] = [LOCK_ROWS, PASS_ROWS, RAISE_ROWS, CONFIRM_ROWS].flatMap(
  (rows) => rows.map(({ id }) => id),
);

export const NOWHERE: PlaceStep = [0, 0];

/** Below every place. */
const UNKNOWN: PlaceStep = [-1, 0];

/** Whether a place is before another one: by the number of the epoch first. */
export function isBelow([epochNumber, sequence]: PlaceStep, [otherNumber, other]: PlaceStep): boolean {
  return epochNumber === otherNumber ? sequence < other : epochNumber < otherNumber;
}
