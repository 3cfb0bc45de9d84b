/** Section `live`: what a live stream costs, and how soon many of them are cut. */

import { setTimeout as sleep } from 'node:timers/promises';
import { STREAM_PATH, UNARY_PATH } from './echo.js';
import { atMost, type BenchContext, type Findings, type Goal, rounded, type Section } from './section.js';
import { type Bench, MESSAGE, openBench } from './side-by-side.js';
import { spreadOf } from './statistics.js';

const SIZES = [1, 100, 10_000];
const SIZES_SHORT = [1, 1_000];
const CONNECTIONS = 20;
const KNOWN_TOKENS = 200;
const OTHERS_PER_SECOND = 1_000;
/** For how long other calls are watched while streams are cut, in seconds. */
const WATCH_SECONDS = 1;
const IN_FLIGHT_MAX = 512;
const SETTLE_MS = 300;
const CUT_MS_MAX = 500;
const P99_RATIO_MAX = 2;

export const live: Section = {
  name: 'live',
  title: 'live streams: what one costs, and how soon all of one user are cut',
  run: measureLive,
};

async function measureLive(context: BenchContext): Promise<Findings> {
  const bench = await openBench(context, { arms: ['bare', 'guard'], algorithm: 'EdDSA' });
  try {
    const known = await bench.server.call('tokens', KNOWN_TOKENS);
    const message = Uint8Array.from(MESSAGE);
    await bench.load.call('prepare', { name: 'others', path: UNARY_PATH, tokens: known, message });
    await bench.load.call('open', {
      name: 'others',
      port: bench.ports.guard ?? 0,
      calls: 'others',
      connections: 4,
    });
    await others(bench, { calls: 10_000 });
    const largest = context.isShort ? 1_000 : 10_000;
    const [bare, guarded] = [await costOf(bench, 'bare', largest), await costOf(bench, 'guard', largest)];
    const figures: Record<string, unknown> = {
      bytes_per_stream: guarded.bytes - bare.bytes,
      bytes_per_stream_bare: bare.bytes,
      open_cpu_us: guarded.cpuMicroseconds - bare.cpuMicroseconds,
      open_cpu_us_bare: bare.cpuMicroseconds,
    };
    const rows: string[][] = [];
    const goals: Goal[] = [];
    for (const count of context.isShort ? SIZES_SHORT : SIZES) {
      context.signal.throwIfAborted();
      context.progress(`${count} streams`);
      const times = context.isShort ? 2 : 5;
      const cuts: number[] = [];
      const ratios: number[] = [];
      for (let time = 0; time < times; time += 1) {
        cuts.push(await cut(bench, count));
        ratios.push(await disturbance(bench, count));
      }
      const [cutMs, ratio] = [spreadOf(cuts), spreadOf(ratios)];
      figures[`cut_${count}_ms`] = cutMs.median;
      figures[`p99_ratio_while_cutting_${count}`] = ratio.median;
      rows.push([
        count.toLocaleString('en-US'),
        rounded(cutMs.median),
        `${rounded(cutMs.lower)}–${rounded(cutMs.upper)}`,
        rounded(ratio.median),
      ]);
      if (count !== 10_000) continue;
      goals.push(
        atMost('cutting 10,000 streams', cutMs.median, CUT_MS_MAX, ' ms'),
        atMost('p99 of other calls meanwhile', ratio.median, P99_RATIO_MAX, ' ×'),
      );
    }
    return {
      figures,
      goals,
      tables: [
        {
          title: 'one stream',
          rows: [
            ['', 'bytes', 'CPU µs to open'],
            ['bare', rounded(bare.bytes), rounded(bare.cpuMicroseconds)],
            ['guard', rounded(guarded.bytes), rounded(guarded.cpuMicroseconds)],
          ],
        },
        {
          title: `all streams of one user cut at once; other calls: ${OTHERS_PER_SECOND} a second`,
          rows: [['streams', 'cut after ms', 'quartiles', 'p99 of others, ×'], ...rows],
        },
      ],
    };
  } finally {
    await bench.stop();
  }
}

/** Memory and processor time of one open stream. */
async function costOf(
  bench: Bench,
  arm: 'bare' | 'guard',
  count: number,
): Promise<{ bytes: number; cpuMicroseconds: number }> {
  // Once for V8, once for the figures.
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

/** Opens streams of one user, does something, and closes them by closing their connections. */
async function withStreams<T>(
  { server, load, ports }: Bench,
  arm: 'bare' | 'guard',
  count: number,
  work: (user: string) => Promise<T>,
): Promise<T> {
  const { user, tokens } = await server.call('tokensOfOneUser', Math.min(count, CONNECTIONS));
  const name = `streams of ${user}`;
  await load.call('prepare', { name, path: STREAM_PATH, tokens, message: Uint8Array.from(MESSAGE) });
  // The first call of each connection is an ordinary one, so that it ends.
  await load.call('open', {
    name,
    port: ports[arm] ?? 0,
    calls: 'others',
    connections: Math.min(count, CONNECTIONS),
  });
  try {
    await load.call('openStreams', { connections: name, calls: name, count });
    return await work(user);
  } finally {
    await load.call('close', name);
    await sleep(SETTLE_MS);
  }
}

/** How long it takes from the revocation of their user until the last of the streams has ended, seen by the client. */
async function cut(bench: Bench, count: number): Promise<number> {
  return await withStreams(bench, 'guard', count, async (user) => {
    const startedMs = await bench.server.call('revokeUser', user);
    return (await bench.load.call('untilEnded', `streams of ${user}`)) - startedMs;
  });
}

/** By how much the p99 of other calls grows while the streams are cut. */
async function disturbance(bench: Bench, count: number): Promise<number> {
  return await withStreams(bench, 'guard', count, async (user) => {
    const quiet = await others(bench, { seconds: WATCH_SECONDS });
    const watching = others(bench, { seconds: WATCH_SECONDS });
    await bench.server.call('revokeUser', user);
    const disturbed = await watching;
    await bench.load.call('untilEnded', `streams of ${user}`);
    return disturbed / quiet;
  });
}

/** The p99 of other calls, in milliseconds. */
async function others({ load }: Bench, until: { calls: number } | { seconds: number }): Promise<number> {
  const paced = 'seconds' in until ? { perSecond: OTHERS_PER_SECOND } : {};
  const [result] = await load.call('run', [
    {
      connections: 'others',
      calls: 'others',
      until,
      inFlight: 'seconds' in until ? IN_FLIGHT_MAX : 32,
      ...paced,
    },
  ]);
  if (result === undefined || result.refused > 0) throw new Error('a good call was refused');
  return result.p99Ms;
}
