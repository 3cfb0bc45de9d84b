/** The instances that follow the log: what each has said of itself, here or at another replica of auth. */

import { type Clock, systemTimers, type Timers } from '@portcullis/guard/clock';
import type { PageRequest } from '../records/page.js';
import type { LogEntry } from '../records/revocations.js';
import type { SyncAnswer, SyncQuestion } from './log.js';
import { createId, enforcementBoundMs } from './log.js';
import { createSharedReads, READ_BLOCKING_MS_MAX } from './shared-reads.js';

/** Most instances whose last question is remembered; beyond it the one that has been silent longest is forgotten. */
export const INSTANCES_MAX = 10_000;

/** For how long a silent instance is listed, in seconds. */
export const INSTANCE_KEPT_SECONDS = 600;

/** How often a call that waits looks for what other replicas have heard, in milliseconds. */
export const WAIT_POLL_MS = 25;

/** Most calls that wait for instances at once. */
export const WAITS_MAX = 100;

/** How often what was heard is written down within the length of a lease; what somebody waits for, at once. */
const SHARES_PER_LEASE = 5;

/** An instance, as it last asked. */
export interface InstanceRecord {
  readonly service: string;
  readonly instance: Buffer;
  /** Monotonic time of this process at which its last question arrived. */
  readonly askedAtMs: number;
  /** What it had applied when it asked; checked against the log. */
  readonly applied: bigint;
  readonly epoch: Buffer;
  /** Entries that it has: those that its last question acknowledged, and the one at `applied`, if that was compared. */
  readonly seen: readonly Buffer[];
  /** The head that it was answered. */
  readonly answered: bigint;
  /** Monotonic time at which the last lease granted here is over; earlier than `askedAtMs` when there is none. */
  readonly leaseEndMs: number;
}

/**
 * What replicas tell each other of an instance; times are ages, because no two machines share a clock. They are told by
 * way of the database's clock, which may be set, and the database may be restored: so `applied` counts only where the log
 * of the moment at which it is read has an entry of `seen` at that place.
 */
export type SharedRecord = Pick<InstanceRecord, 'service' | 'instance' | 'applied' | 'epoch' | 'seen'> & {
  readonly ageMs: number;
  readonly leaseLeftMs: number;
};

/** An instance, as it is listed. */
export interface ListedInstance {
  readonly service: string;
  readonly instance: Buffer;
  readonly lastSyncAgeMs: number;
  readonly applied: bigint;
  readonly lag: bigint;
  readonly leaseLeftMs: number;
  readonly currentEpoch: boolean;
}

/** A page of instances. */
export interface InstancePage {
  readonly instances: readonly ListedInstance[];
  readonly nextPageToken: string;
}

/** What the replicas have heard, in the database. */
export interface InstanceStore {
  share(replica: Buffer, records: readonly SharedRecord[]): Promise<void>;
  /** What other replicas have heard of instances that asked within the given time. */
  heardElsewhere(replica: Buffer, withinMs: number): Promise<readonly SharedRecord[]>;
  /** A page of all instances, by service and id. */
  list(page: PageRequest): Promise<InstancePage>;
  /** Forgets what has been silent for longer than {@link INSTANCE_KEPT_SECONDS}. */
  forgetSilent(): Promise<void>;
}

/** Whether an instance enforces a revocation, as far as is known. */
export type EnforcementState = 'ENFORCED' | 'PENDING' | 'UNKNOWN';

/** What is known of a revocation at one instance. */
export interface InstanceReceipt {
  readonly service: string;
  readonly instance: Buffer;
  readonly state: EnforcementState;
  /** From the commit until it was known here; 0 unless ENFORCED. */
  readonly milliseconds: number;
}

/** For how long a call waits. */
export type Wait = 'NONE' | 'KNOWN_INSTANCES' | 'EVERYWHERE';

/** A revocation whose way is to be followed. */
export interface Committed {
  readonly epoch: Buffer;
  readonly entry: Pick<LogEntry, 'entryId' | 'sequence'>;
  /** Monotonic time at which the commit was known. */
  readonly committedAtMs: number;
  /** The longest lease that may have been granted before the commit. */
  readonly leaseMs: number;
  /** Monotonic time from which on no instance admits what was revoked. */
  readonly boundAtMs: number;
}

/** The instances, as the rest of auth uses them. */
export interface Instances {
  /** A question has arrived; what it acknowledges counts, whatever it will be answered. */
  heard(question: SyncQuestion): void;
  /** A question has been answered: what it says to have applied is so. */
  answered(question: SyncQuestion, askedAtMs: number, answer: SyncAnswer): void;
  /** The instances that have asked here, the one that asked last at the end. */
  asked(): readonly InstanceRecord[];
  list(page: PageRequest): Promise<InstancePage>;
  forgetSilent(): Promise<void>;
  /** How many calls wait. */
  waits(): number;
  /** Waits, and answers what was heard; returns early, with what is known then, when the signal is aborted. */
  wait(committed: Committed, wait: Exclude<Wait, 'NONE'>, signal: AbortSignal): Promise<InstanceReceipt[]>;
  /** Stops writing down what is heard. */
  close(): Promise<void>;
}

/** Makes the record of instances. */
export function createInstances(deps: {
  readonly store: InstanceStore;
  readonly clock: Clock;
  /** Those of this process unless told otherwise. */
  readonly timers?: Timers;
}): Instances {
  const { store, clock, timers = systemTimers } = deps;
  const replica = createId();
  const records = new Map<string, InstanceRecord>();
  const watches = new Set<Watch>();
  const share = async (keys: readonly string[]): Promise<void> => {
    const nowMs = clock.monotonicMs();
    const known = keys.flatMap((key) => records.get(key) ?? []);
    await store.share(
      replica,
      known.map((record) => ({
        ...record,
        ageMs: nowMs - record.askedAtMs,
        leaseLeftMs: record.leaseEndMs - nowMs,
      })),
    );
  };
  const sharing = createSharing({ share, clock, timers });
  const readElsewhere = async (withinMs: readonly number[]) => {
    const heard = await store.heardElsewhere(replica, Math.max(...withinMs));
    return () => heard;
  };
  const elsewhere = createSharedReads<number, readonly SharedRecord[]>(
    readElsewhere,
    READ_BLOCKING_MS_MAX,
    timers,
  );

  return {
    heard: (question) => {
      if (question.seen.length === 0) return;
      for (const watch of watches) watch.heard(question);
    },

    answered: (question, askedAtMs, answer) => {
      const key = question.instance.toString('hex');
      const former = records.get(key);
      const record = recordOf(question, { askedAtMs, answer, former });
      records.delete(key);
      records.set(key, record);
      const [longestSilent] = records.keys();
      if (records.size > INSTANCES_MAX && longestSilent !== undefined) records.delete(longestSilent);
      for (const watch of watches) watch.answered(record);
      // Somebody at another replica may wait for it, or not know yet that there is such an instance.
      const urgent = former === undefined || question.seen.length > 0;
      sharing.soon(key, urgent ? 0 : answer.leaseMs / SHARES_PER_LEASE);
    },

    asked: () => [...records.values()],

    list: async (page) => {
      await sharing.now();
      return await store.list(page);
    },

    forgetSilent: () => store.forgetSilent(),

    waits: () => watches.size,

    wait: async (committed, wait, signal) => {
      const watch = createWatch(committed, { clock, timers });
      for (const record of records.values()) watch.answered(record);
      watches.add(watch);
      try {
        let complete = false;
        for (;;) {
          const withinMs = watch.horizonMs();
          const heard = await elsewhere.read(withinMs).catch(() => undefined);
          // Until the database has answered, nobody knows which instances the other replicas know.
          if (heard !== undefined) complete = true;
          const nowMs = clock.monotonicMs();
          for (const record of heard ?? []) {
            watch.answered({ ...record, answered: 0n, askedAtMs: nowMs - record.ageMs, leaseEndMs: 0 });
          }
          if (signal.aborted || watch.isDone(complete ? wait : 'EVERYWHERE')) return watch.receipts();
          await watch.pause(wait, signal);
        }
      } finally {
        watches.delete(watch);
      }
    },

    close: () => sharing.close(),
  };
}

function recordOf(
  question: SyncQuestion,
  known: { askedAtMs: number; answer: SyncAnswer; former: InstanceRecord | undefined },
): InstanceRecord {
  const { askedAtMs, answer, former } = known;
  const { service, instance, epoch, seen } = question;
  const sameEpoch = former?.epoch.equals(epoch) === true;
  const formerly = sameEpoch ? former.applied : 0n;
  // Who is told to pull was not compared with the log: in a log that was restored, and then begun anew, the same
  // place has another entry. And questions of one instance may overtake each other: what it once had applied, it has.
  const isCompared = !answer.pull && question.applied > 0n && question.applied >= formerly;
  const applied = isCompared ? question.applied : formerly;
  const formerEndMs = sameEpoch ? former.leaseEndMs : Number.NEGATIVE_INFINITY;
  return {
    service,
    instance,
    epoch,
    applied,
    seen: isCompared ? [...seen, question.entryIdAtApplied] : seen,
    askedAtMs: Math.max(askedAtMs, former?.askedAtMs ?? askedAtMs),
    answered: answer.head,
    leaseEndMs: answer.pull ? formerEndMs : Math.max(askedAtMs + answer.leaseMs, formerEndMs),
  };
}

/** What a wait knows of one instance. */
interface Watched {
  readonly service: string;
  readonly instance: Buffer;
  /** When it last asked before the commit, which bounds the lease that it may hold without the entry. */
  askedBeforeMs: number;
  /** It has asked since, so that its lease, if it has one, came with the entry. */
  askedSince: boolean;
  enforcedAtMs: number | undefined;
}

interface Watch {
  heard(question: SyncQuestion): void;
  answered(record: InstanceRecord): void;
  /** How long ago an instance may have asked that could still hold a lease from before the commit, and how old that news may be. */
  horizonMs(): number;
  isDone(wait: Wait): boolean;
  /** Waits until something was heard or some time has passed. */
  pause(wait: Wait, signal: AbortSignal): Promise<void>;
  receipts(): InstanceReceipt[];
}

function createWatch(committed: Committed, { clock, timers }: { clock: Clock; timers: Timers }): Watch {
  const { entry, committedAtMs, boundAtMs } = committed;
  const boundMs = enforcementBoundMs(committed.leaseMs);
  const watched = new Map<string, Watched>();
  let wake = (): void => {};

  const enforced = (one: Watched): void => {
    one.enforcedAtMs ??= clock.monotonicMs();
    wake();
  };
  const hasEntry = ({ seen }: Pick<SyncQuestion, 'seen'>): boolean =>
    seen.some((id) => id.equals(entry.entryId));
  const isOpen = (one: Watched): boolean =>
    one.enforcedAtMs === undefined && (one.askedSince || clock.monotonicMs() < one.askedBeforeMs + boundMs);

  return {
    heard: (question) => {
      const one = watched.get(question.instance.toString('hex'));
      if (one !== undefined && hasEntry(question)) enforced(one);
    },
    answered: (record) => {
      const key = record.instance.toString('hex');
      const isBefore = record.askedAtMs <= committedAtMs;
      let one = watched.get(key);
      if (one === undefined) {
        if (isBefore && record.askedAtMs + boundMs <= committedAtMs) return;
        const { service, instance } = record;
        one = {
          service,
          instance,
          // When only a later question is known, an earlier one may have been written over by it.
          askedBeforeMs: isBefore ? record.askedAtMs : committedAtMs,
          askedSince: false,
          enforcedAtMs: undefined,
        };
        watched.set(key, one);
      }
      if (isBefore) one.askedBeforeMs = Math.max(one.askedBeforeMs, record.askedAtMs);
      else one.askedSince = true;
      // Whoever asked before the commit and had a place beyond it spoke of another log: the database was restored.
      const sameLog = !isBefore && record.epoch.equals(committed.epoch);
      const hasApplied = sameLog && record.applied >= entry.sequence;
      if (hasApplied || hasEntry(record)) enforced(one);
    },
    horizonMs: () => boundMs + committed.leaseMs / SHARES_PER_LEASE + (clock.monotonicMs() - committedAtMs),
    isDone: (wait) => {
      if (clock.monotonicMs() >= boundAtMs) return true;
      return wait === 'KNOWN_INSTANCES' && ![...watched.values()].some(isOpen);
    },
    pause: async (wait, signal) => {
      const leftMs = Math.max(1, Math.ceil(boundAtMs - clock.monotonicMs()));
      const allEnforced = [...watched.values()].every((one) => one.enforcedAtMs !== undefined);
      // When there is nothing left to hear, only the bound is waited for.
      const pauseMs = wait === 'EVERYWHERE' && allEnforced ? leftMs : Math.min(leftMs, WAIT_POLL_MS);
      await new Promise<void>((resolve) => {
        const stop = timers.after(pauseMs, resolve);
        wake = () => {
          stop();
          resolve();
        };
        signal.addEventListener('abort', wake, { once: true });
        if (signal.aborted) wake();
      }).finally(() => signal.removeEventListener('abort', wake));
      wake = () => {};
    },
    receipts: () =>
      [...watched.values()].map(({ service, instance, askedSince, enforcedAtMs }) => ({
        service,
        instance,
        state: enforcedAtMs === undefined ? (askedSince ? 'PENDING' : 'UNKNOWN') : 'ENFORCED',
        milliseconds: enforcedAtMs === undefined ? 0 : Math.max(1, Math.ceil(enforcedAtMs - committedAtMs)),
      })),
  };
}

interface Sharing {
  /** Shares what is known under the key, together with other keys, not later than after this time. */
  soon(key: string, withinMs: number): void;
  /** Shares at once, and waits until it is done; whatever fails is tried again with the next. */
  now(): Promise<void>;
  close(): Promise<void>;
}

/** Collects keys, and shares them together, one batch at a time. */
function createSharing(options: {
  readonly share: (keys: readonly string[]) => Promise<void>;
  readonly clock: Clock;
  readonly timers: Timers;
}): Sharing {
  const { share, clock, timers } = options;
  const dirty = new Set<string>();
  let planned: { readonly stop: () => void; readonly atMs: number } | undefined;
  let underWay = Promise.resolve();
  let closed = false;

  const run = async (): Promise<void> => {
    const keys = [...dirty];
    dirty.clear();
    if (keys.length === 0) return;
    try {
      await share(keys);
    } catch {
      // The instances will ask again, and then it is tried again.
    }
  };
  const start = (): Promise<void> => {
    planned?.stop();
    planned = undefined;
    underWay = underWay.then(run);
    return underWay;
  };

  return {
    soon: (key, withinMs) => {
      if (closed) return;
      dirty.add(key);
      const atMs = clock.monotonicMs() + withinMs;
      if (planned !== undefined && planned.atMs <= atMs) return;
      planned?.stop();
      planned = { stop: timers.after(withinMs, () => void start()), atMs };
    },
    now: start,
    close: async () => {
      closed = true;
      planned?.stop();
      await underWay;
    },
  };
}
