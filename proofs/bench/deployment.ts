/**
 * Section `deployment`: the needs of deployments of several sizes, up to 10,000 instances. Nothing in it is measured: the
 * needs are computed from the figures of the sections `scale`, `sync`, `throughput`, `revoke` and `list`, and queues are
 * simulated in virtual time.
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
/** Maximum number of entries between two syncs whose ids are compared. */
const HELD_ENTRIES_MAX = 65_536;
const LIST_ENTRIES_MAX = 20e6;
/** Revocations that share a transaction, and entries that share a broadcast. */
const GROUP_MAX = 500;
/** The shortest time between two reads of auth for syncs, in seconds. */
const READ_INTERVAL_SECONDS = 0.01;
const ACCESS_TOKEN_SECONDS = 300;
/** The share of sessions that are in use at one time and refresh their tokens. */
const ACTIVE_PART = 0.05;
const ID_BYTES = 16;
/** The run of section `scale` that shows what an entry costs an instance. */
const ENTRIES_STAGE = '100x1000';
const SEED = 7;
const REVOCATIONS_SIMULATED = 200_000;
const SYNCS_SIMULATED = 20_000;
/** Header, signature and dots of a broadcast, in bytes. */
const JWS_BYTES = 190;
/** What a synchronous standby in the same region adds to a commit, in seconds. */
const REPLICATION_SECONDS = 0.001;

/** Measured costs; where there is no figure, those of a small machine. */
interface Costs {
  /** From the lock on the end of the log to the durable commit, in seconds. */
  readonly commitSeconds: number;
  /** One read of the log, in seconds. */
  readonly readSeconds: number;
  /** Processor time of auth for one Sync at the head of the log, and for one of 1,000 entries, in seconds. */
  readonly syncCpuSeconds: number;
  readonly fullSyncCpuSeconds: number;
  /** Processor time of auth for one revocation, in a group, in seconds. */
  readonly revokeCpuSeconds: number;
  /** Processor time of an instance for one broadcast, without its entries, in seconds. */
  readonly broadcastCpuSeconds: number;
  /** Processor time of an instance for one entry, in seconds. */
  readonly entryCpuSeconds: number;
  /** The entries of this time are in a response, because their broadcasts had not arrived; in seconds. */
  readonly unheldSeconds: number;
  readonly listBytes: number;
}

/** Verifying one Ed25519 signature on the main thread, in seconds. */
const VERIFY_SECONDS = 0.0001;

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
        title: `computed, not measured: lease ${LEASE_SECONDS} s, entries kept for ${KEEP_SECONDS} s, ${ACTIVE_PART * 100} % of sessions active`,
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
          row('CPU of an instance for entries, %', ({ applyCpu }) => formatNumber(applyCpu * 100)),
          row('syncs/s', ({ syncs }) => formatNumber(syncs)),
          row('auth, out, for syncs, MB/s', ({ syncMegabytes }) => formatNumber(syncMegabytes)),
          row('auth, cores for syncs', ({ syncCores }) => formatNumber(syncCores)),
          row('auth, cores for revocations', ({ revokeCores }) => formatNumber(revokeCores)),
          row('sync waits for its read, p99 ms', ({ syncWaitP99Ms }) => formatNumber(syncWaitP99Ms)),
          row('entries between two syncs', ({ entriesPerSync }) => formatNumber(entriesPerSync)),
          row('of these in a response', ({ listed }) => formatNumber(listed)),
          row('transactions that append/s', ({ groups }) => formatNumber(groups)),
          row('log lock busy, %', ({ lockBusy }) => formatNumber(lockBusy * 100)),
          row('revoker waits for the commit, p99 ms', ({ commitP99Ms }) => formatNumber(commitP99Ms)),
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
  const groups = simulateGroups(revocationsPerSecond, costs.commitSeconds);
  const syncs = instances / (intervalSeconds * 0.95);
  const entriesPerSync = revocationsPerSecond * intervalSeconds;
  const listed = Math.min(revocationsPerSecond * costs.unheldSeconds, entriesPerSync);
  const syncCpu =
    costs.syncCpuSeconds + ((costs.fullSyncCpuSeconds - costs.syncCpuSeconds) * listed) / SYNC_ENTRIES_MAX;
  const perEntry = groups.perGroup < 2 ? entryBytes.single : entryBytes.batched;
  const stops: string[] = [];
  if (entries > LIST_ENTRIES_MAX) stops.push('list bound');
  if (listed > SYNC_ENTRIES_MAX || entriesPerSync > HELD_ENTRIES_MAX) stops.push('sync responses');
  if (revocationsPerSecond * costs.revokeCpuSeconds > 1) stops.push('one auth that revokes');
  if (revocationsPerSecond >= GROUP_MAX / costs.commitSeconds) stops.push('log lock');
  return {
    entries,
    listMegabytes: (entries * costs.listBytes) / 1e6,
    // A group is signed in less time than the next one is committed, so each has a broadcast of its own.
    broadcasts: groups.perSecond,
    deliveries: groups.perSecond * instances,
    brokerMegabytes: (revocationsPerSecond * perEntry * instances) / 1e6,
    applyCpu: groups.perSecond * costs.broadcastCpuSeconds + revocationsPerSecond * costs.entryCpuSeconds,
    syncs,
    entriesPerSync,
    listed,
    syncMegabytes: (syncs * listed * entryBytes.plain) / 1e6,
    syncCores: syncs * syncCpu,
    revokeCores: revocationsPerSecond * costs.revokeCpuSeconds,
    syncWaitP99Ms: simulateReads(syncs, costs.readSeconds) * 1000,
    groups: groups.perSecond,
    lockBusy: groups.busy,
    commitP99Ms: groups.waitP99Seconds * 1000,
    refreshes: (sessions * ACTIVE_PART) / ACCESS_TOKEN_SECONDS,
    pullMegabytes: (entries * ID_BYTES) / 1e6,
    stops,
  };
}

/** Group commit: revocations that arrive while a transaction appends share the next one. */
function simulateGroups(perSecond: number, commitSeconds: number) {
  const random = createRandom(SEED);
  const waits: number[] = [];
  let arrival = 0;
  let freeAt = 0;
  let groups = 0;
  let busySeconds = 0;
  while (waits.length < REVOCATIONS_SIMULATED) {
    const startedAt = Math.max(arrival, freeAt);
    const endedAt = startedAt + commitSeconds;
    for (let members = 0; arrival <= startedAt && members < GROUP_MAX; members += 1) {
      waits.push(endedAt - arrival);
      arrival += random.exponential(1 / perSecond);
    }
    groups += 1;
    busySeconds += commitSeconds;
    freeAt = endedAt;
  }
  return {
    perSecond: groups / freeAt,
    perGroup: waits.length / groups,
    busy: busySeconds / freeAt,
    waitP99Seconds: quantile(waits, 0.99),
  };
}

/** The p99 time that a sync waits for the read that answers it, in seconds; one read at a time, and not too often. */
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
    freeAt = Math.max(endedAt, startedAt + READ_INTERVAL_SECONDS);
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
  const sync = (what: string, fallback: number): number =>
    number(fallback, 'sync', what, 'now', 'auth_cpu_us') / 1e6;
  const commitSeconds = number(2, 'revoke', 'commit_p50_ms') / 1000 + REPLICATION_SECONDS;
  const busy = (name: string): number => number(Number.NaN, 'scale', 'stages', ENTRIES_STAGE, name);
  const entrySeconds =
    (busy('instance_cores') - busy('idle_instance_cores') - busy('broadcasts_per_second') * VERIFY_SECONDS) /
    busy('entries_per_second');
  const unheldSeconds = busy('lag_mean') / busy('entries_per_second');
  return {
    commitSeconds,
    readSeconds: commitSeconds,
    syncCpuSeconds: sync('at the head', 250),
    fullSyncCpuSeconds: sync('1,000 entries behind', 350),
    revokeCpuSeconds: number(100, 'throughput', '500', 'grouped', 'cpu_us') / 1e6,
    broadcastCpuSeconds: VERIFY_SECONDS,
    unheldSeconds: Number.isFinite(unheldSeconds) ? unheldSeconds : 0.02,
    entryCpuSeconds: Number.isFinite(entrySeconds) ? entrySeconds : 6 / 1e6,
    listBytes: number(18, 'list', '10000000', 'bytes_per_entry'),
  };
}
