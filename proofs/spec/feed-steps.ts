/** Watches a real feed: each of its calls becomes a step with the decision that the feed has made. */

import type { Feed, Moment, SyncTicket } from '@portcullis/guard/internal';
import {
  type Entry,
  EntryKind,
  type PullResponse,
  type SyncRequest,
  type SyncResponse,
} from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { EntryStep, PartResult, PartStep, RequestStep, ResponseStep, StateStep, Step } from './steps.js';

const KIND_PREFIX = 'ENTRY_KIND_';

/** The names of the kinds, without their prefix. */
const KINDS = new Map<number, string>(
  Object.entries(EntryKind).map(([name, kind]) => [kind, name.slice(KIND_PREFIX.length)]),
);

/** Receives the steps of one feed. */
export interface Watcher {
  /** Called after each call of the feed. */
  onStep(step: Step): void;
  /** Called before a response to a request that was made before the feed was watched. */
  onFormerTicket?(name: string, ticket: SyncTicket): void;
  /** The state of the feed, where it is not observed through the feed's own methods. */
  stateOf?(): Partial<StateStep>;
}

/** What is remembered of a watched feed. */
interface Watched {
  readonly watcher: Watcher;
  readonly tickets: WeakMap<SyncTicket, string>;
  asked: number;
  /** The last reading of the clocks. */
  read: Moment | undefined;
}

/**
 * Watches all calls of a feed, or of all feeds of a class. A feed does and returns what it would without.
 *
 * @param target - a feed, or the prototype of a class of feeds
 * @param watcherOf - called before the first call of a feed; undefined when the feed is not to be watched
 */
export function watchFeeds(target: Feed, watcherOf: (feed: Feed) => Watcher | undefined): void {
  const { createSyncRequest, applySyncResponse, applyBroadcast } = target;
  const { beginPull, applyPullPart, abandonPull, leaseLeftMs } = target;
  const all = new WeakMap<Feed, Watched | false>();

  const watchedOf = (feed: Feed): Watched | false => {
    let watched = all.get(feed);
    if (watched === undefined) {
      const watcher = watcherOf(feed);
      watched = watcher !== undefined && { watcher, tickets: new WeakMap(), asked: 0, read: undefined };
      all.set(feed, watched);
    }
    return watched;
  };
  const stateOf = (feed: Feed, { watcher, read }: Watched): Partial<StateStep> => {
    if (watcher.stateOf !== undefined) return watcher.stateOf();
    // A reading that repeats the last one changes no sum.
    const request = read && requestStep(createSyncRequest.call(feed, read).request);
    return {
      ...request,
      hydrated: feed.hydrated,
      horizon_ms: feed.horizonMs,
      lease_ms: feed.leaseLengthMs,
      entries: feed.list.size,
      epoch_number: Number(feed.place.epochNumber),
      fence_wanted: Number(feed.fenceWanted.sequence),
    };
  };

  target.createSyncRequest = function (sentAt, fences) {
    const watched = watchedOf(this);
    const ticket = createSyncRequest.call(this, sentAt, fences);
    if (watched === false) return ticket;
    const at = [sentAt.monotonicMs, sentAt.wallMs] as const;
    watched.read = sentAt;
    watched.watcher.onStep({
      do: 'ask',
      ticket: nameOf(watched, ticket),
      at,
      expect: requestStep(ticket.request),
    });
    return ticket;
  };
  target.applySyncResponse = function (ticket, response, installKeys) {
    const watched = watchedOf(this);
    if (watched === false) return applySyncResponse.call(this, ticket, response, installKeys);
    const isKnown = watched.tickets.has(ticket);
    const name = nameOf(watched, ticket);
    if (!isKnown) watched.watcher.onFormerTicket?.(name, ticket);
    return decided(
      () => applySyncResponse.call(this, ticket, response, installKeys),
      (outcome) => {
        const state = stateOf(this, watched);
        watched.watcher.onStep({
          do: 'answer',
          ticket: name,
          response: responseStep(response),
          expect: outcome ?? 'error',
          state,
        });
      },
    );
  };
  target.applyBroadcast = function (broadcast) {
    const watched = watchedOf(this);
    if (watched === false) return applyBroadcast.call(this, broadcast);
    return decided(
      () => applyBroadcast.call(this, broadcast),
      (outcome) => {
        const expect =
          outcome === undefined ? 'error' : { accepted: outcome.accepted, sync_due: outcome.syncDue };
        const { epoch, entries } = broadcast;
        const step = { do: 'broadcast', epoch: hexOf(epoch), entries: entries.map(entryStep) } as const;
        watched.watcher.onStep({ ...step, expect, state: stateOf(this, watched) });
      },
    );
  };
  target.beginPull = function () {
    const watched = watchedOf(this);
    beginPull.call(this);
    if (watched !== false) watched.watcher.onStep({ do: 'begin-pull' });
  };
  target.applyPullPart = function (part) {
    const watched = watchedOf(this);
    if (watched === false) return applyPullPart.call(this, part);
    return decided(
      () => applyPullPart.call(this, part),
      (isComplete) => {
        const expect = partResult(isComplete);
        watched.watcher.onStep({
          do: 'part',
          part: partStep(part),
          expect,
          state: stateOf(this, watched),
        });
      },
    );
  };
  target.abandonPull = function () {
    const watched = watchedOf(this);
    abandonPull.call(this);
    if (watched !== false) watched.watcher.onStep({ do: 'abandon-pull' });
  };
  target.leaseLeftMs = function (monotonicMs, wallMs) {
    const watched = watchedOf(this);
    const leftMs = leaseLeftMs.call(this, monotonicMs, wallMs);
    if (watched === false) return leftMs;
    watched.read = { monotonicMs, wallMs };
    watched.watcher.onStep({ do: 'lease', at: [monotonicMs, wallMs], expect: leftMs });
    return leftMs;
  };
}

/** The bytes as hexadecimal text. */
export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

export function requestStep(request: SyncRequest): RequestStep {
  return {
    epoch: hexOf(request.epoch),
    applied: Number(request.applied),
    entry_id_at_applied: hexOf(request.entryIdAtApplied),
    key_set_version: hexOf(request.keySetVersion),
    seen: request.seen.map(hexOf),
    held_to: Number(request.heldTo),
    held_digest: hexOf(request.heldDigest),
  };
}

function responseStep(response: SyncResponse): ResponseStep {
  const { leaseLength } = response;
  return {
    epoch: hexOf(response.epoch),
    head: Number(response.head),
    entry_id_at_head: hexOf(response.entryIdAtHead),
    entries: response.entries.map(entryStep),
    pull: response.pull,
    key_set_version: response.keySet === undefined ? null : hexOf(response.keySet.version),
    horizon_ms: response.horizon?.getTime() ?? 0,
    lease_ms: leaseLength === undefined ? 0 : Number(leaseLength.seconds) * 1000 + leaseLength.nanos / 1e6,
    epoch_number: Number(response.epochNumber),
    fence_wanted: Number(response.fenceWanted),
  };
}

function entryStep(entry: Entry): EntryStep {
  return {
    entry_id: hexOf(entry.entryId),
    sequence: Number(entry.sequence),
    kind: kindText(entry.kind),
    key: hexOf(entry.key),
    min_generation: Number(entry.minGeneration),
    keep_until_ms: entry.keepUntil?.getTime() ?? null,
    acknowledge: entry.acknowledge,
    issuer: entry.issuer,
    ...(entry.cutOffTime !== undefined && { cut_off_ms: entry.cutOffTime.getTime() }),
    ...(entry.claim !== '' && { claim: entry.claim }),
  };
}

function partStep({ part }: PullResponse): PartStep {
  switch (part?.$case) {
    case 'packed': {
      const { kind, keepUntil, ids } = part.value;
      const keepUntilMs = keepUntil?.getTime() ?? null;
      return { packed: { kind: kindText(kind), keep_until_ms: keepUntilMs, ids: hexOf(ids) } };
    }
    case 'entries':
      return { entries: part.value.entries.map(entryStep) };
    case 'end': {
      const { epoch, sequence, entryId } = part.value;
      return { end: { epoch: hexOf(epoch), sequence: Number(sequence), entry_id: hexOf(entryId) } };
    }
    case undefined:
      return {};
  }
}

function kindText(kind: EntryKind): string {
  return KINDS.get(kind) ?? String(kind);
}

function partResult(isComplete: boolean | undefined): PartResult {
  if (isComplete === undefined) return 'error';
  return isComplete ? 'complete' : 'incomplete';
}

/** The name of a request; a new one when it is not known. */
function nameOf(watched: Watched, ticket: SyncTicket): string {
  const known = watched.tickets.get(ticket);
  if (known !== undefined) return known;
  watched.asked += 1;
  const name = String(watched.asked);
  watched.tickets.set(ticket, name);
  return name;
}

/** Calls, and passes the result on; undefined when the call throws. */
function decided<R>(call: () => R, done: (result: R | undefined) => void): R {
  let result: R;
  try {
    result = call();
  } catch (error) {
    done(undefined);
    throw error;
  }
  done(result);
  return result;
}
