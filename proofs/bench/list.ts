/** Section `list`: the cost of the revocation list, beside a Set and a Map of strings. */

import { formatNumber } from '../shared/reporting.js';
import type { Holder, HolderFigures, ListCommands } from './list-process.js';
import { atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { startWorker } from './worker.js';

const SIZES = [100_000, 1_000_000, 10_000_000];
const SIZES_SHORT = [100_000];
const HEAP_MEBIBYTES = 6000;

const BYTES_MAX = 26;
const PURGE_MS_MAX = 1;
const PAUSE_MS_MAX = 10;

export const list: Section = {
  name: 'list',
  title: 'the revocation list in memory, beside a Set and a Map of strings',
  run: measureList,
};

async function measureList(context: BenchContext): Promise<Findings> {
  const rows: string[][] = [];
  const figures: Record<string, unknown> = {};
  const goals: Goal[] = [];
  for (const entries of context.isShort ? SIZES_SHORT : SIZES) {
    const own: Record<string, unknown> = {};
    for (const holder of ['list', 'set', 'map', 'nothing'] as const) {
      context.signal.throwIfAborted();
      context.progress(`${holder} of ${entries}`);
      const measured = await measure(holder, entries);
      rows.push(rowOf(holder, entries, measured));
      const holderFigures = figuresOf(measured);
      Object.assign(own, holder === 'list' ? holderFigures : { [holder]: holderFigures });
      if (holder === 'list') {
        const size = entries.toLocaleString('en-US');
        goals.push(
          atMost(`bytes an entry at ${size}`, measured.bytesPerEntry, BYTES_MAX),
          atMost(`dropping five minutes at ${size}`, measured.purgeMs, PURGE_MS_MAX, ' ms'),
          atMost(`longest pause at ${size}`, measured.longestPauseMs, PAUSE_MS_MAX, ' ms'),
        );
      }
    }
    figures[String(entries)] = own;
  }
  return {
    figures,
    goals,
    tables: [
      {
        title: 'entries of 60 minutes, added one by one',
        rows: [
          [
            '',
            'entries',
            'bytes an entry',
            'look-up ns',
            'insert ns',
            'longest pause ms',
            'drop 5 minutes ms',
          ],
          ...rows,
        ],
      },
    ],
  };
}

/** Measures each in a process of its own, so that none affects the next. */
async function measure(holder: Holder, entries: number): Promise<HolderFigures> {
  const worker = startWorker<ListCommands>({
    program: 'list-process',
    // Not pinned: V8 compiles on other threads, which would pause this one on a single core.
    core: undefined,
    nodeArguments: ['--expose-gc', `--max-old-space-size=${HEAP_MEBIBYTES}`],
  });
  try {
    return await worker.call('measure', { holder, entries });
  } finally {
    await worker.stop();
  }
}

function figuresOf(measured: HolderFigures): Record<string, number> {
  return {
    bytes_per_entry: measured.bytesPerEntry,
    lookup_ns: measured.lookupNs,
    insert_ns: measured.insertNs,
    longest_pause_ms: measured.longestPauseMs,
    purge_ms: measured.purgeMs,
  };
}

function rowOf(holder: Holder, entries: number, measured: HolderFigures): string[] {
  const { bytesPerEntry, lookupNs, insertNs, longestPauseMs, purgeMs } = measured;
  return [
    holder,
    entries.toLocaleString('en-US'),
    ...[bytesPerEntry, lookupNs, insertNs, longestPauseMs].map(formatNumber),
    holder === 'set' || holder === 'nothing' ? '–' : formatNumber(purgeMs),
  ];
}
