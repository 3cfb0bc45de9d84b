/** The real feed from a state, and back. */

import type { Moment, RevocationList, SyncTicket } from '@portcullis/guard/internal';
import { ID_BYTES } from '@portcullis/guard/limits';
import type { Entries } from './entries.js';
import { checkFields } from './fields.js';
import {
  digestOf,
  entriesInDigest,
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  INSTANCE,
  keysIdOf,
  keysIndexOf,
  type Present,
  SERVICE,
  TICK_MS,
  wordOf,
} from './identifiers.js';
import type { ExposedFeed, ExposedHeld, ExposedList, Protocol } from './protocol.js';
import { type Held, indexesIn, type Lease, type List, type Question, type State } from './state.js';
import type { World } from './world.js';

/** The sum of ended segments in a feed made from a state; only its difference to other sums matters. */
const ENDED_MS = 100 * TICK_MS;

const USER = 'user';

/** Makes feeds from states and states from feeds. */
export class FeedMirror {
  readonly #protocol: Protocol;
  readonly #world: World;
  readonly #entries: Entries;
  /** What the feeds notify. */
  listener: ConstructorParameters<Protocol['Feed']>[0]['listener'] = {
    entryAdded: () => {},
    listFilled: () => {},
    epochChanged: () => {},
  };
  readonly #monotonicMax: number;
  readonly #wallMax: number;
  /** A list that is not the present one; nothing may look into it. */
  readonly #otherList: RevocationList;

  constructor(protocol: Protocol, world: World, entries: Entries) {
    this.#protocol = protocol;
    this.#world = world;
    this.#entries = entries;
    this.#monotonicMax = world.lease;
    this.#wallMax = world.lease + (world.back ?? 0);
    this.#otherList = forbiddenList(protocol);
    checkFields(protocol);
  }

  /** A feed as a process creates it. */
  create(): ExposedFeed {
    const { Feed } = this.#protocol;
    return new Feed({
      service: SERVICE,
      instance: INSTANCE,
      listener: this.listener,
      listEntriesMax: this.#world.listMax,
    });
  }

  /** The feed of a state. */
  restore(state: State, present: Present): ExposedFeed {
    const { Feed, ClockRises } = this.#protocol;
    const from = state.feed;
    const feed: ExposedFeed = Object.create(Feed.prototype);
    feed._service = SERVICE;
    feed._instance = INSTANCE;
    feed._listener = this.listener;
    feed._listEntriesMax = this.#world.listMax;
    feed._claimIds = [];
    feed._list = this.#restoreList(from.list, state, present);
    feed._staged = from.staged && this.#restoreList(from.staged, state, present);
    feed._epoch = epochIdOf(from.epoch);
    feed._epochNumber = from.hydrated ? BigInt(from.epoch) : 0n;
    feed._fenceWanted = 0n;
    feed._applied = BigInt(from.sequence);
    feed._entryIdAtApplied = entryIdOf(from.entry);
    feed._highestSeen = feed._applied;
    feed._keySetVersion = keysIdOf(from.keys);
    feed._horizonMs = this.#entries.horizonMs(state, from.horizon, present);
    feed._lastAppliedMonotonicMs = lastAppliedMs(state, present);
    const rises: InstanceType<Protocol['ClockRises']> = Object.create(ClockRises.prototype);
    const { clocks } = from;
    const differenceMs = present.wallMs - present.monotonicMs;
    rises._endedMs = ENDED_MS;
    rises._lowestMs =
      clocks === undefined ? Number.POSITIVE_INFINITY : differenceMs + clocks.lowest * TICK_MS;
    rises._highestMs =
      clocks === undefined ? Number.NEGATIVE_INFINITY : differenceMs + clocks.highest * TICK_MS;
    rises._riseMs = (clocks?.rise ?? 0) * TICK_MS;
    feed._rises = rises;
    feed._lease = from.lease && {
      sentAt: momentOf(from.lease, present, 0),
      risesMs: ENDED_MS + rises._riseMs - from.lease.rises * TICK_MS,
      lengthMs: from.lease.length * TICK_MS,
    };
    feed._held = this.#restoreHeld(from.held, state);
    feed._hydrated = from.hydrated;
    feed._unacknowledged = new Map();
    for (const index of indexesIn(from.unacknowledged)) {
      const id = entryIdOf(index + 1);
      feed._unacknowledged.set(id.toString('hex'), id);
    }
    return feed;
  }

  /** Writes the feed into the state. */
  save(feed: ExposedFeed, state: State, present: Present): void {
    const { _lease: lease, _rises: rises, _held: held } = feed;
    const differenceMs = present.wallMs - present.monotonicMs;
    const sumMs = rises._endedMs + rises._riseMs;
    let unacknowledged = 0;
    for (const id of feed._unacknowledged.values()) unacknowledged |= 1 << (entryIndexOf(id) - 1);
    state.feed = {
      epoch: epochIndexOf(feed._epoch),
      sequence: Number(feed._applied),
      entry: entryIndexOf(feed._entryIdAtApplied),
      keys: keysIndexOf(feed._keySetVersion),
      horizon: this.#entries.entryOfHorizon(state, feed._horizonMs, present),
      lastRank: state.feed.lastRank,
      lease: lease && {
        ...this.#agesOf(lease.sentAt, present),
        rises: Math.min(this.#world.lease, ticks(sumMs - lease.risesMs)),
        length: lease.lengthMs / TICK_MS,
      },
      clocks: Number.isFinite(rises._lowestMs)
        ? {
            lowest: ticks(rises._lowestMs - differenceMs),
            highest: ticks(rises._highestMs - differenceMs),
            rise: ticks(rises._riseMs),
          }
        : undefined,
      hydrated: feed._hydrated,
      unacknowledged,
      held: {
        position: held._position,
        heldTo: held._heldTo,
        entries: entriesIn(held),
        digest: entriesInDigest(held._digest),
      },
      list: this.#saveList(feed._list, state, present),
      staged: feed._staged && this.#saveList(feed._staged, state, present),
    };
  }

  /** Whether the last response that the feed has taken is the one to this request. */
  isLast(feed: ExposedFeed, sentAt: Moment): boolean {
    return feed._lastAppliedMonotonicMs === sentAt.monotonicMs;
  }

  /** The ticket of an open request. */
  ticketOf(question: Question, feed: ExposedFeed, present: Present): SyncTicket {
    const { _rises: rises } = feed;
    return {
      sentAt: momentOf(question, present, question.rank),
      list: question.ofList ? feed.list : this.#otherList,
      risesMs: rises._endedMs + rises._riseMs - question.rises * TICK_MS,
      request: {
        service: SERVICE,
        instance: INSTANCE,
        epoch: epochIdOf(question.at.epoch),
        applied: BigInt(question.at.sequence),
        entryIdAtApplied: entryIdOf(question.at.entry),
        keySetVersion: keysIdOf(question.keys),
        seen: indexesIn(question.seen).map((index) => entryIdOf(index + 1)),
        kinds: [],
        claimIds: [],
        description: undefined,
        leaving: false,
        fences: [],
        heldTo: BigInt(question.heldTo),
        heldDigest: digestOf(question.digest),
      },
    };
  }

  /** An open request, with what it has in common with the feed as it is now. */
  refreshed(question: Question, ticket: SyncTicket, feed: ExposedFeed, present: Present): Question {
    const { _rises: rises } = feed;
    return {
      ...question,
      ...this.#agesOf(ticket.sentAt, present),
      ofList: ticket.list === feed.list,
      rises: Math.min(this.#world.lease, ticks(rises._endedMs + rises._riseMs - ticket.risesMs)),
    };
  }

  #agesOf(sentAt: Moment, present: Present): Pick<Lease, 'monotonic' | 'wall'> {
    return {
      monotonic: Math.min(this.#monotonicMax, ticks(present.monotonicMs - sentAt.monotonicMs)),
      wall: Math.min(this.#wallMax, ticks(present.wallMs - sentAt.wallMs)),
    };
  }

  #restoreHeld(from: Held, state: State): ExposedHeld {
    const held = new this.#protocol.HeldEntries();
    held._position = from.position;
    held._heldTo = from.heldTo;
    held._digest.fill(from.digest);
    for (const index of indexesIn(from.entries)) {
      const sequence = state.entries[index]?.sequence ?? 0;
      const slot = sequence % held._sequences.length;
      held._sequences[slot] = sequence;
      held._ids.set(entryIdOf(index + 1), slot * ID_BYTES);
    }
    return held;
  }

  #restoreList(from: List, state: State, present: Present): ExposedList {
    const { RevocationList, IdTable } = this.#protocol;
    const list = new RevocationList(this.#world.listMax);
    for (const index of indexesIn(from.tokens)) {
      const span = Math.ceil(this.#entries.keepUntilMs(state, index, present) / TICK_MS);
      const table = list._tokens.get(span) ?? new IdTable();
      list._tokens.set(span, table);
      const word = wordOf(index);
      table.add(word, word, word, word);
      list._packed += 1;
    }
    if (from.floor > 0) {
      const keepUntilMs = this.#entries.keepUntilMs(state, from.floorKeep - 1, present);
      list._users.set(USER, { minGeneration: BigInt(from.floor), keepUntilMs });
    }
    for (const index of indexesIn(from.keys)) {
      const kid = this.#entries.keyTextOf(state, index);
      list._keys.set(kid, this.#entries.keepUntilMs(state, index, present));
    }
    for (const index of indexesIn(from.foreign)) {
      if (this.#entries.kindOf(state, index) === 'CLAIM') {
        this.#entries.addClaim(list._foreignClaims, state, index, present);
        continue;
      }
      list._foreignIds.set(
        this.#entries.foreignKeyOf(index),
        this.#entries.keepUntilMs(state, index, present),
      );
    }
    return list;
  }

  #saveList(list: ExposedList, state: State, present: Present): List {
    let [tokens, keys, foreign] = [0, 0, 0];
    for (const [span, table] of list._tokens) {
      let count = 0;
      for (let index = 0; index < state.entries.length; index += 1) {
        const word = wordOf(index);
        if (!table.has(word, word, word, word)) continue;
        const keepUntilMs = this.#entries.keepUntilMs(state, index, present);
        if (Math.ceil(keepUntilMs / TICK_MS) !== span)
          throw new RangeError('an entry is in the table of another span');
        tokens |= 1 << index;
        count += 1;
      }
      if (count !== table.size) throw new RangeError('the list contains a token that was never revoked');
    }
    for (let index = 0; index < state.entries.length; index += 1) {
      if (list._keys.has(this.#entries.keyTextOf(state, index))) keys |= 1 << index;
      const isListed =
        list._foreignIds.has(this.#entries.foreignKeyOf(index)) ||
        this.#entries.hasClaim(list._foreignClaims, index);
      if (isListed) foreign |= 1 << index;
    }
    const floor = list._users.get(USER);
    return {
      tokens,
      keys,
      foreign,
      floor: floor === undefined ? 0 : Number(floor.minGeneration),
      floorKeep: floor === undefined ? 0 : this.#entries.entryOfHorizon(state, floor.keepUntilMs, present),
    };
  }
}

/** The entries whose ids are remembered. What was remembered of those up to the position is over. */
function entriesIn(held: ExposedHeld): number {
  let bits = 0;
  for (const [slot, sequence] of held._sequences.entries()) {
    if (sequence > held._position) bits |= held._ids[slot * ID_BYTES] ?? 0;
  }
  return bits;
}

/** Any use of a list that is no longer the feed's would be a dependency that the state does not contain. */
function forbiddenList(protocol: Protocol): RevocationList {
  return new Proxy(new protocol.RevocationList(), {
    get: () => {
      throw new TypeError('the feed looks into a list that is over');
    },
  });
}

/** Between the requests that were sent before the last applied one and those that were sent after it. */
function lastAppliedMs({ feed, questions }: State, present: Present): number {
  if (feed.lastRank === 0) return Number.NEGATIVE_INFINITY;
  let lastMs = present.monotonicMs - 1000 * TICK_MS;
  for (const question of questions) {
    if (question.rank > feed.lastRank) continue;
    const sentMs = momentOf(question, present, question.rank).monotonicMs;
    lastMs = Math.max(lastMs, question.rank === feed.lastRank ? sentMs : sentMs + 0.5);
  }
  return lastMs;
}

function momentOf(ages: Pick<Lease, 'monotonic' | 'wall'>, present: Present, rank: number): Moment {
  return {
    monotonicMs: present.monotonicMs - ages.monotonic * TICK_MS + rank,
    wallMs: present.wallMs - ages.wall * TICK_MS + rank,
  };
}

function ticks(ms: number): number {
  // Requests of one tick differ by a millisecond each. Adding zero turns −0 into 0.
  return Math.round(ms / TICK_MS) + 0;
}
