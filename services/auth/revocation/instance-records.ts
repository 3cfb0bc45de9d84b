/** What auth keeps of the instances that follow the log. */

import type { PageRequest } from '../records/page.js';
import {
  type Abilities,
  type InstanceDescription,
  KEEP_SECONDS_MAX,
  type SyncPosition,
  type SyncResult,
} from './log.js';

/** How long a silent instance is listed, in seconds. */
export const INSTANCE_KEPT_SECONDS = 600;

/** How long it is known what an instance had, in seconds: for as long as any entry is in the log, and a round more. */
export const HISTORY_KEPT_SECONDS = KEEP_SECONDS_MAX + 600;

/** An instance as of its last sync request. */
export interface InstanceRecord {
  readonly service: string;
  readonly instance: Buffer;
  /** Monotonic time of this process at which its last request arrived. */
  readonly requestedAtMs: number;
  /** What it had applied then, or earlier in this epoch, compared with the log. */
  readonly applied: bigint;
  /**
   * Monotonic time of this process at which the request arrived that named `applied`; −∞ when none has. After it, the log may
   * have lost entries, and may have others at their places.
   */
  readonly comparedAtMs: number;
  readonly epoch: Buffer;
  /** Entries that it has: those that its last request acknowledged, and the one at `applied` if it was compared. */
  readonly seen: readonly Buffer[];
  /** The head of the response. */
  readonly answeredHead: bigint;
  /** Monotonic time at which its last lease from here is over; earlier than `requestedAtMs` when it has none. */
  readonly leaseEndMs: number;
  /** Undefined in the record of another replica. */
  readonly abilities?: Abilities | undefined;
  /** Undefined in the record of another replica, and for versions that state none. */
  readonly description?: InstanceDescription | undefined;
  /** Its last request stated that it has stopped serving. */
  readonly leaving?: boolean | undefined;
}

/**
 * What replicas share of an instance. Times are ages, because no two machines share a clock. The ages pass through the
 * database's clock, which may be set, and the database may be restored. So `applied` counts only where the log, when it
 * is read, has an entry of `seen` at that place.
 */
export type SharedRecord = Pick<
  InstanceRecord,
  'service' | 'instance' | 'applied' | 'epoch' | 'seen' | 'abilities' | 'description' | 'leaving'
> & {
  readonly ageMs: number;
  readonly leaseLeftMs: number;
  /** What it has may have changed since this replica last shared it, so that it belongs into the history. */
  readonly isNews?: boolean;
};

/** An instance as it is listed. */
export interface ListedInstance {
  readonly service: string;
  readonly instance: Buffer;
  readonly lastSyncAgeMs: number;
  readonly applied: bigint;
  readonly lag: bigint;
  readonly leaseLeftMs: number;
  readonly currentEpoch: boolean;
  readonly description: InstanceDescription | undefined;
  /** Its last request stated that it has stopped serving. */
  readonly left: boolean;
}

/** A claim of another issuer's tokens. */
export interface ForeignClaim {
  readonly issuer: string;
  /** The JSON Pointer of the claim. */
  readonly claim: string;
}

/** An instance that may hold a lease and cannot apply a revocation by a claim. */
export interface UnreadyInstance {
  readonly service: string;
  readonly instance: Buffer;
  /** It knows the kind of entry, but does not read the claim. */
  readonly knowsKind: boolean;
}

/** A page of instances. */
export interface InstancePage {
  readonly instances: readonly ListedInstance[];
  readonly nextPageToken: string;
}

/** The records of all replicas, in the database. */
export interface InstanceStore {
  share(replica: Buffer, records: readonly SharedRecord[]): Promise<void>;
  /** The records of other replicas whose last request is younger than the given age. */
  readFromOthers(replica: Buffer, ageMsMax: number): Promise<readonly SharedRecord[]>;
  /** A page of all instances, by service and id. */
  list(page: PageRequest): Promise<InstancePage>;
  /**
   * The first of the instances that may hold a lease and either do not know entries of kind CLAIM, or trust the issuer
   * and do not read the claim.
   */
  unready(claim: ForeignClaim): Promise<readonly UnreadyInstance[]>;
  /** Deletes what is only about entries that are no longer listed. */
  deleteSilent(): Promise<void>;
}

/**
 * A record as it is shared.
 *
 * @param former - the record of the same instance that was shared before
 * @param nowMs - monotonic time of this process
 */
export function sharedRecord(
  record: InstanceRecord,
  former: InstanceRecord | undefined,
  nowMs: number,
): SharedRecord {
  return {
    ...record,
    ageMs: nowMs - record.requestedAtMs,
    leaseLeftMs: record.leaseEndMs - nowMs,
    isNews: former === undefined || hasMore(record, former),
  };
}

function hasMore({ epoch, applied, seen }: InstanceRecord, former: InstanceRecord): boolean {
  if (!epoch.equals(former.epoch) || applied > former.applied) return true;
  return seen.some((id) => !former.seen.some((known) => known.equals(id)));
}

/** The record that another replica has shared, in the time of this process. Its lease is not used. */
export function recordOfOther(shared: SharedRecord, nowMs: number): InstanceRecord {
  const { ageMs, leaseLeftMs: _, isNews: __, ...record } = shared;
  const requestedAtMs = nowMs - ageMs;
  // Its position was compared with the log when it was read.
  return { ...record, answeredHead: 0n, requestedAtMs, comparedAtMs: requestedAtMs, leaseEndMs: 0 };
}

const NOT_COMPARED = { applied: 0n, comparedAtMs: Number.NEGATIVE_INFINITY };

/** The record of an instance after a sync request of it was answered. */
export function recordOf(
  question: SyncPosition,
  known: { requestedAtMs: number; answer: SyncResult; former: InstanceRecord | undefined },
): InstanceRecord {
  const { requestedAtMs, answer, former } = known;
  const { service, instance, epoch, seen, abilities, description, leaving } = question;
  const isSameEpoch = former?.epoch.equals(epoch) === true;
  const { applied: formerApplied, comparedAtMs: formerComparedAtMs } = isSameEpoch ? former : NOT_COMPARED;
  // The place of an instance that must pull was not compared with the log: in a log that was restored and then begun
  // anew, another entry stands there. And requests of one instance may overtake each other; what it applied, it keeps.
  const isCompared = !answer.pull && question.applied > 0n && question.applied >= formerApplied;
  const formerEndMs = isSameEpoch ? former.leaseEndMs : Number.NEGATIVE_INFINITY;
  return {
    service,
    instance,
    epoch,
    applied: isCompared ? question.applied : formerApplied,
    comparedAtMs: isCompared ? requestedAtMs : formerComparedAtMs,
    seen: isCompared ? [...seen, question.entryIdAtApplied] : seen,
    requestedAtMs: Math.max(requestedAtMs, former?.requestedAtMs ?? requestedAtMs),
    answeredHead: answer.head,
    abilities,
    description,
    leaving,
    leaseEndMs: answer.pull ? formerEndMs : Math.max(requestedAtMs + answer.leaseMs, formerEndMs),
  };
}
