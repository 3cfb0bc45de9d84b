/** The database of auth as far as the protocol needs it: what its statements do to the log, in a state. */

import type { LogEntry } from '../../services/auth/records/revocations.js';
import type { Entries } from './entries.js';
import type { Environment } from './guards.js';
import {
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  keysIdOf,
  type Present,
  TICK_MS,
} from './identifiers.js';
import type { ExposedTail, Protocol } from './protocol.js';
import { bitsOf, type Database, indexesIn, type PastDatabase, type State } from './state.js';
import { isOfOtherIssuer, type World } from './world.js';

type Log = Protocol['log'];
type LogReading = Parameters<Log['syncResultFor']>[0];
type SyncPosition = Parameters<Log['syncResultFor']>[1];
type LiveSet = Parameters<Log['partsOf']>[0];

/** The statements of auth. */
export class DatabaseModel {
  readonly #world: World;
  readonly #protocol: Protocol;
  readonly #entries: Entries;

  readonly #environment: Environment;

  constructor(world: World, protocol: Protocol, entries: Entries, environment: Environment) {
    this.#environment = environment;
    this.#world = world;
    this.#protocol = protocol;
    this.#entries = entries;
  }

  initial(): Database {
    return {
      epoch: 0,
      head: 0,
      headEntry: 0,
      rows: 0,
      keys: 0,
      horizon: 0,
      epochRows: 1,
      foundUnder: Array.from({ length: 1 + (this.#world.epochs ?? 0) }, () => 0),
      generation: 1,
      lease: this.#world.lease,
      olderLease: 0,
      olderLeasesEndIn: 0,
    };
  }

  /** Appends an entry of the next kind. */
  commit(state: State, present: Present): number {
    this.#remember(state);
    const { database } = state;
    const index = state.entries.length;
    const kind = this.#entries.nextKind(state);
    const generation = database.generation + (kind === 'USER' ? 1 : 0);
    const entry = {
      epoch: database.epoch,
      sequence: database.head + 1,
      target: index,
      value: kind === 'USER' ? generation : (state.keys[database.keys]?.signer ?? 0),
      age: 0,
    };
    state.entries = [...state.entries, entry];
    state.dues = [...state.dues, { dueIn: this.#dueIn(state, present), lost: false }];
    // In the same transaction the key leaves the key set, and another one signs.
    const keys = kind === 'KEY' ? addKeys(state, database.epoch, state.keys.length) : database.keys;
    state.database = append({ ...database, generation, keys }, index);
    this.#entries.keptUntilMs?.push(present.databaseMs + (this.#world.keep ?? 0) * TICK_MS);
    return index;
  }

  openEpoch(state: State, present: Present): void {
    this.#remember(state);
    const { entries } = state;
    const former = state.database.epoch;
    const epoch = state.epochs.length;
    state.epochs = [...state.epochs, { dueIn: this.#dueIn(state, present), lost: 0, lossDueIn: 0 }];
    let database: Database = {
      ...state.database,
      epoch,
      epochRows: state.database.epochRows | (1 << epoch),
      head: 0,
      headEntry: 0,
      keys: addKeys(state, epoch, state.keys.length),
    };
    for (const [index, entry] of entries.entries()) {
      const isCarried =
        entry.epoch === former &&
        (database.rows & (1 << index)) !== 0 &&
        isOfOtherIssuer(this.#entries.kindOf(state, index)) &&
        this.#entries.keepUntilMs(state, index, present) > present.databaseMs;
      if (!isCarried) continue;
      const { dueIn = 0, lost = false } = state.dues[index] ?? {};
      state.entries = [...state.entries, { ...entry, epoch, sequence: database.head + 1 }];
      state.dues = [...state.dues, { dueIn, lost }];
      database = append(database, state.entries.length - 1);
      this.#entries.keptUntilMs?.push(0);
    }
    state.database = database;
  }

  /** The key set changes, and the key that signs stays. */
  changeKeys(state: State): void {
    this.#remember(state);
    const { epoch, keys } = state.database;
    const signer = state.keys[keys]?.signer ?? 0;
    state.database = { ...state.database, keys: addKeys(state, epoch, signer) };
  }

  /** The rows that may be dropped now. */
  expired(state: State): number {
    const { keep } = this.#world;
    let bits = 0;
    if (keep === undefined) return bits;
    for (const [index, { target }] of state.entries.entries()) {
      if ((state.entries[target]?.age ?? 0) >= (this.#environment.earlyPurge === true ? 1 : keep))
        bits |= 1 << index;
    }
    return bits & state.database.rows;
  }

  purge(state: State, present: Present): void {
    const dropped = this.expired(state);
    const database = { ...state.database, rows: state.database.rows & ~dropped };
    state.database = database;
    if (this.#environment.earlyPurge === true) return;
    let horizonMs = this.#entries.horizonMs(state, database.horizon, present);
    for (let index = 0; index < state.entries.length; index += 1) {
      if ((dropped & (1 << index)) === 0) continue;
      horizonMs = Math.max(horizonMs, this.#entries.keepUntilMs(state, index, present));
    }
    state.database = { ...database, horizon: this.#entries.entryOfHorizon(state, horizonMs, present) };
  }

  /** Before a change: a backup may have the present state, and in some worlds another server may keep it. */
  #remember(state: State): void {
    const { database, entries, epochs } = state;
    if (state.restoresLeft === 0 && this.#world.oldStates !== true) return;
    state.past = [...state.past, { ...database, entries: entries.length, epochs: epochs.length }];
  }

  /** The database returns to a former state; what was committed since is lost. */
  restore(state: State, number: number): void {
    const { entries, epochs, ...database } = pastOf(state, number);
    state.database = database;
    state.restoresLeft -= 1;
    state.past = state.restoresLeft > 0 ? state.past.slice(0, number) : [];
    state.dues = state.dues.map((due, index) => (index < entries ? due : { ...due, lost: true }));
    const lost = state.epochs.length + 1;
    state.epochs = state.epochs.map((epoch, index) =>
      index < epochs || epoch.lost > 0 ? epoch : { ...epoch, lost, lossDueIn: this.#world.lease },
    );
  }

  /** What auth reads for one request. */
  read(
    state: State,
    from: { readonly database: Database; readonly usesTail: boolean },
    question: SyncPosition,
    present: Present,
  ): LogReading {
    const { database } = from;
    const logState = {
      ...this.#headOf(database),
      horizon: new Date(this.#entries.horizonMs(state, database.horizon, present)),
      leaseMs: database.lease * TICK_MS,
      epochNumber: BigInt(database.epoch + 1),
      fenceWanted: 0n,
    };
    const { entriesNeededAfter, rangesToCompare, sequencesToCompare, otherEpochs } = this.#protocol.log;
    const wanted = {
      after: entriesNeededAfter(logState, [question]),
      ranges: rangesToCompare(logState, [question]),
    };
    const places = sequencesToCompare(logState, [question]);
    const rows = this.#rowsOf(state, database, present);
    const reader = {
      state: logState,
      entriesAfter: (start: bigint) => rows.filter(({ sequence }) => sequence > start),
      idsAfter: (start: bigint) => rows.filter(({ sequence }) => sequence > start),
    };
    const { entries, digests } = from.usesTail
      ? this.#readTail(state, reader, wanted, present)
      : new this.#protocol.LogTail().read(reader, wanted);
    const entryIds = new Map<bigint, Buffer>();
    // What is remembered comes first, as in the code.
    for (const { sequence, entryId } of [...rows, ...entries]) {
      if (places.includes(sequence)) entryIds.set(sequence, entryId);
    }
    const known = new Map<string, 'OVER' | 'LOST'>();
    for (const epoch of otherEpochs(logState, [question])) {
      const index = epochIndexOf(epoch) - 1;
      const under = database.foundUnder[index] ?? 0;
      if (under > 0) known.set(epoch.toString('hex'), under - 1 === database.epoch ? 'LOST' : 'OVER');
      else if ((database.epochRows & (1 << index)) !== 0) known.set(epoch.toString('hex'), 'OVER');
    }
    const keys = { keySet: { version: keysIdOf(database.keys + 1), keys: [] }, broadcastKeys: [] };
    return { state: logState, keys, entries, entryIds, digests, otherEpochs: known };
  }

  #readTail(
    state: State,
    reader: Parameters<ExposedTail['read']>[0],
    wanted: Parameters<ExposedTail['read']>[1],
    present: Present,
  ): ReturnType<ExposedTail['read']> {
    const { LogTail, IdDigests } = this.#protocol;
    const tail = new LogTail();
    const known = state.tail ?? { epoch: 0, from: 0, entries: 0 };
    tail._epoch = epochIdOf(known.epoch);
    tail._from = BigInt(known.from);
    tail._entries = this.#entriesIn(state, known.entries, present);
    tail._ids = new IdDigests(tail._from);
    tail._ids.append(tail._entries);
    const reading = tail.read(reader, wanted);
    if (tail._ids._length !== tail._entries.length) throw new RangeError('the tail has ids of other entries');
    state.tail = {
      epoch: epochIndexOf(tail._epoch),
      from: Number(tail._from),
      entries: bitsOf(tail._entries.map(({ entryId }) => entryIndexOf(entryId) - 1)),
    };
    return reading;
  }

  /** Everything that a pull returns. */
  readLive(
    state: State,
    rows: number,
    at: { epoch: number; sequence: number; entry: number },
    present: Present,
  ): LiveSet {
    const packed: { kind: 'TOKEN'; keepUntil: Date; ids: Buffer }[] = [];
    const entries: LogEntry[] = [];
    for (let index = 0; index < state.entries.length; index += 1) {
      if ((rows & (1 << index)) === 0) continue;
      const entry = this.#entries.logEntryOf(state, index, present);
      if (entry.kind === 'TOKEN' && entry.issuer === '') {
        packed.push({ kind: 'TOKEN', keepUntil: entry.keepUntil, ids: entry.key });
      } else entries.push(entry);
    }
    return {
      epoch: epochIdOf(at.epoch),
      head: BigInt(at.sequence),
      headEntryId: entryIdOf(at.entry),
      packed,
      entries,
    };
  }

  /** The rows of the present epoch. */
  rowsOfEpoch(state: State, database: Database): number {
    let bits = 0;
    for (const [index, { epoch }] of state.entries.entries())
      if (epoch === database.epoch) bits |= 1 << index;
    return bits & database.rows;
  }

  #rowsOf(state: State, database: Database, present: Present): LogEntry[] {
    return this.#entriesIn(state, this.rowsOfEpoch(state, database), present);
  }

  #entriesIn(state: State, bits: number, present: Present): LogEntry[] {
    const entries = indexesIn(bits).map((index) => this.#entries.logEntryOf(state, index, present));
    return entries.sort((left, right) => Number(left.sequence - right.sequence));
  }

  #headOf(database: Database): { epoch: Buffer; head: bigint; headEntryId: Buffer } {
    return {
      epoch: epochIdOf(database.epoch + 1),
      head: BigInt(database.head),
      headEntryId: entryIdOf(database.headEntry),
    };
  }

  /** In how many ticks no instance may admit what is committed now. */
  #dueIn({ database }: State, present: Present): number {
    const by = this.#protocol.log.enforcedEverywhereBy(
      {
        lockedTime: new Date(present.databaseMs),
        leaseMs: Math.max(database.lease, database.olderLease) * TICK_MS,
        olderLeasesEndBy: new Date(present.databaseMs + database.olderLeasesEndIn * TICK_MS),
      },
      0,
    );
    // The bound allows for inaccurate clocks; these are accurate.
    return Math.floor((by.getTime() - present.databaseMs) / TICK_MS);
  }
}

/** @throws RangeError when there is no such former state */
export function pastOf({ past }: State, number: number): PastDatabase {
  const former = past[number];
  if (former === undefined) throw new RangeError(`there is no former state ${number} of the database`);
  return former;
}

function append(database: Database, index: number): Database {
  return {
    ...database,
    head: database.head + 1,
    headEntry: index + 1,
    rows: database.rows | (1 << index),
  };
}

/** Adds a version of the key set. @returns its number */
function addKeys(state: State, epoch: number, signer: number): number {
  state.keys = [...state.keys, { epoch, signer }];
  return state.keys.length - 1;
}
