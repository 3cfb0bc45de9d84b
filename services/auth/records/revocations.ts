/** Entries of the revocation log, and the log inside a transaction. */

/** What an entry takes back. */
export type EntryKind = 'TOKEN' | 'SESSION' | 'USER' | 'CLIENT' | 'KEY';

/** What a new entry takes back; the log adds the rest. */
export interface Revocation {
  readonly kind: EntryKind;
  /** The other issuer whose token, session or user this is; empty for our own. */
  readonly issuer: string;
  /**
   * The 16 bytes of a `jti` or `sid`, or the UTF-8 text of a `sub`, `client_id` or `kid`; always text when
   * it is another issuer's.
   */
  readonly key: Buffer;
  /** Tokens of a lower generation are revoked; 0 for kinds that know no generation. */
  readonly minGeneration: bigint;
}

/** An entry that is about to be written. */
export interface NewEntry extends Revocation {
  readonly reason: string;
  /** Who revoked: the subject of a caller, or the name of the part of auth that acted by itself. */
  readonly actor: string;
  /** Whoever hears the broadcast is asked to say so at once. */
  readonly acknowledge?: boolean;
}

/** An entry as it stands in the log. */
export interface LogEntry extends Revocation {
  readonly entryId: Buffer;
  /** Position in the log of its epoch, from 1, without gaps, in the order of commits. */
  readonly sequence: bigint;
  /** The entry is dropped only after this moment of database time. */
  readonly keepUntil: Date;
  /** Of another issuer's user alone: what was issued up to this whole second is revoked. */
  readonly cutOffTime: Date | undefined;
  /** Only in a broadcast: its receiver is asked to say at once that it has the entry. */
  readonly acknowledge: boolean;
}

/** The end of the log at one moment. */
export interface LogHead {
  readonly epoch: Buffer;
  /** Sequence of the last entry; 0 when the epoch has none yet. */
  readonly head: bigint;
  /** Id of the entry at `head`; empty when `head` is 0. It is known even after that entry was dropped. */
  readonly headEntryId: Buffer;
}

/** What belongs to the whole log. */
export interface LogState extends LogHead {
  /** The largest `keepUntil` among the entries dropped so far. */
  readonly horizon: Date;
  /** For how long an answer lets an instance trust its list. */
  readonly leaseMs: number;
}

/** Entries that one transaction has written. */
export interface LogBatch {
  readonly epoch: Buffer;
  /** In log order. */
  readonly entries: readonly LogEntry[];
}

/** What bounds the time until all instances have what a transaction has written. */
export interface LogLock {
  /** Database time at which the log was locked; the commit comes later. */
  readonly lockedTime: Date;
  /** The longest lease that an answer given now grants. */
  readonly leaseMs: number;
  /** When the leases of a greater length, granted before it was lowered, are over. */
  readonly olderLeasesEndBy: Date;
}

/** A log that was begun. */
export interface OpenedLog extends LogLock {
  readonly epoch: Buffer;
}

/** What a transaction has written. */
export interface Appended extends LogBatch, LogLock {}

/** Identifiers of one kind that may be dropped at the same minute. */
export interface PackedIds {
  readonly kind: 'TOKEN' | 'SESSION';
  /** Rounded up to the minute, so that none is dropped before its time. */
  readonly keepUntil: Date;
  /** ID_BYTES bytes each, concatenated. */
  readonly ids: Buffer;
}

/** All live entries of an epoch, from one snapshot. */
export interface LiveSet extends LogHead {
  readonly packed: readonly PackedIds[];
  readonly entries: readonly LogEntry[];
}

/**
 * What the database knows of an epoch that is not the present one. `OVER`: the present one was opened after it, or after it was
 * lost, so nothing that was issued in it still counts. `LOST`: an instance has followed it, the database has not, and no epoch
 * has been opened since that was found.
 */
export type EpochStanding = 'OVER' | 'LOST';

/** An epoch that the database does not know although an instance has followed it. */
export interface LostEpoch {
  readonly epoch: Buffer;
  /** The epoch in whose log that was found. */
  readonly foundUnder: Buffer;
}

/** What is known of a revocation once it is in the log. */
export interface Receipt {
  readonly sequence: bigint;
  /** From this moment of database time on no instance admits what was revoked. */
  readonly enforcedEverywhereBy: Date;
}

/** The revocation log, inside a transaction. */
export interface RevocationRows {
  /**
   * Writes entries at the end of the log, and sees to it that they are broadcast after the commit. It locks the
   * end of the log until the transaction ends, so it comes last, after all other rows have been locked.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the lock cannot be had in time
   */
  append(entries: readonly NewEntry[]): Promise<Appended>;
  /**
   * Begins a new log in the place of this one. It locks the end of the log until the transaction ends, so it
   * comes after all other rows have been locked.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the lock cannot be had in time
   */
  openEpoch(why: { readonly reason: string; readonly actor: string }): Promise<OpenedLog>;
}
