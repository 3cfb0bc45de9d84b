/**
 * Remembers what events have done. Most events depend on a part of the state alone: it is cut out of the state, and when
 * an event is applied to an equal part again, the protocol's code is not called again.
 */

import { type EventCode, type EventKind, eventCode, eventOf, PAST_MAX } from './events.js';
import { questionAt } from './instance-model.js';
import type { Packing } from './packing.js';
import { PartKeys, PartTable, withNumber } from './part-table.js';
import { REPLICAS } from './receipts-model.js';
import { emptyState, type Question, type State } from './state.js';
import type { Fingerprint } from './table.js';
import type { World } from './world.js';

/** Number of results that are kept; then all are dropped. */
const RESULTS_MAX = 400_000;

/** One of so many remembered results is computed again from the whole state, and compared. */
const CHECK_EVERY = 1024;

/** Which part of a state an event depends on, and how the part after it changes the state. */
interface Scope {
  /** The part does not depend on the number of the event. */
  readonly isShared: boolean;
  readonly cut: (state: State, number: number) => State;
  /** The number of the event in the part. */
  readonly numberIn: (number: number) => number;
  readonly merge: (state: State, result: Result, number: number) => void;
}

const BLANK: State = emptyState();

/** Computes fingerprints of parts of states: equal parts have equal ones. */
class Keys {
  readonly #packing: Packing;
  readonly #blank: { readonly state: State; readonly bytes: Uint8Array };
  readonly #keys: PartKeys;

  constructor(packing: Packing) {
    this.#packing = packing;
    const bytes = new Uint8Array(packing.length);
    packing.write(BLANK, bytes);
    this.#blank = { state: BLANK, bytes };
    this.#keys = new PartKeys(packing.length);
  }

  /** It is valid until the next one is computed. */
  of(part: State): Fingerprint {
    this.#packing.write(part, this.#keys.bytes, this.#blank);
    return this.#keys.key();
  }
}

/** What an event has done to a part. */
interface Result {
  readonly after: State;
  /** Whether what the open requests have in common with the feed is still the same. */
  readonly keepsQuestions: boolean;
}

/** Applies the events of one world. */
export class Memo {
  readonly #packing: Packing;
  readonly #apply: (state: State, code: EventCode) => void;
  readonly #scopes: { readonly [K in EventKind]?: Scope };
  readonly #keys: Keys;
  readonly #results = new PartTable<Result>();
  /** The fingerprints of the parts of the present state that several events share. */
  readonly #shared = new Map<Scope, Fingerprint>();
  #hits = 0;

  /** @param apply - applies an event to a state */
  constructor(world: World, packing: Packing, apply: (state: State, code: EventCode) => void) {
    this.#packing = packing;
    this.#apply = apply;
    this.#scopes = scopesOf(world);
    this.#keys = new Keys(packing);
  }

  /** The next events are applied to copies of another state. */
  begin(): void {
    this.#shared.clear();
  }

  /** Applies an event to a state. */
  apply(state: State, code: EventCode): void {
    const { kind, number } = eventOf(code);
    const scope = this.#scopes[kind];
    if (scope === undefined) {
      this.#apply(state, code);
      return;
    }
    const inPart = eventCode(kind, scope.numberIn(number));
    const key = this.#keyOf(state, scope, number, inPart);
    let result = this.#results.get(key);
    if (result === undefined) {
      const after = scope.cut(state, number);
      const { questions } = after;
      this.#apply(after, inPart);
      result = { after, keepsQuestions: isSameFor(questions, after.questions) };
      if (this.#results.size >= RESULTS_MAX) this.#results.clear();
      this.#results.add(key, result);
    } else {
      this.#hits += 1;
      if (this.#hits % CHECK_EVERY === 0) this.#check(state, code, scope, result);
    }
    scope.merge(state, result, number);
  }

  #keyOf(state: State, scope: Scope, number: number, inPart: EventCode): Fingerprint {
    let key = scope.isShared ? this.#shared.get(scope) : undefined;
    if (key === undefined) {
      key = { ...this.#keys.of(scope.cut(state, number)) };
      if (scope.isShared) this.#shared.set(scope, key);
    }
    return withNumber(key, inPart);
  }

  /** @throws Error when the event depends on more than its part of the state */
  #check(state: State, code: EventCode, scope: Scope, result: Result): void {
    const { kind, number } = eventOf(code);
    const whole = { ...state };
    this.#apply(whole, code);
    const merged = { ...state };
    scope.merge(merged, result, number);
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
  readonly #approved = new PartTable<true>();
  #hits = 0;

  constructor(packing: Packing) {
    this.#keys = new Keys(packing);
  }

  /** @returns the violation in a state; undefined when there is none */
  violationOf(state: State, judge: (state: State) => string | undefined): string | undefined {
    const key = this.#keys.of(partForOracle(state));
    if (this.#approved.get(key) !== undefined) {
      this.#hits += 1;
      const violation = this.#hits % CHECK_EVERY === 0 ? judge(state) : undefined;
      if (violation === undefined) return undefined;
      throw new Error(`the oracle depends on more than its part of the state: ${violation}`);
    }
    const violation = judge(state);
    if (violation !== undefined) return violation;
    if (this.#approved.size >= RESULTS_MAX) this.#approved.clear();
    this.#approved.add(key, true);
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
    isShared: takes !== 'ANSWER',
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
    merge: (state, { after, keepsQuestions }, number) => {
      state.feed = after.feed;
      if (!keepsQuestions) {
        const before = takes === 'ANSWER' ? state.questions.toSpliced(number, 1) : state.questions;
        state.questions = after.questions.map((question, index) => withAgesOf(before[index], question));
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
    isShared: false,
    cut: (state, number) => ({
      ...BLANK,
      ...from(state),
      entries: state.entries,
      dues: state.dues.some(({ lost }) => lost) ? state.dues.map(({ lost }) => ({ dueIn: 0, lost })) : [],
      receipts: state.receipts,
      questions: [questionAt(state, questionOf(number))].map(withoutAges),
    }),
    numberIn: (number) => number % numbers,
    merge: (state, { after }, number) => {
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
  isShared: false,
  cut: (state, number) => ({
    ...BLANK,
    database: state.database,
    entries: state.entries,
    receipts: state.receipts,
    questions: [questionAt(state, Math.floor(number / REPLICAS))].map(withoutAges),
  }),
  numberIn: (number) => number % REPLICAS,
  merge: (state, { after }, number) => {
    const index = Math.floor(number / REPLICAS);
    const arrival = after.questions[0]?.arrival;
    state.questions = state.questions.with(index, { ...questionAt(state, index), arrival });
    state.receipts = after.receipts;
  },
};

/** The waiting replica reads the record of the other one. */
const READ_OTHERS: Scope = {
  isShared: true,
  cut: (state) => ({
    ...BLANK,
    database: state.database,
    entries: state.entries,
    receipts: state.receipts,
  }),
  numberIn: (number) => number,
  merge: (state, { after }) => {
    state.receipts = after.receipts;
  },
};

/** Whether requests have the same in common with the feed as before. */
function isSameFor(before: readonly Question[], after: readonly Question[]): boolean {
  return (
    before.length === after.length &&
    after.every((question, index) => {
      const former = before[index];
      return former !== undefined && withAgesOf(former, question) === former;
    })
  );
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
