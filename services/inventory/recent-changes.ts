/** The latest changes of stock, kept in memory for watchers that keep up. */

import type { StockLevel } from './stock.js';

/** Maximum number of changes of one read. */
export const CHANGES_READ_MAX = 500;
/** Maximum number of changes kept in memory; a watcher that is further behind reads from the database. */
export const CHANGES_KEPT_MAX = 10_000;

/** Changes in order, complete up to an id. */
export interface ReadResult {
  readonly changes: readonly StockLevel[];
  readonly upTo: bigint;
}

/** The latest changes, up to a position in the history. */
export interface RecentChanges {
  /** The id up to which all changes are settled; undefined before {@link start}. */
  position(): bigint | undefined;
  /** Sets the position before the first change. */
  start(position: bigint): void;
  append(changes: readonly StockLevel[]): void;
  /** Changes after one id and up to another, at most CHANGES_READ_MAX; undefined when they are no longer kept. */
  between(after: bigint, upTo: bigint): ReadResult | undefined;
}

/** Creates an empty buffer, whose start is unknown. */
export function createRecentChanges(): RecentChanges {
  const kept: StockLevel[] = [];
  let startedAt: bigint | undefined;
  let position: bigint | undefined;
  return {
    position: () => position,
    start: (changeId) => {
      startedAt = changeId;
      position = changeId;
    },
    append: (changes) => {
      for (const change of changes) kept.push(change);
      position = kept.at(-1)?.changeId ?? position;
      // The array grows to twice the limit, so that it is not copied with every change.
      if (kept.length <= 2 * CHANGES_KEPT_MAX) return;
      const dropped = kept.splice(0, kept.length - CHANGES_KEPT_MAX);
      startedAt = dropped.at(-1)?.changeId ?? startedAt;
    },
    between: (after, upTo) => {
      if (startedAt === undefined || after < startedAt) return undefined;
      const from = indexAfter(kept, after);
      const changes = kept.slice(from, Math.min(indexAfter(kept, upTo), from + CHANGES_READ_MAX));
      const isComplete = from + changes.length === indexAfter(kept, upTo);
      return { changes, upTo: isComplete ? upTo : (changes.at(-1)?.changeId ?? upTo) };
    },
  };
}

/** The index of the first change after an id. */
function indexAfter(changes: readonly StockLevel[], changeId: bigint): number {
  let low = 0;
  let high = changes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const isAfter = (changes[middle]?.changeId ?? 0n) > changeId;
    if (isAfter) high = middle;
    else low = middle + 1;
  }
  return low;
}
