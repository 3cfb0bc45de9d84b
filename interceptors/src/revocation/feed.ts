/**
 * The feed keeps a revocation list equal to the log. It is a state machine without I/O: times, sync responses and
 * broadcasts go in, decisions come out. Broadcasts make revocation fast; only syncs make it safe.
 */

import type {
  Broadcast,
  Entry,
  FencePosition,
  PullResponse,
  SyncRequest,
  SyncResponse,
} from '../../gen/portcullis/revocation/v1/revocation.js';
import { ACKNOWLEDGEMENTS_MAX } from '../limits.js';
import { ClockRises } from './clock-rises.js';
import type { LogPlace } from './fence.js';
import { HeldEntries } from './held-entries.js';
import { KINDS, RevocationList } from './list.js';
import { VersionError } from './version-error.js';

/** A reading of both clocks. */
export interface Moment {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** A sync request, and what its response is judged by. */
export interface SyncTicket {
  readonly request: SyncRequest;
  /** Both clocks, read before the request was sent. The lease begins here. */
  readonly sentAt: Moment;
  /** The list that the request describes. A new epoch begins with another list. */
  readonly list: RevocationList;
  /** The sum of {@link ClockRises} at that moment, in milliseconds. */
  readonly risesMs: number;
}

/** Receives the changes of a feed, in the turn of the event loop in which they happen. */
export interface FeedListener {
  /** An entry arrived; it is in the list at the end of this turn. */
  entryAdded(entry: Entry): void;
  /** Many entries were added to the list; all verified tokens must be checked against it again. */
  listFilled(list: RevocationList): void;
  /** A new epoch began; tokens verified before are no longer valid. */
  epochChanged(): void;
}

/** The result of applying a sync response. */
export type SyncOutcome =
  /** The list is complete up to the head in the response; the lease was renewed. */
  | 'granted'
  /** The whole list must be pulled first. */
  | 'pull'
  /** The response was overtaken by another response, epoch or key set: no lease. Entries may have been added. */
  | 'outdated';

/** The result of applying a broadcast. */
export interface BroadcastOutcome {
  /** The broadcast belongs to the current epoch; otherwise it was ignored. */
  readonly accepted: boolean;
  /** A sync should be sent now, to fill a gap or to acknowledge an entry. */
  readonly syncDue: boolean;
}

/** The feed of one process. */
export class Feed {
  readonly #service: string;
  readonly #instance: Uint8Array;
  readonly #listener: FeedListener;
  readonly #listEntriesMax: number | undefined;
  readonly #claimIds: readonly Uint8Array[];
  #list: RevocationList;
  /** The parts of a pull in progress, as a list of their own that is merged at the end. */
  #staged: RevocationList | undefined;
  #epoch = new Uint8Array(0);
  /** 0 before the first complete list of the epoch. */
  #epochNumber = 0n;
  /** Services should raise their fences to this sequence. */
  #fenceWanted = 0n;
  #applied = 0n;
  #entryIdAtApplied = new Uint8Array(0);
  #highestSeen = 0n;
  #keySetVersion = new Uint8Array(0);
  #horizonMs = 0;
  #lastAppliedMonotonicMs = Number.NEGATIVE_INFINITY;
  #lease: { readonly sentAt: Moment; readonly risesMs: number; readonly lengthMs: number } | undefined;
  readonly #rises = new ClockRises();
  readonly #held = new HeldEntries();
  #hydrated = false;
  // Entry ids by their hexadecimal text, in order of arrival.
  readonly #unacknowledged = new Map<string, Uint8Array>();

  /**
   * @param options.service - the audience of this service
   * @param options.instance - {@link ID_BYTES} random bytes, new for every process
   * @param options.listEntriesMax - maximum number of entries; a full list gets no lease
   * @param options.claimIds - what the instance reads in other issuers' tokens (`SyncRequest.claim_ids`); default: nothing
   */
  constructor(options: {
    service: string;
    instance: Uint8Array;
    listener: FeedListener;
    listEntriesMax?: number | undefined;
    claimIds?: readonly Uint8Array[] | undefined;
  }) {
    this.#listEntriesMax = options.listEntriesMax;
    this.#list = new RevocationList(options.listEntriesMax);
    this.#claimIds = options.claimIds ?? [];
    this.#service = options.service;
    this.#instance = options.instance;
    this.#listener = options.listener;
  }

  get list(): RevocationList {
    return this.#list;
  }

  /** Every entry of the log up to this sequence is in the list. */
  get applied(): bigint {
    return this.#applied;
  }

  /** {@link applied}, comparable with places of other epochs. */
  get place(): LogPlace {
    return { epochNumber: this.#epochNumber, sequence: this.#applied };
  }

  /** Where the issuer wants fences to stand at least. */
  get fenceWanted(): LogPlace {
    return { epochNumber: this.#epochNumber, sequence: this.#fenceWanted };
  }

  /** The list has been complete once in this epoch. */
  get hydrated(): boolean {
    return this.#hydrated;
  }

  /** A token that expires at or before this time is expired, whatever the local clock says; in Unix milliseconds. */
  get horizonMs(): number {
    return this.#horizonMs;
  }

  /** The length of the lease, in milliseconds; 0 before the first one. */
  get leaseLengthMs(): number {
    return this.#lease?.lengthMs ?? 0;
  }

  /**
   * How long the lease still runs, in milliseconds; 0 or less when it is over.
   *
   * It is over when either clock says so, and when the wall clock is before the request. The monotonic clock does not count
   * a sleep, and the wall clock may be set back. If both happen, the sleep still counts when the clocks were read in
   * between.
   */
  leaseLeftMs(monotonicMs: number, wallMs: number): number {
    const risesMs = this.#rises.read(monotonicMs, wallMs);
    const lease = this.#lease;
    if (lease === undefined || wallMs < lease.sentAt.wallMs) return 0;
    const awakeMs = monotonicMs - lease.sentAt.monotonicMs;
    const elapsedMs = Math.max(awakeMs + (risesMs - lease.risesMs), wallMs - lease.sentAt.wallMs);
    return lease.lengthMs - elapsedMs;
  }

  /**
   * Creates a sync request.
   *
   * @param sentAt - both clocks, read before this call
   * @param fences - where the service's fences stand
   */
  createSyncRequest(sentAt: Moment, fences: FencePosition[] = []): SyncTicket {
    return {
      sentAt,
      list: this.#list,
      risesMs: this.#rises.read(sentAt.monotonicMs, sentAt.wallMs),
      request: {
        service: this.#service,
        instance: Buffer.from(this.#instance),
        epoch: Buffer.from(this.#epoch),
        applied: this.#applied,
        entryIdAtApplied: Buffer.from(this.#entryIdAtApplied),
        keySetVersion: Buffer.from(this.#keySetVersion),
        seen: Array.from(this.#unacknowledged.values(), (id) => Buffer.from(id)),
        fences,
        heldTo: this.#held.heldTo,
        heldDigest: this.#held.digest,
        kinds: [...KINDS],
        claimIds: this.#claimIds.map((id) => Buffer.from(id)),
        description: undefined,
        leaving: false,
      },
    };
  }

  /**
   * Applies a sync response.
   *
   * The lease begins when the request was sent, not when the response arrived. An instance that lacks an entry received a
   * head that was read before that entry's commit, so it sent the request before that commit, too.
   *
   * @param installKeys - installs the key set of the response; called at most once, before a lease is granted
   */
  applySyncResponse(ticket: SyncTicket, response: SyncResponse, installKeys: () => void): SyncOutcome {
    const isLatest = ticket.sentAt.monotonicMs > this.#lastAppliedMonotonicMs;
    if (!sameBytes(response.epoch, this.#epoch)) {
      // An overtaken response may belong to an epoch that is over. So may the response to a later request that described
      // another list: it may have been read before the one that began the current epoch. Such a response is ignored as if
      // it had been lost; the next request names the current epoch.
      if (!isLatest || ticket.list !== this.#list) return 'outdated';
      this.#beginEpoch(response.epoch);
    }
    if (isLatest) {
      // Before the entries, so that a full list has room again.
      this.#horizonMs = Math.max(this.#horizonMs, response.horizon?.getTime() ?? 0);
      this.#list.dropUntil(this.#horizonMs);
    }
    for (const entry of response.entries) this.#insert(entry);
    if (!isLatest) return 'outdated';
    this.#lastAppliedMonotonicMs = ticket.sentAt.monotonicMs;
    if (response.keySet !== undefined) {
      installKeys();
      this.#keySetVersion = Uint8Array.from(response.keySet.version);
    }
    this.#acknowledged(ticket.request.seen);
    // The entries continue the list that the request described, with the entries that it held. Comparing epochs is not
    // enough: a new list is empty, even if its epoch is one that was followed before.
    if (response.pull || ticket.list !== this.#list) return 'pull';
    if (!this.#hasKeySetOf(ticket, response)) return 'outdated';
    this.#advance(response.head, response.entryIdAtHead);
    this.#noteFence(response);
    const { sentAt, risesMs } = ticket;
    this.#lease = { sentAt, risesMs, lengthMs: milliseconds(response.leaseLength) };
    this.#hydrated = true;
    return 'granted';
  }

  /** A response without a key set confirms the one that the request named, which must still be the current one. */
  #hasKeySetOf(ticket: SyncTicket, response: SyncResponse): boolean {
    if (response.keySet !== undefined) return true;
    return this.#keySetVersion.length > 0 && sameBytes(ticket.request.keySetVersion, this.#keySetVersion);
  }

  /**
   * Applies a broadcast whose signature is valid. Its entries count at once, but never move `applied`: the broker may have
   * lost the entries before them. The next request names those that follow `applied` without a gap, and only its response
   * moves `applied` beyond them.
   */
  applyBroadcast(broadcast: Broadcast): BroadcastOutcome {
    if (this.#epoch.length === 0 || !sameBytes(broadcast.epoch, this.#epoch)) {
      return { accepted: false, syncDue: false };
    }
    let syncDue = false;
    for (const entry of broadcast.entries) {
      if (entry.sequence > this.#highestSeen + 1n) syncDue = true;
      if (entry.sequence > this.#highestSeen) this.#highestSeen = entry.sequence;
      this.#insert(entry);
      if (entry.acknowledge) {
        this.#unacknowledged.set(hexOf(entry.entryId), Uint8Array.from(entry.entryId));
        syncDue = true;
      }
    }
    for (const oldest of this.#unacknowledged.keys()) {
      if (this.#unacknowledged.size <= ACKNOWLEDGEMENTS_MAX) break;
      this.#unacknowledged.delete(oldest);
    }
    return { accepted: true, syncDue };
  }

  /** Begins a pull of the whole list. An unfinished pull is dropped. */
  beginPull(): void {
    this.#staged = new RevocationList(this.#listEntriesMax);
  }

  /**
   * Applies one part of a pull. Entries count when the last part arrives, and only if it names the current epoch.
   *
   * @returns whether the pull is complete
   * @throws RangeError when the part is of unknown kind, ListFullError when the list is full
   */
  applyPullPart({ part }: PullResponse): boolean {
    const staged = this.#staged;
    if (staged === undefined) return false;
    // Ignored, its entries would be missing from the list.
    if (part === undefined) throw new VersionError('a part of the revocation list is of unknown kind');
    if (part.$case !== 'end') {
      insertPart(staged, part);
      return false;
    }
    this.#staged = undefined;
    if (!sameBytes(part.value.epoch, this.#epoch)) return false;
    // Merged, not replaced: the list may contain entries of broadcasts that overtook the pull.
    try {
      this.#list.takeOver(staged);
    } finally {
      // The entries count even when the list is now too large.
      this.#listener.listFilled(this.#list);
    }
    this.#advance(part.value.sequence, part.value.entryId);
    return true;
  }

  /** Drops the parts of an incomplete pull. */
  abandonPull(): void {
    this.#staged = undefined;
  }

  #beginEpoch(epoch: Uint8Array): void {
    this.#lease = undefined;
    this.#hydrated = false;
    this.#epoch = Uint8Array.from(epoch);
    this.#epochNumber = 0n;
    this.#fenceWanted = 0n;
    this.#applied = 0n;
    this.#entryIdAtApplied = new Uint8Array(0);
    this.#highestSeen = 0n;
    this.#keySetVersion = new Uint8Array(0);
    this.#unacknowledged.clear();
    this.#staged = undefined;
    this.#held.clear();
    this.#list = new RevocationList(this.#listEntriesMax);
    this.#listener.epochChanged();
  }

  #advance(sequence: bigint, entryId: Uint8Array): void {
    if (sequence <= this.#applied) return;
    this.#applied = sequence;
    this.#entryIdAtApplied = Uint8Array.from(entryId);
    this.#held.advance(sequence);
    if (sequence > this.#highestSeen) this.#highestSeen = sequence;
  }

  /** An older version of the issuer sends zeros, perhaps after another process of it has sent more. */
  #noteFence({ epochNumber, fenceWanted }: SyncResponse): void {
    if (epochNumber > this.#epochNumber) this.#epochNumber = epochNumber;
    if (fenceWanted > this.#fenceWanted) this.#fenceWanted = fenceWanted;
  }

  /** Adds an entry, known or not. */
  #insert(entry: Entry): void {
    // First, so that an entry flags verified tokens even when the list is full.
    this.#listener.entryAdded(entry);
    this.#list.add(entry);
    // Last, because an entry that does not fit into the list must not count as held.
    this.#held.add(entry.sequence, entry.entryId);
  }

  #acknowledged(sent: readonly Uint8Array[]): void {
    for (const id of sent) this.#unacknowledged.delete(hexOf(id));
  }
}

function insertPart(
  list: RevocationList,
  part: Exclude<NonNullable<PullResponse['part']>, { $case: 'end' }>,
): void {
  if (part.$case === 'packed') {
    list.addIds(part.value.kind, part.value.ids, part.value.keepUntil?.getTime() ?? Number.NaN);
  } else {
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
