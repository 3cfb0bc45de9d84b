/** The instance of a world: what happens to its feed, its clocks and its requests. */

import type { SyncTicket } from '@portcullis/guard/internal';
import { pullResponseOf, syncResponseOf } from '../../services/auth/adapters/revocation-messages.js';
import { CacheModel } from './cache-model.js';
import type { DatabaseModel } from './database.js';
import type { Entries } from './entries.js';
import { FeedMirror } from './feed-mirror.js';
import type { Environment } from './guards.js';
import {
  entriesInDigest,
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  keysIdOf,
  keysIndexOf,
  LATER_MS,
  ORIGIN_TICK,
  type Present,
  TICK_MS,
} from './identifiers.js';
import type { ExposedFeed, Protocol } from './protocol.js';
import {
  bitsOf,
  FAULTS,
  indexesIn,
  type Lease,
  newFeed,
  type Position,
  type Question,
  type State,
} from './state.js';
import { answerText, entryName, heldText, positionText } from './wording.js';
import type { World } from './world.js';

/** Objects that live on between events, instead of being made from each state. */
interface Live {
  feed: ExposedFeed;
  /** By the position that the request names: an object that a request keeps while its other parts are replaced. */
  readonly tickets: WeakMap<Position, SyncTicket>;
  tick: number;
  slept: number;
  /** How far the wall clock is ahead. */
  wallAhead: number;
  /** Distinguishes requests of one tick. */
  asked: number;
}

/** The parts of the model that the instance uses. */
interface InstanceDeps {
  readonly protocol: Protocol;
  readonly world: World;
  readonly environment: Environment;
  readonly entries: Entries;
  readonly database: DatabaseModel;
}

/** The instance. */
export class InstanceModel {
  readonly world: World;
  readonly protocol: Protocol;
  readonly environment: Environment;
  readonly entries: Entries;
  readonly database: DatabaseModel;
  readonly mirror: FeedMirror;
  readonly cache: CacheModel | undefined;
  /** Set for a replay: feed and tickets are then never made from a state. */
  live: Live | undefined;

  constructor({ protocol, world, environment, entries, database }: InstanceDeps) {
    this.protocol = protocol;
    this.world = world;
    this.environment = environment;
    this.entries = entries;
    this.database = database;
    this.mirror = new FeedMirror(protocol, world, entries);
    if (world.cached !== true) return;
    this.cache = new CacheModel(protocol, world, entries, this.mirror.create());
    this.mirror.listener = this.cache.listener;
  }

  /** From now on, feed and tickets live on between events, and clocks advance. */
  goLive(): void {
    this.entries.keptUntilMs = [];
    this.live = {
      feed: this.mirror.create(),
      tickets: new WeakMap(),
      tick: ORIGIN_TICK,
      slept: 0,
      wallAhead: 0,
      asked: 0,
    };
  }

  /** During a replay: writes the objects that live on into the state. */
  saveLive(state: State): void {
    const present = this.present(state);
    const feed = this.feedOf(state);
    this.mirror.save(feed, state, present);
    state.questions = state.questions.map((question) =>
      this.mirror.refreshed(question, this.#ticketOf(question, feed, present), feed, present),
    );
  }

  present(state: State): Present {
    const { tick, slept, wallAhead } = this.live ?? {
      tick: ORIGIN_TICK,
      slept: 0,
      wallAhead: state.wallAhead,
    };
    return {
      databaseMs: tick * TICK_MS,
      monotonicMs: (tick - slept) * TICK_MS,
      wallMs: (tick + wallAhead) * TICK_MS,
    };
  }

  feedOf(state: State): ExposedFeed {
    return this.live?.feed ?? this.mirror.restore(state, this.present(state));
  }

  /** Calls the feed of a state, and saves it and what it has in common with the open requests. */
  #withFeed<T>(state: State, work: (feed: ExposedFeed, present: Present) => T): T {
    const present = this.present(state);
    const feed = this.feedOf(state);
    const tickets = new Map(
      state.questions.map((question) => [question.at, this.#ticketOf(question, feed, present)]),
    );
    this.cache?.load(state, feed, present);
    const result = work(feed, present);
    this.cache?.save(state);
    this.mirror.save(feed, state, present);
    state.questions = state.questions.map((question) => {
      const ticket = tickets.get(question.at);
      return ticket === undefined ? question : this.mirror.refreshed(question, ticket, feed, present);
    });
    if (this.world.stale === true) this.#noteRejected(state, feed, present);
    return result;
  }

  #ticketOf(question: Question, feed: ExposedFeed, present: Present): SyncTicket {
    return this.live?.tickets.get(question.at) ?? this.mirror.ticketOf(question, feed, present);
  }

  /** The ticket with which a response is applied; without the guard, one of the present. */
  #answeredTicket(question: Question, feed: ExposedFeed, present: Present): SyncTicket {
    const ticket = this.#ticketOf(question, feed, present);
    if (this.environment.leaseFromAnswer !== true) return ticket;
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

  look(state: State): string {
    return this.#withFeed(state, (feed, { monotonicMs, wallMs }) => {
      feed.leaseLeftMs(monotonicMs + LATER_MS, wallMs + LATER_MS);
      return 'the instance reads its clocks';
    });
  }

  /** Where machines sleep, the promise holds only if the clocks are read between a sleep and a set-back. */
  setBack(state: State): string {
    const isRead = (this.world.sleeps ?? 0) > 0;
    if (isRead) this.look(state);
    this.setClock(state, -1);
    if (isRead) this.look(state);
    return `the wall clock of the instance is set back by a tick${isRead ? ', and read before and after' : ''}`;
  }

  setClock(state: State, by: 1 | -1): void {
    const wallMax = this.world.lease + (this.world.back ?? 0);
    state.wallAhead += by;
    if (this.live !== undefined) this.live.wallAhead += by;
    changeAges(state, (ages) => ({ ...ages, wall: Math.min(ages.wall + by, wallMax) }));
    shiftClocks(state, -by);
  }

  crash(state: State): string {
    state.feed = newFeed();
    state.questions = [];
    state.pull = undefined;
    state.pullWanted = false;
    state.installed = 0;
    state.rejected = 0;
    state.followed = 0;
    state.cached = 0;
    state.flagged = 0;
    if (this.live !== undefined) this.live.feed = this.mirror.create();
    return 'the instance crashes and starts again';
  }

  ask(state: State): string {
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
        seen: bitsOf(request.seen.map((id) => entryIndexOf(id) - 1)),
        heldTo: Number(request.heldTo),
        digest: entriesInDigest(request.heldDigest),
        arrival: undefined,
        answer: undefined,
      };
      state.questions = [...state.questions, question];
      this.live?.tickets.set(question.at, ticket);
      return `the instance asks: ${positionText(question.at)}${heldText(question)}`;
    });
  }

  answer(state: State, number: number): string {
    const question = questionAt(state, number);
    const { answer } = question;
    if (answer === undefined) throw new RangeError('the request has no response');
    let isLast = false;
    const { lease } = state.feed;
    let isGranted = false;
    const text = this.#withFeed(state, (feed, present) => {
      const ticket = this.#answeredTicket(question, feed, present);
      state.questions = state.questions.toSpliced(number, 1);
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
        epochNumber: BigInt(answer.epoch),
        fenceWanted: 0n,
      });
      const outcome = this.#orFull(() =>
        feed.applySyncResponse(ticket, response, () => {
          state.installed = answer.keys;
          this.cache?.replaceKeys(state);
        }),
      );
      isLast = this.mirror.isLast(feed, ticket.sentAt);
      isGranted = outcome === 'granted';
      if (isGranted && state.installed !== answer.keysRead) state.faults |= FAULTS.otherKeys;
      if (outcome === 'pull') state.pullWanted = true;
      if (outcome === 'pull' || outcome === 'granted') state.followed |= 1 << (answer.epoch - 1);
      return `the response to request ${number + 1} arrives (${answerText(answer)}): ${outcome}`;
    });
    const granted = isGranted ? state.feed.lease : undefined;
    if (granted !== undefined && lease !== undefined && granted.monotonic > lease.monotonic) {
      state.faults |= FAULTS.olderLease;
    }
    if (isLast) {
      const isLatest = this.environment.leaseFromAnswer === true;
      state.feed = { ...state.feed, lastRank: isLatest ? this.#nextRank(state) : question.rank };
    }
    return text;
  }

  broadcast(state: State, index: number): string {
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

  /** The parts of the pull arrive, the end too or not. */
  endPull(state: State, isComplete: boolean): string {
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

  #orFull<T extends string>(work: () => T): T | 'the list is full' | 'unknown kind' {
    try {
      return work();
    } catch (error) {
      if (error instanceof this.protocol.ListFullError) return 'the list is full';
      if (this.world.oldVersion === true && error instanceof RangeError) return 'unknown kind';
      throw error;
    }
  }

  /** The verification of a token ends, and the token is cached. */
  verify(state: State, number: number): string {
    return this.#withFeed(state, () => {
      this.cache?.verify(state, number);
      return `the instance verifies and caches the token ${this.cache?.name(number) ?? ''}`;
    });
  }

  beginPull(state: State): string {
    state.pullWanted = false;
    state.pull = { epoch: 0, sequence: 0, entry: 0, rows: undefined };
    return this.#withFeed(state, (feed) => {
      feed.beginPull();
      return 'the instance begins a pull';
    });
  }

  /** Time passes for the clocks. Those of a sleeping machine's monotonic kind stand still. */
  pass(state: State, { asleep }: { asleep: boolean }): void {
    const { lease, back = 0 } = this.world;
    changeAges(state, (ages) => ({
      ...ages,
      monotonic: asleep ? ages.monotonic : Math.min(ages.monotonic + 1, lease),
      wall: Math.min(ages.wall + 1, lease + back),
    }));
    if (asleep) shiftClocks(state, -1);
    if (this.live === undefined) return;
    this.live.tick += 1;
    if (asleep) this.live.slept += 1;
    else this.live.asked = 0;
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
  epochNumber: 0n,
  fenceWanted: 0n,
};

/** Changes the ages of the lease and of the open requests. */
function changeAges(state: State, change: <T extends Pick<Lease, 'monotonic' | 'wall'>>(ages: T) => T): void {
  const { feed } = state;
  if (feed.lease !== undefined) state.feed = { ...feed, lease: change(feed.lease) };
  if (state.questions.length > 0) state.questions = state.questions.map(change);
}

function shiftClocks(state: State, by: number): void {
  const { feed } = state;
  const { clocks } = feed;
  if (clocks === undefined) return;
  state.feed = {
    ...feed,
    clocks: { ...clocks, lowest: clocks.lowest + by, highest: clocks.highest + by },
  };
}

/** @throws RangeError when there is no such request */
export function questionAt({ questions }: State, number: number): Question {
  const question = questions[number];
  if (question === undefined) throw new RangeError(`there is no request ${number}`);
  return question;
}
