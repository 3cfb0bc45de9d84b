/**
 * The fences of services: rows in their own databases that reject the work of instances which lag behind the log. What a
 * sync request reports of them is kept in auth's database, where every replica finds it.
 */

import { type Clock, systemTimers, type Timers } from '@portcullis/guard/clock';
import {
  type FencePosition,
  type FenceReceipt,
  fenceStateOf,
  isAtOrBeyond,
  nameOfFence,
  type ReportedFence,
  serviceOfName,
} from './fence-watch.js';
import { createSharedReads, READ_BLOCKING_MS_MAX } from './shared-reads.js';

/** How often a fence that has not moved is stored again, in milliseconds. */
const REPORT_INTERVAL_MS = 60_000;

/** How often a waiting call looks for what other replicas have stored, in milliseconds. */
const WAIT_POLL_MS = 25;

/** How many fences one replica remembers to have stored. */
const REMEMBERED_MAX = 10_000;

/** The fences of all services, in the database. */
export interface FenceStore {
  /** Stores positions; a position never falls. */
  store(fences: readonly ReportedFence[]): Promise<void>;
  /** The fences of these services that were stored within the last minutes. */
  read(services: readonly string[]): Promise<readonly ReportedFence[]>;
  /** Deletes the fences of which nothing was stored within the last minutes. */
  deleteSilent(): Promise<void>;
}

/** An entry whose fences a call waits for. */
interface FencedEntry {
  readonly epochNumber: bigint;
  readonly sequence: bigint;
  /** Monotonic time at which the commit was confirmed. */
  readonly committedAtMs: number;
  /** Monotonic time at which the call returns, whatever is fenced. */
  readonly boundAtMs: number;
}

/** The fences, as the rest of auth uses them. */
export interface Fences {
  /** A sync request was compared with the log. What it reports counts for the service that sent it. */
  reported(service: string, positions: readonly FencePosition[]): void;
  /** How many calls wait. */
  waits(): number;
  /** Waits until all named fences are at or beyond the entry, or the bound has passed, or the signal is aborted. */
  wait(entry: FencedEntry, names: readonly string[], signal: AbortSignal): Promise<FenceReceipt[]>;
  deleteSilent(): Promise<void>;
}

/** Creates the fences of one replica. */
export function createFences({
  store,
  clock,
  timers = systemTimers,
}: {
  readonly store: FenceStore;
  readonly clock: Clock;
  readonly timers?: Timers;
}): Fences {
  const wakes = new Set<() => void>();
  const reports = createReports({
    store,
    clock,
    onStored: () => {
      for (const wake of wakes) wake();
    },
  });
  const readMany = async (requests: readonly (readonly string[])[]) => {
    const fences = await store.read([...new Set(requests.flat())]);
    return () => fences;
  };
  const reads = createSharedReads(readMany, READ_BLOCKING_MS_MAX, timers);

  return {
    reported: reports.add,
    waits: () => wakes.size,
    wait: async (entry, names, signal) => {
      const services = [...new Set(names.map(serviceOfName))];
      let receipts = receiptsOf(entry, names, [], 0);
      let wake = (): void => {};
      const onWake = (): void => wake();
      wakes.add(onWake);
      signal.addEventListener('abort', onWake);
      try {
        for (;;) {
          // A report that is stored during the read may be missing in it.
          let isStale = false;
          wake = () => {
            isStale = true;
          };
          const fences = await reads.read(services).catch(() => undefined);
          const nowMs = clock.monotonicMs();
          if (fences !== undefined) {
            receipts = keepTimes(receipts, receiptsOf(entry, names, fences, nowMs - entry.committedAtMs));
          }
          const isDone = receipts.every(({ state }) => state === 'FENCED') || nowMs >= entry.boundAtMs;
          if (isDone || signal.aborted) return receipts;
          if (isStale) continue;
          await new Promise<void>((resolve) => {
            const stop = timers.after(Math.min(WAIT_POLL_MS, Math.max(1, entry.boundAtMs - nowMs)), resolve);
            wake = () => {
              stop();
              resolve();
            };
          });
        }
      } finally {
        wakes.delete(onWake);
        signal.removeEventListener('abort', onWake);
      }
    },
    deleteSilent: () => store.deleteSilent(),
  };
}

function receiptsOf(
  entry: FencedEntry,
  names: readonly string[],
  fences: readonly ReportedFence[],
  sinceCommitMs: number,
): FenceReceipt[] {
  return names.map((name) => {
    const state = fenceStateOf(
      entry,
      fences.filter((fence) => nameOfFence(fence) === name),
    );
    return { name, state, milliseconds: state === 'FENCED' ? Math.max(1, Math.ceil(sinceCommitMs)) : 0 };
  });
}

/** What was fenced stays so, with the time at which that was known first. */
function keepTimes(before: readonly FenceReceipt[], now: readonly FenceReceipt[]): FenceReceipt[] {
  return now.map((receipt, index) => {
    const former = before[index];
    return former?.state === 'FENCED' && receipt.state === 'FENCED' ? former : receipt;
  });
}

/** Stores reports, one batch at a time: those that say more than was stored, and each of them once in a while. */
function createReports(options: {
  readonly store: FenceStore;
  readonly clock: Clock;
  readonly onStored: () => void;
}): { add(service: string, positions: readonly FencePosition[]): void } {
  const { store, clock, onStored } = options;
  const pending = new Map<string, ReportedFence>();
  const stored = new Map<string, { readonly fence: ReportedFence; readonly atMs: number }>();
  let isStoring = false;
  const storePending = async (): Promise<void> => {
    isStoring = true;
    while (pending.size > 0) {
      const batch = [...pending];
      pending.clear();
      try {
        await store.store(batch.map(([, fence]) => fence));
      } catch {
        // The next sync request of the service reports it again.
        continue;
      }
      for (const [key, fence] of batch) remember(stored, key, { fence, atMs: clock.monotonicMs() });
      onStored();
    }
    isStoring = false;
  };
  return {
    add: (service, positions) => {
      for (const position of positions) {
        const key = `${nameOfFence({ service, ...position })} ${position.fenceId.toString('hex')}`;
        const known = pending.get(key) ?? knownOf(stored.get(key), clock.monotonicMs());
        if (known === undefined || !isAtOrBeyond(known, position)) pending.set(key, { service, ...position });
      }
      if (pending.size > 0 && !isStoring) void storePending();
    },
  };
}

function knownOf(
  stored: { readonly fence: ReportedFence; readonly atMs: number } | undefined,
  nowMs: number,
): ReportedFence | undefined {
  return stored !== undefined && nowMs - stored.atMs < REPORT_INTERVAL_MS ? stored.fence : undefined;
}

function remember<Value>(map: Map<string, Value>, key: string, value: Value): void {
  map.delete(key);
  map.set(key, value);
  const [oldest] = map.keys();
  if (map.size > REMEMBERED_MAX && oldest !== undefined) map.delete(oldest);
}
