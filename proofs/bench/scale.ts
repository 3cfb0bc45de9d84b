/** Section `scale`: the warm path with lists of several sizes, and the propagation of revocations to many instances. */

import { setTimeout as sleep } from 'node:timers/promises';
import { startNats } from '../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { formatNumber } from '../shared/reporting.js';
import { quantile } from '../shared/statistics.js';
import type { FleetCommands } from './fleet-process.js';
import type { IssuerCommands } from './issuer-process.js';
import { atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { type ArmFigures, compare, openBench } from './side-by-side.js';
import { HEAD, rowOf } from './warm.js';
import { startWorker, type Worker } from './worker.js';

const SIZES = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const SIZES_SHORT = [1_000, 1_000_000];
const FLEETS = [1, 10, 100];
const FLEETS_SHORT = [1, 10];
const KNOWN_TOKENS = 500;
const LEASE_MS = 5_000;
const ISSUE_PAUSE_MS = 20;
const HEARD_P99_MS_MAX = 25;

export const scale: Section = {
  name: 'scale',
  title: 'the warm path with long lists, and the propagation of revocations to many instances',
  run: measureScale,
};

async function measureScale(context: BenchContext): Promise<Findings> {
  const lists = await measureLists(context);
  const fleets = await measureFleets(context);
  return {
    figures: { ...lists.figures, ...fleets.figures },
    tables: [...lists.tables, ...fleets.tables],
    goals: [...lists.goals, ...fleets.goals],
  };
}

async function measureLists(context: BenchContext): Promise<Findings> {
  const rows: string[][] = [];
  const ratios = new Map<number, ArmFigures>();
  let control = 1;
  const arms = ['bare', 'bare-again', 'guard'] as const;
  for (const revoked of context.isShort ? SIZES_SHORT : SIZES) {
    context.signal.throwIfAborted();
    const progress = (text: string): void => context.progress(`${revoked} entries, ${text}`);
    const bench = await openBench(context, { arms, algorithm: 'EdDSA', revoked });
    try {
      const tokens = await bench.server.call('tokens', KNOWN_TOKENS);
      const rounds = context.isShort ? 6 : 24;
      const all = await compare({ ...context, progress }, bench, {
        arms,
        tokens: () => tokens,
        rounds,
        callsPerTurn: () => (context.isShort ? 3_000 : 6_000),
      });
      for (const [arm, figures] of all) {
        if (arm === 'guard') ratios.set(revoked, figures);
        else if (arm === 'bare-again') control = Math.max(control, spreadAround1(figures));
        if (arm !== 'bare') rows.push(rowOf([`${arm}, ${revoked.toLocaleString('en-US')} entries`, figures]));
      }
    } finally {
      await bench.stop();
    }
  }
  const medians = [...ratios.values()].map(({ cpuRatio }) => cpuRatio.median);
  const growth = Math.max(...medians) / (medians[0] ?? Number.NaN);
  return {
    figures: {
      warm_cpu_ratio: Object.fromEntries([...ratios].map(([size, { cpuRatio }]) => [size, cpuRatio.median])),
      warm_cpu_growth: growth,
      warm_aa_spread: control,
    },
    tables: [{ title: 'the warm path with lists of several sizes', rows: [HEAD, ...rows] }],
    goals: [atMost('warm path, longest list against the shortest', growth, Number(control.toFixed(3)), ' ×')],
  };
}

/** The median distance from 1 of the ratio of two equal arms. */
function spreadAround1({ cpuRatio }: ArmFigures): number {
  return Math.max(cpuRatio.upper, 1 / cpuRatio.lower);
}

async function measureFleets(context: BenchContext): Promise<Findings> {
  const folder = await makeTemporaryFolder();
  const nats = await startNats({ dataDir: folder.path, port: 0, withTestUser: true });
  const natsUrl = nats.url('test');
  const issuer = startWorker<IssuerCommands>({ program: 'issuer-process', core: context.cores.load });
  const fleet = startWorker<FleetCommands>({ program: 'fleet-process', core: context.cores.server });
  try {
    const port = await issuer.call('listen', { entries: 0, leaseMs: LEASE_MS, natsUrl });
    const rows: string[][] = [];
    const figures: Record<string, unknown> = {};
    const goals: Goal[] = [];
    for (const count of context.isShort ? FLEETS_SHORT : FLEETS) {
      context.signal.throwIfAborted();
      context.progress(`${count} instances`);
      await fleet.call('grow', { port, natsUrl, count });
      const idle = await idleCost(issuer, fleet, context.isShort ? LEASE_MS / 2 : LEASE_MS);
      const { lastMs, cpu } = await broadcastCost(issuer, fleet, context.isShort ? 20 : 200);
      const [p50, p99] = [quantile(lastMs, 0.5), quantile(lastMs, 0.99)];
      rows.push([
        String(count),
        ...[p50, p99, cpu / count, idle.issuer / count, idle.fleet / count].map(formatNumber),
      ]);
      figures[String(count)] = {
        last_heard_p50_ms: p50,
        last_heard_p99_ms: p99,
        apply_cpu_us_an_instance: cpu / count,
        sync_issuer_cpu_us_an_instance_second: idle.issuer / count,
        sync_instance_cpu_us_a_second: idle.fleet / count,
      };
      if (count === 100)
        goals.push(atMost('the last of 100 instances has it, p99', p99, HEARD_P99_MS_MAX, ' ms'));
    }
    const head = [
      'instances',
      'last one p50 ms',
      'p99 ms',
      'CPU µs to apply, each',
      'syncs: issuer CPU µs/s, each',
      'own CPU µs/s',
    ];
    return {
      figures: { instances: figures },
      goals,
      tables: [
        {
          title: 'one revocation over NATS to all instances, which share one process and one core',
          rows: [head, ...rows],
        },
      ],
    };
  } finally {
    await Promise.all([issuer.stop(), fleet.stop()]);
    await nats.stop();
    await folder.remove();
  }
}

type Issuer = Worker<IssuerCommands>;
type Fleet = Worker<FleetCommands>;

/** Processor time a second of periodic syncs alone. */
async function idleCost(
  issuer: Issuer,
  fleet: Fleet,
  ms: number,
): Promise<{ issuer: number; fleet: number }> {
  const cpu = async () => ({
    issuer: await issuer.call('cpuMicroseconds'),
    fleet: await fleet.call('cpuMicroseconds'),
  });
  const before = await cpu();
  const startedMs = performance.now();
  await sleep(ms);
  const after = await cpu();
  const seconds = (performance.now() - startedMs) / 1000;
  return { issuer: (after.issuer - before.issuer) / seconds, fleet: (after.fleet - before.fleet) / seconds };
}

/** The time from a revocation to its arrival in the last list, and the processor time of all instances for it. */
async function broadcastCost(
  issuer: Issuer,
  fleet: Fleet,
  times: number,
): Promise<{ lastMs: number[]; cpu: number }> {
  const lastMs: number[] = [];
  const before = await fleet.call('cpuMicroseconds');
  for (let time = 0; time < times; time += 1) {
    const startedMs = await issuer.call('revoke');
    lastMs.push((await fleet.call('untilReceived')) - startedMs);
    await sleep(ISSUE_PAUSE_MS);
  }
  return { lastMs, cpu: ((await fleet.call('cpuMicroseconds')) - before) / times };
}
