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
import { bitsOf, type Copy, type Database, indexesIn, type State } from './state.js';
import type { World } from './world.js';

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
    const { database, entries } = state;
    const index = entries.length;
    const entry = {
      epoch: database.epoch,
      sequence: database.head + 1,
      target: index,
      value: state.keys[database.keys]?.signer ?? 0,
      age: 0,
      dueIn: this.#dueIn(state, present),
      lost: false,
    };
    entries.push(entry);
    const kind = this.#entries.kindOf(state, index);
    if (kind === 'USER') {
      database.generation += 1;
      entry.value = database.generation;
    }
    if (kind === 'KEY') {
      // In the same transaction the key leaves the key set, and another one signs.
      state.keys.push({ epoch: database.epoch, signer: state.keys.length });
      database.keys = state.keys.length - 1;
    }
    append(database, index);
    this.#entries.keptUntilMs?.push(present.databaseMs + (this.#world.keep ?? 0) * TICK_MS);
    return index;
  }

  openEpoch(state: State, present: Present): void {
    const { database, entries, epochs, keys } = state;
    const former = database.epoch;
    epochs.push({ dueIn: this.#dueIn(state, present), lost: 0, lossDueIn: 0 });
    database.epoch = epochs.length - 1;
    database.epochRows |= 1 << database.epoch;
    database.head = 0;
    database.headEntry = 0;
    keys.push({ epoch: database.epoch, signer: keys.length });
    database.keys = keys.length - 1;
    for (const [index, entry] of [...entries.entries()]) {
      const isCarried =
        entry.epoch === former &&
        (database.rows & (1 << index)) !== 0 &&
        this.#entries.kindOf(state, index) === 'FOREIGN' &&
        this.#entries.keepUntilMs(state, index, present) > present.databaseMs;
      if (!isCarried) continue;
      entries.push({ ...entry, epoch: database.epoch, sequence: database.head + 1, target: entry.target });
      append(database, entries.length - 1);
      this.#entries.keptUntilMs?.push(0);
    }
  }

  /** The key set changes, and the key that signs stays. */
  changeKeys(state: State): void {
    const signer = state.keys[state.database.keys]?.signer ?? 0;
    state.keys.push({ epoch: state.database.epoch, signer });
    state.database.keys = state.keys.length - 1;
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
    const { database } = state;
    const dropped = this.expired(state);
    database.rows &= ~dropped;
    if (this.#environment.earlyPurge === true) return;
    let horizonMs = this.#entries.horizonMs(state, database.horizon, present);
    for (let index = 0; index < state.entries.length; index += 1) {
      if ((dropped & (1 << index)) === 0) continue;
      horizonMs = Math.max(horizonMs, this.#entries.keepUntilMs(state, index, present));
    }
    database.horizon = this.#entries.entryOfHorizon(state, horizonMs, present);
  }

  copy({ database, entries, epochs }: State): Copy {
    return {
      ...database,
      foundUnder: [...database.foundUnder],
      entries: entries.length,
      epochs: epochs.length,
    };
  }

  /** The database returns to the copy; what was committed since is lost. */
  restore(state: State, copy: Copy): void {
    const { entries, epochs, ...database } = copy;
    state.database = { ...database, foundUnder: [...database.foundUnder] };
    state.copy = undefined;
    state.restoresLeft -= 1;
    for (const entry of state.entries.slice(entries)) entry.lost = true;
    for (const epoch of state.epochs.slice(epochs)) {
      if (epoch.lost > 0) continue;
      epoch.lost = state.epochs.length + 1;
      epoch.lossDueIn = this.#world.lease;
    }
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
    const { entriesNeededAfter, sequencesToCompare, otherEpochs } = this.#protocol.log;
    const after = entriesNeededAfter(logState, [question]);
    const places = sequencesToCompare(logState, [question]);
    const rows = this.#rowsOf(state, database, present);
    const reader = {
      state: logState,
      entriesAfter: (start: bigint) => rows.filter(({ sequence }) => sequence > start),
    };
    let entries: readonly LogEntry[] = [];
    if (after !== undefined) {
      entries = from.usesTail ? this.#readTail(state, reader, after, present) : reader.entriesAfter(after);
    }
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
    return { state: logState, keys, entries, entryIds, otherEpochs: known };
  }

  #readTail(
    state: State,
    reader: Parameters<ExposedTail['entriesAfter']>[0],
    after: bigint,
    present: Present,
  ): readonly LogEntry[] {
    const tail = new this.#protocol.LogTail();
    const from = state.tail ?? { epoch: 0, entries: 0 };
    tail._epoch = epochIdOf(from.epoch);
    tail._entries = this.#entriesIn(state, from.entries, present);
    const entries = tail.entriesAfter(reader, after);
    state.tail = {
      epoch: epochIndexOf(tail._epoch),
      entries: bitsOf(tail._entries.map(({ entryId }) => entryIndexOf(entryId) - 1)),
    };
    return entries;
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

function append(database: Database, index: number): void {
  database.head += 1;
  database.headEntry = index + 1;
  database.rows |= 1 << index;
}
