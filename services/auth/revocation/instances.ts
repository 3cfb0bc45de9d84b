/** The instances that follow the log: what each said in its last sync request, to this replica of auth or to another. */

import { type Clock, systemTimers, type Timers } from '@portcullis/guard/clock';
import type { PageRequest } from '../records/page.js';
import {
  type Committed,
  type InstanceReceipt,
  type InstanceWait,
  SHARES_PER_LEASE,
} from './enforcement-watch.js';
import {
  createInstancePlaces,
  INSTANCES_MAX,
  INSTANCES_PER_CLIENT_DEFAULT,
  type InstanceLimit,
} from './instance-places.js';
import {
  type ForeignClaim,
  type InstancePage,
  type InstanceRecord,
  type InstanceStore,
  recordOf,
  recordOfOther,
  type SharedRecord,
  sharedRecord,
  type UnreadyInstance,
} from './instance-records.js';
import { createSharing } from './instance-sharing.js';
import { createId, type SyncPosition, type SyncResult } from './log.js';
import { createEnforcementWatch, type EnforcementWatch } from './receipts.js';
import { createSharedReads, READ_BLOCKING_MS_MAX } from './shared-reads.js';

/** The instances, as the rest of auth uses them. */
export interface Instances {
  /**
   * A sync request arrived; what it acknowledges counts whatever the response will be.
   *
   * @throws ServiceError RATE_LIMITED when too many instances follow the log; FIELD_INVALID when the instance id belongs
   *   to another service. Then the request has no effect, and the instance must get no lease.
   */
  requested(question: SyncPosition): void;
  /** A sync request was answered, which means that its `applied` was compared with the log. */
  answered(question: SyncPosition, requestedAtMs: number, answer: SyncResult): void;
  /** The instances that sent requests to this replica, the most recent last. */
  known(): readonly InstanceRecord[];
  list(page: PageRequest): Promise<InstancePage>;
  /** See {@link InstanceStore.unready}. */
  unready(claim: ForeignClaim): Promise<readonly UnreadyInstance[]>;
  deleteSilent(): Promise<void>;
  /** How many calls wait. */
  waits(): number;
  /** Waits and returns the receipts; returns early, with what is known then, when the signal is aborted. */
  wait(committed: Committed, wait: InstanceWait, signal: AbortSignal): Promise<InstanceReceipt[]>;
  /** Stops sharing records. */
  close(): Promise<void>;
}

/** The collaborators of the instances. */
export interface InstancesDeps {
  readonly store: InstanceStore;
  readonly clock: Clock;
  readonly timers?: Timers;
  /** Maximum number of instances of one client that may hold a lease from this replica. */
  readonly perClientMax?: number;
  /** Called with each sync request that was refused because of a limit. */
  readonly onRefused?: (limit: InstanceLimit, service: string) => void;
}

/** Creates the record of instances. */
export function createInstances({
  store,
  clock,
  timers = systemTimers,
  perClientMax = INSTANCES_PER_CLIENT_DEFAULT,
  onRefused = () => undefined,
}: InstancesDeps): Instances {
  const replica = createId();
  const records = createRecords();
  /** The records as this replica has last shared them. */
  const shared = createRecords();
  const places = createInstancePlaces({ clock, perClientMax, onRefused });
  const watches = new Set<EnforcementWatch>();
  const sharing = createSharing({
    share: async (keys) => {
      const nowMs = clock.monotonicMs();
      const found = records.get(keys).map((record) => ({ key: record.instance.toString('hex'), record }));
      await store.share(
        replica,
        found.map(({ key, record }) => sharedRecord(record, shared.get([key])[0], nowMs)),
      );
      for (const { key, record } of found) shared.put(key, record);
    },
    clock,
    timers,
  });
  const readOthers = async (ageMsMax: readonly number[]) => {
    const found = await store.readFromOthers(replica, Math.max(...ageMsMax));
    return () => found;
  };
  const others = createSharedReads(readOthers, READ_BLOCKING_MS_MAX, timers);

  return {
    requested: (question) => {
      places.take(question);
      if (question.seen.length === 0) return;
      for (const watch of watches) watch.requested(question);
    },
    answered: (question, requestedAtMs, answer) => {
      const key = question.instance.toString('hex');
      const [former] = records.get([key]);
      const record = recordOf(question, { requestedAtMs, answer, former });
      records.put(key, record);
      places.granted(answer.leaseMs);
      for (const watch of watches) watch.answered(record);
      // A call at another replica may wait for it, or not know yet that there is such an instance.
      const isUrgent = former === undefined || question.seen.length > 0 || question.leaving === true;
      sharing.within(key, isUrgent ? 0 : answer.leaseMs / SHARES_PER_LEASE);
    },
    known: () => records.all(),
    list: async (page) => {
      await sharing.now();
      return await store.list(page);
    },
    unready: async (claim) => {
      await sharing.now();
      return await store.unready(claim);
    },
    deleteSilent: () => store.deleteSilent(),
    waits: () => watches.size,
    wait: async (committed, wait, signal) => {
      const watch = createEnforcementWatch(committed, { clock, timers });
      for (const record of records.all()) watch.answered(record);
      watches.add(watch);
      const readFromOthers = () => others.read(watch.recordAgeMsMax()).catch(() => undefined);
      try {
        await waitFor(watch, { clock, wait, signal, readFromOthers });
        return watch.receipts();
      } finally {
        watches.delete(watch);
      }
    },
    close: () => sharing.close(),
  };
}

/** Waits until the watch is done or the signal is aborted. */
async function waitFor(
  watch: EnforcementWatch,
  options: {
    readonly clock: Clock;
    readonly wait: InstanceWait;
    readonly signal: AbortSignal;
    /** Undefined when the database did not answer. */
    readonly readFromOthers: () => Promise<readonly SharedRecord[] | undefined>;
  },
): Promise<void> {
  const { clock, wait, signal, readFromOthers } = options;
  let isComplete = false;
  for (;;) {
    const shared = await readFromOthers();
    // Before the database has answered once, the instances of other replicas are unknown.
    if (shared !== undefined) isComplete = true;
    const nowMs = clock.monotonicMs();
    for (const record of shared ?? []) watch.answered(recordOfOther(record, nowMs));
    if (signal.aborted || watch.isDone(isComplete ? wait : 'EVERYWHERE')) return;
    await watch.pause(wait, signal);
  }
}

/** The records of one replica, in the order of their last requests. Beyond {@link INSTANCES_MAX}, old ones are forgotten. */
function createRecords() {
  const records = new Map<string, InstanceRecord>();
  return {
    /** The records that exist under these keys. */
    get: (keys: readonly string[]): InstanceRecord[] => keys.flatMap((key) => records.get(key) ?? []),
    put: (key: string, record: InstanceRecord): void => {
      records.delete(key);
      records.set(key, record);
      const [longestSilent] = records.keys();
      if (records.size > INSTANCES_MAX && longestSilent !== undefined) records.delete(longestSilent);
    },
    all: (): readonly InstanceRecord[] => [...records.values()],
  };
}
