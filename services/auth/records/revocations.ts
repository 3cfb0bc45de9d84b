/** Entries of the revocation log, and the log inside a transaction. */

/** What an entry revokes. */
export type EntryKind = 'TOKEN' | 'SESSION' | 'USER' | 'CLIENT' | 'KEY' | 'CLAIM';

/** A revocation, before the log adds its place and its times. */
export interface Revocation {
  readonly kind: EntryKind;
  /** The issuer of the token, session, user or claim when it is another one; empty for this issuer. */
  readonly issuer: string;
  /** With CLAIM: the JSON Pointer of the claim. */
  readonly claim?: string | undefined;
  /**
   * The 16 bytes of a `jti` or `sid`, or the UTF-8 text of a `sub`, `client_id` or `kid`. Identifiers of another
   * issuer, and values of its claims, are always text.
   */
  readonly key: Buffer;
  /** Tokens of a lower generation are revoked; 0 for kinds without a generation. */
  readonly minGeneration: bigint;
}

/** A revocation with what is known about the lifetime of the revoked token. */
export interface TimedRevocation extends Revocation {
  /** When the revoked token expires, if that is known; only for a token of this issuer. */
  readonly tokenExpireTime?: Date | undefined;
}

/** An entry to be appended. */
export interface NewEntry extends TimedRevocation {
  readonly reason: string;
  /** The subject of the caller who revoked, or the name of the part of auth that did. */
  readonly actor: string;
  /** Asks every instance that receives the broadcast to acknowledge it at once. */
  readonly acknowledge?: boolean;
  /** Asks every service to raise its fences to this entry. */
  readonly fence?: boolean;
  /** The security event that it shares with other revocations; undefined when it has its own. */
  readonly eventId?: string | undefined;
  /** The network of the caller; empty when there was no call. */
  readonly network?: string | undefined;
  /** The `request_id` of the call; empty when it had none. */
  readonly requestId?: string | undefined;
  /** It revokes a canary token: nobody held it, so lists and receipts leave it out. */
  readonly canary?: boolean;
}

/** An entry as it stands in the log. */
export interface LogEntry extends Revocation {
  readonly entryId: Buffer;
  /** Position in the log of its epoch, from 1, without gaps, in the order of commits. */
  readonly sequence: bigint;
  /** The entry is deleted only after this database time. */
  readonly keepUntil: Date;
  /** For a user or a claim of another issuer: tokens issued up to this whole second are revoked. */
  readonly cutOffTime: Date | undefined;
  /** Only in a broadcast: asks the receiver to acknowledge the entry at once. */
  readonly acknowledge: boolean;
}

/** The place and the id of an entry. */
export type LogId = Pick<LogEntry, 'sequence' | 'entryId'>;

/** The end of the log at one moment. */
export interface LogHead {
  readonly epoch: Buffer;
  /** Sequence of the last entry; 0 when the epoch has no entry yet. */
  readonly head: bigint;
  /** Id of the entry at `head`; empty when `head` is 0. It stays known after that entry was deleted. */
  readonly headEntryId: Buffer;
}

/** The end of the log, and what applies to the whole log. */
export interface LogState extends LogHead {
  /** The largest `keepUntil` of the entries deleted so far. */
  readonly horizon: Date;
  /** How long a sync response lets an instance trust its list, in milliseconds. */
  readonly leaseMs: number;
  /** A later epoch has a larger number. */
  readonly epochNumber: bigint;
  /** Services should raise their fences to this sequence; 0 for none. */
  readonly fenceWanted: bigint;
}

/** The entries that one transaction appended. */
export interface LogBatch {
  readonly epoch: Buffer;
  /** In log order. */
  readonly entries: readonly LogEntry[];
}

/** What bounds the time until all instances enforce what a transaction appended. */
export interface LogLock {
  /** Database time at which the log was locked; the commit comes later. */
  readonly lockedTime: Date;
  /** The longest lease that a sync response grants now, in milliseconds. */
  readonly leaseMs: number;
  /** When the last lease of a former, greater length ends. */
  readonly olderLeasesEndBy: Date;
}

/** A newly opened epoch of the log. */
export interface OpenedLog extends LogLock {
  readonly epoch: Buffer;
}

/** What a transaction appended. */
export interface Appended extends LogBatch, LogLock {
  readonly epochNumber: bigint;
}

/** Identifiers of one kind that may be deleted in the same minute. */
export interface PackedIds {
  readonly kind: 'TOKEN' | 'SESSION';
  /** Rounded up to the minute, so that no entry is deleted early. */
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
 * The state of an epoch other than the current one. `OVER`: the current epoch was opened after it, or after its loss was
 * found, so no token of it is valid. `LOST`: an instance followed it, the database does not know it, and no epoch has
 * been opened since its loss was found.
 */
export type EpochStanding = 'OVER' | 'LOST';

/** An epoch that an instance followed and the database does not know. */
export interface LostEpoch {
  readonly epoch: Buffer;
  /** The epoch that was current when the loss was found. */
  readonly foundUnder: Buffer;
}

/** What the caller learns once a revocation is in the log. */
export interface Receipt {
  readonly sequence: bigint;
  /** After this database time no instance admits what was revoked. */
  readonly enforcedEverywhereBy: Date;
}

/** The revocation log, inside a transaction. */
export interface RevocationRows {
  /**
   * Appends entries, and broadcasts them after the commit. It locks the end of the log until the transaction ends, so it
   * comes last, after all other rows are locked.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the lock is not granted in time
   */
  append(entries: readonly NewEntry[]): Promise<Appended>;
  /**
   * Opens a new epoch: a new log takes the place of this one. It locks the end of the log until the transaction ends, so
   * it comes after all other rows are locked.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the lock is not granted in time
   */
  openEpoch(why: { readonly reason: string; readonly actor: string }): Promise<OpenedLog>;
}
