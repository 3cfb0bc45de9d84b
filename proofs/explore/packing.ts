/** States as bytes. Equal states have equal bytes, so the order of open requests and unused numbers must not show. */

import { canonical } from './canonical.js';
import {
  BIAS,
  Cursor,
  FEED_BYTES,
  getFeed,
  getPosition,
  getQuestion,
  getReceipts,
  NOWHERE,
  putFeed,
  putPosition,
  putQuestion,
  putReceipts,
  QUESTION_BYTES,
  RECEIPTS_BYTES,
  times,
} from './packing-parts.js';
import { type Database, emptyState, type Pull, type State } from './state.js';
import { isOfOtherIssuer, type World } from './world.js';

/** A part of a packed state: it has its place, so that parts which an event leaves alone need not be packed again. */
interface Section {
  readonly bytes: number;
  readonly isSame: (left: State, right: State) => boolean;
  readonly put: (to: Cursor, state: State) => void;
  readonly get: (from: Cursor, state: State) => void;
}

/** A state and its bytes. */
export interface Packed {
  readonly state: State;
  readonly bytes: Uint8Array;
}

/** Packs and unpacks the states of one world. */
export class Packing {
  /** Length of a packed state, in bytes; a multiple of four. */
  readonly length: number;
  readonly #world: World;
  readonly #epochs: number;
  readonly #sections: readonly Section[];

  constructor(world: World) {
    this.#world = world;
    this.#epochs = 1 + (world.epochs ?? 0);
    this.#sections = this.#createSections();
    const length = this.#sections.reduce((sum, { bytes }) => sum + bytes, 0);
    this.length = Math.ceil(length / 4) * 4;
  }

  /**
   * Packs a state, after bringing it into its canonical form.
   *
   * @param before - the state before the last event, whose parts are copied as far as they are the same
   */
  pack(state: State, bytes: Uint8Array, before?: Packed): void {
    canonical(state, this.#world);
    this.write(state, bytes, before);
  }

  /** Packs a state as it is. */
  write(state: State, bytes: Uint8Array, before?: Packed): void {
    if (before !== undefined) bytes.set(before.bytes);
    const to = new Cursor(bytes, 0);
    let end = 0;
    for (const section of this.#sections) {
      const offset = end;
      end += section.bytes;
      if (before !== undefined && section.isSame(state, before.state)) continue;
      bytes.fill(0, offset, end);
      to.at = offset;
      section.put(to, state);
      if (to.at > end) throw new RangeError(`a part of a state has ${to.at - end} bytes too many`);
    }
  }

  /** Unpacks a state. */
  unpack(bytes: Uint8Array): State {
    const state = emptyState();
    let offset = 0;
    for (const section of this.#sections) {
      section.get(new Cursor(bytes, offset), state);
      offset += section.bytes;
    }
    return state;
  }

  #createSections(): Section[] {
    const world = this.#world;
    const entries = entriesMax(world);
    const sections: Section[] = [
      {
        bytes: this.#databaseBytes,
        isSame: (left, right) => left.database === right.database,
        put: (to, { database }) => this.#putDatabase(to, database),
        get: (from, state) => {
          state.database = this.#getDatabase(from);
        },
      },
      {
        bytes: 1 + 5 * entries,
        isSame: (left, right) => left.entries === right.entries,
        put: (to, state) => {
          to.put(state.entries.length);
          for (const entry of state.entries) {
            to.put(entry.epoch);
            to.put(entry.sequence);
            to.put(entry.target);
            to.put(entry.value);
            to.put(entry.age);
          }
        },
        get: (from, state) => {
          state.entries = times(from.get(), () => ({
            epoch: from.get(),
            sequence: from.get(),
            target: from.get(),
            value: from.get(),
            age: from.get(),
          }));
        },
      },
      {
        bytes: 1 + entries,
        isSame: (left, right) => left.dues === right.dues,
        put: (to, { dues }) => {
          to.put(dues.length);
          for (const { dueIn, lost } of dues) to.put(dueIn + (lost ? LOST : 0));
        },
        get: (from, state) => {
          state.dues = times(from.get(), () => {
            const due = from.get();
            return { dueIn: due & (LOST - 1), lost: (due & LOST) !== 0 };
          });
        },
      },
      {
        bytes: 1 + 3 * this.#epochs,
        isSame: (left, right) => left.epochs === right.epochs,
        put: (to, { epochs }) => {
          to.put(epochs.length);
          for (const epoch of epochs) {
            to.put(epoch.dueIn);
            to.put(epoch.lost);
            to.put(epoch.lossDueIn);
          }
        },
        get: (from, state) => {
          state.epochs = times(from.get(), () => ({
            dueIn: from.get(),
            lost: from.get(),
            lossDueIn: from.get(),
          }));
        },
      },
      {
        bytes: 1 + 2 * keysMax(world),
        isSame: (left, right) => left.keys === right.keys,
        put: (to, state) => {
          to.put(state.keys.length);
          for (const keys of state.keys) {
            to.put(keys.epoch);
            to.put(keys.signer);
          }
        },
        get: (from, state) => {
          state.keys = times(from.get(), () => ({ epoch: from.get(), signer: from.get() }));
        },
      },
      {
        bytes: FEED_BYTES,
        isSame: (left, right) => left.feed === right.feed,
        put: (to, { feed }) => putFeed(to, feed),
        get: (from, state) => {
          state.feed = getFeed(from);
        },
      },
      {
        bytes: 1 + world.questions * QUESTION_BYTES,
        isSame: (left, right) => left.questions === right.questions,
        put: (to, { questions }) => {
          to.put(questions.length);
          for (const question of questions) putQuestion(to, question);
        },
        get: (from, state) => {
          state.questions = times(from.get(), () => getQuestion(from));
        },
      },
      { bytes: INSTANCE_BYTES, isSame: () => false, put: putInstance, get: getInstance },
    ];
    if ((world.restores ?? 0) > 0 || world.oldStates === true) sections.push(this.#pastSection());
    if (world.receipts !== undefined) sections.push(RECEIPTS);
    if (world.tail === true) sections.push(TAIL);
    return sections;
  }

  #pastSection(): Section {
    return {
      bytes: 2 + pastMax(this.#world) * (2 + this.#databaseBytes),
      isSame: (left, right) => left.past === right.past && left.restoresLeft === right.restoresLeft,
      put: (to, { past, restoresLeft }) => {
        to.put(restoresLeft);
        to.put(past.length);
        for (const former of past) {
          to.put(former.entries);
          to.put(former.epochs);
          this.#putDatabase(to, former);
        }
      },
      get: (from, state) => {
        state.restoresLeft = from.get();
        state.past = times(from.get(), () => {
          const [entries, epochs] = [from.get(), from.get()];
          return { entries, epochs, ...this.#getDatabase(from) };
        });
      },
    };
  }

  get #databaseBytes(): number {
    return 11 + this.#epochs;
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
}

/** Beside the number of ticks until an entry is due. */
const LOST = 128;

const RECEIPTS: Section = {
  bytes: RECEIPTS_BYTES,
  isSame: (left, right) => left.receipts === right.receipts,
  put: (to, { receipts }) => {
    if (receipts !== undefined) putReceipts(to, receipts);
  },
  get: (from, state) => {
    state.receipts = getReceipts(from);
  },
};

const TAIL: Section = {
  bytes: 3,
  isSame: (left, right) => left.tail === right.tail,
  put: (to, { tail }) => {
    to.put(tail?.epoch ?? 0);
    to.put(tail?.from ?? 0);
    to.put(tail?.entries ?? 0);
  },
  get: (from, state) => {
    state.tail = { epoch: from.get(), from: from.get(), entries: from.get() };
  },
};

const INSTANCE_BYTES = 15;

function putInstance(to: Cursor, state: State): void {
  const { pull } = state;
  to.put(state.installed);
  to.put((state.pullWanted ? 1 : 0) + (pull === undefined ? 0 : 2) + (pull?.rows === undefined ? 0 : 4));
  putPosition(to, pull ?? NOWHERE);
  to.put(pull?.rows ?? 0);
  to.put(state.rejected);
  to.put(state.followed);
  to.put(state.wallAhead + BIAS);
  to.put(state.forwardLeft);
  to.put(state.backLeft);
  to.put(state.sleepsLeft);
  to.put(state.faults);
  to.put(state.cached);
  to.put(state.flagged);
}

function getInstance(from: Cursor, state: State): void {
  state.installed = from.get();
  const flags = from.get();
  const at = getPosition(from);
  const rows = from.get();
  const pull: Pull = { ...at, rows: (flags & 4) === 0 ? undefined : rows };
  state.pull = (flags & 2) === 0 ? undefined : pull;
  state.pullWanted = (flags & 1) !== 0;
  state.rejected = from.get();
  state.followed = from.get();
  state.wallAhead = from.get() - BIAS;
  state.forwardLeft = from.get();
  state.backLeft = from.get();
  state.sleepsLeft = from.get();
  state.faults = from.get();
  state.cached = from.get();
  state.flagged = from.get();
}

/** Copies in later epochs count: entries of other issuers are copied into each. */
function entriesMax(world: World): number {
  const foreign = world.entries.filter(isOfOtherIssuer).length;
  return world.entries.length + foreign * (world.epochs ?? 0);
}

/** One for each change of the database. */
function pastMax(world: World): number {
  return world.entries.length + (world.epochs ?? 0) + (world.keyChanges ?? 0);
}

/** The first version of each epoch, and one for each change. */
function keysMax(world: World): number {
  const revoked = world.entries.filter((kind) => kind === 'KEY').length;
  return 1 + (world.epochs ?? 0) + (world.keyChanges ?? 0) + revoked;
}
