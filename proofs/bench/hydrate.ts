/** Section `hydrate`: the time from the start of an instance with an empty list until it may serve. */

import { formatNumber } from '../shared/reporting.js';
import { spreadOf } from '../shared/statistics.js';
import type { FleetCommands } from './fleet-process.js';
import type { IssuerCommands } from './issuer-process.js';
import { atLeast, atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { startWorker } from './worker.js';

const SIZES = [100_000, 1_000_000];
const SIZES_SHORT = [100_000];
const LEASE_MS = 60_000;
const PER_SECOND_MIN = 1_000_000;
const READY_MS_MAX = 1_500;

export const hydrate: Section = {
  name: 'hydrate',
  title: 'from a start with an empty list to serving, over gRPC, in packed chunks',
  run: measureHydrate,
};

async function measureHydrate(context: BenchContext): Promise<Findings> {
  const figures: Record<string, unknown> = {};
  const rows: string[][] = [];
  const goals: Goal[] = [];
  const times = context.isShort ? 3 : 9;
  for (const entries of [0, ...(context.isShort ? SIZES_SHORT : SIZES)]) {
    context.signal.throwIfAborted();
    context.progress(`${entries} entries`);
    const measured = await measure(context, entries, times);
    const ready = spreadOf(measured.map(({ readyMs }) => readyMs));
    const blocked = spreadOf(measured.map(({ blockedMs }) => blockedMs));
    const perSecond = entries / (ready.median / 1000);
    rows.push([
      entries.toLocaleString('en-US'),
      formatNumber(ready.median),
      `${formatNumber(ready.lower)}–${formatNumber(ready.upper)}`,
      entries === 0 ? '–' : formatNumber(perSecond),
      formatNumber(blocked.median),
    ]);
    figures[String(entries)] = {
      entries_per_second: entries === 0 ? undefined : perSecond,
      ready_ms: ready.median,
      ready_ms_quartiles: [ready.lower, ready.upper],
      longest_block_ms: blocked.median,
    };
    if (entries === 1_000_000) {
      goals.push(
        atLeast('entries a second, a million of them', perSecond, PER_SECOND_MIN),
        atMost('a million entries, ready', ready.median, READY_MS_MAX, ' ms'),
      );
    }
  }
  const head = ['entries', 'ready ms', 'quartiles', 'entries/s', 'longest block ms'];
  return { figures, goals, tables: [{ title: `${times} starts each`, rows: [head, ...rows] }] };
}

async function measure(context: BenchContext, entries: number, times: number) {
  const issuer = startWorker<IssuerCommands>({ program: 'issuer-process', core: context.cores.load });
  const fleet = startWorker<FleetCommands>({
    program: 'fleet-process',
    core: context.cores.server,
    nodeArguments: ['--expose-gc'],
  });
  try {
    const port = await issuer.call('listen', { entries, leaseMs: LEASE_MS });
    const all: { readyMs: number; entries: number; blockedMs: number }[] = [];
    // The first start warms V8 up and does not count.
    for (let time = -1; time < times; time += 1) {
      const one = await fleet.call('hydrate', { port });
      if (one.entries !== entries) throw new Error(`expected ${entries} entries, got ${one.entries}`);
      if (time >= 0) all.push(one);
    }
    return all;
  } finally {
    await Promise.all([issuer.stop(), fleet.stop()]);
  }
}
