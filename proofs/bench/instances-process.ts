/** A process with many instances: each is the library's feed with an identity and connections of its own. */

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials } from '@grpc/grpc-js';
import type { RevocationSource } from '@portcullis/guard';
import { systemClock } from '@portcullis/guard/clock';
import { createRemoteSource, Feed, FeedRunner, subscribeToBroadcasts } from '@portcullis/guard/internal';
import { waitUntil } from '../shared/waiting.js';
import { ID_BYTES } from './issuer.js';
import { executeCommands } from './worker.js';

const POLL_MS = 20;
const READY_MS_MAX = 300_000;
/** Instances that connect at the same time: more would wait for each other beyond their timeouts. */
const STARTING_MAX = 10;
/** Entries of one run whose arrivals are recorded. */
const ENTRIES_MAX = 200_000;
const IGNORE = (): void => {};
const SILENT = { info: IGNORE, warn: IGNORE, error: IGNORE };

/** How an instance reaches the system. */
export interface Identity {
  readonly clientId: string;
  /** PKCS #8 PEM. */
  readonly privateKey: string;
  readonly natsUrl: string;
}

/** What the instances of a process have done in a run. */
export interface InstancesFigures {
  /** For each entry after the base, when the last instance had it, in Unix milliseconds; 0 when one lacks it. */
  readonly lastMs: Float64Array;
  readonly syncs: number;
  readonly failedSyncs: number;
  readonly pulls: number;
  /** Milliseconds of each Sync. */
  readonly syncMs: readonly number[];
  /** Entries in each response. */
  readonly lags: readonly number[];
  /** Broadcasts that arrived, at all instances. */
  readonly deliveries: number;
  /** Leases that ran out. */
  readonly leasesLost: number;
}

const instances: { readonly feed: Feed; readonly runner: FeedRunner }[] = [];
let run: Arrivals | undefined;
let counts = noCounts();

const commands = {
  /** Adds instances, and waits until all lists are current. */
  start: async (options: {
    readonly authAddress: string;
    readonly issuer: string;
    readonly identities: readonly Identity[];
  }): Promise<void> => {
    const left = [...options.identities];
    while (left.length > 0) {
      for (const identity of left.splice(0, STARTING_MAX)) await addInstance(options, identity);
      await waitUntil(() => instances.every(({ runner }) => runner.isCurrent()), {
        timeoutMs: READY_MS_MAX,
        pollMs: POLL_MS,
        failure: () => {
          const stale = instances.filter(({ runner }) => !runner.isCurrent());
          return `${stale.length} of ${instances.length} instances are not current: ${stale[0]?.runner.staleReason}`;
        },
      });
    }
  },

  /** Begins to count, and to record the arrivals of the entries after this sequence. */
  begin: (base: bigint): void => {
    counts = noCounts();
    run = new Arrivals(base, instances.length);
  },

  /** Waits until every instance has every entry up to this sequence. @returns whether that was in time */
  untilComplete: async (options: { head: bigint; timeoutMs: number }): Promise<boolean> => {
    const deadlineMs = performance.now() + options.timeoutMs;
    while (run?.isComplete(options.head) !== true) {
      if (performance.now() > deadlineMs) return false;
      await sleep(POLL_MS);
    }
    return true;
  },

  figures: (head: bigint): InstancesFigures => ({
    ...counts,
    lastMs: run?.lastMs(head) ?? new Float64Array(0),
  }),

  cpuMicroseconds: (): number => {
    const { user, system } = process.cpuUsage();
    return user + system;
  },

  stop: async (): Promise<void> => {
    await Promise.all(instances.splice(0).map(({ runner }) => runner.close()));
  },
};

export type InstancesCommands = typeof commands;

function noCounts() {
  return {
    syncs: 0,
    failedSyncs: 0,
    pulls: 0,
    syncMs: [] as number[],
    lags: [] as number[],
    deliveries: 0,
    leasesLost: 0,
  };
}

/** When the instances of this process have had each entry of a run. */
class Arrivals {
  readonly #base: bigint;
  readonly #count: number;
  /** For each instance, a bit for each entry. */
  readonly #seen: Uint8Array[];
  readonly #counts = new Uint16Array(ENTRIES_MAX);
  readonly #lastMs = new Float64Array(ENTRIES_MAX);

  constructor(base: bigint, count: number) {
    this.#base = base;
    this.#count = count;
    this.#seen = Array.from({ length: count }, () => new Uint8Array(ENTRIES_MAX / 8));
  }

  note(instance: number, sequence: bigint): void {
    const at = Number(sequence - this.#base) - 1;
    const seen = this.#seen[instance];
    if (at < 0 || at >= ENTRIES_MAX || seen === undefined) return;
    const bit = 1 << (at & 7);
    const known = seen[at >> 3] ?? 0;
    if ((known & bit) !== 0) return;
    seen[at >> 3] = known | bit;
    const count = (this.#counts[at] ?? 0) + 1;
    this.#counts[at] = count;
    if (count === this.#count) this.#lastMs[at] = performance.timeOrigin + performance.now();
  }

  /** An instance has every entry up to this sequence, by a pull. */
  noteAll(instance: number, head: bigint): void {
    for (let sequence = this.#base + 1n; sequence <= head; sequence += 1n) this.note(instance, sequence);
  }

  isComplete(head: bigint): boolean {
    return !this.lastMs(head).includes(0);
  }

  lastMs(head: bigint): Float64Array {
    return this.#lastMs.slice(0, Math.max(0, Number(head - this.#base)));
  }
}

async function addInstance(
  { authAddress, issuer }: { readonly authAddress: string; readonly issuer: string },
  { clientId, privateKey, natsUrl }: Identity,
): Promise<void> {
  const instance = randomBytes(ID_BYTES);
  const index = instances.length;
  const feed: Feed = new Feed({
    service: clientId,
    instance,
    listener: {
      entryAdded: ({ sequence }) => run?.note(index, sequence),
      // The place moves after the list was filled, in the same turn.
      listFilled: () => queueMicrotask(() => run?.noteAll(index, feed.applied)),
      epochChanged: IGNORE,
    },
  });
  const remote = await createRemoteSource({
    address: authAddress,
    credentials: credentials.createInsecure(),
    clientId,
    clientKey: privateKey,
    issuer,
  });
  const runner = new FeedRunner({
    feed,
    source: counted(remote),
    service: clientId,
    instance,
    nats: { url: natsUrl, name: clientId, awaited: true },
    clock: systemClock,
    log: SILENT,
    onKeys: IGNORE,
    onCurrentChange: (isCurrent) => {
      if (!isCurrent) counts.leasesLost += 1;
    },
    onForgery: IGNORE,
    subscribe: (options) =>
      subscribeToBroadcasts({
        ...options,
        onMessage: (bytes) => {
          counts.deliveries += 1;
          options.onMessage(bytes);
        },
      }),
  });
  runner.start();
  instances.push({ feed, runner });
}

function counted(source: RevocationSource): RevocationSource {
  return {
    ...source,
    sync: async (request, signal) => {
      const calledMs = performance.now();
      try {
        const response = await source.sync(request, signal);
        counts.syncs += 1;
        counts.syncMs.push(performance.now() - calledMs);
        counts.lags.push(response.entries.length);
        return response;
      } catch (error) {
        counts.failedSyncs += 1;
        throw error;
      }
    },
    pull: (request, signal) => {
      counts.pulls += 1;
      return source.pull(request, signal);
    },
  };
}

executeCommands(commands);
