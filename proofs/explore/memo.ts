/**
 * Remembers what events have done. Most events depend on a part of the state alone: it is cut out of the state, and when
 * an event is applied to an equal part again, the protocol's code is not called again.
 */

import { type EventCode, type EventKind, eventCode, eventOf, PAST_MAX } from './events.js';
import { questionAt } from './instance-model.js';
import type { Packing } from './packing.js';
import { REPLICAS } from './receipts-model.js';
import { emptyState, type Question, type State } from './state.js';
import type { World } from './world.js';

/** Number of results that are kept; then all are dropped. */
const RESULTS_MAX = 400_000;

/** One of so many remembered results is computed again from the whole state, and compared. */
const CHECK_EVERY = 1024;

/** Which part of a state an event depends on, and how the part after it changes the state. */
interface Scope {
  readonly cut: (state: State, number: number) => State;
  /** The number of the event in the part. */
  readonly numberIn: (number: number) => number;
  readonly merge: (state: State, part: State, number: number) => void;
}

const BLANK: State = emptyState();

/** Makes texts of parts of states: equal parts have equal texts. */
class Keys {
  readonly #packing: Packing;
  readonly #blank: { readonly state: State; readonly bytes: Uint8Array };
  readonly #scratch: Buffer;

  constructor(packing: Packing) {
    this.#packing = packing;
    const bytes = new Uint8Array(packing.length);
    packing.write(BLANK, bytes);
    this.#blank = { state: BLANK, bytes };
    this.#scratch = Buffer.alloc(packing.length + 2);
  }

  of(part: State, code: EventCode): string {
    this.#packing.write(part, this.#scratch, this.#blank);
    this.#scratch.writeUInt16LE(code, this.#packing.length);
    return this.#scratch.toString('latin1');
  }
}

/** Applies the events of one world. */
export class Memo {
  readonly #packing: Packing;
  readonly #apply: (state: State, code: EventCode) => void;
  readonly #scopes: { readonly [K in EventKind]?: Scope };
  readonly #keys: Keys;
  readonly #results = new Map<string, State>();
  #hits = 0;

  /** @param apply - applies an event to a state */
  constructor(world: World, packing: Packing, apply: (state: State, code: EventCode) => void) {
    this.#packing = packing;
    this.#apply = apply;
    this.#scopes = scopesOf(world);
    this.#keys = new Keys(packing);
  }

  /** Applies an event to a state. */
  apply(state: State, code: EventCode): void {
    const { kind, number } = eventOf(code);
    const scope = this.#scopes[kind];
    if (scope === undefined) {
      this.#apply(state, code);
      return;
    }
    const part = scope.cut(state, number);
    const inPart = eventCode(kind, scope.numberIn(number));
    const key = this.#keys.of(part, inPart);
    let after = this.#results.get(key);
    if (after === undefined) {
      after = part;
      this.#apply(after, inPart);
      if (this.#results.size >= RESULTS_MAX) this.#results.clear();
      this.#results.set(key, after);
    } else {
      this.#hits += 1;
      if (this.#hits % CHECK_EVERY === 0) this.#check(state, code, scope, after);
    }
    scope.merge(state, after, number);
  }

  /** @throws Error when the event depends on more than its part of the state */
  #check(state: State, code: EventCode, scope: Scope, after: State): void {
    const { kind, number } = eventOf(code);
    const whole = { ...state };
    this.#apply(whole, code);
    const merged = { ...state };
    scope.merge(merged, after, number);
    if (this.#bytesOf(whole).equals(this.#bytesOf(merged))) return;
    throw new Error(
      `${kind} depends on more than its part of the state: expected ${JSON.stringify(whole)}, got ${JSON.stringify(merged)}`,
    );
  }

  #bytesOf(state: State): Buffer {
    const bytes = Buffer.alloc(this.#packing.length);
    this.#packing.pack(state, bytes);
    return bytes;
  }
}

/** Remembers which parts of states the oracle has found in order. */
export class Approved {
  readonly #keys: Keys;
  readonly #approved = new Set<string>();
  #hits = 0;

  constructor(packing: Packing) {
    this.#keys = new Keys(packing);
  }

  /** @returns the violation in a state; undefined when there is none */
  violationOf(state: State, judge: (state: State) => string | undefined): string | undefined {
    const key = this.#keys.of(partForOracle(state), 0);
    if (this.#approved.has(key)) {
      this.#hits += 1;
      const violation = this.#hits % CHECK_EVERY === 0 ? judge(state) : undefined;
      if (violation === undefined) return undefined;
      throw new Error(`the oracle depends on more than its part of the state: ${violation}`);
    }
    const violation = judge(state);
    if (violation !== undefined) return violation;
    if (this.#approved.size >= RESULTS_MAX) this.#approved.clear();
    this.#approved.add(key);
    return undefined;
  }
}

/** What the oracle looks at. */
function partForOracle(state: State): State {
  const { epoch, keys, generation, lease } = state.database;
  return {
    ...BLANK,
    database: { ...BLANK.database, epoch, keys, generation, lease },
    entries: state.entries,
    dues: state.dues,
    epochs: state.epochs,
    keys: state.keys,
    feed: { ...state.feed, lastRank: 0, unacknowledged: 0, staged: undefined },
    installed: state.installed,
    followed: state.followed,
    rejected: state.rejected,
    wallAhead: state.wallAhead,
    cached: state.cached,
    flagged: state.flagged,
    faults: state.faults,
    receipts: state.receipts && { ...state.receipts, records: [], shared: [] },
  };
}

/** The scopes of a world's events. Those that call little of the protocol's code have none. */
function scopesOf(world: World): { readonly [K in EventKind]?: Scope } {
  const feed = feedScope(world, 'NOTHING');
  const pull = feedScope(world, 'PULL');
  const read = readScope((state) => ({ database: state.database }));
  return {
    ask: feed,
    look: feed,
    broadcast: feed,
    verify: feed,
    answer: feedScope(world, 'ANSWER'),
    'begin-pull': pull,
    'end-pull': pull,
    'break-pull': pull,
    read,
    'read-without-note': read,
    'read-with-tail': readScope((state) => ({ database: state.database, tail: state.tail })),
    'read-old': readScope((state) => ({ database: state.database, past: state.past }), PAST_MAX),
    arrive: ARRIVE,
    'read-others': READ_OTHERS,
  };
}

/** What happens to the feed, and to what the open requests have in common with it. */
function feedScope({ cached = false, stale = false }: World, takes: 'NOTHING' | 'ANSWER' | 'PULL'): Scope {
  return {
    cut: (state, number) => ({
      ...BLANK,
      feed: state.feed,
      entries: state.entries,
      keys: cached || stale ? state.keys : [],
      epochs: cached ? state.epochs : [],
      questions: state.questions.map((question, index) =>
        takes === 'ANSWER' && index === number ? { ...question, arrival: undefined } : withAgesOnly(question),
      ),
      pull: takes === 'PULL' ? state.pull : undefined,
      installed: state.installed,
      wallAhead: state.wallAhead,
      cached: state.cached,
      flagged: state.flagged,
      rejected: state.rejected,
    }),
    numberIn: (number) => number,
    merge: (state, after, number) => {
      state.feed = after.feed;
      const before = takes === 'ANSWER' ? state.questions.toSpliced(number, 1) : state.questions;
      const questions = after.questions.map((question, index) => withAgesOf(before[index], question));
      if (questions.length !== state.questions.length || questions.some(isNotIn(state.questions))) {
        state.questions = questions;
      }
      if (takes === 'PULL') {
        state.pull = after.pull;
        if (after.pull !== undefined) state.pullWanted = false;
      }
      if (after.pullWanted) state.pullWanted = true;
      state.installed = after.installed;
      state.cached = after.cached;
      state.flagged = after.flagged;
      state.rejected = after.rejected;
      state.followed |= after.followed;
      state.faults |= after.faults;
    },
  };
}

/** A read of the log for one request. */
function readScope(from: (state: State) => Partial<State>, numbers = 1): Scope {
  const questionOf = (number: number): number => Math.floor(number / numbers);
  return {
    cut: (state, number) => ({
      ...BLANK,
      ...from(state),
      entries: state.entries,
      dues: state.dues.some(({ lost }) => lost) ? state.dues.map(({ lost }) => ({ dueIn: 0, lost })) : [],
      receipts: state.receipts,
      questions: [questionAt(state, questionOf(number))].map(withoutAges),
    }),
    numberIn: (number) => number % numbers,
    merge: (state, after, number) => {
      const [read] = after.questions;
      const index = questionOf(number);
      state.questions =
        read === undefined
          ? state.questions.toSpliced(index, 1)
          : state.questions.with(index, { ...questionAt(state, index), answer: read.answer });
      state.database = after.database;
      state.receipts = after.receipts;
      if (after.tail !== undefined) state.tail = after.tail;
      state.faults |= after.faults;
    },
  };
}

/** A request arrives at a replica. */
const ARRIVE: Scope = {
  cut: (state, number) => ({
    ...BLANK,
    database: state.database,
    entries: state.entries,
    receipts: state.receipts,
    questions: [questionAt(state, Math.floor(number / REPLICAS))].map(withoutAges),
  }),
  numberIn: (number) => number % REPLICAS,
  merge: (state, after, number) => {
    const index = Math.floor(number / REPLICAS);
    const arrival = after.questions[0]?.arrival;
    state.questions = state.questions.with(index, { ...questionAt(state, index), arrival });
    state.receipts = after.receipts;
  },
};

/** The waiting replica reads the record of the other one. */
const READ_OTHERS: Scope = {
  cut: (state) => ({
    ...BLANK,
    database: state.database,
    entries: state.entries,
    receipts: state.receipts,
  }),
  numberIn: (number) => number,
  merge: (state, after) => {
    state.receipts = after.receipts;
  },
};

function isNotIn(questions: readonly Question[]): (question: Question, index: number) => boolean {
  return (question, index) => questions[index] !== question;
}

/** What a request has in common with the feed. */
function withAgesOnly({ rank, monotonic, wall, rises, ofList }: Question): Question {
  return { ...NO_QUESTION, rank, monotonic, wall, rises, ofList, at: { ...NO_QUESTION.at } };
}

/** What a request says, and where it has arrived. */
function withoutAges({ at, keys, seen, heldTo, digest, arrival, answer }: Question): Question {
  return { ...NO_QUESTION, at, keys, seen, heldTo, digest, arrival, answer };
}

/** A request with what it has in common with the feed now; one that was not there before is new. */
function withAgesOf(question: Question | undefined, now: Question): Question {
  if (question === undefined) return now;
  const { monotonic, wall, rises, ofList } = now;
  const isSame =
    question.monotonic === monotonic &&
    question.wall === wall &&
    question.rises === rises &&
    question.ofList === ofList;
  return isSame ? question : { ...question, monotonic, wall, rises, ofList };
}

const NO_QUESTION: Question = {
  rank: 1,
  monotonic: 0,
  wall: 0,
  rises: 0,
  ofList: false,
  at: { epoch: 0, sequence: 0, entry: 0 },
  keys: 0,
  seen: 0,
  heldTo: 0,
  digest: 0,
  arrival: undefined,
  answer: undefined,
};
