/** States as bytes. Equal states have equal bytes, so the order of open requests and unused numbers must not show. */

import type {
  Answer,
  Copy,
  Database,
  FeedState,
  Lease,
  List,
  Position,
  Pull,
  Question,
  State,
} from './state.js';
import type { World } from './world.js';

/** Numbers that may be negative are stored with this added. */
const BIAS = 64;

/** Reads or writes bytes in order. */
class Cursor {
  readonly bytes: Uint8Array;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
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

/** Packs and unpacks the states of one world. */
export class Packing {
  /** Length of a packed state, in bytes; a multiple of four. */
  readonly length: number;
  readonly #epochs: number;
  readonly #entries: number;
  readonly #keys: number;
  readonly #questions: number;
  readonly #hasCopy: boolean;
  readonly #questionBytes: Uint8Array[];

  constructor(world: World) {
    this.#epochs = 1 + (world.epochs ?? 0);
    this.#entries = entriesMax(world);
    this.#keys = keysMax(world);
    this.#questions = world.questions;
    this.#hasCopy = (world.restores ?? 0) > 0 || world.oldStates === true;
    const database = 11 + this.#epochs;
    const state =
      database * (this.#hasCopy ? 2 : 1) +
      (this.#hasCopy ? 4 : 0) +
      7 * this.#entries +
      3 * this.#epochs +
      2 * this.#keys +
      3;
    this.length = Math.ceil((state + 29 + this.#questions * QUESTION_BYTES + 16) / 4) * 4;
    this.#questionBytes = Array.from({ length: this.#questions }, () => new Uint8Array(QUESTION_BYTES));
  }

  /** Packs a state. Its requests are put into their canonical order. */
  pack(state: State, bytes: Uint8Array): void {
    rerank(state);
    const to = new Cursor(bytes);
    bytes.fill(0);
    this.#putDatabase(to, state.database);
    if (this.#hasCopy) {
      to.put(state.restoresLeft);
      to.put(state.copy === undefined ? 0 : 1);
      if (state.copy !== undefined) {
        to.put(state.copy.entries);
        to.put(state.copy.epochs);
        this.#putDatabase(to, state.copy);
      }
    }
    to.put(state.entries.length);
    for (const entry of state.entries) {
      to.put(entry.epoch);
      to.put(entry.sequence);
      to.put(entry.target);
      to.put(entry.value);
      to.put(entry.age);
      to.put(entry.dueIn);
      to.put(entry.lost ? 1 : 0);
    }
    to.put(state.epochs.length);
    for (const epoch of state.epochs) {
      to.put(epoch.dueIn);
      to.put(epoch.lost);
      to.put(epoch.lossDueIn);
    }
    to.put(state.keys.length);
    for (const keys of state.keys) {
      to.put(keys.epoch);
      to.put(keys.signer);
    }
    putFeed(to, state.feed);
    to.put(state.installed);
    to.put(
      (state.pullWanted ? 1 : 0) +
        (state.pull === undefined ? 0 : 2) +
        (state.pull?.rows === undefined ? 0 : 4),
    );
    if (state.pull?.rows !== undefined) {
      putPosition(to, state.pull);
      to.put(state.pull.rows);
    }
    to.put(state.rejected);
    to.put(state.followed);
    to.put(state.wallAhead + BIAS);
    to.put(state.forwardLeft);
    to.put(state.backLeft);
    to.put(state.sleepsLeft);
    this.#putQuestions(to, state);
    if (to.at > this.length) throw new RangeError(`a state takes ${to.at} bytes, more than ${this.length}`);
  }

  /** Unpacks a state into new objects. */
  unpack(bytes: Uint8Array): State {
    const from = new Cursor(bytes);
    const database = this.#getDatabase(from);
    let restoresLeft = 0;
    let copy: Copy | undefined;
    if (this.#hasCopy) {
      restoresLeft = from.get();
      if (from.get() === 1) {
        const entries = from.get();
        const epochs = from.get();
        copy = { entries, epochs, ...this.#getDatabase(from) };
      }
    }
    const entries = times(from.get(), () => ({
      epoch: from.get(),
      sequence: from.get(),
      target: from.get(),
      value: from.get(),
      age: from.get(),
      dueIn: from.get(),
      lost: from.get() === 1,
    }));
    const epochs = times(from.get(), () => ({ dueIn: from.get(), lost: from.get(), lossDueIn: from.get() }));
    const keys = times(from.get(), () => ({ epoch: from.get(), signer: from.get() }));
    const feed = getFeed(from);
    const installed = from.get();
    const flags = from.get();
    let pull: Pull | undefined;
    if ((flags & 2) !== 0) {
      pull = (flags & 4) === 0 ? { ...NOWHERE, rows: undefined } : { ...getPosition(from), rows: from.get() };
    }
    return {
      database,
      copy,
      restoresLeft,
      entries,
      epochs,
      keys,
      feed,
      installed,
      pull,
      pullWanted: (flags & 1) !== 0,
      rejected: from.get(),
      followed: from.get(),
      wallAhead: from.get() - BIAS,
      forwardLeft: from.get(),
      backLeft: from.get(),
      sleepsLeft: from.get(),
      questions: times(from.get(), () => getQuestion(from)),
    };
  }

  #putDatabase(to: Cursor, database: Database): void {
    to.put(database.epoch);
    to.put(database.head);
    to.put(database.headEntry);
    to.put(database.rows);
    to.put(database.keys);
    to.put(database.horizon);
    to.put(database.epochRows);
    to.put(database.generation);
    to.put(database.lease);
    to.put(database.olderLease);
    to.put(database.olderLeasesEndIn);
    for (let epoch = 0; epoch < this.#epochs; epoch += 1) to.put(database.foundUnder[epoch] ?? 0);
  }

  #getDatabase(from: Cursor): Database {
    return {
      epoch: from.get(),
      head: from.get(),
      headEntry: from.get(),
      rows: from.get(),
      keys: from.get(),
      horizon: from.get(),
      epochRows: from.get(),
      generation: from.get(),
      lease: from.get(),
      olderLease: from.get(),
      olderLeasesEndIn: from.get(),
      foundUnder: times(this.#epochs, () => from.get()),
    };
  }

  #putQuestions(to: Cursor, state: State): void {
    const { questions } = state;
    to.put(questions.length);
    const packed = questions.map((question, index) => {
      const bytes = this.#questionBytes[index] ?? new Uint8Array(QUESTION_BYTES);
      bytes.fill(0);
      putQuestion(new Cursor(bytes), question);
      return { question, bytes };
    });
    if (packed.length > 1) {
      packed.sort((left, right) => Buffer.compare(left.bytes, right.bytes));
      for (const [index, { question }] of packed.entries()) questions[index] = question;
    }
    for (const { bytes } of packed) {
      to.bytes.set(bytes, to.at);
      to.at += QUESTION_BYTES;
    }
  }
}

/** Copies in later epochs count: entries of other issuers are copied into each. */
export function entriesMax(world: World): number {
  const foreign = world.entries.filter((kind) => kind === 'FOREIGN').length;
  return world.entries.length + foreign * (world.epochs ?? 0);
}

/** The first version of each epoch, and one for each change. */
export function keysMax(world: World): number {
  const revoked = world.entries.filter((kind) => kind === 'KEY').length;
  return 1 + (world.epochs ?? 0) + (world.keyChanges ?? 0) + revoked;
}

/** Places of requests become 1, 2, 3 …, whatever they were. */
function rerank({ questions, feed }: State): void {
  if (questions.length === 0) {
    if (feed.lastRank > 0) feed.lastRank = 1;
    return;
  }
  const places = new Set(questions.map(({ rank }) => rank));
  if (feed.lastRank > 0) places.add(feed.lastRank);
  const ordered = [...places].sort((left, right) => left - right);
  for (const question of questions) question.rank = ordered.indexOf(question.rank) + 1;
  if (feed.lastRank > 0) feed.lastRank = ordered.indexOf(feed.lastRank) + 1;
}

const NOWHERE: Position = { epoch: 0, sequence: 0, entry: 0 };

function putPosition(to: Cursor, { epoch, sequence, entry }: Position): void {
  to.put(epoch);
  to.put(sequence);
  to.put(entry);
}

function getPosition(from: Cursor): Position {
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

function putFeed(to: Cursor, feed: FeedState): void {
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

function getFeed(from: Cursor): FeedState {
  const position = getPosition(from);
  const keys = from.get();
  const horizon = from.get();
  const lastRank = from.get();
  const flags = from.get();
  const unacknowledged = from.get();
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
    list,
    staged,
  };
}

const QUESTION_BYTES = 18;

function putQuestion(to: Cursor, question: Question): void {
  const { answer } = question;
  to.put(question.rank);
  to.put(question.monotonic);
  to.put(question.wall + BIAS);
  to.put(question.rises);
  to.put((question.ofList ? 1 : 0) + (answer === undefined ? 0 : 2) + (answer?.pull === true ? 4 : 0));
  putPosition(to, question.at);
  to.put(question.keys);
  to.put(question.seen);
  if (answer === undefined) return;
  putPosition(to, answer);
  to.put(answer.entries);
  to.put(answer.keys);
  to.put(answer.horizon);
  to.put(answer.lease);
}

function getQuestion(from: Cursor): Question {
  const end = from.at + QUESTION_BYTES;
  const rank = from.get();
  const monotonic = from.get();
  const wall = from.get() - BIAS;
  const rises = from.get();
  const flags = from.get();
  const at = getPosition(from);
  const keys = from.get();
  const seen = from.get();
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
      pull: (flags & 4) !== 0,
    };
  }
  from.at = end;
  return { rank, monotonic, wall, rises, ofList: (flags & 1) !== 0, at, keys, seen, answer };
}

function times<T>(count: number, make: () => T): T[] {
  const made: T[] = [];
  for (let index = 0; index < count; index += 1) made.push(make());
  return made;
}
