/** The revocation log outside the transactions that write to it, as the domain needs it. */

import type { PublishedKeys } from '../records/keys.js';
import type { EpochStanding, LiveSet, LogEntry, LogId, LogState, LostEpoch } from '../records/revocations.js';

/**
 * Maximum number of lost epochs kept for each present epoch. A restore loses a few; the limit stops a service that sends
 * invented epochs.
 */
export const LOST_EPOCHS_MAX = 1000;

/** Reads the log in one snapshot. */
export interface LogReader {
  readonly state: LogState;
  /** The entries of the epoch after a sequence, ascending. */
  entriesAfter(sequence: bigint): Promise<readonly LogEntry[]>;
  /** The ids of these entries, which are read in a fraction of the time. */
  idsAfter(sequence: bigint): Promise<readonly LogId[]>;
  /** The ids of the entries at these sequences; entries that were dropped are missing. */
  entryIdsAt(sequences: readonly bigint[]): Promise<ReadonlyMap<bigint, Buffer>>;
  /** What is known of other epochs, by their hexadecimal text; epochs that the database does not know are missing. */
  standingOf(epochs: readonly Buffer[]): Promise<ReadonlyMap<string, EpochStanding>>;
  /** The published keys of the epoch. */
  publishedKeys(): Promise<PublishedKeys>;
}

/** The lifetime of the tokens of this issuer, as the log assumes it. */
export interface TokenLifetime {
  /** The lifetime of tokens that are minted now, in seconds. */
  readonly tokenSeconds: number;
  /** How long an entry about tokens of this issuer is kept now, in seconds; longer for a while after a greater lifetime. */
  readonly keptSeconds: number;
}

/** The revocation log outside the transactions that write to it. */
export interface RevocationStore {
  /**
   * Reads in a snapshot that begins after this call, in a transaction that also commits a write. So the result was the
   * end of the log of the one primary. Throws when the commit was not confirmed.
   */
  read<T>(work: (log: LogReader) => Promise<T>): Promise<T>;
  /**
   * Records lost epochs, unless another epoch was opened after they were found: opening one ends them. Keeps the latest
   * {@link LOST_EPOCHS_MAX} of each present epoch.
   */
  noteLostEpochs(lost: readonly LostEpoch[]): Promise<void>;
  /** All live entries, from one snapshot. */
  readLive(): Promise<LiveSet>;
  /** Drops at most `limit` expired entries, moves the horizon with them, and returns how many were dropped. */
  dropExpired(limit: number): Promise<number>;
  /** Sets the length of leases. After a shorter length is set, the longer one counts until its last lease is over. */
  setLeaseMs(leaseMs: number): Promise<void>;
  /**
   * Sets the lifetime of tokens that are minted from now on, in seconds. After a shorter one is set, the longer one counts
   * for entries until the last token of that lifetime has expired.
   */
  setTokenSeconds(seconds: number): Promise<void>;
  tokenLifetime(): Promise<TokenLifetime>;
}
