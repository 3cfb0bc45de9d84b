/** States as bytes. Equal states have equal bytes, so the order of open requests and unused numbers must not show. */

import {
  BIAS,
  Cursor,
  getFeed,
  getPosition,
  getQuestion,
  getReceipts,
  putFeed,
  putPosition,
  putQuestion,
  putReceipts,
  QUESTION_BYTES,
  RECEIPTS_BYTES,
  times,
} from './packing-parts.js';
import type { Copy, Database, Position, Pull, State } from './state.js';
import type { World } from './world.js';

/** Packs and unpacks the states of one world. */
export class Packing {
  /** Length of a packed state, in bytes; a multiple of four. */
  readonly length: number;
  readonly #epochs: number;
  readonly #entries: number;
  readonly #keys: number;
  readonly #questions: number;
  readonly #hasCopy: boolean;
  readonly #hasReceipts: boolean;
  readonly #hasTail: boolean;
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
    this.#hasTail = world.tail === true;
    this.#hasReceipts = world.receipts !== undefined;
    this.length =
      Math.ceil(
        (state +
          (this.#hasReceipts ? RECEIPTS_BYTES : 0) +
          (this.#hasTail ? 2 : 0) +
          3 +
          29 +
          this.#questions * QUESTION_BYTES +
          16) /
          4,
      ) * 4;
    this.#questionBytes = Array.from({ length: this.#questions }, () => new Uint8Array(QUESTION_BYTES));
  }

  /** Packs a state. Its requests are put into their canonical order. */
  pack(state: State, bytes: Uint8Array): void {
    rerank(state);
    unifyHorizons(state);
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
    if (state.receipts !== undefined) putReceipts(to, state.receipts);
    if (state.tail !== undefined) {
      to.put(state.tail.epoch);
      to.put(state.tail.entries);
    }
    to.put(state.faults);
    to.put(state.cached);
    to.put(state.flagged);
    this.#putQuestions(to, state);
    if (to.at > this.length)
      throw new RangeError(`expected a state of at most ${this.length} bytes, got ${to.at}`);
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
      receipts: this.#hasReceipts ? getReceipts(from) : undefined,
      tail: this.#hasTail ? { epoch: from.get(), entries: from.get() } : undefined,
      faults: from.get(),
      cached: from.get(),
      flagged: from.get(),
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

const NOWHERE: Position = { epoch: 0, sequence: 0, entry: 0 };

/** Copies in later epochs count: entries of other issuers are copied into each. */
function entriesMax(world: World): number {
  const foreign = world.entries.filter((kind) => kind === 'FOREIGN').length;
  return world.entries.length + foreign * (world.epochs ?? 0);
}

/** The first version of each epoch, and one for each change. */
function keysMax(world: World): number {
  const revoked = world.entries.filter((kind) => kind === 'KEY').length;
  return 1 + (world.epochs ?? 0) + (world.keyChanges ?? 0) + revoked;
}

/** Entries of the same age are kept until the same time: the first of them stands for all. */
function unifyHorizons({ database, copy, feed, questions, entries }: State): void {
  const first = (number: number): number => {
    if (number === 0) return 0;
    const age = entries[number - 1]?.age;
    return 1 + entries.findIndex((entry) => entry.age === age);
  };
  for (const one of [database, copy, feed, ...questions.map(({ answer }) => answer)]) {
    if (one !== undefined && one.horizon > 0) one.horizon = first(one.horizon);
  }
  for (const list of [feed.list, feed.staged]) {
    if (list !== undefined && list.floorKeep > 0) list.floorKeep = first(list.floorKeep);
  }
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
