/**
 * What keeps a revocation list equal to the log: a state machine without I/O. Times, answers and
 * broadcasts go in; decisions come out. Broadcasts make it fast, answers alone make it safe.
 */

import type {
  Broadcast,
  Entry,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import { ClockRises } from './clock-rises.js';
import { RevocationList } from './list.js';

/** How many acknowledgements one question carries at most. */
export const ACKNOWLEDGEMENTS_MAX = 1000;

/** Both clocks, read at one moment. */
export interface Moment {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** A question that was sent; its answer counts from `askedAt`. */
export interface SyncTicket {
  readonly request: SyncRequest;
  readonly askedAt: Moment;
  /** The list that the question speaks of; when the log begins anew it is another one. */
  readonly list: RevocationList;
  /** How far the wall clock had risen above the monotonic one by then, in milliseconds; see {@link ClockRises}. */
  readonly risesMs: number;
}

/** What the rest of the process is told, in the same turn in which it happens. */
export interface FeedListener {
  /** An entry has come, and is in the list by the end of this turn. */
  entryAdded(entry: Entry): void;
  /** Many entries are in the list; whatever was verified must be looked up in it again. */
  listFilled(list: RevocationList): void;
  /** The log began anew: nothing verified before counts any longer. */
  epochChanged(): void;
}

/** What became of an answer. */
export type AnswerOutcome =
  /** The list is complete up to the answered head, and may be trusted. */
  | 'granted'
  /** The whole list must be pulled first. */
  | 'pull'
  /** A later question was answered already: entries were taken, and nothing that a lease stands on. */
  | 'outdated';

export class Feed {
  readonly #service: string;
  readonly #instance: Uint8Array;
  readonly #listener: FeedListener;
  readonly #listEntriesMax: number | undefined;
  #list: RevocationList;
  /** What has come of a list that is not whole yet; a list of its own, so that nothing is left to do at its end. */
  #staged: RevocationList | undefined;
  #epoch = new Uint8Array(0);
  #applied = 0n;
  #entryIdAtApplied = new Uint8Array(0);
  #highestSeen = 0n;
  #keySetVersion = new Uint8Array(0);
  #horizonMs = 0;
  #lastTakenMonotonicMs = Number.NEGATIVE_INFINITY;
  #lease: { readonly askedAt: Moment; readonly risesMs: number; readonly lengthMs: number } | undefined;
  readonly #rises = new ClockRises();
  #hydrated = false;
  // By their hexadecimal text, in the order in which they came.
  readonly #unacknowledged = new Map<string, Uint8Array>();

  /**
   * @param options.service - audience of the service that this instance belongs to
   * @param options.instance - 16 random bytes, made anew by every process
   * @param options.listEntriesMax - how many entries the list may hold; beyond it no lease is granted
   */
  constructor(options: {
    service: string;
    instance: Uint8Array;
    listener: FeedListener;
    listEntriesMax?: number | undefined;
  }) {
    this.#listEntriesMax = options.listEntriesMax;
    this.#list = new RevocationList(options.listEntriesMax);
    this.#service = options.service;
    this.#instance = options.instance;
    this.#listener = options.listener;
  }

  get list(): RevocationList {
    return this.#list;
  }

  /** Every entry up to this sequence is in the list. */
  get applied(): bigint {
    return this.#applied;
  }

  /** The list has been complete once in this epoch. */
  get hydrated(): boolean {
    return this.#hydrated;
  }

  /** A token that expired before this moment counts as expired, whatever the local clock says. */
  get horizonMs(): number {
    return this.#horizonMs;
  }

  /** How long the issuer lets a list be trusted, in milliseconds; 0 before the first answer. */
  get leaseLengthMs(): number {
    return this.#lease?.lengthMs ?? 0;
  }

  /**
   * For how long the list may still be trusted, in milliseconds; 0 or less when no longer.
   *
   * It is over at the first of both clocks, and when the wall stands before the question: a machine
   * that slept does not count its sleep on the monotonic clock, and a wall clock may be set back. Where
   * both happened, the sleep counts all the same if the clocks were read in between.
   */
  leaseLeftMs(monotonicMs: number, wallMs: number): number {
    const risesMs = this.#rises.read(monotonicMs, wallMs);
    const lease = this.#lease;
    if (lease === undefined || wallMs < lease.askedAt.wallMs) return 0;
    const awakeMs = monotonicMs - lease.askedAt.monotonicMs;
    const elapsedMs = Math.max(awakeMs + (risesMs - lease.risesMs), wallMs - lease.askedAt.wallMs);
    return lease.lengthMs - elapsedMs;
  }

  /** Makes the question "am I up to date?". Both clocks must have been read before this call. */
  ask(askedAt: Moment): SyncTicket {
    return {
      askedAt,
      list: this.#list,
      risesMs: this.#rises.read(askedAt.monotonicMs, askedAt.wallMs),
      request: {
        service: this.#service,
        instance: Buffer.from(this.#instance),
        epoch: Buffer.from(this.#epoch),
        applied: this.#applied,
        entryIdAtApplied: Buffer.from(this.#entryIdAtApplied),
        keySetVersion: Buffer.from(this.#keySetVersion),
        seen: Array.from(this.#unacknowledged.values(), (id) => Buffer.from(id)),
      },
    };
  }

  /**
   * Takes the answer to a question.
   *
   * The lease is counted from the question, not from the answer: an instance that lacks an entry got
   * a head that was read before that entry's commit, so its question lies before that commit too.
   *
   * @param installKeys - puts the answered key set in place; called at most once, before any lease
   */
  take(ticket: SyncTicket, answer: SyncResponse, installKeys: () => void): AnswerOutcome {
    const isLatest = ticket.askedAt.monotonicMs > this.#lastTakenMonotonicMs;
    if (!sameBytes(answer.epoch, this.#epoch)) {
      // An answer that was overtaken may speak of an epoch that is over. So may the answer to a later question that was
      // asked about another list: it may have been read before one that has begun the present epoch already. Such an
      // answer is ignored, as if it had been lost; the next question names the present epoch.
      if (!isLatest || ticket.list !== this.#list) return 'outdated';
      this.#beginEpoch(answer.epoch);
    }
    if (isLatest) {
      // Before the entries, so that a full list gets room again.
      this.#horizonMs = Math.max(this.#horizonMs, answer.horizon?.getTime() ?? 0);
      this.#list.dropUntil(this.#horizonMs);
    }
    for (const entry of answer.entries) this.#insert(entry);
    if (!isLatest) return 'outdated';
    this.#lastTakenMonotonicMs = ticket.askedAt.monotonicMs;
    if (answer.keySet !== undefined) {
      installKeys();
      this.#keySetVersion = Uint8Array.from(answer.keySet.version);
    }
    this.#acknowledged(ticket.request.seen);
    // The entries follow on what was in the list that the question spoke of. To compare epochs is not enough: a list that
    // was begun anew is empty, even if its epoch is one that was followed before.
    if (answer.pull || ticket.list !== this.#list) return 'pull';
    // No key set means that the one which the question named still holds; it must be in place.
    const namedKeys =
      this.#keySetVersion.length > 0 && sameBytes(ticket.request.keySetVersion, this.#keySetVersion);
    if (answer.keySet === undefined && !namedKeys) return 'outdated';
    this.#advance(answer.head, answer.entryIdAtHead);
    const { askedAt, risesMs } = ticket;
    this.#lease = { askedAt, risesMs, lengthMs: milliseconds(answer.leaseLength) };
    this.#hydrated = true;
    return 'granted';
  }

  /**
   * Takes a broadcast whose signature was found good. Its entries count at once, but they never
   * move `applied`: the broker may have lost what came before them.
   *
   * @returns whether it belonged to this epoch, and whether a question is due at once
   */
  hear(broadcast: Broadcast): { readonly taken: boolean; readonly askNow: boolean } {
    if (this.#epoch.length === 0 || !sameBytes(broadcast.epoch, this.#epoch)) {
      return { taken: false, askNow: false };
    }
    let askNow = false;
    for (const entry of broadcast.entries) {
      if (entry.sequence > this.#highestSeen + 1n) askNow = true;
      if (entry.sequence > this.#highestSeen) this.#highestSeen = entry.sequence;
      this.#insert(entry);
      if (entry.acknowledge) {
        this.#unacknowledged.set(hexOf(entry.entryId), Uint8Array.from(entry.entryId));
        askNow = true;
      }
    }
    for (const oldest of this.#unacknowledged.keys()) {
      if (this.#unacknowledged.size <= ACKNOWLEDGEMENTS_MAX) break;
      this.#unacknowledged.delete(oldest);
    }
    return { taken: true, askNow };
  }

  /** Begins to take the whole list. What was taken before of an unfinished one is dropped. */
  beginPull(): void {
    this.#staged = new RevocationList(this.#listEntriesMax);
  }

  /**
   * Takes one part of the whole list. Only the last part makes the others count, and only when it
   * speaks of the epoch that is followed now.
   *
   * @returns whether the list is whole
   */
  takePart({ part }: PullResponse): boolean {
    const staged = this.#staged;
    if (staged === undefined) return false;
    // A part of a kind that this version does not know would be missing from the list.
    if (part === undefined) throw new RangeError('a part of the revocation list is of unknown kind');
    if (part.$case !== 'end') {
      insertPart(staged, part);
      return false;
    }
    this.#staged = undefined;
    if (!sameBytes(part.value.epoch, this.#epoch)) return false;
    // Added to the list, which may know more already, instead of replacing it: a broadcast that
    // overtook the pull must not be forgotten.
    try {
      this.#list.takeOver(staged);
    } finally {
      // A list that is too full by now revokes all the same.
      this.#listener.listFilled(this.#list);
    }
    this.#advance(part.value.sequence, part.value.entryId);
    return true;
  }

  /** Drops what was taken of a list that did not become whole. */
  abandonPull(): void {
    this.#staged = undefined;
  }

  #beginEpoch(epoch: Uint8Array): void {
    this.#lease = undefined;
    this.#hydrated = false;
    this.#epoch = Uint8Array.from(epoch);
    this.#applied = 0n;
    this.#entryIdAtApplied = new Uint8Array(0);
    this.#highestSeen = 0n;
    this.#keySetVersion = new Uint8Array(0);
    this.#unacknowledged.clear();
    this.#staged = undefined;
    this.#list = new RevocationList(this.#listEntriesMax);
    this.#listener.epochChanged();
  }

  #advance(sequence: bigint, entryId: Uint8Array): void {
    if (sequence <= this.#applied) return;
    this.#applied = sequence;
    this.#entryIdAtApplied = Uint8Array.from(entryId);
    if (sequence > this.#highestSeen) this.#highestSeen = sequence;
  }

  /** Every entry is inserted, known or not. */
  #insert(entry: Entry): void {
    // Told first: what is verified already is flagged even by an entry for which the list has no room.
    this.#listener.entryAdded(entry);
    this.#list.add(entry);
  }

  #acknowledged(sent: readonly Uint8Array[]): void {
    for (const id of sent) this.#unacknowledged.delete(hexOf(id));
  }
}

function insertPart(list: RevocationList, part: Exclude<PullResponse['part'], { $case: 'end' }>): void {
  if (part?.$case === 'packed') {
    list.addIds(part.value.kind, part.value.ids, part.value.keepUntil?.getTime() ?? Number.NaN);
  } else if (part?.$case === 'entries') {
    for (const entry of part.value.entries) list.add(entry);
  }
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

function sameBytes(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

function milliseconds(duration: { seconds: bigint; nanos: number } | undefined): number {
  return duration === undefined ? 0 : Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}
