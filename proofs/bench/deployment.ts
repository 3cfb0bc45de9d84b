/**
 * Section `deployment`: the needs of deployments of several sizes. Nothing is measured: the needs are computed from the
 * figures of other sections, and queues are simulated in virtual time.
 */

import { randomBytes } from 'node:crypto';
import { Broadcast, Entry, EntryKind } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createRandom } from '../shared/random.js';
import { formatNumber } from '../shared/reporting.js';
import { quantile } from '../shared/statistics.js';
import type { BenchContext, Findings, Section } from './section.js';

interface Deployment {
  readonly name: string;
  readonly instances: number;
  readonly sessions: number;
  readonly revocationsPerSecond: number;
}

const DEPLOYMENTS: readonly Deployment[] = [
  { name: 'small', instances: 20, sessions: 1e5, revocationsPerSecond: 1 },
  { name: 'middle', instances: 500, sessions: 5e6, revocationsPerSecond: 50 },
  { name: 'large', instances: 2_000, sessions: 2e7, revocationsPerSecond: 500 },
  { name: 'beyond', instances: 10_000, sessions: 1e8, revocationsPerSecond: 10_000 },
];

/** The defaults of the system. */
const LEASE_SECONDS = 5;
const QUESTIONS_PER_LEASE = 5;
/** The default lifetime of tokens, 5 s for clocks that differ, and 60 s for a step of the database's clock. */
const KEEP_SECONDS = 365;
/** How long an instance holds an entry beyond that: half the span of a table, and until auth drops it. */
const HELD_LONGER_SECONDS = 20;
const SYNC_ENTRIES_MAX = 1_000;
const LIST_ENTRIES_MAX = 20e6;
const BROADCAST_ENTRIES_MAX = 500;
const ACCESS_TOKEN_SECONDS = 300;
/** The share of sessions that are in use at one time and refresh their tokens. */
const ACTIVE_PART = 0.05;
const ID_BYTES = 16;
const SEED = 7;
const REQUESTS_SIMULATED = 50_000;
const BROADCASTS_SIMULATED = 100_000;
const SYNCS_SIMULATED = 20_000;
/** Header, signature and dots of a broadcast, in bytes. */
const JWS_BYTES = 190;
const SIGN_SECONDS = 0.00005;
/** What a synchronous standby in the same region adds to a commit, in seconds. */
const REPLICATION_SECONDS = 0.001;

/** Measured costs; where there is no figure, those of a small machine. */
interface Costs {
  /** From the lock on the end of the log to the durable commit, in seconds. */
  readonly commitSeconds: number;
  /** Signing one broadcast and passing it to the broker, in seconds. */
  readonly signSeconds: number;
  /** One read of the log, in seconds. */
  readonly readSeconds: number;
  /** Processor time of auth for one Sync, in seconds. */
  readonly syncCpuSeconds: number;
  /** Processor time of an instance for one broadcast, in seconds. */
  readonly applyCpuSeconds: number;
  readonly listBytes: number;
}

export const deployment: Section = {
  name: 'deployment',
  title: 'the needs of deployments of several sizes, computed and simulated',
  run: (context) => Promise.resolve(compute(context)),
};

function compute(context: BenchContext): Findings {
  const costs = costsOf(context.earlier);
  const entryBytes = bytesOfEntry();
  const needs = DEPLOYMENTS.map((each) => ({ ...each, ...needsOf(each, costs, entryBytes) }));
  const row = (label: string, value: (need: (typeof needs)[number]) => string): string[] => [
    label,
    ...needs.map(value),
  ];
  const size = (value: number): string => value.toLocaleString('en-US');
  return {
    figures: {
      costs,
      entry_bytes_on_the_wire: entryBytes,
      ...Object.fromEntries(needs.map(({ name, ...rest }) => [name, rest])),
    },
    goals: [],
    tables: [
      {
        title: `lease ${LEASE_SECONDS} s, entries kept for ${KEEP_SECONDS} s, ${ACTIVE_PART * 100} % of sessions active`,
        rows: [
          ['', ...needs.map(({ name }) => name)],
          row('instances', ({ instances }) => size(instances)),
          row('sessions', ({ sessions }) => size(sessions)),
          row('revocations/s', ({ revocationsPerSecond }) => size(revocationsPerSecond)),
          row('entries in every list', ({ entries }) => size(entries)),
          row('list memory an instance, MB', ({ listMegabytes }) => formatNumber(listMegabytes)),
          row('broadcasts/s', ({ broadcasts }) => formatNumber(broadcasts)),
          row('deliveries by the broker/s', ({ deliveries }) => formatNumber(deliveries)),
          row('broker, out, MB/s', ({ brokerMegabytes }) => formatNumber(brokerMegabytes)),
          row('CPU of an instance for broadcasts, %', ({ applyCpu }) => formatNumber(applyCpu * 100)),
          row('syncs/s', ({ syncs }) => formatNumber(syncs)),
          row('auth, out, for syncs, MB/s', ({ syncMegabytes }) => formatNumber(syncMegabytes)),
          row('auth, cores for syncs', ({ syncCores }) => formatNumber(syncCores)),
          row('sync waits for its read, p99 ms', ({ syncWaitP99Ms }) => formatNumber(syncWaitP99Ms)),
          row('entries between two syncs', ({ entriesPerSync }) => formatNumber(entriesPerSync)),
          row('log lock busy, %', ({ lockBusy }) => formatNumber(lockBusy * 100)),
          row('revoker waits for the lock, p99 ms', ({ lockWaitP99Ms }) => formatNumber(lockWaitP99Ms)),
          row('refreshes/s', ({ refreshes }) => formatNumber(refreshes)),
          row('cold start pulls, MB', ({ pullMegabytes }) => formatNumber(pullMegabytes)),
          row('stops at', ({ stops }) => (stops.length === 0 ? '–' : stops.join(', '))),
        ],
      },
    ],
  };
}

function needsOf(
  { instances, sessions, revocationsPerSecond }: Deployment,
  costs: Costs,
  entryBytes: { readonly single: number; readonly batched: number; readonly plain: number },
) {
  const intervalSeconds = LEASE_SECONDS / QUESTIONS_PER_LEASE;
  const entries = Math.round(revocationsPerSecond * (KEEP_SECONDS + HELD_LONGER_SECONDS));
  const batches = simulateBroadcasts(revocationsPerSecond, costs.signSeconds);
  const syncs = instances / (intervalSeconds * 0.95);
  const entriesPerSync = revocationsPerSecond * intervalSeconds;
  const lock = simulateQueue(revocationsPerSecond, costs.commitSeconds);
  const perEntry = batches.perBatch < 2 ? entryBytes.single : entryBytes.batched;
  const stops: string[] = [];
  if (entries > LIST_ENTRIES_MAX) stops.push('list bound');
  if (entriesPerSync > SYNC_ENTRIES_MAX) stops.push('sync answers');
  if (lock.busy >= 1) stops.push('log lock');
  return {
    entries,
    listMegabytes: (entries * costs.listBytes) / 1e6,
    broadcasts: batches.perSecond,
    deliveries: batches.perSecond * instances,
    brokerMegabytes: (revocationsPerSecond * perEntry * instances) / 1e6,
    applyCpu: batches.perSecond * costs.applyCpuSeconds,
    syncs,
    entriesPerSync,
    syncMegabytes: (syncs * Math.min(entriesPerSync, SYNC_ENTRIES_MAX) * entryBytes.plain) / 1e6,
    syncCores: syncs * costs.syncCpuSeconds,
    syncWaitP99Ms: simulateReads(syncs, costs.readSeconds) * 1000,
    lockBusy: lock.busy,
    lockWaitP99Ms: lock.waitP99Seconds * 1000,
    refreshes: (sessions * ACTIVE_PART) / ACCESS_TOKEN_SECONDS,
    pullMegabytes: (entries * ID_BYTES) / 1e6,
    stops,
  };
}

/** A queue with random arrivals, one server, and a constant service time. */
function simulateQueue(
  perSecond: number,
  serviceSeconds: number,
): { readonly busy: number; readonly waitP99Seconds: number } {
  const busy = perSecond * serviceSeconds;
  if (busy >= 1) return { busy, waitP99Seconds: Number.POSITIVE_INFINITY };
  const random = createRandom(SEED);
  const waits: number[] = [];
  let arrival = 0;
  let freeAt = 0;
  for (let request = 0; request < REQUESTS_SIMULATED; request += 1) {
    arrival += random.exponential(1 / perSecond);
    waits.push(Math.max(0, freeAt - arrival));
    freeAt = Math.max(freeAt, arrival) + serviceSeconds;
  }
  return { busy, waitP99Seconds: quantile(waits, 0.99) };
}

/** Batching: entries committed while auth signs one broadcast are sent together in the next one. */
function simulateBroadcasts(
  perSecond: number,
  signSeconds: number,
): { readonly perSecond: number; readonly perBatch: number } {
  const random = createRandom(SEED);
  let arrival = 0;
  let freeAt = 0;
  let messages = 0;
  let entries = 0;
  while (entries < BROADCASTS_SIMULATED) {
    // Signing starts when there is an entry and the previous broadcast is signed.
    const startedAt = Math.max(arrival, freeAt);
    let inMessage = 0;
    while (arrival <= startedAt && inMessage < BROADCAST_ENTRIES_MAX) {
      inMessage += 1;
      arrival += random.exponential(1 / perSecond);
    }
    messages += 1;
    entries += inMessage;
    freeAt = startedAt + signSeconds;
  }
  return { perSecond: (messages / entries) * perSecond, perBatch: entries / messages };
}

/** The p99 time that a sync waits for the read that answers it, in seconds; one read at a time. */
function simulateReads(perSecond: number, readSeconds: number): number {
  const random = createRandom(SEED);
  const waits: number[] = [];
  let arrival = 0;
  let freeAt = 0;
  while (waits.length < SYNCS_SIMULATED) {
    // A read answers the syncs that arrived before it began.
    const startedAt = Math.max(arrival, freeAt);
    const endedAt = startedAt + readSeconds;
    while (arrival <= startedAt) {
      waits.push(endedAt - arrival);
      arrival += random.exponential(1 / perSecond);
    }
    freeAt = endedAt;
  }
  return quantile(waits, 0.99);
}

/** The bytes of an entry: alone in a broadcast, among many, and in a sync response. */
function bytesOfEntry(): { readonly single: number; readonly batched: number; readonly plain: number } {
  const entry = Entry.fromPartial({
    entryId: randomBytes(ID_BYTES),
    sequence: 1_000_000n,
    kind: EntryKind.ENTRY_KIND_SESSION,
    key: randomBytes(ID_BYTES),
    keepUntil: new Date(),
  });
  const plain = Entry.encode(entry).finish().byteLength;
  const broadcast = (count: number): number => {
    const payload = Broadcast.encode({
      epoch: randomBytes(ID_BYTES),
      entries: Array(count).fill(entry),
    }).finish();
    return (payload.byteLength * 4) / 3 + JWS_BYTES;
  };
  return { single: broadcast(1), batched: broadcast(100) / 100, plain };
}

function costsOf(earlier: Readonly<Record<string, unknown>>): Costs {
  const number = (fallback: number, ...path: readonly string[]): number => {
    let value: unknown = earlier;
    for (const name of path) value = (value as Record<string, unknown> | undefined)?.[name];
    return typeof value === 'number' ? value : fallback;
  };
  return {
    commitSeconds: number(2, 'revoke', 'commit_p50_ms') / 1000 + REPLICATION_SECONDS,
    signSeconds: SIGN_SECONDS,
    readSeconds: number(2, 'revoke', 'commit_p50_ms') / 1000 + REPLICATION_SECONDS,
    syncCpuSeconds: number(300, 'scale', 'instances', '100', 'sync_issuer_cpu_us_an_instance_second') / 1e6,
    applyCpuSeconds: number(300, 'scale', 'instances', '100', 'apply_cpu_us_an_instance') / 1e6,
    listBytes: number(23, 'list', '10000000', 'bytes_per_entry'),
  };
}
