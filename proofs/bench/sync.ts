/**
 * Section `sync`: what a Sync costs auth at several distances from the head of the log, beside what it cost when every
 * response encoded its own entries and every read fetched all of them. The calls pass through gRPC and a guard.
 */

import { join } from 'node:path';
import { startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber, type Rows } from '../shared/reporting.js';
import { median, quantile, roundTo, spreadOf } from '../shared/statistics.js';
import { processorTimeMs } from './processor-time.js';
import { atMost, type BenchContext, type Findings, type Section } from './section.js';
import type { SyncCommands } from './sync-process.js';
import type { SyncerCommands, SyncRun } from './syncer-process.js';
import { startWorker, type Worker } from './worker.js';

const ROUNDS = 5;
const ROUNDS_SHORT = 2;
const RUN_SECONDS = 4;
const RUN_SECONDS_SHORT = 2;
const INSTANCES = 400;
const INSTANCES_SHORT = 100;
/** An instance syncs within 0.9 to 1 times a fifth of the default lease. */
const SYNC_EVERY_MS = 900;
const ENTRIES_PER_SECOND = 1000;
const DATABASE = 'bench_auth';
const RATIO_MAX = 0.5;

const ARMS = ['shared', 'former'] as const;
type ArmName = (typeof ARMS)[number];

interface Case {
  readonly name: string;
  readonly lag: SyncRun['lag'];
  readonly entriesPerSecond: number;
}

const CASES: readonly Case[] = [
  { name: 'at the head', lag: 0, entriesPerSecond: 0 },
  { name: '200 entries behind', lag: 200, entriesPerSecond: 0 },
  { name: '1,000 entries behind', lag: 1000, entriesPerSecond: 0 },
  { name: `${ENTRIES_PER_SECOND.toLocaleString('en-US')} entries/s`, lag: 'follow', entriesPerSecond: 1000 },
];

export const sync: Section = {
  name: 'sync',
  title: 'what a Sync costs auth, with entries encoded once and with each response encoded by itself',
  run: async (context) => {
    const folder = await makeTemporaryFolder();
    const server = startWorker<SyncCommands>({ program: 'sync-process', core: context.cores.server });
    const load = startWorker<SyncerCommands>({ program: 'syncer-process', core: context.cores.load });
    const postgres = await startPostgres({ dataDir: join(folder.path, 'postgres'), port: 0 });
    try {
      await postgres.ensureDatabase(DATABASE);
      const url = postgres.url(DATABASE);
      const { ports, token } = await server.call('open', url);
      await load.call('open', url);
      return await measure(context, { server, load, postgres: postgres.pid, ports, token });
    } finally {
      await Promise.all([server.stop(), load.stop()]);
      await postgres.destroy();
      await folder.remove();
    }
  },
};

interface Bench {
  readonly server: Worker<SyncCommands>;
  readonly load: Worker<SyncerCommands>;
  /** The process id of PostgreSQL. */
  readonly postgres: number;
  readonly ports: Readonly<Record<ArmName, number>>;
  readonly token: string;
}

/** What one run has measured; processor times in microseconds a Sync. */
interface Run {
  readonly authCpu: number;
  /** Of PostgreSQL, with the transactions that append. */
  readonly databaseCpu: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly lag: number;
  readonly kilobytes: number;
  readonly pulls: number;
}

async function measure(context: BenchContext, bench: Bench): Promise<Findings> {
  const { load, ports, token } = bench;
  const rounds = context.isShort ? ROUNDS_SHORT : ROUNDS;
  const lags = CASES.flatMap(({ lag }) => (lag === 'follow' ? [] : [lag]));
  await load.call('append', Math.max(...lags) + 1);
  const count = context.isShort ? INSTANCES_SHORT : INSTANCES;
  for (const arm of ARMS) await load.call('connect', { port: ports[arm], token, count });
  await load.call('compare', { ports: ARMS.map((arm) => ports[arm]), token, lags });
  const runs: Record<string, Record<ArmName, Run[]>> = {};
  for (const one of CASES) {
    const ofCase: Record<ArmName, Run[]> = { shared: [], former: [] };
    // The first round warms up.
    for (let round = 0; round <= rounds; round += 1) {
      // The arms take turns at being first.
      for (const arm of round % 2 === 0 ? ARMS : ARMS.toReversed()) {
        context.signal.throwIfAborted();
        context.progress(`${one.name}, ${arm}, round ${round} of ${rounds}`);
        const run = await runArm(context, bench, arm, one);
        if (round > 0) ofCase[arm].push(run);
      }
    }
    runs[one.name] = ofCase;
  }
  return findingsOf(context, runs);
}

async function runArm(
  context: BenchContext,
  { server, load, postgres, ports }: Bench,
  arm: ArmName,
  { lag, entriesPerSecond }: Case,
): Promise<Run> {
  const cpu = async () => ({
    auth: await server.call('cpuMicroseconds'),
    database: (await processorTimeMs([postgres])) * 1000,
  });
  const before = await cpu();
  const run = await load.call('run', {
    port: ports[arm],
    lag,
    entriesPerSecond,
    everyMs: SYNC_EVERY_MS,
    seconds: context.isShort ? RUN_SECONDS_SHORT : RUN_SECONDS,
  });
  const after = await cpu();
  const syncs = run.callMs.length;
  return {
    authCpu: (after.auth - before.auth) / syncs,
    databaseCpu: (after.database - before.database) / syncs,
    p50Ms: quantile(run.callMs, 0.5),
    p99Ms: quantile(run.callMs, 0.99),
    lag: run.lag,
    kilobytes: run.bytes / 1000,
    pulls: run.pulls / syncs,
  };
}

function findingsOf(
  context: BenchContext,
  runs: Readonly<Record<string, Readonly<Record<ArmName, readonly Run[]>>>>,
): Findings {
  const rows: string[][] = [];
  const figures: Record<string, object> = {};
  let ratioAtRate = Number.NaN;
  for (const [name, { shared, former }] of Object.entries(runs)) {
    const ratio = spreadOf(
      shared.map(({ authCpu }, round) => authCpu / (former[round]?.authCpu ?? Number.NaN)),
    );
    ratioAtRate = ratio.median;
    const arms = { shared: middleOf(shared), former: middleOf(former) };
    for (const arm of ARMS) {
      const { authCpu, databaseCpu, p50Ms, p99Ms, lag, kilobytes } = arms[arm];
      rows.push([
        name,
        arm === 'shared' ? 'now' : 'before',
        ...[authCpu, databaseCpu, p50Ms, p99Ms, lag, kilobytes].map(formatNumber),
        arm === 'shared' ? ratio.median.toFixed(2) : '1',
        arm === 'shared' ? `${ratio.lower.toFixed(2)}–${ratio.upper.toFixed(2)}` : '',
      ]);
    }
    figures[name] = {
      now: figuresOf(arms.shared),
      before: figuresOf(arms.former),
      cpu_ratio: { median: ratio.median, lower: ratio.lower, upper: ratio.upper },
    };
  }
  const instances = context.isShort ? INSTANCES_SHORT : INSTANCES;
  const perSecond = (instances * 1000) / SYNC_EVERY_MS;
  const head = ['', 'arm', 'auth CPU µs', 'PostgreSQL CPU µs', 'p50 ms', 'p99 ms', 'entries', 'kB', 'CPU ×'];
  const table: Rows = [[...head, 'quartiles'], ...rows];
  return {
    figures: { ...figures, instances, syncs_per_second: perSecond },
    tables: [
      {
        title: `one Sync of ${instances} instances that sync every ${SYNC_EVERY_MS} ms, ${perSecond.toFixed(0)} syncs/s`,
        rows: table,
      },
    ],
    goals: [
      atMost(
        `auth's processor time of a Sync at ${ENTRIES_PER_SECOND.toLocaleString('en-US')} entries/s, beside before`,
        ratioAtRate,
        RATIO_MAX,
        ' ×',
      ),
    ],
    notes: [
      "PostgreSQL's processor time includes the transactions that append. Auth's includes gRPC and the guard of every call.",
    ],
  };
}

function figuresOf(run: Run): Record<string, number> {
  return {
    auth_cpu_us: roundTo(run.authCpu, 1),
    database_cpu_us: roundTo(run.databaseCpu, 1),
    p50_ms: roundTo(run.p50Ms, 2),
    p99_ms: roundTo(run.p99Ms, 2),
    entries: roundTo(run.lag, 1),
    kilobytes: roundTo(run.kilobytes, 2),
    pulls_per_sync: roundTo(run.pulls, 4),
  };
}

function middleOf(runs: readonly Run[]): Run {
  const of = (read: (run: Run) => number): number => median(runs.map(read));
  return {
    authCpu: of(({ authCpu }) => authCpu),
    databaseCpu: of(({ databaseCpu }) => databaseCpu),
    p50Ms: of(({ p50Ms }) => p50Ms),
    p99Ms: of(({ p99Ms }) => p99Ms),
    lag: of(({ lag }) => lag),
    kilobytes: of(({ kilobytes }) => kilobytes),
    pulls: of(({ pulls }) => pulls),
  };
}
