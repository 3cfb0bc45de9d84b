/** Parts of states as bytes. */

import type {
  Answer,
  Arrival,
  FeedState,
  Lease,
  List,
  Position,
  Question,
  Receipts,
  RecordState,
} from './state.js';

/** Numbers that may be negative are stored with this added. */
export const BIAS = 64;

/** Reads or writes bytes in order. */
export class Cursor {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  put(value: number): void {
    this.bytes[this.at] = value;
    this.at += 1;
  }

  get(): number {
    const value = this.bytes[this.at] ?? 0;
    this.at += 1;
    return value;
  }
}

export function putPosition(to: Cursor, { epoch, sequence, entry }: Position): void {
  to.put(epoch);
  to.put(sequence);
  to.put(entry);
}

export function getPosition(from: Cursor): Position {
  return { epoch: from.get(), sequence: from.get(), entry: from.get() };
}

function putList(to: Cursor, list: List): void {
  to.put(list.tokens);
  to.put(list.floor);
  to.put(list.floorKeep);
  to.put(list.keys);
  to.put(list.foreign);
}

function getList(from: Cursor): List {
  return {
    tokens: from.get(),
    floor: from.get(),
    floorKeep: from.get(),
    keys: from.get(),
    foreign: from.get(),
  };
}

/** Length of a packed feed, in bytes. */
export const FEED_BYTES = 29;

export function putFeed(to: Cursor, feed: FeedState): void {
  putPosition(to, feed);
  to.put(feed.keys);
  to.put(feed.horizon);
  to.put(feed.lastRank);
  to.put(
    (feed.hydrated ? 1 : 0) +
      (feed.lease === undefined ? 0 : 2) +
      (feed.clocks === undefined ? 0 : 4) +
      (feed.staged === undefined ? 0 : 8),
  );
  to.put(feed.unacknowledged);
  to.put(feed.held.position);
  to.put(feed.held.heldTo);
  to.put(feed.held.entries);
  to.put(feed.held.digest);
  if (feed.lease !== undefined) {
    to.put(feed.lease.monotonic);
    to.put(feed.lease.wall + BIAS);
    to.put(feed.lease.rises);
    to.put(feed.lease.length);
  }
  if (feed.clocks !== undefined) {
    to.put(feed.clocks.lowest + BIAS);
    to.put(feed.clocks.highest + BIAS);
    to.put(feed.clocks.rise);
  }
  putList(to, feed.list);
  if (feed.staged !== undefined) putList(to, feed.staged);
}

export function getFeed(from: Cursor): FeedState {
  const position = getPosition(from);
  const keys = from.get();
  const horizon = from.get();
  const lastRank = from.get();
  const flags = from.get();
  const unacknowledged = from.get();
  const held = { position: from.get(), heldTo: from.get(), entries: from.get(), digest: from.get() };
  const lease: Lease | undefined =
    (flags & 2) === 0
      ? undefined
      : { monotonic: from.get(), wall: from.get() - BIAS, rises: from.get(), length: from.get() };
  const clocks =
    (flags & 4) === 0
      ? undefined
      : { lowest: from.get() - BIAS, highest: from.get() - BIAS, rise: from.get() };
  const list = getList(from);
  const staged = (flags & 8) === 0 ? undefined : getList(from);
  const hydrated = (flags & 1) !== 0;
  const { epoch, sequence, entry } = position;
  return {
    epoch,
    sequence,
    entry,
    keys,
    horizon,
    lastRank,
    lease,
    clocks,
    hydrated,
    unacknowledged,
    held,
    list,
    staged,
  };
}

export const NOWHERE: Position = { epoch: 0, sequence: 0, entry: 0 };

/** Length of a packed request, in bytes. */
export const QUESTION_BYTES = 23;

/** Length of the receipts, in bytes. */
export const RECEIPTS_BYTES = 2 * 2 * 5 + 6;

export function putQuestion(to: Cursor, question: Question): void {
  const { answer } = question;
  const end = to.at + QUESTION_BYTES;
  to.put(question.rank);
  to.put(question.monotonic);
  to.put(question.wall + BIAS);
  to.put(question.rises);
  to.put((question.ofList ? 1 : 0) + (answer === undefined ? 0 : 2) + (answer?.pull === true ? 4 : 0));
  // Once auth has read the log for it, nothing depends on where the request stood in its epoch.
  putPosition(to, answer === undefined ? question.at : { ...NOWHERE, epoch: question.at.epoch });
  // A key set that comes with the response confirms nothing that the request named.
  to.put(answer !== undefined && answer.keys > 0 ? 0 : question.keys);
  to.put(question.seen);
  to.put(question.heldTo);
  to.put(question.digest);
  putArrival(to, question.arrival);
  if (answer !== undefined) {
    putPosition(to, answer);
    to.put(answer.entries);
    to.put(answer.keys);
    to.put(answer.horizon);
    to.put(answer.lease);
    to.put(answer.keysRead);
  }
  to.at = end;
}

export function getQuestion(from: Cursor): Question {
  const end = from.at + QUESTION_BYTES;
  const rank = from.get();
  const monotonic = from.get();
  const wall = from.get() - BIAS;
  const rises = from.get();
  const flags = from.get();
  const at = getPosition(from);
  const keys = from.get();
  const seen = from.get();
  const [heldTo, digest] = [from.get(), from.get()];
  const arrival = getArrival(from);
  let answer: Answer | undefined;
  if ((flags & 2) !== 0) {
    answer = {
      epoch: from.get(),
      sequence: from.get(),
      entry: from.get(),
      entries: from.get(),
      keys: from.get(),
      horizon: from.get(),
      lease: from.get(),
      keysRead: from.get(),
      pull: (flags & 4) !== 0,
    };
  }
  from.at = end;
  const ofList = (flags & 1) !== 0;
  return { rank, monotonic, wall, rises, ofList, at, keys, seen, heldTo, digest, arrival, answer };
}

function putArrival(to: Cursor, arrival: Arrival | undefined): void {
  to.put(arrival === undefined ? 0 : 1 + arrival.replica + (arrival.isBefore ? 4 : 0));
  to.put(arrival?.age ?? 0);
}

function getArrival(from: Cursor): Arrival | undefined {
  const flags = from.get();
  const age = from.get();
  return flags === 0 ? undefined : { replica: (flags & 3) - 1, age, isBefore: (flags & 4) !== 0 };
}

export function putReceipts(to: Cursor, { records, shared, watch }: Receipts): void {
  for (const record of [...records, ...shared]) {
    to.put(record === undefined ? 0 : 1 + (record.isBefore ? 2 : 0) + (record.isComparedBefore ? 4 : 0));
    to.put(record?.epoch ?? 0);
    to.put(record?.sequence ?? 0);
    to.put(record?.seen ?? 0);
    to.put(record?.age ?? 0);
  }
  const known = watch?.known;
  to.put(
    (watch === undefined ? 0 : 1) + (known === undefined ? 0 : 2) + (watch?.isComplete === true ? 4 : 0),
  );
  to.put(watch?.replica ?? 0);
  to.put(watch?.entry ?? 0);
  to.put(watch?.age ?? 0);
  to.put(known?.age ?? 0);
  to.put((known?.isSince === true ? 1 : 0) + (known?.isEnforced === true ? 2 : 0));
}

export function getReceipts(from: Cursor): Receipts {
  const getRecord = (): RecordState | undefined => {
    const flags = from.get();
    const [epoch, sequence, seen, age] = [from.get(), from.get(), from.get(), from.get()];
    const isComparedBefore = (flags & 4) !== 0;
    return flags === 0
      ? undefined
      : { epoch, sequence, seen, age, isBefore: (flags & 2) !== 0, isComparedBefore };
  };
  const records = times(2, getRecord);
  const shared = times(2, getRecord);
  const flags = from.get();
  const [replica, entry, age, knownAge, knownFlags] = [
    from.get(),
    from.get(),
    from.get(),
    from.get(),
    from.get(),
  ];
  if ((flags & 1) === 0) return { records, shared, watch: undefined };
  const known =
    (flags & 2) === 0
      ? undefined
      : {
          age: knownAge,
          isBefore: true,
          isSince: (knownFlags & 1) !== 0,
          isEnforced: (knownFlags & 2) !== 0,
        };
  return { records, shared, watch: { replica, entry, age, isComplete: (flags & 4) !== 0, known } };
}

export function times<T>(count: number, make: () => T): T[] {
  const made: T[] = [];
  for (let index = 0; index < count; index += 1) made.push(make());
  return made;
}
