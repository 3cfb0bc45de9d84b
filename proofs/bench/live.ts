/** Section `live`: the cost of an open stream, and the time to cut many of them. */

import { setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatNumber } from '../shared/reporting.js';
import { quantile, spreadOf } from '../shared/statistics.js';
import { STREAM_PATH, UNARY_PATH } from './echo.js';
import type { CallTaken, LoadCommands } from './load-process.js';
import { atMost, type BenchContext, type Findings, type Goal, type Section, type Table } from './section.js';
import { type Bench, MESSAGE, openBench } from './side-by-side.js';
import { startWorker, type Worker } from './worker.js';

/** The number of streams to cut, and the number of another user's streams that stay open. */
interface Cut {
  readonly cut: number;
  readonly kept: number;
}

const CUTS: readonly Cut[] = [
  { cut: 1, kept: 0 },
  { cut: 10, kept: 9_990 },
  { cut: 5_000, kept: 5_000 },
  { cut: 10_000, kept: 0 },
];
const CUTS_SHORT: readonly Cut[] = [
  { cut: 10, kept: 490 },
  { cut: 1_000, kept: 0 },
];
/** The smallest cut whose effect on other calls can be measured. */
const NOTICED_MIN = 1_000;
const CONNECTIONS = 20;
const KNOWN_TOKENS = 200;
const OTHERS_PER_SECOND = 1_000;
const TIMES = 8;
const TIMES_SHORT = 2;
/** Other calls count from this moment on; earlier ones wait for work done before. */
const FIRST_MS = 300;
/** The time before the cut, in milliseconds, and in total, in seconds, during which other calls are made. */
const QUIET_MS = 1_300;
const WATCH_SECONDS = 3;
const IN_FLIGHT_MAX = 512;
const SETTLE_MS = 300;
/** Gives the client of the other calls priority over the client of the streams, which shares its core. */
const CROWD_NICENESS = 10;
const CUT_MS_MAX = 500;
const CUT_ONE_SESSION_MS_MAX = 10;
const CUT_HALF_MS_MAX = 1_000;
const P99_RATIO_MAX = 2;

export const live: Section = {
  name: 'live',
  title: 'live streams: the cost of one, and the time to cut all of a user',
  run: measureLive,
};

/** The server, the client of other calls, and the client of the streams (`crowd`). */
type LiveBench = Bench & { readonly crowd: Worker<LoadCommands> };

async function measureLive(context: BenchContext): Promise<Findings> {
  const pair = await openBench(context, { arms: ['bare', 'guard'], algorithm: 'EdDSA' });
  const crowd = startWorker<LoadCommands>({ program: 'load-process', core: context.cores.load });
  const bench: LiveBench = { ...pair, crowd };
  try {
    setPriority(crowd.pid, CROWD_NICENESS);
    await prepareOthers(bench);
    const largest = context.isShort ? 1_000 : 10_000;
    const costs = {
      bare: await costOf(bench, 'bare', largest),
      guard: await costOf(bench, 'guard', largest),
    };
    const cuts: Awaited<ReturnType<typeof measureCut>>[] = [];
    for (const wanted of context.isShort ? CUTS_SHORT : CUTS) {
      cuts.push(await measureCut(context, bench, wanted));
    }
    return {
      figures: {
        bytes_per_stream: costs.guard.bytes - costs.bare.bytes,
        bytes_per_stream_bare: costs.bare.bytes,
        open_cpu_us: costs.guard.cpuMicroseconds - costs.bare.cpuMicroseconds,
        open_cpu_us_bare: costs.bare.cpuMicroseconds,
        ...Object.fromEntries(cuts.flatMap(({ figures }) => Object.entries(figures))),
      },
      goals: cuts.flatMap(({ goals }) => goals),
      tables: [costTable(costs), cutTable(cuts.map(({ row }) => row))],
    };
  } finally {
    await Promise.all([pair.stop(), crowd.stop()]);
  }
}

/** Opens the connections of the other calls, and makes their tokens known. */
async function prepareOthers(bench: LiveBench): Promise<void> {
  const ordinary = {
    name: 'others',
    path: UNARY_PATH,
    tokens: await bench.server.call('tokens', KNOWN_TOKENS),
    message: Uint8Array.from(MESSAGE),
  };
  await Promise.all([bench.load.call('prepare', ordinary), bench.crowd.call('prepare', ordinary)]);
  const port = bench.ports.guard ?? 0;
  await bench.load.call('open', { name: 'others', port, calls: 'others', connections: 4 });
  await others(bench, { until: { calls: 10_000 }, inFlight: 32 });
}

function costTable(costs: Readonly<Record<'bare' | 'guard', StreamCost>>): Table {
  const rowOf = (arm: 'bare' | 'guard'): string[] => {
    const { bytes, cpuMicroseconds } = costs[arm];
    return [arm, formatNumber(bytes), formatNumber(cpuMicroseconds)];
  };
  return { title: 'one stream', rows: [['', 'bytes', 'CPU µs to open'], rowOf('bare'), rowOf('guard')] };
}

function cutTable(rows: readonly (readonly string[])[]): Table {
  const head = [
    'streams',
    'alone: ms',
    'quartiles',
    'among others: ms',
    'quartiles',
    'p99 before',
    'meanwhile',
    '×',
    'p90',
  ];
  const title = `all streams of one user cut at once, alone and among ${OTHERS_PER_SECOND} other calls a second`;
  return { title, rows: [head, ...rows] };
}

async function measureCut(
  context: BenchContext,
  bench: LiveBench,
  wanted: Cut,
): Promise<{ figures: Record<string, unknown>; row: string[]; goals: Goal[] }> {
  const { cut, kept } = wanted;
  const of = kept === 0 ? '' : ` of ${(cut + kept).toLocaleString('en-US')}`;
  const label = `${cut.toLocaleString('en-US')}${of}`;
  const times = context.isShort ? TIMES_SHORT : TIMES;
  const alone: number[] = [];
  const all: Observed[] = [];
  for (let time = 1; time <= times; time += 1) {
    context.signal.throwIfAborted();
    context.progress(`${label} streams, ${time} of ${times}`);
    alone.push(await cutAlone(bench, wanted));
    all.push(await cutAmongOthers(bench, wanted));
  }
  const [aloneMs, cutMs] = [spreadOf(alone), spreadOf(all.map((one) => one.cutMs))];
  const [before, meanwhile] = [all.flatMap((one) => one.before), all.flatMap((one) => one.meanwhile)];
  const isNoticed = cut >= NOTICED_MIN;
  const [p99Before, p99] = [quantile(before, 0.99), quantile(meanwhile, 0.99)];
  const p90 = quantile(meanwhile, 0.9);
  const goalOf = (ms: number, limitMs: number): Goal =>
    atMost(`cutting ${label} streams`, ms, limitMs, ' ms');
  return {
    figures: {
      [`cut_${cut}_ms`]: aloneMs.median,
      [`cut_${cut}_among_others_ms`]: cutMs.median,
      ...(isNoticed && {
        [`p99_ratio_while_cutting_${cut}`]: p99 / p99Before,
        [`p99_ms_while_cutting_${cut}`]: p99,
        [`p99_ms_before_cutting_${cut}`]: p99Before,
      }),
    },
    row: [
      label,
      ...[aloneMs, cutMs].flatMap(({ median, lower, upper }) => [
        formatNumber(median),
        `${formatNumber(lower)}–${formatNumber(upper)}`,
      ]),
      ...(isNoticed ? [p99Before, p99, p99 / p99Before, p90].map(formatNumber) : ['–', '–', '–', '–']),
    ],
    goals: [
      ...(cut === 10 ? [goalOf(cutMs.median, CUT_ONE_SESSION_MS_MAX)] : []),
      ...(cut === 5_000 ? [goalOf(cutMs.median, CUT_HALF_MS_MAX)] : []),
      ...(cut === 10_000 ? [goalOf(aloneMs.median, CUT_MS_MAX)] : []),
      ...(isNoticed ? [atMost('… p99 of other calls meanwhile', p99 / p99Before, P99_RATIO_MAX, ' ×')] : []),
    ],
  };
}

/** The measurements of one cut, in milliseconds. */
interface Observed {
  readonly cutMs: number;
  /** Latencies of other calls before and during the cut. */
  readonly before: readonly number[];
  readonly meanwhile: readonly number[];
}

/** Memory and processor time of one open stream. */
interface StreamCost {
  readonly bytes: number;
  readonly cpuMicroseconds: number;
}

async function costOf(bench: LiveBench, arm: 'bare' | 'guard', count: number): Promise<StreamCost> {
  // The first run warms V8 up and does not count.
  await withStreams(bench, arm, count, async () => {});
  await bench.server.call('collectGarbage');
  const before = await bench.server.call('usage');
  return await withStreams(bench, arm, count, async () => {
    const opened = await bench.server.call('usage');
    await bench.server.call('collectGarbage');
    const after = await bench.server.call('usage');
    return {
      bytes: (after.heapBytes - before.heapBytes) / count,
      cpuMicroseconds: (opened.cpuMicroseconds - before.cpuMicroseconds) / count,
    };
  });
}

/** Opens streams of one user, runs some work, and closes their connections. */
async function withStreams<T>(
  { server, crowd, ports }: LiveBench,
  arm: 'bare' | 'guard',
  count: number,
  work: (user: string) => Promise<T>,
): Promise<T> {
  if (count === 0) return await work('');
  const { user, tokens } = await server.call('tokensOfOneUser', Math.min(count, CONNECTIONS));
  const name = streamsOf(user);
  await crowd.call('prepare', { name, path: STREAM_PATH, tokens, message: Uint8Array.from(MESSAGE) });
  // The first call of each connection is unary, so that it ends.
  await crowd.call('open', {
    name,
    port: ports[arm] ?? 0,
    calls: 'others',
    connections: Math.min(count, CONNECTIONS),
  });
  try {
    await crowd.call('openStreams', { connections: name, calls: name, count });
    return await work(user);
  } finally {
    await crowd.call('close', name);
    await sleep(SETTLE_MS);
  }
}

function streamsOf(user: string): string {
  return `streams of ${user}`;
}

/** The time from the revocation until the client has seen its user's last stream end. */
async function cutAlone(bench: LiveBench, { cut, kept }: Cut): Promise<number> {
  return await withStreams(bench, 'guard', kept, () =>
    withStreams(bench, 'guard', cut, async (user) => {
      const startedMs = await bench.server.call('revokeUser', user);
      return (await bench.crowd.call('untilEnded', streamsOf(user))) - startedMs;
    }),
  );
}

/** The same, with other calls whose latency is measured. */
async function cutAmongOthers(bench: LiveBench, { cut, kept }: Cut): Promise<Observed> {
  const { server, crowd } = bench;
  return await withStreams(bench, 'guard', kept, (bystander) =>
    withStreams(bench, 'guard', cut, async (user) => {
      // Garbage from opening the streams must not be collected during the cut.
      await server.call('collectGarbage');
      const beganMs = performance.timeOrigin + performance.now();
      const watching = others(bench, { until: { seconds: WATCH_SECONDS }, inFlight: IN_FLIGHT_MAX });
      await sleep(QUIET_MS);
      const startedMs = await server.call('revokeUser', user);
      const endedMs = await crowd.call('untilEnded', streamsOf(user));
      const calls = await watching;
      if (kept > 0 && (await crowd.call('openCalls', streamsOf(bystander))) !== kept) {
        throw new Error('streams of a user who was not revoked were cut');
      }
      const sentWithin = (from: number, to: number): number[] =>
        calls.filter(({ sentMs }) => sentMs >= from && sentMs < to).map(({ ms }) => ms);
      return {
        cutMs: endedMs - startedMs,
        before: sentWithin(beganMs + FIRST_MS, startedMs),
        meanwhile: sentWithin(startedMs, endedMs),
      };
    }),
  );
}

/** Makes other calls; at a steady rate when they go on for a time. */
async function others(
  { load }: LiveBench,
  flow: { readonly until: { calls: number } | { seconds: number }; readonly inFlight: number },
): Promise<readonly CallTaken[]> {
  const paced = 'seconds' in flow.until ? { perSecond: OTHERS_PER_SECOND } : {};
  const [result] = await load.call('run', [
    { connections: 'others', calls: 'others', keep: true, ...flow, ...paced },
  ]);
  if (result === undefined || result.refused > 0) throw new Error('a valid call was refused');
  return result.kept;
}
