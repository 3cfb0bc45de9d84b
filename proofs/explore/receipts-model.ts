/** Receipts: two replicas of auth record the instance, share their records, and one of them follows a revocation. */

import type { Committed, Watch } from '../../services/auth/revocation/enforcement-watch.js';
import type { InstanceRecord } from '../../services/auth/revocation/instance-records.js';
import type { SyncPosition, SyncResult } from '../../services/auth/revocation/log.js';
import type { Environment } from './guards.js';
import {
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
import { type Arrival, bitsOf, indexesIn, type Receipts, type RecordState, type State } from './state.js';
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
  arrive(state: State, receipts: Receipts, number: number, replica: number): void {
    const question = state.questions[number];
    if (question === undefined) throw new RangeError(`there is no request ${number}`);
    question.arrival = { replica, age: 0, isBefore: receipts.watch === undefined };
    if (receipts.watch?.replica !== replica) return;
    const asked: SyncPosition = {
      service: SERVICE,
      instance: INSTANCE,
      epoch: epochIdOf(question.at.epoch),
      applied: BigInt(question.at.sequence),
      entryIdAtApplied: entryIdOf(question.at.entry),
      keySetVersion: Buffer.alloc(0),
      seen: indexesIn(question.seen).map((index) => entryIdOf(index + 1)),
      fences: [],
    };
    this.#withWatch(state, receipts, (watch, nowMs) => {
      this.#protocol.watch.noteRequest(watch, asked, nowMs);
    });
  }

  /** A replica has answered a request. */
  answered(
    state: State,
    receipts: Receipts,
    asked: SyncPosition,
    arrival: Arrival,
    answer: SyncResult,
  ): void {
    const { replica } = arrival;
    const former = receipts.records[replica];
    const record = this.#protocol.records.recordOf(asked, {
      requestedAtMs: requestedAtMs(arrival, PRESENT),
      answer,
      former: former && recordIn(former),
    });
    receipts.records[replica] = this.#recordState(record);
    if (this.isPrompt) this.share(receipts, replica);
    if (receipts.watch?.replica === replica) this.#note(state, receipts, record);
  }

  /** A call that waits has committed the entry. */
  watch(state: State, receipts: Receipts, entry: number, replica: number): void {
    receipts.watch = { replica, entry, age: 0, isComplete: false, known: undefined };
    for (const each of [...receipts.records, ...receipts.shared])
      if (each !== undefined) each.isBefore = true;
    for (const { arrival } of state.questions) if (arrival !== undefined) arrival.isBefore = true;
    const record = receipts.records[replica];
    if (record !== undefined) this.#note(state, receipts, recordIn(record));
  }

  /** A replica writes its record to the database. */
  share(receipts: Receipts, replica: number): void {
    const record = receipts.records[replica];
    receipts.shared[replica] = record && { ...record };
  }

  /** The waiting replica reads the records of the other one. */
  readOthers(state: State, receipts: Receipts): void {
    const { watch } = receipts;
    if (watch === undefined) throw new RangeError('no call waits');
    watch.isComplete = true;
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
    this.#note(state, receipts, this.#protocol.records.recordOfOther(shared, PRESENT.monotonicMs));
  }

  /** Time passes. A call returns when the bound is over at the latest. */
  pass(state: State, receipts: Receipts): void {
    const ageMax = this.#boundTicks + (receipts.watch === undefined ? 0 : receipts.watch.age + 1);
    const later = (age: number): number => Math.min(age + 1, ageMax);
    for (const each of timesIn(state, receipts)) each.age = later(each.age);
    const { watch } = receipts;
    if (watch === undefined) return;
    watch.age += 1;
    watch.isComplete = false;
    if (watch.known !== undefined) watch.known.age = later(watch.known.age);
    const isOver = this.#withWatch(state, receipts, (real, nowMs) =>
      this.#protocol.watch.isDone(real, 'EVERYWHERE', nowMs),
    );
    if (!isOver) return;
    receipts.watch = undefined;
    for (const each of timesIn(state, receipts)) each.age = Math.min(each.age, this.#boundTicks);
  }

  /** The entry that the receipt states as enforced at the instance, or whose call may return; undefined when there is none. */
  confirmed(state: State, receipts: Receipts): { readonly entry: number; readonly why: string } | undefined {
    const { watch } = receipts;
    if (watch?.known === undefined) return undefined;
    if (watch.known.isEnforced)
      return { entry: watch.entry, why: 'the receipt names the instance as enforcing' };
    if (!watch.isComplete || !this.isPrompt) return undefined;
    const isDone = this.#withWatch(state, receipts, (real, nowMs) =>
      this.#protocol.watch.isDone(real, 'KNOWN_INSTANCES', nowMs),
    );
    return isDone
      ? { entry: watch.entry, why: 'the call that waits for known instances has returned' }
      : undefined;
  }

  #note(state: State, receipts: Receipts, record: InstanceRecord): void {
    this.#withWatch(state, receipts, (watch, nowMs) => {
      this.#protocol.watch.noteRecord(watch, record, nowMs);
    });
  }

  /** Makes the watch of a state, lets it change, and saves it. */
  #withWatch<T>(state: State, receipts: Receipts, work: (watch: Watch, nowMs: number) => T): T {
    const from = receipts.watch;
    const entry = from && state.entries[from.entry];
    if (from === undefined || entry === undefined) throw new RangeError('no call waits');
    const { beginWatch } = this.#protocol.watch;
    const committedAtMs = PRESENT.monotonicMs - from.age * TICK_MS + COMMIT_MS;
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
      from.known = {
        age: this.#ageOf(known.requestedBeforeMs),
        isBefore: true,
        isSince: known.requestedSince,
        isEnforced: known.enforcedAtMs !== undefined,
      };
    }
    return result;
  }

  #recordState(record: InstanceRecord): RecordState {
    return {
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

/** The times of requests in a state. */
function timesIn({ questions }: State, { records, shared }: Receipts): { age: number; isBefore: boolean }[] {
  const times = [...records, ...shared, ...questions.map(({ arrival }) => arrival)];
  return times.filter((time) => time !== undefined);
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
    // Only lists of instances show these.
    answeredHead: 0n,
    leaseEndMs: 0,
  };
}
