/**
 * The canonical form of states: of the states that differ only in what nothing can depend on any more, one stands for all.
 *
 * Each reduction is sound because it commutes with every event: from a state and from its canonical form, the same events
 * lead to states with the same canonical form, and the oracle finds the same in both. A test checks this along random
 * histories of every world, with all guards and without each. No reduction uses a rule that a guard can leave out.
 */

import type { Arrival, Question, Receipts, RecordState, State, WatchState } from './state.js';
import type { World } from './world.js';

/** Brings a state into its canonical form. */
export function canonical(state: State, world: World): void {
  rerank(state);
  dropWhatWasRead(state);
  dropWhatIsOver(state, world);
  if (world.keep !== undefined) unifyHorizons(state);
  if ((world.forward ?? 0) + (world.back ?? 0) + (world.sleeps ?? 0) > 0) mergeClocks(state, world);
  if (state.receipts !== undefined) mergeReceipts(state, state.receipts, world);
}

/** Places of requests become 1, 2, 3 …, whatever they were. */
function rerank(state: State): void {
  const { questions, feed } = state;
  const { lastRank } = feed;
  if (questions.length === 0) {
    if (lastRank > 1) state.feed = { ...feed, lastRank: 1 };
    return;
  }
  if (isRanked(questions, lastRank)) return;
  const places = questions.map(({ rank }) => rank);
  if (lastRank > 0 && !places.includes(lastRank)) places.push(lastRank);
  places.sort((left, right) => left - right);
  const placeOf = (rank: number): number => places.indexOf(rank) + 1;
  state.questions = questions.map((question) => ({ ...question, rank: placeOf(question.rank) }));
  if (lastRank > 0) state.feed = { ...feed, lastRank: placeOf(lastRank) };
}

/** Whether the places, that of the last response included, are 1, 2, 3 … already. */
function isRanked(questions: readonly Question[], lastRank: number): boolean {
  let place = 0;
  let isFound = lastRank === 0;
  for (const { rank } of questions) {
    place += 1;
    if (!isFound && rank > lastRank) {
      if (lastRank !== place) return false;
      place += 1;
    }
    isFound ||= rank >= lastRank;
    if (rank !== place) return false;
  }
  return isFound || lastRank === place + 1;
}

/**
 * What the instance holds is in the request for auth alone, which reads it once. So is the position; packing leaves it
 * out, because a replay knows a request by that object.
 */
function dropWhatWasRead(state: State): void {
  const isRead = ({ answer, heldTo }: Question): boolean => answer !== undefined && heldTo > 0;
  if (!state.questions.some(isRead)) return;
  state.questions = state.questions.map((question) =>
    isRead(question) ? { ...question, heldTo: 0, digest: 0 } : question,
  );
}

function dropWhatIsOver(state: State, world: World): void {
  // The oracle does not ask when a lost entry, or a copy of an entry, is due.
  const isOver = (index: number): boolean => {
    const due = state.dues[index];
    return due !== undefined && due.dueIn > 0 && (due.lost || state.entries[index]?.target !== index);
  };
  if (state.dues.some((_, index) => isOver(index))) {
    state.dues = state.dues.map((due, index) => (isOver(index) ? { ...due, dueIn: 0 } : due));
  }
  if (state.epochs.some(({ lost, dueIn }) => lost > 0 && dueIn > 0)) {
    state.epochs = state.epochs.map((epoch) => (epoch.lost > 0 ? { ...epoch, dueIn: 0 } : epoch));
  }
  // A pull whose parts the feed has dropped arrives in vain. That it breaks off is an event, too.
  if (state.pull !== undefined && state.feed.staged === undefined) state.pull = undefined;
  if (world.withoutPulls === true) state.pullWanted = false;
  // Which epochs the instance has followed counts for those that are lost, or that a backup lacks.
  if (world.stale !== true) {
    const inEveryBackup = Math.min(state.epochs.length, ...state.past.map(({ epochs }) => epochs));
    for (const [index, { lost }] of state.epochs.entries()) {
      const canBeLost = state.restoresLeft > 0 && index >= inEveryBackup;
      if (lost === 0 && !canBeLost) state.followed &= ~(1 << index);
    }
  }
}

/** Entries of the same age are kept until the same time: the first of them stands for all. */
function unifyHorizons(state: State): void {
  const { entries } = state;
  const first = (number: number): number => {
    if (number === 0) return 0;
    const age = entries[number - 1]?.age;
    return 1 + entries.findIndex((entry) => entry.age === age);
  };
  const unified = <T extends { readonly horizon: number }>(one: T): T =>
    first(one.horizon) === one.horizon ? one : { ...one, horizon: first(one.horizon) };
  const unifiedList = <T extends { readonly floorKeep: number }>(list: T): T =>
    first(list.floorKeep) === list.floorKeep ? list : { ...list, floorKeep: first(list.floorKeep) };
  const { feed } = state;
  state.database = unified(state.database);
  const list = unifiedList(feed.list);
  const staged = feed.staged && unifiedList(feed.staged);
  state.feed = unified(list === feed.list && staged === feed.staged ? feed : { ...feed, list, staged });
  const answers = (question: Question): Question => {
    const answer = question.answer && unified(question.answer);
    return answer === question.answer ? question : { ...question, answer };
  };
  if (state.questions.some((question) => answers(question) !== question)) {
    state.questions = state.questions.map(answers);
  }
}

/**
 * Only differences between readings of the clocks count, so what the wall clock shows is the same for all; but not where
 * tokens expire. Of a segment only the highest difference counts: the sum rises when a later one is above it.
 */
function mergeClocks(state: State, world: World): void {
  if (world.keep === undefined) state.wallAhead = 0;
  const { feed } = state;
  const { clocks } = feed;
  if (clocks === undefined || (clocks.lowest === clocks.highest && clocks.rise === 0)) return;
  if (clocks.lowest + clocks.rise !== clocks.highest) return;
  state.feed = { ...feed, clocks: { ...clocks, lowest: clocks.highest, rise: 0 } };
}

/** Where and when a request has arrived that has its response. */
const ANSWERED: Arrival = { replica: 0, age: 0, isBefore: true };

/** What the replicas know counts for the call that waits, and for those that may wait later. */
function mergeReceipts(state: State, receipts: Receipts, world: World): void {
  const watch = settledWatch(state, receipts.watch);
  const isSettled =
    watch !== undefined && watch !== receipts.watch ? true : watch?.known?.isEnforced === true;
  const originals = state.entries.filter(({ target }, index) => target === index).length;
  const isLast = originals >= world.entries.length && (watch === undefined || isSettled);
  // An acknowledgement counts for the entry that a call waits for, and for later ones.
  const live = watch === undefined || isSettled ? 0 : -1 << watch.entry;
  const merge = <T extends { readonly age: number; readonly isBefore: boolean }>(time: T): T => ({
    ...time,
    isBefore: watch === undefined || time.isBefore,
    age: isLast ? 0 : time.age,
  });
  const mergeRecord = (record: RecordState | undefined): RecordState | undefined =>
    record === undefined || isLast
      ? undefined
      : {
          ...merge(record),
          seen: record.seen & live,
          isComparedBefore: watch === undefined || isSettled || record.isComparedBefore,
        };
  const arrivalOf = ({ arrival, answer }: Question): Arrival | undefined => {
    if (arrival === undefined) return undefined;
    // What the replica learns of a request, it has learned when it has read the log for it.
    if (answer !== undefined) return ANSWERED;
    return merge({ ...arrival, replica: isLast ? 0 : arrival.replica });
  };
  state.receipts = {
    watch: watch && (isLast ? { ...watch, replica: 0 } : watch),
    records: receipts.records.map(mergeRecord),
    shared: receipts.shared.map(mergeRecord),
  };
  state.questions = state.questions.map((question) => ({
    ...question,
    seen: question.seen & live,
    arrival: arrivalOf(question),
  }));
  state.feed = { ...state.feed, unacknowledged: state.feed.unacknowledged & live };
  if (!isLast) sortReplicas(state, state.receipts);
}

/** A watch that has its answer, or whose entry was lost, learns nothing more; it ends when the bound is over. */
function settledWatch(state: State, watch: WatchState | undefined): WatchState | undefined {
  if (watch === undefined) return undefined;
  if (state.dues[watch.entry]?.lost === true) return { ...watch, isComplete: false, known: undefined };
  if (watch.known?.isEnforced !== true) return watch;
  return {
    ...watch,
    isComplete: false,
    known: { age: 0, isBefore: true, isSince: false, isEnforced: true },
  };
}

/** The replicas are alike: the one at which a call waits, or the one that knows more, is the first. */
function sortReplicas(state: State, { records, shared, watch }: Receipts): void {
  const weights = [0, 1].map((replica) => {
    const arrived = unanswered(state).filter(({ arrival }) => arrival?.replica === replica);
    return [
      watch?.replica === replica ? 1 : 0,
      ...[records[replica], shared[replica]].flatMap((record) =>
        record === undefined
          ? [0]
          : [
              1,
              record.epoch,
              record.sequence,
              record.seen,
              record.age,
              record.isBefore ? 1 : 0,
              record.isComparedBefore ? 1 : 0,
            ],
      ),
      ...arrived.map(({ rank }) => 10 - rank),
    ];
  });
  const [first = [], second = []] = weights;
  if (compareNumbers(first, second) >= 0) return;
  state.receipts = {
    records: records.toReversed(),
    shared: shared.toReversed(),
    watch: watch && { ...watch, replica: 1 - watch.replica },
  };
  state.questions = state.questions.map((question) =>
    question.arrival === undefined || question.answer !== undefined
      ? question
      : { ...question, arrival: { ...question.arrival, replica: 1 - question.arrival.replica } },
  );
}

function unanswered({ questions }: State): readonly Question[] {
  return questions.filter(({ answer }) => answer === undefined);
}

function compareNumbers(left: readonly number[], right: readonly number[]): number {
  for (let index = 0; index < Math.max(left.length, right.length); index += 1) {
    const difference = (left[index] ?? -1) - (right[index] ?? -1);
    if (difference !== 0) return difference;
  }
  return 0;
}
