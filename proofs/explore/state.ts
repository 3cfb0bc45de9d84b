/**
 * A state of a world: the database, the messages under way, the instance. All times are relative to the present, in ticks,
 * and all identifiers are indexes in the order of creation, so that states that differ only in those are one.
 *
 * The parts of a state are never changed in place. An event replaces them, so a state shares the parts that an event has
 * left alone with the state before it.
 */

/** The log and the keys in the database of auth. */
export interface Database {
  /** The present epoch. */
  readonly epoch: number;
  /** Sequence of the last entry. */
  readonly head: number;
  /** The entry at `head`, plus one; 0 when there is none. */
  readonly headEntry: number;
  /** The rows of entries, of all epochs, one bit each. */
  readonly rows: number;
  /** The version of the key set. */
  readonly keys: number;
  /** The entry whose keep_until is the horizon, plus one; 0 when nothing was dropped. */
  readonly horizon: number;
  /** The rows of epochs, one bit each. */
  readonly epochRows: number;
  /** The rows of lost epochs: for each epoch the one under which its loss was found, plus one; 0 without a row. */
  readonly foundUnder: readonly number[];
  /** The user's generation. */
  readonly generation: number;
  /** The length of leases, in ticks. */
  readonly lease: number;
  /** A former length whose last lease may not be over, in ticks; 0 when there is none. */
  readonly olderLease: number;
  /** Until the last lease of a former length is over, in ticks. */
  readonly olderLeasesEndIn: number;
}

/** A former state of the database: of a backup, or of a primary that was deposed. */
export interface PastDatabase extends Database {
  /** How much of the history it contains. */
  readonly entries: number;
  readonly epochs: number;
}

/** An entry that was committed. */
export interface Entry {
  readonly epoch: number;
  readonly sequence: number;
  /** What it revokes: the entry that it is a copy of in a newer epoch, or itself. */
  readonly target: number;
  /** For a user: the lowest generation that stays valid. For a key: the version of the key set that it was signed with. */
  readonly value: number;
  /** Since the commit, up to a maximum. */
  readonly age: number;
}

/** What the oracle knows of an entry. */
interface Due {
  /** Until no instance may admit what it revokes; 0 from then on. */
  readonly dueIn: number;
  /** The database has lost it. */
  readonly lost: boolean;
}

/** An epoch that was opened. */
interface Epoch {
  /** Until no instance may admit tokens of earlier epochs. */
  readonly dueIn: number;
  /** 0, or one more than the number of epochs that had been opened when the database lost it. */
  readonly lost: number;
  /** Until all leases from before the loss are over. */
  readonly lossDueIn: number;
}

/** A version of the key set. */
interface Keys {
  readonly epoch: number;
  /** The version that introduced the key that signs. */
  readonly signer: number;
}

/** A revocation list. */
export interface List {
  /** Entries of tokens, one bit each. */
  readonly tokens: number;
  /** The floor of the user's generations; 0 when there is none. */
  readonly floor: number;
  /** The entry with the floor's keep_until, plus one. */
  readonly floorKeep: number;
  /** Entries of keys, one bit each. */
  readonly keys: number;
  /** Entries of another issuer's tokens, one bit each. */
  readonly foreign: number;
}

/** The position that a request names, or a response. */
export interface Position {
  /** Plus one; 0 before the first response. */
  readonly epoch: number;
  readonly sequence: number;
  /** Plus one. */
  readonly entry: number;
}

/** A lease, as of its request. Clocks are ages: how far each clock has advanced since. */
export interface Lease {
  readonly monotonic: number;
  readonly wall: number;
  readonly rises: number;
  readonly length: number;
}

/** Differences of the clocks to the present one: the lowest and the highest of the segment, and the largest rise. */
interface Clocks {
  readonly lowest: number;
  readonly highest: number;
  readonly rise: number;
}

/** The entries that the feed notes as held. */
export interface Held {
  /** Where they begin, and up to where they have no gap. */
  readonly position: number;
  readonly heldTo: number;
  /** The entries whose ids it remembers, one bit each. */
  readonly entries: number;
  /** The entries whose ids are in the digest, one bit each. */
  readonly digest: number;
}

/** The feed of the instance. */
export interface FeedState extends Position {
  /** Version of the key set, plus one. */
  readonly keys: number;
  readonly horizon: number;
  /** Where the request of the last response stands among the open ones, from 1; 0 when there is none. */
  readonly lastRank: number;
  readonly lease: Lease | undefined;
  readonly clocks: Clocks | undefined;
  readonly hydrated: boolean;
  /** Entries to be acknowledged, one bit each. */
  readonly unacknowledged: number;
  readonly held: Held;
  readonly list: List;
  readonly staged: List | undefined;
}

/** A response to a sync request. */
export interface Answer extends Position {
  readonly entries: number;
  readonly pull: boolean;
  /** Version of the key set, plus one; 0 when the request names it. */
  readonly keys: number;
  /** Version of the key set in the log, plus one. */
  readonly keysRead: number;
  readonly horizon: number;
  readonly lease: number;
}

/** An open sync request. */
export interface Question {
  /** Its place in the order of the requests. */
  readonly rank: number;
  readonly monotonic: number;
  readonly wall: number;
  readonly rises: number;
  /** It describes the present list. */
  readonly ofList: boolean;
  readonly at: Position;
  readonly keys: number;
  readonly seen: number;
  /** What it says of the entries that the instance holds; as in {@link Held}. */
  readonly heldTo: number;
  readonly digest: number;
  /** With receipts: where and when it has arrived at auth; undefined before. */
  readonly arrival: Arrival | undefined;
  /** Undefined until auth has read the log for it. */
  readonly answer: Answer | undefined;
}

/** A pull under way. */
export interface Pull extends Position {
  /** Undefined: auth has not read yet. */
  readonly rows: number | undefined;
}

/** Where and when a request arrived. */
export interface Arrival {
  readonly replica: number;
  readonly age: number;
  /** Before the commit that a call follows, if that was in the same tick. */
  readonly isBefore: boolean;
}

/** What a replica of auth has recorded of the instance. */
export interface RecordState {
  /** Plus one. */
  readonly epoch: number;
  readonly sequence: number;
  readonly seen: number;
  /** Since its last request. */
  readonly age: number;
  readonly isBefore: boolean;
  /** The request that named the position arrived before the commit that a call follows. */
  readonly isComparedBefore: boolean;
}

/** What the replicas of auth know of the instance, and the call that waits for it. */
export interface Receipts {
  readonly records: readonly (RecordState | undefined)[];
  /** The rows in the database. */
  readonly shared: readonly (RecordState | undefined)[];
  watch: WatchState | undefined;
}

/** The call that waits, at one of the replicas. */
export interface WatchState {
  readonly replica: number;
  readonly entry: number;
  /** Since the commit. */
  readonly age: number;
  /** The record of the other replica was read in this tick. */
  readonly isComplete: boolean;
  /** What it knows of the instance. */
  readonly known: KnownState | undefined;
}

/** What a waiting call knows of the instance. */
interface KnownState {
  readonly age: number;
  readonly isBefore: boolean;
  readonly isSince: boolean;
  readonly isEnforced: boolean;
}

/** The end of the log that a replica of auth remembers. */
interface Tail {
  /** Plus one; 0 before the first read. */
  readonly epoch: number;
  /** Every entry after this sequence was read. */
  readonly from: number;
  /** The entries, one bit each. */
  readonly entries: number;
}

/** What an event has done wrong, one bit each. */
export const FAULTS = {
  /** A lease was granted with another key set than the log had when it was read. */
  otherKeys: 1,
  /** LOG_CHANGED, although the database has lost nothing. */
  falseAlarm: 2,
  /** A response was granted an older lease than the instance had. */
  olderLease: 4,
  /** The position of a request is that of an entry that the database has lost, and there was no LOG_CHANGED. */
  noAlarm: 8,
} as const;

/** A state of a world. */
export interface State {
  database: Database;
  /** The former states of the database that may come back, or that another server may still have. */
  past: readonly PastDatabase[];
  restoresLeft: number;
  entries: readonly Entry[];
  /** One for each entry. */
  dues: readonly Due[];
  epochs: readonly Epoch[];
  keys: readonly Keys[];
  feed: FeedState;
  /** The key set that the instance verifies with: version plus one; 0 before the first. */
  installed: number;
  questions: readonly Question[];
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

function emptyList(): List {
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
    held: { position: 0, heldTo: 0, entries: 0, digest: 0 },
    list: emptyList(),
    staged: undefined,
  };
}

/** A state in which nothing exists. */
export function emptyState(): State {
  return {
    database: EMPTY_DATABASE,
    past: [],
    restoresLeft: 0,
    entries: [],
    dues: [],
    epochs: [],
    keys: [],
    feed: newFeed(),
    installed: 0,
    questions: [],
    pull: undefined,
    pullWanted: false,
    rejected: 0,
    followed: 0,
    wallAhead: 0,
    forwardLeft: 0,
    backLeft: 0,
    sleepsLeft: 0,
    receipts: undefined,
    tail: undefined,
    cached: 0,
    flagged: 0,
    faults: 0,
  };
}

const EMPTY_DATABASE: Database = {
  epoch: 0,
  head: 0,
  headEntry: 0,
  rows: 0,
  keys: 0,
  horizon: 0,
  epochRows: 0,
  foundUnder: [],
  generation: 0,
  lease: 0,
  olderLease: 0,
  olderLeasesEndIn: 0,
};

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
