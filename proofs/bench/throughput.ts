/**
 * Section `throughput`: how many revocations a second auth commits, in groups and each by itself, side by side. The calls
 * pass through gRPC, without a guard.
 */

import { join } from 'node:path';
import { startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber, type Rows } from '../shared/reporting.js';
import { median, quantile, roundTo } from '../shared/statistics.js';
import type { RevocationCommands } from './revocation-process.js';
import type { RevokerCommands } from './revoker-process.js';
import { atLeast, atMost, type BenchContext, type Findings, type Section } from './section.js';
import { startWorker, type Worker } from './worker.js';

const ROUNDS = 5;
const ROUNDS_SHORT = 2;
/** For how long each run should last, in seconds; the numbers of sessions follow from a first run. */
const RUN_SECONDS = 4;
const RUN_SECONDS_SHORT = 1;
const CONCURRENCIES = [1, 50, 500] as const;
const BATCH = { concurrency: 5, targets: 1000 } as const;
const PROBE_SESSIONS = { 1: 100, 50: 500, 500: 1000 } as const;
const BATCH_PROBE_SESSIONS = 10_000;
const SESSIONS_MAX = 100_000;
const DATABASE = 'bench_auth';

const SPEED_UP_MIN = 8;
const ALONE_RATIO_MAX = 1.1;
const TARGETS_PER_SECOND_MIN = 15_000;
const SYNC_RATIO_MAX = 2;

export const throughput: Section = {
  name: 'throughput',
  title: 'revocations a second, in groups and one by one',
  run: async (context) => {
    const folder = await makeTemporaryFolder();
    const server = startWorker<RevocationCommands>({ program: 'revocation-process', core: undefined });
    const load = startWorker<RevokerCommands>({ program: 'revoker-process', core: undefined });
    const postgres = await startPostgres({ dataDir: join(folder.path, 'postgres'), port: 0 });
    try {
      await postgres.ensureDatabase(DATABASE);
      const ports = await server.call('open', postgres.url(DATABASE));
      return await measure(context, { server, load, ports });
    } finally {
      await Promise.all([server.stop(), load.stop()]);
      await postgres.destroy();
      await folder.remove();
    }
  },
};

interface Arms {
  readonly server: Worker<RevocationCommands>;
  readonly load: Worker<RevokerCommands>;
  readonly ports: { readonly grouped: number; readonly single: number };
}

type ArmName = keyof Arms['ports'];

interface Run {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly cpuMicroseconds: number;
  readonly syncP99Ms: number;
}

interface Case {
  readonly name: string;
  readonly concurrency: number;
  readonly batch: number;
  readonly probe: number;
  readonly arms: readonly ArmName[];
}

const CASES: readonly Case[] = [
  ...CONCURRENCIES.map((concurrency) => ({
    name: String(concurrency),
    concurrency,
    batch: 1,
    probe: PROBE_SESSIONS[concurrency],
    arms: ['grouped', 'single'] as const,
  })),
  {
    name: 'batches',
    concurrency: BATCH.concurrency,
    batch: BATCH.targets,
    probe: BATCH_PROBE_SESSIONS,
    arms: ['grouped'],
  },
];

async function measure(context: BenchContext, arms: Arms): Promise<Findings> {
  const seconds = context.isShort ? RUN_SECONDS_SHORT : RUN_SECONDS;
  const rounds = context.isShort ? ROUNDS_SHORT : ROUNDS;
  const quietMs = await arms.load.call('syncAlone', { port: arms.ports.grouped, ms: seconds * 1000 });
  const quietP99Ms = quantile(quietMs, 0.99);
  const figures: Record<string, Record<string, Run>> = {};
  const ratios: Record<string, { perSecond: number; p50Ms: number }> = {};
  for (const one of CASES) {
    const sizes = new Map<ArmName, number>();
    for (const arm of one.arms) {
      // The first run warms up, and shows how many sessions fit into a run.
      const { perSecond } = await runArm(arms, arm, one, one.probe);
      sizes.set(arm, Math.min(SESSIONS_MAX, Math.max(one.probe, Math.round(perSecond * seconds))));
    }
    const runs: Record<ArmName, Run[]> = { grouped: [], single: [] };
    for (let round = 1; round <= rounds; round++) {
      // The arms take turns at being first.
      for (const arm of round % 2 === 0 ? one.arms.toReversed() : one.arms) {
        context.signal.throwIfAborted();
        context.progress(`${one.name}, ${arm}, round ${round} of ${rounds}`);
        runs[arm].push(await runArm(arms, arm, one, sizes.get(arm) ?? one.probe));
      }
    }
    figures[one.name] = Object.fromEntries(one.arms.map((arm) => [arm, middleOf(runs[arm])]));
    if (one.arms.length > 1) ratios[one.name] = ratioOf(runs);
  }
  return findingsOf(figures, ratios, quietP99Ms);
}

async function runArm({ server, load, ports }: Arms, arm: ArmName, one: Case, count: number): Promise<Run> {
  const sessions = await server.call('addSessions', count);
  const before = await server.call('cpuMicroseconds');
  const { concurrency, batch } = one;
  const run = await load.call('revoke', { port: ports[arm], sessions, concurrency, batch });
  const cpu = (await server.call('cpuMicroseconds')) - before;
  return {
    perSecond: run.perSecond,
    p50Ms: quantile(run.callMs, 0.5),
    p99Ms: quantile(run.callMs, 0.99),
    cpuMicroseconds: cpu / count,
    syncP99Ms: quantile(run.syncMs, 0.99),
  };
}

function middleOf(runs: readonly Run[]): Run {
  const of = (read: (run: Run) => number): number => roundTo(median(runs.map(read)), 2);
  return {
    perSecond: of(({ perSecond }) => perSecond),
    p50Ms: of(({ p50Ms }) => p50Ms),
    p99Ms: of(({ p99Ms }) => p99Ms),
    cpuMicroseconds: of(({ cpuMicroseconds }) => cpuMicroseconds),
    syncP99Ms: of(({ syncP99Ms }) => syncP99Ms),
  };
}

/** The medians of the ratios within each round. */
function ratioOf({ grouped, single }: Record<ArmName, readonly Run[]>): { perSecond: number; p50Ms: number } {
  const of = (read: (run: Run) => number): number =>
    roundTo(
      median(
        grouped.map((run, index) => {
          const other = single[index];
          return other === undefined ? Number.NaN : read(run) / read(other);
        }),
      ),
      2,
    );
  return { perSecond: of(({ perSecond }) => perSecond), p50Ms: of(({ p50Ms }) => p50Ms) };
}

function findingsOf(
  figures: Readonly<Record<string, Readonly<Record<string, Run>>>>,
  ratios: Readonly<Record<string, { perSecond: number; p50Ms: number }>>,
  quietP99Ms: number,
): Findings {
  const rows: Rows = [
    ['callers', 'arm', 'a second', 'p50 ms', 'p99 ms', 'auth CPU µs each', 'Sync p99 ms', '× one by one'],
    ...Object.entries(figures).flatMap(([name, arms]) =>
      Object.entries(arms).map(([arm, run]) => [
        name === 'batches' ? `${BATCH.concurrency} × ${BATCH.targets} targets` : name,
        arm === 'grouped' ? 'in groups' : 'one by one',
        ...[run.perSecond, run.p50Ms, run.p99Ms, run.cpuMicroseconds, run.syncP99Ms].map((value) =>
          formatNumber(value),
        ),
        arm === 'grouped' ? formatNumber(ratios[name]?.perSecond ?? Number.NaN) : '1',
      ]),
    ),
  ];
  const syncP99Ms = figures['500']?.['grouped']?.syncP99Ms ?? Number.NaN;
  return {
    figures: {
      ...Object.fromEntries(
        Object.entries(figures).map(([name, arms]) => [
          name,
          Object.fromEntries(
            Object.entries(arms).map(([arm, run]) => [
              arm,
              {
                per_second: run.perSecond,
                p50_ms: run.p50Ms,
                p99_ms: run.p99Ms,
                cpu_us: run.cpuMicroseconds,
                sync_p99_ms: run.syncP99Ms,
              },
            ]),
          ),
        ]),
      ),
      ratios: Object.fromEntries(
        Object.entries(ratios).map(([name, { perSecond, p50Ms }]) => [
          name,
          { per_second: perSecond, p50: p50Ms },
        ]),
      ),
      quiet_sync_p99_ms: quietP99Ms,
    },
    tables: [{ title: 'Revocations of sessions, through gRPC', rows }],
    goals: [
      atLeast('500 callers, in groups beside one by one', ratios['500']?.perSecond ?? 0, SPEED_UP_MIN, ' ×'),
      atMost('one caller, p50 in groups beside one by one', ratios['1']?.p50Ms ?? 9, ALONE_RATIO_MAX, ' ×'),
      atLeast(
        'targets a second by batches',
        figures['batches']?.['grouped']?.perSecond ?? 0,
        TARGETS_PER_SECOND_MIN,
      ),
      atMost(
        'Sync p99 beside 500 callers, beside its quiet figure',
        syncP99Ms / quietP99Ms,
        SYNC_RATIO_MAX,
        ' ×',
      ),
    ],
    notes: [
      'A single arm opens a queue of its own for each revocation, so that transactions run at the same time, as they did ' +
        'before there were groups. Load, auth and PostgreSQL share the processors.',
    ],
  };
}
