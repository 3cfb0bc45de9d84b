/** What the events of a world do: the protocol's own code, called from a state and saved into one. */

import { questionOf } from '../../services/auth/adapters/revocation-messages.js';
import { DatabaseModel, pastOf } from './database.js';
import { Entries } from './entries.js';
import { type EventCode, type EventKind, eventOf, PAST_MAX, possibleEvents } from './events.js';
import type { Environment } from './guards.js';
import {
  digestOf,
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  INSTANCE,
  keysIdOf,
  keysIndexOf,
  SERVICE,
  TICK_MS,
} from './identifiers.js';
import { InstanceModel, questionAt } from './instance-model.js';
import { Memo } from './memo.js';
import { Packing } from './packing.js';
import type { Protocol } from './protocol.js';
import { REPLICAS, ReceiptsModel } from './receipts-model.js';
import {
  type Answer,
  bitsOf,
  type Database,
  type Entry,
  FAULTS,
  indexesIn,
  newFeed,
  type State,
} from './state.js';
import { answerText, entriesText, entryName, epochName, positionText } from './wording.js';
import type { World } from './world.js';

/** One world, with its guards or without one of them. */
export class Model {
  readonly world: World;
  readonly protocol: Protocol;
  readonly packing: Packing;
  readonly entries: Entries;
  readonly database: DatabaseModel;
  readonly instance: InstanceModel;
  readonly receipts: ReceiptsModel;
  readonly environment: Environment;
  readonly #memo: Memo;

  constructor(protocol: Protocol, world: World, environment: Environment = {}) {
    this.protocol = protocol;
    this.world = world;
    this.packing = new Packing(world);
    this.entries = new Entries(world, (issuer, text) => protocol.foreignKey(1, issuer, text));
    this.database = new DatabaseModel(world, protocol, this.entries, environment);
    this.instance = new InstanceModel({
      protocol,
      world,
      environment,
      entries: this.entries,
      database: this.database,
    });
    this.environment = environment;
    this.receipts = new ReceiptsModel(protocol, world, environment);
    this.#memo = new Memo(world, this.packing, (state, code) => {
      this.apply(state, code);
    });
  }

  /** Nothing has happened yet. */
  initial(): State {
    const { world } = this;
    return {
      database: this.database.initial(),
      past: [],
      restoresLeft: world.restores ?? 0,
      entries: [],
      dues: [],
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
      tail: world.tail === true ? { epoch: 0, from: 0, entries: 0 } : undefined,
      cached: 0,
      flagged: 0,
      faults: 0,
      receipts: world.receipts !== undefined ? this.receipts.initial() : undefined,
    };
  }

  /** The events that can happen in a state. */
  events(state: State): EventCode[] {
    return possibleEvents(state, {
      world: this.world,
      environment: this.environment,
      expired: this.database.expired(state),
      keyChangesLeft: this.#keyChangesLeft(state),
      verifiable: this.instance.cache?.verifiable(state) ?? [],
    });
  }

  /** The next steps begin at copies of another state. */
  beginSteps(): void {
    this.#memo.begin();
  }

  /** Lets an event happen, or remembers what an equal one has done. */
  step(state: State, code: EventCode): void {
    this.#memo.apply(state, code);
  }

  /** Lets an event happen. @returns what happened, in words; for a replay */
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
        this.instance.setClock(state, 1);
        return 'the wall clock of the instance is set forward by a tick';
      case 'clock-back':
        state.backLeft -= 1;
        return this.instance.setBack(state);
      case 'look':
        return this.instance.look(state);
      case 'commit':
        return this.#commit(state);
      case 'open-epoch':
        this.database.openEpoch(state, this.instance.present(state));
        return `epoch ${epochName(state.database.epoch)} is opened`;
      case 'change-keys':
        this.database.changeKeys(state);
        return `the key set changes to version ${state.database.keys}; every token stays valid`;
      case 'purge':
        this.database.purge(state, this.instance.present(state));
        return 'auth drops the entries that have expired, and raises the horizon';
      case 'restore':
        this.database.restore(state, number);
        return `the database is restored: epoch ${epochName(state.database.epoch)}, head ${state.database.head}`;
      case 'shorten-lease':
        state.database = {
          ...state.database,
          olderLease: Math.max(state.database.lease, state.database.olderLease),
          lease: this.world.shorterLease ?? this.world.lease,
        };
        return `leases are set to ${state.database.lease} ticks`;
      case 'date-older-leases':
        state.database = {
          ...state.database,
          olderLeasesEndIn: Math.max(state.database.olderLeasesEndIn, state.database.olderLease),
          olderLease: 0,
        };
        return 'auth notes when the last longer lease ends';
      case 'crash':
        return this.instance.crash(state);
      default:
        return this.#applyMessage(state, kind, number);
    }
  }

  #applyMessage(state: State, kind: EventKind, number: number): string {
    switch (kind) {
      case 'ask':
        return this.instance.ask(state);
      case 'read':
        return this.#read(state, number, { notes: true });
      case 'read-without-note':
        return this.#read(state, number, { notes: false });
      case 'read-with-tail':
        return this.#read(state, number, { notes: true, tail: true });
      case 'verify':
        return this.instance.verify(state, number);
      case 'restart-auth':
        if (state.tail !== undefined) state.tail = { epoch: 0, from: 0, entries: 0 };
        return 'auth starts again';
      case 'read-old':
        return this.#read(state, Math.floor(number / PAST_MAX), { old: number % PAST_MAX, notes: false });
      case 'answer':
        return this.instance.answer(state, number);
      case 'lose':
        state.questions = state.questions.toSpliced(number, 1);
        return `request ${number + 1} or its response is lost`;
      case 'broadcast':
        return this.instance.broadcast(state, number);
      case 'begin-pull':
        return this.instance.beginPull(state);
      case 'read-pull':
        return this.#readPull(state, undefined);
      case 'read-old-pull':
        return this.#readPull(state, number);
      case 'end-pull':
        return this.instance.endPull(state, true);
      case 'break-pull':
        return this.instance.endPull(state, false);
      default:
        return this.#applyReceipt(state, kind, number);
    }
  }

  #applyReceipt(state: State, kind: EventKind, number: number): string {
    switch (kind) {
      case 'arrive': {
        const replica = number % REPLICAS;
        const question = Math.floor(number / REPLICAS);
        this.receipts.arrive(state, question, replica);
        return `request ${question + 1} arrives at replica ${replica + 1} of auth`;
      }
      case 'commit-and-wait': {
        const text = this.#commit(state);
        this.receipts.watch(state, state.entries.length - 1, number);
        return `${text}, and waits at replica ${number + 1}`;
      }
      case 'share':
        this.receipts.share(state, number);
        return `replica ${number + 1} shares its record of the instance`;
      case 'read-others':
        this.receipts.readOthers(state);
        return 'the waiting call reads the record of the other replica';
      default:
        throw new RangeError(`there is no event ${kind}`);
    }
  }

  #keyChangesLeft(state: State): number {
    const revoked = state.entries.filter((_, index) => this.entries.kindOf(state, index) === 'KEY').length;
    return (this.world.keyChanges ?? 0) - (state.keys.length - state.epochs.length - revoked);
  }

  /** Time passes. A sleeping machine's monotonic clock stands still. */
  #pass(state: State, { asleep }: { asleep: boolean }): void {
    const { back = 0, keep } = this.world;
    // By then its token has expired on every clock, so only the order of older entries counts.
    if (keep !== undefined && state.entries.length > 0) {
      state.entries = withAges(state.entries, keep + 1 + back);
    }
    if (state.dues.some(({ dueIn }) => dueIn > 0)) {
      state.dues = state.dues.map((due) => ({ ...due, dueIn: later(due.dueIn) }));
    }
    if (state.epochs.some(({ dueIn, lossDueIn }) => dueIn + lossDueIn > 0)) {
      state.epochs = state.epochs.map((epoch) => ({
        ...epoch,
        dueIn: later(epoch.dueIn),
        lossDueIn: later(epoch.lossDueIn),
      }));
    }
    state.database = withOlderLeases(state.database);
    state.past = state.past.some(({ olderLeasesEndIn }) => olderLeasesEndIn > 0)
      ? state.past.map(withOlderLeases)
      : state.past;
    this.instance.pass(state, { asleep });
    this.receipts.pass(state);
  }

  #commit(state: State): string {
    const index = this.database.commit(state, this.instance.present(state));
    const { sequence, epoch } = state.entries[index] ?? { sequence: 0, epoch: 0 };
    const kind = this.entries.kindOf(state, index).toLowerCase();
    return `Revoke commits entry ${entryName(index)} (${kind}) at ${sequence} of epoch ${epochName(epoch)}`;
  }

  #read(state: State, number: number, how: { old?: number; notes: boolean; tail?: boolean }): string {
    const question = questionAt(state, number);
    const database = how.old === undefined ? state.database : pastOf(state, how.old);
    const { syncResultFor, newlyLost } = this.protocol.log;
    const present = this.instance.present(state);
    const asked = questionOf({
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
    });
    const reading = this.database.read(state, { database, usesTail: how.tail === true }, asked, present);
    const from =
      how.old !== undefined
        ? 'an old state of the log'
        : how.tail === true
          ? 'the log after what it remembers'
          : 'the log';
    try {
      const result = syncResultFor(reading, asked);
      const answer: Answer = {
        epoch: epochIndexOf(result.epoch),
        sequence: Number(result.head),
        entry: entryIndexOf(result.headEntryId),
        entries: bitsOf(result.entries.map(({ entryId }) => entryIndexOf(entryId) - 1)),
        pull: result.pull,
        keysRead: database.keys + 1,
        keys: result.keySet === undefined ? 0 : keysIndexOf(result.keySet.version),
        horizon: database.horizon,
        lease: result.leaseMs / TICK_MS,
      };
      const isLost = question.at.entry > 0 && state.dues[question.at.entry - 1]?.lost === true;
      if (isLost && question.at.epoch === answer.epoch) state.faults |= FAULTS.noAlarm;
      state.questions = state.questions.with(number, { ...question, answer });
      if (question.arrival !== undefined) this.receipts.answered(state, asked, question.arrival, result);
      return `auth reads ${from} for request ${number + 1}: ${answerText(answer)}`;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'LOG_CHANGED')) throw error;
      state.questions = state.questions.toSpliced(number, 1);
      if ((this.world.restores ?? 0) === 0) state.faults |= FAULTS.falseAlarm;
      const lost = newlyLost(reading, asked);
      if (lost !== undefined && how.notes)
        noteLost(state, question.at.epoch - 1, epochIndexOf(lost.foundUnder) - 1);
      return `auth reads ${from} for request ${number + 1}: LOG_CHANGED${lost === undefined || how.notes ? '' : ', and fails to note the loss'}`;
    }
  }

  #readPull(state: State, old: number | undefined): string {
    const database = old === undefined ? state.database : pastOf(state, old);
    const rows = this.database.rowsOfEpoch(state, database);
    state.pull = { epoch: database.epoch + 1, sequence: database.head, entry: database.headEntry, rows };
    return `auth reads ${old !== undefined ? 'an old state of the list' : 'the list'} for the pull: ${positionText(state.pull)}, ${entriesText(rows)}`;
  }
}

/** Written in a transaction of its own, while the epoch under which the loss was found is still the present one. */
function noteLost(state: State, epoch: number, foundUnder: number): void {
  const { database } = state;
  if (database.epoch !== foundUnder || (database.epochRows & (1 << epoch)) !== 0) return;
  if (database.foundUnder[epoch] !== 0) return;
  state.database = { ...database, foundUnder: database.foundUnder.with(epoch, foundUnder + 1) };
}

/** A tick less, and not less than 0. */
function later(ticksLeft: number): number {
  return Math.max(0, ticksLeft - 1);
}

function withOlderLeases<T extends Database>(database: T): T {
  if (database.olderLeasesEndIn === 0) return database;
  return { ...database, olderLeasesEndIn: later(database.olderLeasesEndIn) };
}

/** Entries a tick later. Ages from a limit on become the limit, the limit plus one … in their order. */
function withAges(entries: readonly Entry[], limit: number): Entry[] {
  const older = entries.map(({ age }) => age + 1);
  const ages = [...new Set(older)].filter((age) => age >= limit);
  ages.sort((left, right) => left - right);
  return entries.map((entry, index) => {
    const age = older[index] ?? 0;
    return { ...entry, age: age < limit ? age : limit + ages.indexOf(age) };
  });
}
