/** The events of a world, and what each does: the protocol's own code, called from a state and saved into one. */

import type { SyncTicket } from '@portcullis/guard/internal';
import {
  pullResponseOf,
  questionOf,
  syncResponseOf,
} from '../../services/auth/adapters/revocation-messages.js';
import { DatabaseModel } from './database.js';
import { Entries } from './entries.js';
import { FeedMirror } from './feed-mirror.js';
import type { Environment } from './guards.js';
import {
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  INSTANCE,
  keysIdOf,
  keysIndexOf,
  LATER_MS,
  ORIGIN_TICK,
  type Present,
  SERVICE,
  TICK_MS,
} from './identifiers.js';
import { Packing } from './packing.js';
import type { ExposedFeed, Protocol } from './protocol.js';
import { type Answer, newFeed, type Question, type State } from './state.js';
import type { World } from './world.js';

/** The kinds of events. An event is a kind and a number: of a request, or of an entry. */
export const EVENTS = [
  'tick',
  'commit',
  'open-epoch',
  'change-keys',
  'purge',
  'copy',
  'restore',
  'ask',
  'read',
  'read-without-note',
  'read-old',
  'answer',
  'lose',
  'broadcast',
  'begin-pull',
  'read-pull',
  'read-old-pull',
  'end-pull',
  'break-pull',
  'crash',
  'clock-forward',
  'clock-back',
  'sleep',
  'look',
  'shorten-lease',
  'date-older-leases',
] as const;

export type EventKind = (typeof EVENTS)[number];

/** An event as a number, so that many fit into little memory. */
export type EventCode = number;

const NUMBERS = 16;

export function eventCode(kind: EventKind, number = 0): EventCode {
  return EVENTS.indexOf(kind) * NUMBERS + number;
}

export function eventOf(code: EventCode): { readonly kind: EventKind; readonly number: number } {
  const kind = EVENTS[Math.floor(code / NUMBERS)];
  if (kind === undefined) throw new RangeError(`there is no event ${code}`);
  return { kind, number: code % NUMBERS };
}

/** Objects that live on between events, instead of being made from each state. */
export interface Live {
  feed: ExposedFeed;
  readonly tickets: WeakMap<Question, SyncTicket>;
  tick: number;
  slept: number;
  /** Distinguishes requests of one tick. */
  asked: number;
}

/** One world, with its guards or without one of them. */
export class Model {
  readonly world: World;
  readonly protocol: Protocol;
  readonly packing: Packing;
  readonly entries: Entries;
  readonly database: DatabaseModel;
  readonly mirror: FeedMirror;
  readonly #environment: Environment;
  /** Set for a replay: feed and tickets are then never made from a state. */
  live: Live | undefined;

  constructor(protocol: Protocol, world: World, environment: Environment = {}) {
    this.protocol = protocol;
    this.world = world;
    this.packing = new Packing(world);
    this.entries = new Entries(world, (issuer, text) => protocol.foreignKey(1, issuer, text));
    this.database = new DatabaseModel(world, protocol.log, this.entries, environment);
    this.mirror = new FeedMirror(protocol, world, this.entries);
    this.#environment = environment;
  }

  /** Nothing has happened yet. */
  initial(): State {
    const { world } = this;
    return {
      database: this.database.initial(),
      copy: undefined,
      restoresLeft: world.restores ?? 0,
      entries: [],
      epochs: [{ dueIn: 0, lost: 0, lossDueIn: 0 }],
      keys: [{ epoch: 0, signer: 0 }],
      feed: newFeed(),
      installed: 0,
      questions: [],
      pull: undefined,
      pullWanted: false,
      rejected: 0,
      followed: 0,
      wallAhead: 0,
      forwardLeft: world.forward ?? 0,
      backLeft: world.back ?? 0,
      sleepsLeft: world.sleeps ?? 0,
    };
  }

  /** From now on, feed and tickets live on between events, and clocks advance. */
  goLive(): void {
    this.entries.keptUntilMs = [];
    this.live = { feed: this.mirror.create(), tickets: new WeakMap(), tick: ORIGIN_TICK, slept: 0, asked: 0 };
  }

  /** During a replay: writes the objects that live on into the state. */
  saveLive(state: State): void {
    const present = this.present(state);
    const feed = this.feedOf(state);
    this.mirror.save(feed, state, present);
    for (const question of state.questions) {
      this.mirror.refresh(question, this.#ticketOf(question, feed, present), feed, present);
    }
  }

  present({ wallAhead }: State): Present {
    const { tick, slept } = this.live ?? { tick: ORIGIN_TICK, slept: 0 };
    return {
      databaseMs: tick * TICK_MS,
      monotonicMs: (tick - slept) * TICK_MS,
      wallMs: (tick + wallAhead) * TICK_MS,
    };
  }

  feedOf(state: State): ExposedFeed {
    return this.live?.feed ?? this.mirror.restore(state, this.present(state));
  }

  /** The events that can happen in a state. */
  events(state: State): EventCode[] {
    const { world } = this;
    const { database, copy, questions, pull } = state;
    const codes: EventCode[] = [eventCode('tick')];
    const add = (condition: boolean, kind: EventKind, number = 0): void => {
      if (condition) codes.push(eventCode(kind, number));
    };
    const originals = state.entries.filter(({ target }, index) => target === index).length;
    add(originals < world.entries.length, 'commit');
    add(state.epochs.length <= (world.epochs ?? 0), 'open-epoch');
    add(this.#keyChangesLeft(state) > 0, 'change-keys');
    add(world.keep !== undefined && this.database.expired(state) !== 0, 'purge');
    add(state.restoresLeft > 0 && copy === undefined, 'copy');
    add(this.#readsOld() && state.restoresLeft === 0, 'copy');
    add(state.restoresLeft > 0 && copy !== undefined, 'restore');
    add(questions.length < world.questions, 'ask');
    for (const [number, { answer }] of questions.entries()) {
      add(answer === undefined, 'read', number);
      add(
        answer === undefined && (world.restores ?? 0) > 0 && (world.epochs ?? 0) > 0,
        'read-without-note',
        number,
      );
      add(
        answer === undefined && copy !== undefined && this.#environment.oldReads === true,
        'read-old',
        number,
      );
      add(answer !== undefined, 'answer', number);
      add(true, 'lose', number);
    }
    for (const [number, { target }] of state.entries.entries()) add(target === number, 'broadcast', number);
    add(state.pullWanted && pull === undefined, 'begin-pull');
    add(pull !== undefined && pull.rows === undefined, 'read-pull');
    add(
      pull !== undefined && pull.rows === undefined && copy !== undefined && world.oldStates === true,
      'read-old-pull',
    );
    add(pull?.rows !== undefined, 'end-pull');
    add(pull !== undefined, 'break-pull');
    add(world.crashes === true, 'crash');
    add(state.forwardLeft > 0, 'clock-forward');
    add(state.backLeft > 0, 'clock-back');
    add(state.sleepsLeft > 0, 'sleep');
    add((world.forward ?? 0) + (world.back ?? 0) + (world.sleeps ?? 0) > 0, 'look');
    add(world.shorterLease !== undefined && database.lease === world.lease, 'shorten-lease');
    add(database.olderLease > 0, 'date-older-leases');
    return codes;
  }

  /** Lets an event happen. @returns what happened, in words; only during a replay */
  apply(state: State, code: EventCode): string {
    const { kind, number } = eventOf(code);
    switch (kind) {
      case 'tick':
        this.#pass(state, { asleep: false });
        return 'a tick passes';
      case 'sleep':
        state.sleepsLeft -= 1;
        this.#pass(state, { asleep: true });
        return 'the machine of the instance sleeps for a tick';
      case 'clock-forward':
        state.forwardLeft -= 1;
        this.#setClock(state, 1);
        return 'the wall clock of the instance is set forward by a tick';
      case 'clock-back':
        state.backLeft -= 1;
        return this.#setBack(state);
      case 'look':
        return this.#look(state);
      case 'commit':
        return this.#commit(state);
      case 'open-epoch':
        this.database.openEpoch(state, this.present(state));
        return `epoch ${epochName(state.database.epoch)} is opened`;
      case 'change-keys':
        this.database.changeKeys(state);
        return `the key set changes to version ${state.database.keys}; every token stays valid`;
      case 'purge':
        this.database.purge(state, this.present(state));
        return 'auth drops the entries that have expired, and raises the horizon';
      case 'copy':
        state.copy = this.database.copy(state);
        return state.restoresLeft > 0
          ? 'a backup of the database is made'
          : 'another server keeps this state of the database';
      case 'restore':
        if (state.copy !== undefined) this.database.restore(state, state.copy);
        return 'the database is restored from the backup';
      case 'shorten-lease':
        state.database.olderLease = Math.max(state.database.lease, state.database.olderLease);
        state.database.lease = this.world.shorterLease ?? this.world.lease;
        return `leases are set to ${state.database.lease} ticks`;
      case 'date-older-leases':
        state.database.olderLeasesEndIn = Math.max(
          state.database.olderLeasesEndIn,
          state.database.olderLease,
        );
        state.database.olderLease = 0;
        return 'auth notes when the last longer lease ends';
      case 'crash':
        return this.#crash(state);
      default:
        return this.#applyMessage(state, kind, number);
    }
  }

  #applyMessage(state: State, kind: EventKind, number: number): string {
    switch (kind) {
      case 'ask':
        return this.#ask(state);
      case 'read':
        return this.#read(state, number, { old: false, notes: true });
      case 'read-without-note':
        return this.#read(state, number, { old: false, notes: false });
      case 'read-old':
        return this.#read(state, number, { old: true, notes: false });
      case 'answer':
        return this.#answer(state, number);
      case 'lose':
        state.questions.splice(number, 1);
        return `request ${number + 1} or its response is lost`;
      case 'broadcast':
        return this.#broadcast(state, number);
      case 'begin-pull':
        state.pullWanted = false;
        state.pull = { epoch: 0, sequence: 0, entry: 0, rows: undefined };
        return this.#withFeed(state, (feed) => {
          feed.beginPull();
          return 'the instance begins a pull';
        });
      case 'read-pull':
      case 'read-old-pull':
        return this.#readPull(state, kind === 'read-old-pull');
      case 'end-pull':
        return this.#endPull(state, true);
      case 'break-pull':
        return this.#endPull(state, false);
      default:
        throw new RangeError(`there is no event ${kind}`);
    }
  }

  #readsOld(): boolean {
    return this.world.oldStates === true || this.#environment.oldReads === true;
  }

  #keyChangesLeft(state: State): number {
    const revoked = state.entries.filter((_, index) => this.entries.kindOf(state, index) === 'KEY').length;
    return (this.world.keyChanges ?? 0) - (state.keys.length - state.epochs.length - revoked);
  }

  /** Calls the feed of a state, and saves it and what it has in common with the open requests. */
  #withFeed<T>(state: State, work: (feed: ExposedFeed, present: Present) => T): T {
    const present = this.present(state);
    const feed = this.feedOf(state);
    const tickets = new Map(
      state.questions.map((question) => [question, this.#ticketOf(question, feed, present)]),
    );
    const result = work(feed, present);
    this.mirror.save(feed, state, present);
    for (const question of state.questions) {
      const ticket = tickets.get(question);
      if (ticket !== undefined) this.mirror.refresh(question, ticket, feed, present);
    }
    if (this.world.stale === true) this.#noteRejected(state, feed, present);
    return result;
  }

  #ticketOf(question: Question, feed: ExposedFeed, present: Present): SyncTicket {
    return this.live?.tickets.get(question) ?? this.mirror.ticketOf(question, feed, present);
  }

  /** The ticket with which a response is applied; without the guard, one of the present. */
  #answeredTicket(question: Question, feed: ExposedFeed, present: Present): SyncTicket {
    const ticket = this.#ticketOf(question, feed, present);
    if (this.#environment.leaseFromAnswer !== true) return ticket;
    const offsetMs = this.#nextOffsetMs(question.rank + this.world.questions);
    const sentAt = { monotonicMs: present.monotonicMs + offsetMs, wallMs: present.wallMs + offsetMs };
    return { ...ticket, sentAt };
  }

  #nextRank(state: State): number {
    return Math.max(state.feed.lastRank, ...state.questions.map((question) => question.rank)) + 1;
  }

  /** From the beginning of the tick until a request is sent. */
  #nextOffsetMs(rank: number): number {
    if (this.live === undefined) return rank;
    this.live.asked += 1;
    return this.live.asked;
  }

  #noteRejected(state: State, feed: ExposedFeed, present: Present): void {
    for (let index = 0; index < state.entries.length; index += 1) {
      const { claims } = this.entries.revokedToken(state, index, present);
      if (feed.list.revokes(claims)) state.rejected |= 1 << index;
    }
  }

  /** Time passes. A sleeping machine's monotonic clock stands still. */
  #pass(state: State, { asleep }: { asleep: boolean }): void {
    const { database, copy, entries, epochs, feed, questions } = state;
    const { lease, back = 0, keep } = this.world;
    const later = (value: number): number => Math.max(0, value - 1);
    for (const entry of entries) {
      entry.age = keep === undefined ? 0 : Math.min(entry.age + 1, keep + 1 + back);
      entry.dueIn = later(entry.dueIn);
    }
    for (const epoch of epochs) {
      epoch.dueIn = later(epoch.dueIn);
      epoch.lossDueIn = later(epoch.lossDueIn);
    }
    for (const each of [database, copy])
      if (each !== undefined) each.olderLeasesEndIn = later(each.olderLeasesEndIn);
    for (const ages of feed.lease === undefined ? questions : [...questions, feed.lease]) {
      if (!asleep) ages.monotonic = Math.min(ages.monotonic + 1, lease);
      ages.wall = Math.min(ages.wall + 1, lease + back);
    }
    if (asleep && feed.clocks !== undefined) shiftClocks(feed.clocks, -1);
    if (this.live === undefined) return;
    this.live.tick += 1;
    if (asleep) this.live.slept += 1;
    else this.live.asked = 0;
  }

  #look(state: State): string {
    return this.#withFeed(state, (feed, { monotonicMs, wallMs }) => {
      feed.leaseLeftMs(monotonicMs + LATER_MS, wallMs + LATER_MS);
      return 'the instance reads its clocks';
    });
  }

  /** Where machines sleep, the promise holds only if the clocks are read between a sleep and a set-back. */
  #setBack(state: State): string {
    const isRead = (this.world.sleeps ?? 0) > 0;
    if (isRead) this.#look(state);
    this.#setClock(state, -1);
    if (isRead) this.#look(state);
    return `the wall clock of the instance is set back by a tick${isRead ? ', and read before and after' : ''}`;
  }

  #setClock(state: State, by: 1 | -1): void {
    const { feed, questions } = state;
    const wallMax = this.world.lease + (this.world.back ?? 0);
    state.wallAhead += by;
    for (const ages of feed.lease === undefined ? questions : [...questions, feed.lease]) {
      ages.wall = Math.min(ages.wall + by, wallMax);
    }
    if (feed.clocks !== undefined) shiftClocks(feed.clocks, -by);
  }

  #commit(state: State): string {
    const index = this.database.commit(state, this.present(state));
    const { sequence, epoch } = state.entries[index] ?? { sequence: 0, epoch: 0 };
    const kind = this.entries.kindOf(state, index).toLowerCase();
    return `Revoke commits entry ${entryName(index)} (${kind}) at ${sequence} of epoch ${epochName(epoch)}`;
  }

  #crash(state: State): string {
    state.feed = newFeed();
    state.questions = [];
    state.pull = undefined;
    state.pullWanted = false;
    state.installed = 0;
    state.rejected = 0;
    state.followed = 0;
    if (this.live !== undefined) this.live.feed = this.mirror.create();
    return 'the instance crashes and starts again';
  }

  #ask(state: State): string {
    return this.#withFeed(state, (feed, present) => {
      const rank = this.#nextRank(state);
      const offsetMs = this.#nextOffsetMs(rank);
      const ticket = feed.createSyncRequest({
        monotonicMs: present.monotonicMs + offsetMs,
        wallMs: present.wallMs + offsetMs,
      });
      const { request } = ticket;
      const question: Question = {
        rank,
        monotonic: 0,
        wall: 0,
        rises: 0,
        ofList: true,
        at: {
          epoch: epochIndexOf(request.epoch),
          sequence: Number(request.applied),
          entry: entryIndexOf(request.entryIdAtApplied),
        },
        keys: keysIndexOf(request.keySetVersion),
        seen: request.seen.reduce((bits, id) => bits | (1 << (entryIndexOf(id) - 1)), 0),
        answer: undefined,
      };
      state.questions.push(question);
      this.live?.tickets.set(question, ticket);
      return `the instance asks: ${positionText(question.at)}`;
    });
  }

  #read(state: State, number: number, how: { old: boolean; notes: boolean }): string {
    const question = questionAt(state, number);
    const database = how.old ? (state.copy ?? state.database) : state.database;
    const { syncResultFor, newlyLost } = this.protocol.log;
    const present = this.present(state);
    const asked = questionOf({
      service: SERVICE,
      instance: INSTANCE,
      epoch: epochIdOf(question.at.epoch),
      applied: BigInt(question.at.sequence),
      entryIdAtApplied: entryIdOf(question.at.entry),
      keySetVersion: keysIdOf(question.keys),
      seen: [],
    });
    const reading = this.database.read(state, database, asked, present);
    const from = how.old ? 'an old state of the log' : 'the log';
    try {
      const result = syncResultFor(reading, asked);
      const answer: Answer = {
        epoch: epochIndexOf(result.epoch),
        sequence: Number(result.head),
        entry: entryIndexOf(result.headEntryId),
        entries: result.entries.reduce((bits, { entryId }) => bits | (1 << (entryIndexOf(entryId) - 1)), 0),
        pull: result.pull,
        keys: result.keySet === undefined ? 0 : keysIndexOf(result.keySet.version),
        horizon: database.horizon,
        lease: result.leaseMs / TICK_MS,
      };
      question.answer = answer;
      return `auth reads ${from} for request ${number + 1}: ${answerText(answer)}`;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'LOG_CHANGED')) throw error;
      state.questions.splice(number, 1);
      const lost = newlyLost(reading, asked);
      if (lost !== undefined && how.notes)
        noteLost(state, question.at.epoch - 1, epochIndexOf(lost.foundUnder) - 1);
      return `auth reads ${from} for request ${number + 1}: LOG_CHANGED${lost === undefined || how.notes ? '' : ', and fails to note the loss'}`;
    }
  }

  #answer(state: State, number: number): string {
    const question = questionAt(state, number);
    const { answer } = question;
    if (answer === undefined) throw new RangeError('the request has no response');
    return this.#withFeed(state, (feed, present) => {
      const ticket = this.#answeredTicket(question, feed, present);
      state.questions.splice(number, 1);
      const entries = indexesIn(answer.entries).map((index) =>
        this.entries.logEntryOf(state, index, present),
      );
      const response = syncResponseOf({
        epoch: epochIdOf(answer.epoch),
        head: BigInt(answer.sequence),
        headEntryId: entryIdOf(answer.entry),
        entries,
        pull: answer.pull,
        keySet: answer.keys === 0 ? undefined : { version: keysIdOf(answer.keys), keys: [] },
        broadcastKeys: [],
        horizon: new Date(this.entries.horizonMs(state, answer.horizon, present)),
        leaseMs: answer.lease * TICK_MS,
      });
      const outcome = this.#orFull(() =>
        feed.applySyncResponse(ticket, response, () => {
          state.installed = answer.keys;
        }),
      );
      if (this.mirror.isLast(feed, ticket.sentAt)) {
        const isLatest = this.#environment.leaseFromAnswer === true;
        state.feed.lastRank = isLatest ? this.#nextRank(state) : question.rank;
      }
      if (outcome === 'pull') state.pullWanted = true;
      if (outcome === 'pull' || outcome === 'granted') state.followed |= 1 << (answer.epoch - 1);
      return `the response to request ${number + 1} arrives (${answerText(answer)}): ${outcome}`;
    });
  }

  #broadcast(state: State, index: number): string {
    return this.#withFeed(state, (feed, present) => {
      const entry = this.entries.logEntryOf(state, index, present);
      const epoch = (state.entries[index]?.epoch ?? 0) + 1;
      const { entries } = syncResponseOf({ ...NO_ANSWER, entries: [entry] });
      const outcome = this.#orFull(() =>
        feed.applyBroadcast({ epoch: epochIdOf(epoch), entries }).accepted ? 'accepted' : 'ignored',
      );
      return `the broadcast of entry ${entryName(index)} arrives: ${outcome}`;
    });
  }

  #readPull(state: State, isOld: boolean): string {
    const database = isOld ? (state.copy ?? state.database) : state.database;
    const rows = this.database.rowsOfEpoch(state, database);
    state.pull = { epoch: database.epoch + 1, sequence: database.head, entry: database.headEntry, rows };
    return `auth reads ${isOld ? 'an old state of the list' : 'the list'} for the pull: ${positionText(state.pull)}, ${entriesText(rows)}`;
  }

  /** The parts of the pull arrive, the end too or not. */
  #endPull(state: State, isComplete: boolean): string {
    const { pull } = state;
    if (pull === undefined) throw new RangeError('there is no pull');
    return this.#withFeed(state, (feed, present) => {
      let outcome = 'ignored';
      if (pull.rows !== undefined) {
        const live = this.database.readLive(state, pull.rows, pull, present);
        outcome = this.#orFull(() => {
          let done = false;
          for (const part of this.protocol.log.partsOf(live)) {
            if (part.part !== 'end' || isComplete) done = feed.applyPullPart(pullResponseOf(part));
          }
          return done ? 'complete' : 'ignored';
        });
      }
      feed.abandonPull();
      state.pull = undefined;
      return isComplete ? `the pull arrives: ${outcome}` : 'the pull breaks off';
    });
  }

  #orFull<T extends string>(work: () => T): T | 'the list is full' {
    try {
      return work();
    } catch (error) {
      if (error instanceof this.protocol.ListFullError) return 'the list is full';
      throw error;
    }
  }
}

const NO_ANSWER = {
  epoch: Buffer.alloc(0),
  head: 0n,
  headEntryId: Buffer.alloc(0),
  pull: false,
  keySet: undefined,
  broadcastKeys: [],
  horizon: new Date(0),
  leaseMs: 0,
};

/** Written in a transaction of its own, while the epoch under which the loss was found is still the present one. */
function noteLost({ database }: State, epoch: number, foundUnder: number): void {
  if (database.epoch !== foundUnder || (database.epochRows & (1 << epoch)) !== 0) return;
  if (database.foundUnder[epoch] === 0) database.foundUnder[epoch] = foundUnder + 1;
}

function shiftClocks(clocks: { lowest: number; highest: number }, by: number): void {
  clocks.lowest += by;
  clocks.highest += by;
}

function questionAt({ questions }: State, number: number): Question {
  const question = questions[number];
  if (question === undefined) throw new RangeError(`there is no request ${number}`);
  return question;
}

function indexesIn(bits: number): number[] {
  const indexes: number[] = [];
  for (let index = 0; bits >> index > 0; index += 1) if ((bits >> index) & 1) indexes.push(index);
  return indexes;
}

function epochName(index: number): string {
  return String.fromCharCode(65 + index);
}

export function entryName(index: number): string {
  return `e${index + 1}`;
}

function positionText({
  epoch,
  sequence,
  entry,
}: {
  epoch: number;
  sequence: number;
  entry: number;
}): string {
  if (epoch === 0) return 'no epoch yet';
  return `epoch ${epochName(epoch - 1)}, position ${sequence}${entry === 0 ? '' : ` (${entryName(entry - 1)})`}`;
}

function entriesText(bits: number): string {
  return bits === 0 ? 'no entries' : `entries ${indexesIn(bits).map(entryName).join(' ')}`;
}

function answerText(answer: Answer): string {
  const keys = answer.keys === 0 ? '' : `, key set ${answer.keys - 1}`;
  return `${positionText(answer)}, ${answer.pull ? 'pull' : entriesText(answer.entries)}${keys}`;
}
