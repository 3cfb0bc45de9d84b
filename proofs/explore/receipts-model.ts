/** Receipts: two replicas of auth record the instance, share their records, and one of them follows a revocation. */

import type { Committed, Watch } from '../../services/auth/revocation/enforcement-watch.js';
import type { InstanceRecord } from '../../services/auth/revocation/instance-records.js';
import type { SyncPosition, SyncResult } from '../../services/auth/revocation/log.js';
import type { Environment } from './guards.js';
import {
  digestOf,
  entryIdOf,
  entryIndexOf,
  epochIdOf,
  epochIndexOf,
  INSTANCE,
  type Present,
  SERVICE,
  TICK_MS,
} from './identifiers.js';
import type { Protocol } from './protocol.js';
import {
  type Arrival,
  bitsOf,
  indexesIn,
  type Receipts,
  type RecordState,
  type State,
  type WatchState,
} from './state.js';
import type { World } from './world.js';

/** Number of replicas of auth. */
export const REPLICAS = 2;

/** Within a tick: requests that arrived before the commit, the commit, and requests that arrived after it. */
const BEFORE_MS = 10;
const COMMIT_MS = 50;
const AFTER_MS = 90;

/** What happens at auth with receipts. */
export class ReceiptsModel {
  readonly #protocol: Protocol;
  readonly #environment: Environment;
  /** Greatest age at a commit that is distinguished, in ticks: the bound of the last lease is over. */
  readonly #boundTicks: number;
  /** Records are shared at once. */
  readonly isPrompt: boolean;

  constructor(protocol: Protocol, world: World, environment: Environment) {
    this.#protocol = protocol;
    this.#environment = environment;
    this.isPrompt = world.receipts === 'PROMPT';
    this.#boundTicks = world.lease + 1;
  }

  initial(): Receipts {
    return {
      records: Array.from({ length: REPLICAS }, () => undefined),
      shared: Array.from({ length: REPLICAS }, () => undefined),
      watch: undefined,
    };
  }

  /** A request arrives at a replica; what it acknowledges counts at once. */
  arrive(state: State, number: number, replica: number): void {
    const { watch } = receiptsOf(state);
    const question = state.questions[number];
    if (question === undefined) throw new RangeError(`there is no request ${number}`);
    const arrival = { replica, age: 0, isBefore: watch === undefined };
    state.questions = state.questions.with(number, { ...question, arrival });
    if (watch?.replica !== replica) return;
    const asked: SyncPosition = {
      service: SERVICE,
      instance: INSTANCE,
      epoch: epochIdOf(question.at.epoch),
      applied: BigInt(question.at.sequence),
      entryIdAtApplied: entryIdOf(question.at.entry),
      keySetVersion: Buffer.alloc(0),
      seen: indexesIn(question.seen).map((index) => entryIdOf(index + 1)),
      fences: [],
      heldTo: BigInt(question.heldTo),
      heldDigest: digestOf(question.digest),
    };
    this.#withWatch(state, (real, nowMs) => {
      this.#protocol.watch.noteRequest(real, asked, nowMs);
    });
  }

  /** A replica has answered a request. */
  answered(state: State, asked: SyncPosition, arrival: Arrival, answer: SyncResult): void {
    const receipts = receiptsOf(state);
    const { replica } = arrival;
    const former = receipts.records[replica];
    const record = this.#protocol.records.recordOf(asked, {
      requestedAtMs: requestedAtMs(arrival, PRESENT),
      answer,
      former: former && recordIn(former),
    });
    state.receipts = {
      ...receipts,
      records: receipts.records.with(replica, this.#recordState(record, receipts.watch)),
    };
    if (this.isPrompt) this.share(state, replica);
    if (receipts.watch?.replica === replica) this.#note(state, record);
  }

  /** A call that waits has committed the entry. */
  watch(state: State, entry: number, replica: number): void {
    state.receipts = {
      ...receiptsOf(state),
      watch: { replica, entry, age: 0, isComplete: false, known: undefined },
    };
    changeTimes(state, (time) => ({ ...time, isBefore: true }));
    const compared = (record: RecordState | undefined) => record && { ...record, isComparedBefore: true };
    const { records, shared } = receiptsOf(state);
    state.receipts = { ...receiptsOf(state), records: records.map(compared), shared: shared.map(compared) };
    const record = state.receipts.records[replica];
    if (record !== undefined) this.#note(state, recordIn(record));
  }

  /** A replica writes its record to the database. */
  share(state: State, replica: number): void {
    const receipts = receiptsOf(state);
    state.receipts = { ...receipts, shared: receipts.shared.with(replica, receipts.records[replica]) };
  }

  /** The waiting replica reads the records of the other one. */
  readOthers(state: State): void {
    const receipts = receiptsOf(state);
    const { watch } = receipts;
    if (watch === undefined) throw new RangeError('no call waits');
    state.receipts = { ...receipts, watch: { ...watch, isComplete: true } };
    const row = receipts.shared[1 - watch.replica];
    if (row === undefined) return;
    // The statement compares the position with the log: the entry at that place must be among those that were seen.
    const isInLog = state.entries.some(
      ({ epoch, sequence }, index) =>
        epoch + 1 === row.epoch &&
        sequence === row.sequence &&
        (state.database.rows & (1 << index)) !== 0 &&
        (row.seen & (1 << index)) !== 0,
    );
    const record = recordIn(row);
    const applied = isInLog || this.#environment.trustsOthers === true ? record.applied : 0n;
    const ageMs = PRESENT.monotonicMs - record.requestedAtMs;
    const shared = { ...record, applied, ageMs, leaseLeftMs: 0 };
    this.#note(state, this.#protocol.records.recordOfOther(shared, PRESENT.monotonicMs));
  }

  /** Time passes. A call returns when the bound is over at the latest. */
  pass(state: State): void {
    if (state.receipts === undefined) return;
    const { watch } = state.receipts;
    const ageMax = this.#boundTicks + (watch === undefined ? 0 : watch.age + 1);
    const later = (age: number): number => Math.min(age + 1, ageMax);
    changeTimes(state, (time) => ({ ...time, age: later(time.age) }));
    if (watch === undefined) return;
    const known = watch.known && { ...watch.known, age: later(watch.known.age) };
    state.receipts = {
      ...state.receipts,
      watch: { ...watch, age: watch.age + 1, isComplete: false, known },
    };
    const isOver = this.#withWatch(state, (real, nowMs) =>
      this.#protocol.watch.isDone(real, 'EVERYWHERE', nowMs),
    );
    if (!isOver) return;
    state.receipts = { ...state.receipts, watch: undefined };
    changeTimes(state, (time) => ({ ...time, age: Math.min(time.age, this.#boundTicks) }));
  }

  /** The entry that the receipt states as enforced at the instance, or whose call may return; undefined when there is none. */
  confirmed(state: State): { readonly entry: number; readonly why: string } | undefined {
    const watch = state.receipts?.watch;
    if (watch?.known === undefined) return undefined;
    if (watch.known.isEnforced)
      return { entry: watch.entry, why: 'the receipt names the instance as enforcing' };
    if (!watch.isComplete || !this.isPrompt) return undefined;
    const isDone = this.#withWatch(state, (real, nowMs) =>
      this.#protocol.watch.isDone(real, 'KNOWN_INSTANCES', nowMs),
    );
    return isDone
      ? { entry: watch.entry, why: 'the call that waits for known instances has returned' }
      : undefined;
  }

  #note(state: State, record: InstanceRecord): void {
    this.#withWatch(state, (watch, nowMs) => {
      this.#protocol.watch.noteRecord(watch, record, nowMs);
    });
  }

  /** Makes the watch of a state, lets it change, and saves it. */
  #withWatch<T>(state: State, work: (watch: Watch, nowMs: number) => T): T {
    const receipts = receiptsOf(state);
    const from = receipts.watch;
    const entry = from && state.entries[from.entry];
    if (from === undefined || entry === undefined) throw new RangeError('no call waits');
    const { beginWatch } = this.#protocol.watch;
    const committedAtMs = committedAtMsOf(from);
    const leaseMs = state.database.lease * TICK_MS;
    const committed: Committed = {
      epoch: epochIdOf(entry.epoch + 1),
      entry: { entryId: entryIdOf(from.entry + 1), sequence: BigInt(entry.sequence) },
      committedAtMs,
      leaseMs,
      boundAtMs: committedAtMs + this.#protocol.log.enforcementBoundMs(leaseMs),
    };
    const watch = beginWatch(committed);
    const key = `${SERVICE} ${INSTANCE.toString('hex')}`;
    if (from.known !== undefined) {
      watch.instances.set(key, {
        service: SERVICE,
        instance: INSTANCE,
        requestedBeforeMs: requestedAtMs(from.known, PRESENT),
        requestedSince: from.known.isSince,
        enforcedAtMs: from.known.isEnforced ? committedAtMs : undefined,
      });
    }
    const result = work(watch, PRESENT.monotonicMs + AFTER_MS);
    const [known, ...others] = watch.instances.values();
    if (others.length > 0) throw new RangeError('the watch knows an instance twice');
    if (known !== undefined) {
      const saved = {
        // None is known, or its lease is over: both are the same.
        age: Math.min(this.#ageOf(known.requestedBeforeMs), this.#boundTicks + from.age),
        isBefore: true,
        isSince: known.requestedSince,
        isEnforced: known.enforcedAtMs !== undefined,
      };
      state.receipts = { ...receipts, watch: { ...from, known: saved } };
    }
    return result;
  }

  #recordState(record: InstanceRecord, watch: WatchState | undefined): RecordState {
    // Every later commit is after it.
    const isComparedBefore = watch === undefined || record.comparedAtMs <= committedAtMsOf(watch);
    return {
      isComparedBefore,
      epoch: epochIndexOf(record.epoch),
      sequence: Number(record.applied),
      seen: bitsOf(record.seen.filter(({ length }) => length > 0).map((id) => entryIndexOf(id) - 1)),
      age: this.#ageOf(record.requestedAtMs),
      isBefore: record.requestedAtMs % TICK_MS < COMMIT_MS,
    };
  }

  #ageOf(atMs: number): number {
    return Math.ceil((PRESENT.monotonicMs - atMs) / TICK_MS);
  }
}

/** Replicas have clocks of their own; only ages matter. */
const PRESENT: Present = { databaseMs: 0, monotonicMs: 1000 * TICK_MS, wallMs: 0 };

function committedAtMsOf({ age }: WatchState): number {
  return PRESENT.monotonicMs - age * TICK_MS + COMMIT_MS;
}

function receiptsOf({ receipts }: State): Receipts {
  if (receipts === undefined) throw new RangeError('this world has no receipts');
  return receipts;
}

/** Changes the times of all requests in a state: recorded, shared and under way. */
function changeTimes(
  state: State,
  change: <T extends { readonly age: number; readonly isBefore: boolean }>(time: T) => T,
): void {
  const receipts = receiptsOf(state);
  state.receipts = {
    ...receipts,
    records: receipts.records.map((record) => record && change(record)),
    shared: receipts.shared.map((record) => record && change(record)),
  };
  state.questions = state.questions.map((question) =>
    question.arrival === undefined ? question : { ...question, arrival: change(question.arrival) },
  );
}

function requestedAtMs({ age, isBefore }: { age: number; isBefore: boolean }, present: Present): number {
  return present.monotonicMs - age * TICK_MS + (isBefore ? BEFORE_MS : AFTER_MS);
}

function recordIn(from: RecordState): InstanceRecord {
  return {
    service: SERVICE,
    instance: INSTANCE,
    epoch: epochIdOf(from.epoch),
    applied: BigInt(from.sequence),
    seen: indexesIn(from.seen).map((index) => entryIdOf(index + 1)),
    requestedAtMs: requestedAtMs(from, PRESENT),
    comparedAtMs: from.isComparedBefore ? Number.NEGATIVE_INFINITY : PRESENT.monotonicMs + AFTER_MS,
    // Only lists of instances show these.
    answeredHead: 0n,
    leaseEndMs: 0,
  };
}
