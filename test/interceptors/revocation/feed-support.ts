/** Sync responses, broadcasts and a log, for tests of the feed. */

import { randomBytes } from 'node:crypto';
import { Feed, type Moment } from '../../../interceptors/src/revocation/feed.js';
import {
  type Broadcast,
  type Entry,
  type PullResponse,
  type SyncRequest,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { NOW_SECONDS, tokenEntry } from '../tokens-support.js';

export const EPOCH = Buffer.alloc(16, 0xe1);
export const OTHER_EPOCH = Buffer.alloc(16, 0xe2);
export const LEASE_MS = 5000;
export const NOTHING = Buffer.alloc(0);

/** A moment this long after the beginning of a test, on both clocks. */
export function at(ms: number, wallJumpMs = 0): Moment {
  return { monotonicMs: 50_000 + ms, wallMs: NOW_SECONDS * 1000 + ms + wallJumpMs };
}

/** A sync response. Default: that of an empty log whose epoch is followed already. */
export function answer(over: Partial<SyncResponse> = {}): SyncResponse {
  return {
    ...SyncResponse.fromPartial({}),
    epoch: EPOCH,
    leaseLength: { seconds: BigInt(LEASE_MS / 1000), nanos: 0 },
    ...over,
  };
}

/** A key set without keys: the state machine reads only its version. */
export function keySet(version: number) {
  return { version: Buffer.alloc(32, version), keys: [] };
}

export function broadcast(entries: Entry[], epoch: Buffer = EPOCH): Broadcast {
  return { epoch, entries };
}

export function endOfPull(sequence: bigint, entryId: Buffer = NOTHING, epoch: Buffer = EPOCH): PullResponse {
  return { part: { $case: 'end', value: { epoch, sequence, entryId } } };
}

export function partOf(...entries: Entry[]): PullResponse {
  return { part: { $case: 'entries', value: { entries } } };
}

/** A feed, and the notifications of its listener. */
export class ListenedFeed {
  readonly notifications: string[] = [];
  readonly added: Entry[] = [];
  readonly feed = new Feed({
    service: 'inventory',
    instance: Buffer.alloc(16, 1),
    listener: {
      entryAdded: (entry) => {
        this.notifications.push('entry');
        this.added.push(entry);
      },
      listFilled: () => this.notifications.push('filled'),
      epochChanged: () => this.notifications.push('epoch'),
    },
  });

  /** Creates a request at one moment, and applies the response at once. */
  ask(when: Moment, response: SyncResponse, installKeys: () => void = () => {}) {
    return this.feed.applySyncResponse(this.feed.createSyncRequest(when), response, installKeys);
  }

  /** Follows an epoch up to a head, with the last sync at `when`. */
  hydrate(when: Moment, head = 0n, entryIdAtHead: Buffer = NOTHING, epoch: Buffer = EPOCH): void {
    const before = { ...when, monotonicMs: when.monotonicMs - 1, wallMs: when.wallMs - 1 };
    this.ask(before, answer({ epoch, pull: true, keySet: keySet(1) }));
    this.feed.beginPull();
    this.feed.applyPullPart(endOfPull(head, entryIdAtHead, epoch));
    this.ask(when, answer({ epoch, head, entryIdAtHead }));
    this.notifications.length = 0;
    this.added.length = 0;
  }

  leaseLeftMs(when: Moment): number {
    return this.feed.leaseLeftMs(when.monotonicMs, when.wallMs);
  }
}

/** The issuer's log, and its responses. */
export class ModelLog {
  epoch: Buffer = randomBytes(16);
  entries: Entry[] = [];
  #keySet = 1;

  append(tokenId: string): Entry {
    const entry = tokenEntry(tokenId, { sequence: BigInt(this.entries.length + 1) });
    this.entries.push(entry);
    return entry;
  }

  beginEpoch(): void {
    this.epoch = randomBytes(16);
    this.entries = [];
    this.changeKeys();
  }

  changeKeys(): void {
    this.#keySet += 1;
  }

  get head(): bigint {
    return BigInt(this.entries.length);
  }

  get entryIdAtHead(): Buffer {
    return this.entries.at(-1)?.entryId ?? NOTHING;
  }

  /** Responds with at most `most` entries; larger gaps require a pull. */
  answer(request: SyncRequest, most: number): SyncResponse {
    const follows = request.epoch.equals(this.epoch);
    const entries = follows ? this.entries.slice(Number(request.applied)) : [];
    const pull = !follows || entries.length > most;
    return answer({
      epoch: this.epoch,
      head: this.head,
      entryIdAtHead: this.entryIdAtHead,
      entries: pull ? [] : entries,
      pull,
      keySet: request.keySetVersion.equals(keySet(this.#keySet).version) ? undefined : keySet(this.#keySet),
    });
  }

  /** The whole list, in parts. */
  parts(): PullResponse[] {
    return [
      ...this.entries.map((entry) => partOf(entry)),
      endOfPull(this.head, this.entryIdAtHead, this.epoch),
    ];
  }
}
