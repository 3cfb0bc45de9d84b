/**
 * Reads the history of stock from its end on, in order.
 *
 * Ids of the history are drawn from a sequence while the item is locked: they rise with the changes of each item, and
 * writers do not wait for each other. But a lower id may become visible after a higher one. The tail therefore stops before
 * a missing id until it is certain whether that id will still appear. It notes the transactions that are writing to the
 * history at that moment; when all of them have ended, every id that is still missing was rolled back.
 */

import { CHANGES_READ_MAX, type RecentChanges } from './recent-changes.js';
import type { StockLevel } from './stock.js';

/** The pause between reads without a wake-up, in milliseconds. */
export const POLL_INTERVAL_MS = 1_000;
/** The pause before the next read while an id is missing, in milliseconds. */
const GAP_PAUSE_MS = 20;

/** Which changes to read. */
export interface ChangeRange {
  readonly after: bigint;
  readonly upTo?: bigint | undefined;
  /** All items when undefined. */
  readonly skus?: readonly string[] | undefined;
  readonly limit: number;
}

/** Reads the history. Every method sees what was committed before it was called. */
export interface ChangeStore {
  /** Visible changes by id, after one and up to another, of some items or of all. */
  changesAfter(range: ChangeRange): Promise<readonly StockLevel[]>;
  /** The highest visible id; 0 when there is none. */
  latestChangeId(): Promise<bigint>;
  /** Names of the transactions that may have drawn an id and have not ended. */
  writers(): Promise<readonly string[]>;
  /** Whether one of these transactions has not ended. */
  isAnyWriting(writers: readonly string[]): Promise<boolean>;
}

/** Reads the history step by step. */
export interface ChangeTail {
  /** Reads the next changes; returns the pause before the next poll, in milliseconds. */
  poll(): Promise<number>;
}

/** Creates a tail that appends to `recent`. Its first polls find the end of the history. */
export function createChangeTail(store: ChangeStore, recent: RecentChanges): ChangeTail {
  /** Every id up to here is visible or was rolled back: no open transaction holds one. */
  let decidedUpTo = 0n;
  /** Where the last poll stopped before a missing id. */
  let stoppedAt: bigint | undefined;
  /** Ids up to `upTo` are decided when these transactions have ended. */
  let pending: { readonly upTo: bigint; readonly writers: readonly string[] } | undefined;

  /** Must be called after the read that lacks an id: a transaction that wrote then is in the list, or has ended. */
  async function noteWriters(upTo: bigint): Promise<void> {
    pending = { upTo, writers: await store.writers() };
  }

  async function checkWriters(): Promise<void> {
    if (pending === undefined) return;
    const { upTo, writers } = pending;
    if (writers.length > 0 && (await store.isAnyWriting(writers))) return;
    decidedUpTo = upTo;
    pending = undefined;
  }

  async function findStart(): Promise<number> {
    if (pending === undefined) await noteWriters(await store.latestChangeId());
    await checkWriters();
    if (pending !== undefined) return GAP_PAUSE_MS;
    recent.start(decidedUpTo);
    return 0;
  }

  async function readNext(position: bigint): Promise<number> {
    // Before reading, not after: what a transaction committed is visible to reads that begin after its end.
    await checkWriters();
    const changes = await store.changesAfter({ after: position, limit: CHANGES_READ_MAX });
    const gap = indexOfGap(changes, position, decidedUpTo);
    const settled = changes.slice(0, gap);
    recent.append(settled);
    if (gap === changes.length) {
      stoppedAt = undefined;
      return changes.length === CHANGES_READ_MAX ? 0 : POLL_INTERVAL_MS;
    }
    // Most missing ids appear within a moment. The writers are read when one is still missing at the next poll.
    const stop = settled.at(-1)?.changeId ?? position;
    const last = changes.at(-1);
    if (stop === stoppedAt && pending === undefined && last !== undefined) await noteWriters(last.changeId);
    stoppedAt = stop;
    return GAP_PAUSE_MS;
  }

  return {
    poll: () => {
      const position = recent.position();
      return position === undefined ? findStart() : readNext(position);
    },
  };
}

/** The index of the first change before which an undecided id is missing; the length when there is none. */
function indexOfGap(changes: readonly StockLevel[], position: bigint, decided: bigint): number {
  let previous = position;
  for (const [index, { changeId }] of changes.entries()) {
    if (changeId !== previous + 1n && changeId > decided) return index;
    previous = changeId;
  }
  return changes.length;
}
