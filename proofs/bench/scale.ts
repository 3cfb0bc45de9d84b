/**
 * Section `scale`: many instances of the library follow a real auth over real PostgreSQL and a cluster of nats-servers,
 * while entries are appended in batches. Everything in it is measured; what larger deployments need is computed by the
 * section `deployment`.
 */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type System, startSystem } from '../../scripts/system/system.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { type NatsCluster, startNatsCluster } from '../shared/nats-cluster.js';
import { formatNumber, type Rows } from '../shared/reporting.js';
import { quantile, roundTo, sumOf } from '../shared/statistics.js';
import type { InstancesCommands, InstancesFigures } from './instances-process.js';
import { processorTimeBetween, processorTimesMs } from './processor-time.js';
import { type Batch, createOperator, largestOf, type Operator } from './scale-operator.js';
import { atLeast, atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { startWorker, type Worker } from './worker.js';

const SERVERS = 3;
/** The processes that share the instances. */
const PROCESSES = 4;
/** A run without entries, before the measurement with them, in seconds. */
const IDLE_SECONDS = 10;
/** How long after the bound an entry is waited for, in milliseconds. */
const LATE_MS_MAX = 20_000;
/** The part of the wanted entries that must be appended for a run to count. */
const RATE_MIN = 0.95;

/** A number of instances, and what is appended while they follow the log. */
interface Stage {
  readonly instances: number;
  readonly leaseMs: number;
  readonly entriesPerSecond: number;
  /** Entries in one call of Revoke. */
  readonly batch: number;
  readonly seconds: number;
}

/**
 * What two cores carry beside auth, PostgreSQL and the brokers. With the default lease of 5 s, the syncs of 1,000 instances
 * alone would take them; the others have it, and up to ten times as many entries between two syncs as a response lists.
 */
const STAGES: readonly Stage[] = [
  { instances: 1000, leaseMs: 20_000, entriesPerSecond: 100, batch: 100, seconds: 30 },
  { instances: 100, leaseMs: 5000, entriesPerSecond: 1000, batch: 500, seconds: 30 },
  { instances: 10, leaseMs: 5000, entriesPerSecond: 10_000, batch: 1000, seconds: 15 },
];
const STAGES_SHORT: readonly Stage[] = [
  { instances: 40, leaseMs: 5000, entriesPerSecond: 200, batch: 100, seconds: 4 },
];

export const scale: Section = {
  name: 'scale',
  title: `many instances, a real auth and ${SERVERS} nats-servers: until the last instance enforces`,
  run: async (context) => {
    const measured: Measured[] = [];
    for (const stage of context.isShort ? STAGES_SHORT : STAGES) {
      context.signal.throwIfAborted();
      measured.push(await withDeployment(context, stage, (deployment) => measure(context, deployment)));
    }
    return findingsOf(measured);
  },
};

/** A running system with its instances. */
interface Deployment {
  readonly stage: Stage;
  readonly system: System;
  readonly cluster: NatsCluster;
  readonly processes: readonly Worker<InstancesCommands>[];
  readonly operator: Operator;
}

async function withDeployment<Result>(
  context: BenchContext,
  stage: Stage,
  work: (deployment: Deployment) => Promise<Result>,
): Promise<Result> {
  const { signal } = context;
  const folder = await makeTemporaryFolder();
  const stops: (() => Promise<void>)[] = [() => folder.remove()];
  try {
    context.progress(`${titleOf(stage)}: starting auth, PostgreSQL and ${SERVERS} nats-servers`);
    const cluster = await startNatsCluster({ folder: folder.path, size: SERVERS });
    stops.push(() => cluster.stop());
    const system = await startSystem({
      dataDir: join(folder.path, 'system'),
      ports: 'free',
      leaseMs: stage.leaseMs,
      withoutDemo: true,
      environment: {
        NATS_URL: cluster.urls.join(','),
        // All instances have one address.
        PORTCULLIS_CONNECTIONS_PER_ADDRESS: '10000',
        PORTCULLIS_PUBLIC_CALLS_PER_ADDRESS: '1000',
      },
      signal,
    });
    stops.push(() => system.stop());
    // Only auth is measured.
    await Promise.all([...system.inventory, system.payment].map((service) => service.stop()));
    const operator = await createOperator(system);
    stops.push(() => operator.close());
    const processes = startProcesses(stage);
    stops.push(async () => void (await Promise.all(processes.map((process) => process.stop()))));
    context.progress(`${titleOf(stage)}: starting the instances`);
    const identities = await operator.createIdentities(stage.instances, cluster.urls);
    const { issuer } = system;
    await Promise.all(
      processes.map((process, index) =>
        process.call('start', {
          authAddress: system.auth.address,
          issuer,
          identities: identities.filter((_, at) => at % processes.length === index),
        }),
      ),
    );
    return await work({ stage, system, cluster, processes, operator });
  } finally {
    for (const stop of stops.reverse()) await stop().catch(() => undefined);
  }
}

function startProcesses({ instances }: Stage): Worker<InstancesCommands>[] {
  return Array.from({ length: Math.min(PROCESSES, instances) }, () =>
    startWorker<InstancesCommands>({ program: 'instances-process', core: undefined }),
  );
}

/** What the instances of all processes did within some time. */
interface Run {
  readonly seconds: number;
  readonly cpu: Cpu;
  readonly figures: readonly InstancesFigures[];
}

/** Processor time, in milliseconds. */
interface Cpu {
  readonly auth: number;
  readonly instances: number;
  readonly nats: number;
  readonly postgres: number;
}

interface Measured {
  readonly stage: Stage;
  readonly idle: Run;
  readonly loaded: Run;
  readonly entries: number;
  /** How long it took to append them. */
  readonly appendSeconds: number;
  /** From before the call that revoked until the last instance had the entry, for each entry. */
  readonly lastMs: readonly number[];
  /** Entries that an instance still lacked long after the bound. */
  readonly missing: number;
  readonly broadcasts: number;
  readonly dropped: number;
}

async function measure(context: BenchContext, deployment: Deployment): Promise<Measured> {
  const { stage, processes, operator } = deployment;
  const base = await operator.revoke(1);
  await onAll(processes, (process) => process.call('begin', base.last));
  context.progress(`${titleOf(stage)}: no entries`);
  const idleMs = context.isShort ? stage.leaseMs : IDLE_SECONDS * 1000;
  const idle = await runOf(
    deployment,
    () => base.last,
    () => sleep(idleMs),
  );
  await onAll(processes, (process) => process.call('begin', base.last));
  const broadcastsBefore = await operator.broadcasts();
  context.progress(`${titleOf(stage)}: ${stage.seconds} s with entries`);
  let batches: readonly Batch[] = [];
  let appendSeconds = 0;
  let head = base.last;
  const loaded = await runOf(
    deployment,
    () => head,
    async () => {
      const startedMs = performance.now();
      batches = await operator.revokeFor(stage);
      appendSeconds = (performance.now() - startedMs) / 1000;
      head = largestOf([base.last, ...batches.map(({ last }) => last)]);
      const timeoutMs = boundMs(stage) + LATE_MS_MAX;
      await onAll(processes, (process) => process.call('untilComplete', { head, timeoutMs }));
    },
  );
  const broadcastsAfter = await operator.broadcasts();
  const lastMs = lastArrivals(batches, base.last, loaded.figures);
  return {
    stage,
    idle,
    loaded,
    entries: sumOf(batches, ({ count }) => count),
    appendSeconds,
    lastMs: lastMs.filter(Number.isFinite),
    missing: lastMs.filter((ms) => !Number.isFinite(ms)).length,
    broadcasts: broadcastsAfter.sent - broadcastsBefore.sent,
    dropped: broadcastsAfter.dropped - broadcastsBefore.dropped,
  };
}

/** Measures what happens while `work` runs. */
async function runOf(deployment: Deployment, head: () => bigint, work: () => Promise<void>): Promise<Run> {
  const before = await cpuOf(deployment);
  const startedMs = performance.now();
  await work();
  const seconds = (performance.now() - startedMs) / 1000;
  const after = await cpuOf(deployment);
  const cpu = {
    auth: processorTimeBetween(before.auth, after.auth),
    nats: processorTimeBetween(before.nats, after.nats),
    postgres: processorTimeBetween(before.postgres, after.postgres),
    instances: after.instances - before.instances,
  };
  return {
    seconds,
    cpu,
    figures: await onAll(deployment.processes, (process) => process.call('figures', head())),
  };
}

async function cpuOf({ system, cluster, processes }: Deployment) {
  const [auth, nats, postgres, instances] = await Promise.all([
    processorTimesMs([system.auth.pid]),
    processorTimesMs(cluster.pids),
    processorTimesMs([system.postgres?.pid ?? 0]),
    onAll(processes, (process) => process.call('cpuMicroseconds')),
  ]);
  return { auth, nats, postgres, instances: sumOf(instances, (us) => us) / 1000 };
}

function onAll<Result>(
  processes: readonly Worker<InstancesCommands>[],
  call: (process: Worker<InstancesCommands>) => Promise<Result>,
): Promise<Result[]> {
  return Promise.all(processes.map(call));
}

/** For each entry the time until the last instance of all processes had it; infinite when one lacks it. */
function lastArrivals(
  batches: readonly Batch[],
  base: bigint,
  figures: readonly InstancesFigures[],
): number[] {
  return batches.flatMap(({ sequences, sentMs }) =>
    sequences.map((sequence) => {
      const times = figures.map(({ lastMs }) => lastMs[Number(sequence - base) - 1] ?? 0);
      return times.includes(0) ? Number.POSITIVE_INFINITY : Math.max(...times) - sentMs;
    }),
  );
}

/** The bound of the promise (docs/spec/revocation-v1.md), in milliseconds. */
function boundMs({ leaseMs }: Stage): number {
  return Math.ceil(leaseMs * 1.01) + 100;
}

function titleOf({ instances, entriesPerSecond, leaseMs }: Stage): string {
  const size = (value: number): string => value.toLocaleString('en-US');
  return `${size(instances)} instances, ${size(entriesPerSecond)} entries/s, lease ${leaseMs / 1000} s`;
}

function findingsOf(measured: readonly Measured[]): Findings {
  const summaries = measured.map(summaryOf);
  const row = (label: string, value: (summary: Summary) => string): string[] => [
    label,
    ...summaries.map(value),
  ];
  const rows: Rows = [
    ['', ...measured.map(({ stage }) => `${stage.instances} × ${stage.entriesPerSecond}/s`)],
    row('lease, s', ({ lease_s: value }) => formatNumber(value)),
    row('entries in one call', ({ batch }) => formatNumber(batch)),
    row('entries/s, appended', ({ entries_per_second: value }) => formatNumber(value)),
    row('last instance enforces: p50 ms', ({ last_p50_ms: value }) => formatNumber(value)),
    row('p99 ms', ({ last_p99_ms: value }) => formatNumber(value)),
    row('max ms', ({ last_max_ms: value }) => formatNumber(value)),
    row('its bound B, ms', ({ bound_ms: value }) => formatNumber(value)),
    row('entries that an instance lacks', ({ missing }) => String(missing)),
    row('leases that ran out', ({ leases_lost: value }) => String(value)),
    row('broadcasts/s', ({ broadcasts_per_second: value }) => formatNumber(value)),
    row('deliveries/s', ({ deliveries_per_second: value }) => formatNumber(value)),
    row('entries not broadcast', ({ entries_dropped: value }) => String(value)),
    row('syncs/s', ({ syncs_per_second: value }) => formatNumber(value)),
    row('failed syncs', ({ failed_syncs: value }) => String(value)),
    row('pulls', ({ pulls }) => String(pulls)),
    row('entries in a response: mean', ({ lag_mean: value }) => formatNumber(value)),
    row('entries in a response: p50', ({ lag_p50: value }) => formatNumber(value)),
    row('entries in a response: max', ({ lag_max: value }) => formatNumber(value)),
    row('Sync p50 ms', ({ sync_p50_ms: value }) => formatNumber(value)),
    row('Sync p99 ms', ({ sync_p99_ms: value }) => formatNumber(value)),
    row('auth, cores', ({ auth_cores: value }) => formatNumber(value)),
    row('auth without entries, cores', ({ idle_auth_cores: value }) => formatNumber(value)),
    row('PostgreSQL, cores', ({ postgres_cores: value }) => formatNumber(value)),
    row('nats-servers together, cores', ({ nats_cores: value }) => formatNumber(value)),
    row('an instance, % of a core', ({ instance_cores: value }) => formatNumber(value * 100)),
    row('an instance without entries, %', ({ idle_instance_cores: value }) => formatNumber(value * 100)),
  ];
  return {
    figures: {
      stages: Object.fromEntries(
        measured.map(({ stage }, index) => [
          `${stage.instances}x${stage.entriesPerSecond}`,
          summaries[index],
        ]),
      ),
    },
    tables: [{ title: 'measured, everything on this machine', rows }],
    goals: measured.flatMap(({ stage }, index) => goalsOf(stage, summaries[index])),
    notes: [
      'Each instance is the feed of the library with a client, an instance id, a gRPC channel and a connection to one of ' +
        `the ${SERVERS} nats-servers; ${PROCESSES} processes share the instances.`,
      'Times run from before the call of Revoke until the entry is in the list of the last instance.',
    ],
  };
}

type Summary = ReturnType<typeof summaryOf>;

function summaryOf(measured: Measured) {
  const { stage, idle, loaded, entries, appendSeconds, lastMs, missing, broadcasts, dropped } = measured;
  const { seconds, cpu, figures } = loaded;
  const sum = (read: (one: InstancesFigures) => number): number => sumOf(figures, read);
  const syncMs = figures.flatMap((one) => one.syncMs);
  const lags = figures.flatMap((one) => one.lags);
  const perSecond = (value: number): number => roundTo(value / seconds, 1);
  const idleSyncs = sumOf(idle.figures, ({ syncs }) => syncs);
  const cores = (ms: number, run: Run): number => roundTo(ms / 1000 / run.seconds, 5);
  return {
    instances: stage.instances,
    lease_s: stage.leaseMs / 1000,
    batch: stage.batch,
    seconds: roundTo(seconds, 1),
    entries,
    entries_per_second: roundTo(entries / appendSeconds, 1),
    last_p50_ms: roundTo(quantile(lastMs, 0.5), 1),
    last_p99_ms: roundTo(quantile(lastMs, 0.99), 1),
    last_max_ms: roundTo(quantile(lastMs, 1), 1),
    bound_ms: boundMs(stage),
    missing,
    leases_lost: sum((one) => one.leasesLost) + sumOf(idle.figures, (one) => one.leasesLost),
    broadcasts_per_second: perSecond(broadcasts),
    deliveries_per_second: perSecond(sum((one) => one.deliveries)),
    entries_dropped: dropped,
    syncs_per_second: perSecond(sum((one) => one.syncs)),
    failed_syncs: sum((one) => one.failedSyncs),
    pulls: sum((one) => one.pulls),
    lag_mean: roundTo(sumOf(lags, (lag) => lag) / Math.max(1, lags.length), 2),
    lag_p50: quantile(lags, 0.5),
    lag_max: quantile(lags, 1),
    sync_p50_ms: roundTo(quantile(syncMs, 0.5), 1),
    sync_p99_ms: roundTo(quantile(syncMs, 0.99), 1),
    auth_cores: cores(cpu.auth, loaded),
    postgres_cores: cores(cpu.postgres, loaded),
    nats_cores: cores(cpu.nats, loaded),
    instance_cores: cores(cpu.instances / stage.instances, loaded),
    idle_syncs_per_second: roundTo(idleSyncs / idle.seconds, 1),
    idle_auth_cores: cores(idle.cpu.auth, idle),
    idle_auth_us_a_sync: roundTo((idle.cpu.auth * 1000) / idleSyncs, 1),
    idle_instance_cores: cores(idle.cpu.instances / stage.instances, idle),
  };
}

function goalsOf(stage: Stage, summary: Summary | undefined): Goal[] {
  if (summary === undefined) return [];
  const title = titleOf(stage);
  return [
    atMost(`${title}: leases that ran out`, summary.leases_lost, 0),
    atMost(`${title}: pulls`, summary.pulls, 0),
    atMost(
      `${title}: the last instance enforces, max`,
      summary.missing > 0 ? Number.POSITIVE_INFINITY : summary.last_max_ms,
      boundMs(stage),
      ' ms',
    ),
    atLeast(
      `${title}: entries appended`,
      summary.entries_per_second,
      stage.entriesPerSecond * RATE_MIN,
      '/s',
    ),
  ];
}
