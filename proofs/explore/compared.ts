/** Compares what the feed does in a state with the tables of the specification. */

import { ID_BYTES } from '@portcullis/guard/limits';
import { Checker } from '../spec/checker.js';
import { hexOf, requestStep, type Watcher, watchFeeds } from '../spec/feed-steps.js';
import { ReferenceList } from '../spec/list.js';
import { ReferenceInstance } from '../spec/reference.js';
import type { StateStep } from '../spec/steps.js';
import type { ExposedFeed, ExposedHeld, Protocol } from './protocol.js';
import type { World } from './world.js';

/** One of so many feeds is compared: a world has millions of states. */
const COMPARED_FEEDS = 16;

const EVERYTHING: ReadonlySet<string> = new Set();

/** A list that is not that of the feed; the reference only compares it. */
const OTHER_LIST = new ReferenceList(EVERYTHING, 0);

/**
 * The protocol with feeds that are compared with the tables. What is in the lists is not compared: the oracle of the
 * explorer asks them in every state.
 *
 * @param everyFeed - compares each feed instead of one in {@link COMPARED_FEEDS}
 */
export function comparedWithTables(protocol: Protocol, everyFeed = false): Protocol {
  const ComparedFeed = comparedFeedOf(protocol.Feed);
  let feeds = 0;
  return {
    ...protocol,
    // Read whenever a feed is made. Feeds of the other class cost nothing.
    get Feed() {
      feeds += 1;
      return everyFeed || feeds % COMPARED_FEEDS === 0 ? ComparedFeed : protocol.Feed;
    },
  };
}

const COMPARED = new WeakMap<Protocol['Feed'], Protocol['Feed']>();

/** One class for all worlds, so that its code stays compiled. */
function comparedFeedOf(Feed: Protocol['Feed']): Protocol['Feed'] {
  const known = COMPARED.get(Feed);
  if (known !== undefined) return known;
  class ComparedFeed extends Feed {}
  watchFeeds(ComparedFeed.prototype, (feed) => watcherOf(feed as ExposedFeed));
  COMPARED.set(Feed, ComparedFeed);
  return ComparedFeed;
}

/** @throws Error, later, when a decision of the feed is not that of the tables */
function watcherOf(feed: ExposedFeed): Watcher {
  const reference = referenceOf(feed);
  const checker = new Checker(reference);
  return {
    onStep(step) {
      const mismatch = checker.check(step);
      if (mismatch === undefined) return;
      throw new Error(`the feed and the tables of the specification differ: ${mismatch.what}`);
    },
    onFormerTicket(name, { request, sentAt, risesMs, list }) {
      checker.addTicket(name, {
        request: requestStep(request),
        at: [sentAt.monotonicMs, sentAt.wallMs],
        risesMs,
        list: list === feed._list ? reference.state.list : OTHER_LIST,
      });
    },
    stateOf: () => stateOf(feed),
  };
}

/** A reference instance in the state of the feed, with an empty list. */
function referenceOf(feed: ExposedFeed): ReferenceInstance {
  const { _lease: lease, _rises: rises, _staged: staged, _held: held } = feed;
  return new ReferenceInstance({
    from: {
      epoch: hexOf(feed._epoch),
      applied: Number(feed._applied),
      entryIdAtApplied: hexOf(feed._entryIdAtApplied),
      highest: Number(feed._highestSeen),
      keySetVersion: hexOf(feed._keySetVersion),
      horizonMs: feed._horizonMs,
      lastMs: feed._lastAppliedMonotonicMs,
      lease: lease && {
        at: [lease.sentAt.monotonicMs, lease.sentAt.wallMs],
        risesMs: lease.risesMs,
        lengthMs: lease.lengthMs,
      },
      hydrated: feed._hydrated,
      unacknowledged: [...feed._unacknowledged.keys()],
      held: heldIn(held),
      staged: staged && new ReferenceList(EVERYTHING, Number.POSITIVE_INFINITY),
      endedRisesMs: rises._endedMs,
      segment: Number.isFinite(rises._lowestMs)
        ? { lowestMs: rises._lowestMs, highestMs: rises._highestMs, riseMs: rises._riseMs }
        : undefined,
    },
  });
}

function heldIn({ _position: position, _sequences: sequences, _ids: ids }: ExposedHeld): Map<number, string> {
  const held = new Map<number, string>();
  for (const [slot, sequence] of sequences.entries()) {
    if (sequence <= position) continue;
    held.set(sequence, hexOf(ids.subarray(slot * ID_BYTES, (slot + 1) * ID_BYTES)));
  }
  return held;
}

function stateOf(feed: ExposedFeed): Partial<StateStep> {
  return {
    epoch: hexOf(feed._epoch),
    applied: Number(feed._applied),
    entry_id_at_applied: hexOf(feed._entryIdAtApplied),
    key_set_version: hexOf(feed._keySetVersion),
    seen: [...feed._unacknowledged.keys()],
    hydrated: feed._hydrated,
    horizon_ms: feed._horizonMs,
    lease_ms: feed._lease?.lengthMs ?? 0,
    highest: Number(feed._highestSeen),
    held_to: Number(feed._held.heldTo),
    held_digest: hexOf(feed._held.digest),
  };
}

/**
 * Whether the feeds of a world can be compared: with an empty list, the reference cannot know when it is full, and it knows
 * all kinds of entries.
 */
export function isComparable({ listMax, oldVersion }: Pick<World, 'listMax' | 'oldVersion'>): boolean {
  return listMax === undefined && oldVersion !== true;
}
