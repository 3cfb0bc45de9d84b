/**
 * The changes of stock of all instances, in one order, read from the database by one loop for all
 * watchers of this process.
 *
 * Ids of the history are drawn from a sequence while the item is locked: they rise with the changes
 * of each item, and writers do not wait for each other. But a lower id may become visible after a
 * higher one. The feed therefore stops before a missing id until it is certain whether it will ever
 * come: it notes which transactions are writing to the history at that moment, and once all of them
 * have ended, whatever is still missing was rolled back.
 */

import type { Clock } from '@portcullis/guard/clock';
import { InventoryError } from './errors.js';

/** Without a hint the database is asked this often. */
export const POLL_INTERVAL_MS = 1_000;
/** Hints are gathered for this long, so that a storm of changes is read in few queries. */
export const WAKE_UP_DELAY_MS = 5;
/** How soon the feed looks again while an id is missing. */
export const GAP_PAUSE_MS = 20;
/** How long watchers wait while the database does not answer, before they are told so. */
export const UNREADABLE_MAX_MS = 5_000;
/** Changes read at once. */
export const CHANGES_READ_MAX = 500;
/** Changes kept in memory; a watcher that is further behind reads from the database. */
export const CHANGES_KEPT_MAX = 10_000;

/** The stock of one item right after a change. */
export interface StockLevel {
  readonly changeId: bigint;
  readonly sku: string;
  readonly onHand: bigint;
  readonly reserved: bigint;
  readonly changeTime: Date;
}

/** What the feed needs of a store. Every method sees what was committed before it was called. */
export interface ChangeStore {
  /** Visible changes by id, after one and up to another, of some items or of all. */
  changesAfter(range: {
    after: bigint;
    upTo?: bigint | undefined;
    skus?: readonly string[] | undefined;
    limit: number;
  }): Promise<readonly StockLevel[]>;
  /** The highest id that is visible; 0 when there is none. */
  latestChangeId(): Promise<bigint>;
  /** Names of the transactions that may have drawn an id and have not ended. */
  writers(): Promise<readonly string[]>;
  /** Whether one of these transactions has not ended. */
  isAnyWriting(writers: readonly string[]): Promise<boolean>;
}

/** What the feed tells of. */
export interface ChangeFeedLog {
  warn(fields: object, message: string): void;
}

/** What {@link createChangeFeed} needs. */
export interface ChangeFeedDeps {
  readonly store: ChangeStore;
  readonly clock: Clock;
  readonly log: ChangeFeedLog;
}

/** The changes, for any number of readers. */
export interface ChangeFeed {
  /** Keeps the feed running until the returned function is called. */
  attach(): () => void;
  /** Something may have changed. */
  wake(): void;
  /**
   * Waits until every change up to this id is settled, and answers the id up to which all are.
   *
   * @throws the signal's reason; ServiceError DEPENDENCY_UNAVAILABLE when the database stays away
   */
  reach(changeId: bigint, signal: AbortSignal): Promise<bigint>;
  /** Settled changes after one id and up to another, which must have been reached; at most some hundred at once. */
  read(range: ReadRange): Promise<ReadResult>;
  /** Stops for good; readers that wait are told DEPENDENCY_UNAVAILABLE. */
  close(): Promise<void>;
}

/** Which changes to read. */
export interface ReadRange {
  readonly after: bigint;
  readonly upTo: bigint;
  /** All items when undefined. */
  readonly skus: ReadonlySet<string> | undefined;
}

/** Changes in order, and the id up to which nothing was left out. */
export interface ReadResult {
  readonly changes: readonly StockLevel[];
  readonly upTo: bigint;
}

/** A feed that rests until somebody attaches. */
export function createChangeFeed(deps: ChangeFeedDeps): ChangeFeed {
  const waiting = new Set<Waiting>();
  const pause = createPause();
  let readers = 0;
  let run: Run | undefined;
  let isClosed = false;

  function detach(): void {
    readers -= 1;
    if (readers > 0) return;
    run?.stop.abort();
    // What happens while nobody listens is of no interest: the next run begins at the end of the history.
    run = undefined;
  }

  return {
    attach: () => {
      if (isClosed) throw new InventoryError('DEPENDENCY_UNAVAILABLE', 'this instance is stopping');
      readers += 1;
      run ??= startRun(deps, waiting, pause);
      let isAttached = true;
      return () => {
        if (isAttached) detach();
        isAttached = false;
      };
    },
    wake: pause.interrupt,
    reach: (changeId, signal) => {
      const position = run?.recent.position();
      if (position !== undefined && position >= changeId) return Promise.resolve(position);
      return waitIn(waiting, changeId, signal);
    },
    read: (range) => readChanges(deps.store, run?.recent, range),
    close: async () => {
      isClosed = true;
      failAll(waiting, undefined);
      run?.stop.abort();
      await run?.done;
    },
  };
}

/** The loop from the first reader's coming to the last one's leaving. */
interface Run {
  readonly recent: RecentChanges;
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

function startRun({ store, clock, log }: ChangeFeedDeps, waiting: Set<Waiting>, pause: Pause): Run {
  const recent = createRecentChanges();
  const tail = createTail(store, recent);
  const stop = new AbortController();
  const { signal } = stop;

  async function loop(): Promise<void> {
    let goodMs = clock.monotonicMs();
    while (!signal.aborted) {
      let nextMs = POLL_INTERVAL_MS;
      try {
        nextMs = await tail.poll();
        goodMs = clock.monotonicMs();
        if (!signal.aborted) settleReached(waiting, recent.position());
      } catch (error) {
        log.warn({ err: error }, 'cannot read the changes of stock');
        if (clock.monotonicMs() - goodMs > UNREADABLE_MAX_MS) failAll(waiting, error);
      }
      await pause.wait(nextMs, signal);
    }
  }

  return { recent, stop, done: loop() };
}

async function readChanges(
  store: ChangeStore,
  recent: RecentChanges | undefined,
  { after, upTo, skus }: ReadRange,
): Promise<ReadResult> {
  const kept = recent?.between(after, upTo);
  if (kept !== undefined) {
    const changes = skus === undefined ? kept.changes : kept.changes.filter(({ sku }) => skus.has(sku));
    return { changes, upTo: kept.upTo };
  }
  const range = { after, upTo, skus: skus && [...skus], limit: CHANGES_READ_MAX };
  const changes = await store.changesAfter(range);
  const last = changes.at(-1);
  return { changes, upTo: changes.length < CHANGES_READ_MAX || last === undefined ? upTo : last.changeId };
}

interface Waiting {
  readonly changeId: bigint;
  resolve(position: bigint): void;
  reject(error: unknown): void;
}

function waitIn(waiting: Set<Waiting>, changeId: bigint, signal: AbortSignal): Promise<bigint> {
  return new Promise((resolve, reject) => {
    const abort = () => reader.reject(signal.reason);
    const forget = () => {
      waiting.delete(reader);
      signal.removeEventListener('abort', abort);
    };
    const reader: Waiting = {
      changeId,
      resolve: (position) => {
        forget();
        resolve(position);
      },
      reject: (error) => {
        forget();
        reject(error);
      },
    };
    if (signal.aborted) return reject(signal.reason);
    waiting.add(reader);
    signal.addEventListener('abort', abort);
  });
}

function settleReached(waiting: ReadonlySet<Waiting>, position: bigint | undefined): void {
  if (position === undefined) return;
  for (const reader of [...waiting]) if (position >= reader.changeId) reader.resolve(position);
}

function failAll(waiting: ReadonlySet<Waiting>, cause: unknown): void {
  const error = new InventoryError('DEPENDENCY_UNAVAILABLE', 'changes of stock cannot be read now', {
    cause,
  });
  for (const reader of [...waiting]) reader.reject(error);
}

/** Reads the history from its end on, in order, stopping before ids that may still come. */
function createTail(store: ChangeStore, recent: RecentChanges): { poll(): Promise<number> } {
  /** Ids up to here are visible or were rolled back: no transaction holds one any more. */
  let decided = 0n;
  /** Where the last poll stopped before a missing id. */
  let stoppedAt: bigint | undefined;
  let suspicion: { readonly upTo: bigint; readonly writers: readonly string[] } | undefined;

  /** Must be called after what may lack an id was read: who wrote then is in the list, or has ended. */
  async function suspect(upTo: bigint): Promise<void> {
    suspicion = { upTo, writers: await store.writers() };
  }

  async function decide(): Promise<void> {
    if (suspicion === undefined) return;
    const { upTo, writers } = suspicion;
    if (writers.length > 0 && (await store.isAnyWriting(writers))) return;
    decided = upTo;
    suspicion = undefined;
  }

  async function begin(): Promise<number> {
    if (suspicion === undefined) await suspect(await store.latestChangeId());
    await decide();
    if (suspicion !== undefined) return GAP_PAUSE_MS;
    recent.begin(decided);
    return 0;
  }

  return {
    /** Reads what there is and answers how soon to come again, in milliseconds. */
    poll: async () => {
      const position = recent.position();
      if (position === undefined) return begin();
      // Before reading, not after: what a transaction committed is visible to reads that begin after its end.
      await decide();
      const changes = await store.changesAfter({ after: position, limit: CHANGES_READ_MAX });
      const gap = indexOfGap(changes, position, decided);
      const settled = changes.slice(0, gap);
      recent.append(settled);
      if (gap === changes.length) {
        stoppedAt = undefined;
        return changes.length === CHANGES_READ_MAX ? 0 : POLL_INTERVAL_MS;
      }
      // Most missing ids come within a moment; the writers are asked for when one has not come by the next look.
      const stop = settled.at(-1)?.changeId ?? position;
      const last = changes.at(-1);
      if (stop === stoppedAt && suspicion === undefined && last !== undefined) await suspect(last.changeId);
      stoppedAt = stop;
      return GAP_PAUSE_MS;
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

interface RecentChanges {
  /** The id up to which all changes are settled; undefined before the beginning is known. */
  position(): bigint | undefined;
  begin(position: bigint): void;
  append(changes: readonly StockLevel[]): void;
  /** Changes after one id and up to another, not all when they are many; undefined when they are no longer kept. */
  between(after: bigint, upTo: bigint): ReadResult | undefined;
}

function createRecentChanges(): RecentChanges {
  const kept: StockLevel[] = [];
  let begin: bigint | undefined;
  let position: bigint | undefined;
  return {
    position: () => position,
    begin: (changeId) => {
      begin = changeId;
      position = changeId;
    },
    append: (changes) => {
      for (const change of changes) kept.push(change);
      position = kept.at(-1)?.changeId ?? position;
      // Twice the number is let in, so that the array is not copied with every change.
      if (kept.length <= 2 * CHANGES_KEPT_MAX) return;
      const forgotten = kept.splice(0, kept.length - CHANGES_KEPT_MAX);
      begin = forgotten.at(-1)?.changeId ?? begin;
    },
    between: (after, upTo) => {
      if (begin === undefined || after < begin) return undefined;
      const from = indexAfter(kept, after);
      const changes = kept.slice(from, Math.min(indexAfter(kept, upTo), from + CHANGES_READ_MAX));
      const isWhole = from + changes.length === indexAfter(kept, upTo);
      return { changes, upTo: isWhole ? upTo : (changes.at(-1)?.changeId ?? upTo) };
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

/** A wait that a hint ends early. */
interface Pause {
  wait(ms: number, signal: AbortSignal): Promise<void>;
  interrupt(): void;
}

function createPause(): Pause {
  let isHinted = false;
  let wake: (() => void) | undefined;

  function sleep(ms: number, signal: AbortSignal, isInterruptible: boolean): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        wake = undefined;
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener('abort', end);
      if (isInterruptible) wake = end;
      if (signal.aborted) end();
    });
  }

  return {
    wait: async (ms, signal) => {
      await sleep(Math.min(ms, WAKE_UP_DELAY_MS), signal, false);
      if (ms > WAKE_UP_DELAY_MS && !isHinted) await sleep(ms - WAKE_UP_DELAY_MS, signal, true);
      isHinted = false;
    },
    interrupt: () => {
      isHinted = true;
      wake?.();
    },
  };
}
