/**
 * The feed of all changes of stock, by all instances, in one order. One loop reads them from the database for all watchers
 * of this process.
 */

import type { Clock } from '@portcullis/guard/clock';
import { type ChangeRange, type ChangeStore, createChangeTail, POLL_INTERVAL_MS } from './change-tail.js';
import { InventoryError } from './errors.js';
import { createPause, type Pause } from './pause.js';
import {
  CHANGES_READ_MAX,
  createRecentChanges,
  type ReadResult,
  type RecentChanges,
} from './recent-changes.js';
import type { StockLevel } from './stock.js';
import { inTurns } from './turns.js';

/** How long the database may be unreadable before watchers fail, in milliseconds. */
export const UNREADABLE_MAX_MS = 5_000;

/** Where the feed logs its failures. */
interface ChangeFeedLog {
  warn(fields: object, message: string): void;
}

/** What the feed reads. */
export interface FeedStore extends ChangeStore {
  /**
   * The same as `changesAfter`, for one watcher who resumes far behind. `caller` is the user whom it is for, as in
   * {@link StockPlace.caller}: a resume token can name the beginning of the history.
   */
  pastChanges(range: ChangeRange, caller: string | undefined): Promise<readonly StockLevel[]>;
}

interface ChangeFeedDeps {
  readonly store: FeedStore;
  readonly clock: Clock;
  readonly log: ChangeFeedLog;
}

/** Reads changes for any number of watchers. */
export interface ChangeFeed {
  /** Keeps the feed running until the returned function is called. */
  attach(): () => void;
  /** Reads soon, because stock may have changed. */
  wake(): void;
  /**
   * Waits until every change up to this id is settled; returns the id up to which all are settled.
   *
   * @throws the signal's reason; ServiceError DEPENDENCY_UNAVAILABLE when the database stays unreadable
   */
  reach(changeId: bigint, signal: AbortSignal): Promise<bigint>;
  /** Settled changes after one id and up to another, which must have been reached; at most CHANGES_READ_MAX at once. */
  read(range: ReadRange): Promise<ReadResult>;
  /** Stops the feed; waiting watchers fail with DEPENDENCY_UNAVAILABLE. */
  close(): Promise<void>;
}

/** Which changes to read. */
interface ReadRange {
  readonly after: bigint;
  readonly upTo: bigint;
  /** All items when undefined. */
  readonly skus: ReadonlySet<string> | undefined;
  /** The user whom they are for. */
  readonly caller: string | undefined;
}

/** Creates a feed that is idle until the first watcher attaches. */
export function createChangeFeed(deps: ChangeFeedDeps): ChangeFeed {
  const waiting = new Set<Waiting>();
  const pause = createPause();
  let attached = 0;
  let run: Run | undefined;
  let isClosed = false;

  function detach(): void {
    attached -= 1;
    if (attached > 0) return;
    run?.stop.abort();
    // Changes without a watcher are not needed: the next run begins at the end of the history.
    run = undefined;
  }

  return {
    attach: () => {
      if (isClosed) throw new InventoryError('DEPENDENCY_UNAVAILABLE', 'this instance is stopping');
      attached += 1;
      run ??= startRun(deps, waiting, pause);
      let isAttached = true;
      return () => {
        if (isAttached) detach();
        isAttached = false;
      };
    },
    wake: pause.wake,
    reach: (changeId, signal) => {
      const position = run?.recent.position();
      if (position !== undefined && position >= changeId) return Promise.resolve(position);
      return waitFor(waiting, changeId, signal);
    },
    read: (range) => readChanges(deps.store, run?.recent, range),
    close: async () => {
      isClosed = true;
      run?.stop.abort();
      await failAll(waiting, undefined);
      await run?.done;
    },
  };
}

/** The loop that runs from the first watcher until the last one detaches. */
interface Run {
  readonly recent: RecentChanges;
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

function startRun({ store, clock, log }: ChangeFeedDeps, waiting: Set<Waiting>, pause: Pause): Run {
  const recent = createRecentChanges();
  const tail = createChangeTail(store, recent);
  const stop = new AbortController();
  const { signal } = stop;

  async function loop(): Promise<void> {
    let lastReadMs = clock.monotonicMs();
    while (!signal.aborted) {
      let nextMs = POLL_INTERVAL_MS;
      try {
        nextMs = await tail.poll();
        lastReadMs = clock.monotonicMs();
        if (!signal.aborted) await resolveReached(waiting, recent.position());
      } catch (error) {
        log.warn({ err: error }, 'cannot read the changes of stock');
        if (clock.monotonicMs() - lastReadMs > UNREADABLE_MAX_MS) await failAll(waiting, error);
      }
      await pause.wait(nextMs, signal);
    }
  }

  return { recent, stop, done: loop() };
}

async function readChanges(
  store: FeedStore,
  recent: RecentChanges | undefined,
  { after, upTo, skus, caller }: ReadRange,
): Promise<ReadResult> {
  const kept = recent?.between(after, upTo);
  if (kept !== undefined) {
    const changes = skus === undefined ? kept.changes : kept.changes.filter(({ sku }) => skus.has(sku));
    return { changes, upTo: kept.upTo };
  }
  const range = { after, upTo, skus: skus && [...skus], limit: CHANGES_READ_MAX };
  const changes = await store.pastChanges(range, caller);
  const last = changes.at(-1);
  return { changes, upTo: changes.length < CHANGES_READ_MAX || last === undefined ? upTo : last.changeId };
}

interface Waiting {
  readonly changeId: bigint;
  resolve(position: bigint): void;
  reject(error: unknown): void;
}

function waitFor(waiting: Set<Waiting>, changeId: bigint, signal: AbortSignal): Promise<bigint> {
  return new Promise((resolve, reject) => {
    const abort = () => entry.reject(signal.reason);
    const remove = () => {
      waiting.delete(entry);
      signal.removeEventListener('abort', abort);
    };
    const entry: Waiting = {
      changeId,
      resolve: (position) => {
        remove();
        resolve(position);
      },
      reject: (error) => {
        remove();
        reject(error);
      },
    };
    if (signal.aborted) return reject(signal.reason);
    waiting.add(entry);
    signal.addEventListener('abort', abort);
  });
}

async function resolveReached(waiting: ReadonlySet<Waiting>, position: bigint | undefined): Promise<void> {
  if (position === undefined) return;
  const reached = [...waiting].filter(({ changeId }) => position >= changeId);
  // One whose call ends meanwhile is settled already, and that is no harm.
  await inTurns(reached, (entry) => entry.resolve(position));
}

async function failAll(waiting: ReadonlySet<Waiting>, cause: unknown): Promise<void> {
  const error = new InventoryError('DEPENDENCY_UNAVAILABLE', 'changes of stock cannot be read now', {
    cause,
  });
  await inTurns([...waiting], (entry) => entry.reject(error));
}
