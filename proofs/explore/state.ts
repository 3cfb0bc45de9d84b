/**
 * A state of a world: the database, the messages under way, the instance. All times are relative to the present, in ticks,
 * and all identifiers are indexes in the order of creation, so that states that differ only in those are one.
 */

/** The log and the keys in the database of auth. */
export interface Database {
  /** The present epoch. */
  epoch: number;
  /** Sequence of the last entry. */
  head: number;
  /** The entry at `head`, plus one; 0 when there is none. */
  headEntry: number;
  /** The rows of entries, of all epochs, one bit each. */
  rows: number;
  /** The version of the key set. */
  keys: number;
  /** The entry whose keep_until is the horizon, plus one; 0 when nothing was dropped. */
  horizon: number;
  /** The rows of epochs, one bit each. */
  epochRows: number;
  /** The rows of lost epochs: for each epoch the one under which its loss was found, plus one; 0 without a row. */
  foundUnder: number[];
  /** The user's generation. */
  generation: number;
  /** The length of leases, in ticks. */
  lease: number;
  /** A former length whose last lease may not be over, in ticks; 0 when there is none. */
  olderLease: number;
  /** Until the last lease of a former length is over, in ticks. */
  olderLeasesEndIn: number;
}

/** A copy of the database: a backup, or the state of a primary that was deposed. */
export interface Copy extends Database {
  /** How much of the history the copy contains. */
  entries: number;
  epochs: number;
}

/** An entry that was committed. */
export interface Entry {
  epoch: number;
  sequence: number;
  /** What it revokes: the entry that it is a copy of in a newer epoch, or itself. */
  target: number;
  /** For a user: the lowest generation that stays valid. For a key: the version of the key set that it was signed with. */
  value: number;
  /** Since the commit, up to a maximum. */
  age: number;
  /** Until no instance may admit what it revokes; 0 from then on. */
  dueIn: number;
  /** The database has lost it. */
  lost: boolean;
}

/** An epoch that was opened. */
interface Epoch {
  /** Until no instance may admit tokens of earlier epochs. */
  dueIn: number;
  /** 0, or one more than the number of epochs that had been opened when the database lost it. */
  lost: number;
  /** Until all leases from before the loss are over. */
  lossDueIn: number;
}

/** A version of the key set. */
interface Keys {
  epoch: number;
  /** The version that introduced the key that signs. */
  signer: number;
}

/** A revocation list. */
export interface List {
  /** Entries of tokens, one bit each. */
  tokens: number;
  /** The floor of the user's generations; 0 when there is none. */
  floor: number;
  /** The entry with the floor's keep_until, plus one. */
  floorKeep: number;
  /** Entries of keys, one bit each. */
  keys: number;
  /** Entries of another issuer's tokens, one bit each. */
  foreign: number;
}

/** The position that a request names, or a response. */
export interface Position {
  /** Plus one; 0 before the first response. */
  epoch: number;
  sequence: number;
  /** Plus one. */
  entry: number;
}

/** A lease, as of its request. Clocks are ages: how far each clock has advanced since. */
export interface Lease {
  monotonic: number;
  wall: number;
  rises: number;
  length: number;
}

/** The feed of the instance. */
export interface FeedState extends Position {
  /** Version of the key set, plus one. */
  keys: number;
  horizon: number;
  /** Where the request of the last response stands among the open ones, from 1; 0 when there is none. */
  lastRank: number;
  lease: Lease | undefined;
  /** Differences of the clocks to the present one: the lowest and the highest of the segment, and the largest rise. */
  clocks: { lowest: number; highest: number; rise: number } | undefined;
  hydrated: boolean;
  /** Entries to be acknowledged, one bit each. */
  unacknowledged: number;
  list: List;
  staged: List | undefined;
}

/** A response to a sync request. */
export interface Answer extends Position {
  entries: number;
  pull: boolean;
  /** Version of the key set, plus one; 0 when the request names it. */
  keys: number;
  /** Version of the key set in the log, plus one. */
  keysRead: number;
  horizon: number;
  lease: number;
}

/** An open sync request. */
export interface Question {
  /** Its place in the order of the requests. */
  rank: number;
  monotonic: number;
  wall: number;
  rises: number;
  /** It describes the present list. */
  ofList: boolean;
  at: Position;
  keys: number;
  seen: number;
  /** With receipts: where and when it has arrived at auth; undefined before. */
  arrival: Arrival | undefined;
  /** Undefined until auth has read the log for it. */
  answer: Answer | undefined;
}

/** A pull under way. */
export interface Pull extends Position {
  /** Undefined: auth has not read yet. */
  rows: number | undefined;
}

/** Where and when a request arrived. */
export interface Arrival {
  replica: number;
  age: number;
  /** Before the commit that a call follows, if that was in the same tick. */
  isBefore: boolean;
}

/** What a replica of auth has recorded of the instance. */
export interface RecordState {
  /** Plus one. */
  epoch: number;
  sequence: number;
  seen: number;
  /** Since its last request. */
  age: number;
  isBefore: boolean;
}

/** What the replicas of auth know of the instance, and the call that waits for it. */
export interface Receipts {
  records: (RecordState | undefined)[];
  /** The rows in the database. */
  shared: (RecordState | undefined)[];
  watch:
    | {
        replica: number;
        entry: number;
        /** Since the commit. */
        age: number;
        /** The record of the other replica was read in this tick. */
        isComplete: boolean;
        /** What it knows of the instance. */
        known: { age: number; isBefore: boolean; isSince: boolean; isEnforced: boolean } | undefined;
      }
    | undefined;
}

/** The end of the log that a replica of auth remembers. */
interface Tail {
  /** Plus one; 0 before the first read. */
  epoch: number;
  /** The entries, one bit each. */
  entries: number;
}

/** What an event has done wrong, one bit each. */
export const FAULTS = {
  /** A lease was granted with another key set than the log had when it was read. */
  otherKeys: 1,
  /** LOG_CHANGED, although the database has lost nothing. */
  falseAlarm: 2,
} as const;

/** A state of a world. */
export interface State {
  database: Database;
  copy: Copy | undefined;
  restoresLeft: number;
  entries: Entry[];
  epochs: Epoch[];
  keys: Keys[];
  feed: FeedState;
  /** The key set that the instance verifies with: version plus one; 0 before the first. */
  installed: number;
  questions: Question[];
  pull: Pull | undefined;
  /** The last response asked for a pull. */
  pullWanted: boolean;
  /** Entries by which this process has rejected a token once, one bit each. */
  rejected: number;
  /** Epochs that this process has followed, one bit each. */
  followed: number;
  /** How far the wall clock of the instance is ahead. */
  wallAhead: number;
  forwardLeft: number;
  backLeft: number;
  sleepsLeft: number;
  receipts: Receipts | undefined;
  tail: Tail | undefined;
  /** The tokens in the cache of the instance, and those of them that are flagged, one bit each. */
  cached: number;
  flagged: number;
  /** From {@link FAULTS}. */
  faults: number;
}

export function emptyList(): List {
  return { tokens: 0, floor: 0, floorKeep: 0, keys: 0, foreign: 0 };
}

/** A feed that has not synced yet. */
export function newFeed(): FeedState {
  return {
    epoch: 0,
    sequence: 0,
    entry: 0,
    keys: 0,
    horizon: 0,
    lastRank: 0,
    lease: undefined,
    clocks: undefined,
    hydrated: false,
    unacknowledged: 0,
    list: emptyList(),
    staged: undefined,
  };
}

/** The places of the bits that are set. */
export function indexesIn(bits: number): number[] {
  const indexes: number[] = [];
  for (let index = 0; bits >> index > 0; index += 1) if ((bits >> index) & 1) indexes.push(index);
  return indexes;
}

/** The number in which the bits at these places are set. */
export function bitsOf(indexes: readonly number[]): number {
  return indexes.reduce((bits, index) => bits | (1 << index), 0);
}
