/** What the events of a world do: the protocol's own code, called from a state and saved into one. */

import { questionOf } from '../../services/auth/adapters/revocation-messages.js';
import { DatabaseModel } from './database.js';
import { Entries } from './entries.js';
import { type EventCode, type EventKind, eventOf, possibleEvents } from './events.js';
import type { Environment } from './guards.js';
import {
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
import { Packing } from './packing.js';
import type { Protocol } from './protocol.js';
import { REPLICAS, ReceiptsModel } from './receipts-model.js';
import { type Answer, bitsOf, type Entry, FAULTS, indexesIn, newFeed, type State } from './state.js';
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
      tail: world.tail === true ? { epoch: 0, entries: 0 } : undefined,
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
        return this.#read(state, number, { old: false, notes: true });
      case 'read-without-note':
        return this.#read(state, number, { old: false, notes: false });
      case 'read-with-tail':
        return this.#read(state, number, { old: false, notes: true, tail: true });
      case 'verify':
        return this.instance.verify(state, number);
      case 'restart-auth':
        if (state.tail !== undefined) state.tail = { epoch: 0, entries: 0 };
        return 'auth starts again';
      case 'read-old':
        return this.#read(state, number, { old: true, notes: false });
      case 'answer':
        return this.instance.answer(state, number);
      case 'lose':
        state.questions.splice(number, 1);
        return `request ${number + 1} or its response is lost`;
      case 'broadcast':
        return this.instance.broadcast(state, number);
      case 'begin-pull':
        return this.instance.beginPull(state);
      case 'read-pull':
      case 'read-old-pull':
        return this.#readPull(state, kind === 'read-old-pull');
      case 'end-pull':
        return this.instance.endPull(state, true);
      case 'break-pull':
        return this.instance.endPull(state, false);
      default:
        return this.#applyReceipt(state, kind, number);
    }
  }

  #applyReceipt(state: State, kind: EventKind, number: number): string {
    const { receipts } = state;
    if (receipts === undefined) throw new RangeError(`there is no event ${kind}`);
    switch (kind) {
      case 'arrive': {
        const replica = number % REPLICAS;
        const question = Math.floor(number / REPLICAS);
        this.receipts.arrive(state, receipts, question, replica);
        return `request ${question + 1} arrives at replica ${replica + 1} of auth`;
      }
      case 'commit-and-wait': {
        const text = this.#commit(state);
        this.receipts.watch(state, receipts, state.entries.length - 1, number);
        return `${text}, and waits at replica ${number + 1}`;
      }
      case 'share':
        this.receipts.share(receipts, number);
        return `replica ${number + 1} shares its record of the instance`;
      case 'read-others':
        this.receipts.readOthers(state, receipts);
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
    const { database, copy, entries, epochs } = state;
    const { back = 0, keep } = this.world;
    const later = (value: number): number => Math.max(0, value - 1);
    for (const entry of entries) {
      if (keep !== undefined) entry.age += 1;
      entry.dueIn = later(entry.dueIn);
    }
    // By then its token has expired on every clock, so only the order of older entries counts.
    if (keep !== undefined) compressAges(entries, keep + 1 + back);
    for (const epoch of epochs) {
      epoch.dueIn = later(epoch.dueIn);
      epoch.lossDueIn = later(epoch.lossDueIn);
    }
    for (const each of [database, copy])
      if (each !== undefined) each.olderLeasesEndIn = later(each.olderLeasesEndIn);
    this.instance.pass(state, { asleep });
    if (state.receipts !== undefined) this.receipts.pass(state, state.receipts);
  }

  #commit(state: State): string {
    const index = this.database.commit(state, this.instance.present(state));
    const { sequence, epoch } = state.entries[index] ?? { sequence: 0, epoch: 0 };
    const kind = this.entries.kindOf(state, index).toLowerCase();
    return `Revoke commits entry ${entryName(index)} (${kind}) at ${sequence} of epoch ${epochName(epoch)}`;
  }

  #read(state: State, number: number, how: { old: boolean; notes: boolean; tail?: boolean }): string {
    const question = questionAt(state, number);
    const database = how.old ? (state.copy ?? state.database) : state.database;
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
      fences: [],
    });
    const reading = this.database.read(state, { database, usesTail: how.tail === true }, asked, present);
    const from = how.old
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
      question.answer = answer;
      if (state.receipts !== undefined && question.arrival !== undefined) {
        this.receipts.answered(state, state.receipts, asked, question.arrival, result);
      }
      return `auth reads ${from} for request ${number + 1}: ${answerText(answer)}`;
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'LOG_CHANGED')) throw error;
      state.questions.splice(number, 1);
      if ((this.world.restores ?? 0) === 0) state.faults |= FAULTS.falseAlarm;
      const lost = newlyLost(reading, asked);
      if (lost !== undefined && how.notes)
        noteLost(state, question.at.epoch - 1, epochIndexOf(lost.foundUnder) - 1);
      return `auth reads ${from} for request ${number + 1}: LOG_CHANGED${lost === undefined || how.notes ? '' : ', and fails to note the loss'}`;
    }
  }

  #readPull(state: State, isOld: boolean): string {
    const database = isOld ? (state.copy ?? state.database) : state.database;
    const rows = this.database.rowsOfEpoch(state, database);
    state.pull = { epoch: database.epoch + 1, sequence: database.head, entry: database.headEntry, rows };
    return `auth reads ${isOld ? 'an old state of the list' : 'the list'} for the pull: ${positionText(state.pull)}, ${entriesText(rows)}`;
  }
}

/** Written in a transaction of its own, while the epoch under which the loss was found is still the present one. */
function noteLost({ database }: State, epoch: number, foundUnder: number): void {
  if (database.epoch !== foundUnder || (database.epochRows & (1 << epoch)) !== 0) return;
  if (database.foundUnder[epoch] === 0) database.foundUnder[epoch] = foundUnder + 1;
}

/** Ages from a limit on become the limit, the limit plus one … in their order. */
function compressAges(entries: readonly Entry[], limit: number): void {
  const ages = [...new Set(entries.map(({ age }) => age))].filter((age) => age >= limit);
  ages.sort((left, right) => left - right);
  for (const entry of entries) if (entry.age >= limit) entry.age = limit + ages.indexOf(entry.age);
}
