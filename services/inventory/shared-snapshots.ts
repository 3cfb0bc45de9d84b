/** Snapshots of all items, read once for all watchers of a user that wait for the same page. */

import type { StockLevel } from './stock.js';
import { inTurns } from './turns.js';

/** A page of the snapshot. */
export interface SnapshotRange {
  readonly afterSku: string;
  /** All items when undefined. */
  readonly skus: readonly string[] | undefined;
  readonly limit: number;
  /** The user whom it is for, as in {@link StockPlace.caller}. */
  readonly caller: string | undefined;
}

/** Reads items in the order of their skus, after one sku, among some or all. */
export type ReadSnapshot = (range: SnapshotRange) => Promise<readonly StockLevel[]>;

/** Waits for a page that has not been asked for yet. */
interface Waiting {
  resolve(levels: readonly StockLevel[]): void;
  reject(error: unknown): void;
}

/** The reads of one page, which follow each other. */
interface PageReads {
  /** Who came since the present read began. */
  waiting: Waiting[];
}

/**
 * Shares the reads of pages among the watchers of a user. Hundreds that begin at once ask for the same pages, and would
 * take the connections from the calls that change stock. Users share none: a resume token can name any page, so one user
 * could fill the queue of all others.
 *
 * A watcher gets only a page whose read began after it had asked: an earlier one may lack changes up to the position from
 * which the watcher goes on.
 */
export function shareSnapshots(read: ReadSnapshot): ReadSnapshot {
  const readsByPage = new Map<string, PageReads>();

  async function readOn(page: string, reads: PageReads, range: SnapshotRange): Promise<void> {
    while (reads.waiting.length > 0) {
      const served = reads.waiting;
      reads.waiting = [];
      try {
        const result = await read(range);
        await inTurns(served, ({ resolve }) => resolve(result));
      } catch (error) {
        await inTurns(served, ({ reject }) => reject(error));
      }
    }
    readsByPage.delete(page);
  }

  return (range) => {
    if (range.skus !== undefined) return read(range);
    const page = JSON.stringify([range.caller, range.limit, range.afterSku]);
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject };
      const reads = readsByPage.get(page);
      if (reads !== undefined) {
        reads.waiting.push(waiter);
        return;
      }
      const first = { waiting: [waiter] };
      readsByPage.set(page, first);
      void readOn(page, first, range);
    });
  };
}
