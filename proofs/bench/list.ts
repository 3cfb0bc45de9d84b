/** Section `list`: the cost of the revocation list, beside a Set and a Map of strings. */

import { formatNumber } from '../shared/reporting.js';
import type { Holder, HolderFigures, ListCommands, Turnover, TurnoverFigures } from './list-process.js';
import { atMost, type BenchContext, type Findings, type Goal, type Section } from './section.js';
import { startWorker, type Worker } from './worker.js';

const SIZES = [100_000, 1_000_000, 10_000_000];
const SIZES_SHORT = [100_000];
const HEAP_MEBIBYTES = 6000;

const BYTES_MAX = 26;
const PURGE_MS_MAX = 1;
const PAUSE_MS_MAX = 10;

/** 36 million revocations of sessions an hour, with the default lifetime of tokens, until the first tables are dropped. */
const TURNOVER: Turnover = { perSecond: 10_000, keptSeconds: 365, purgeSeconds: 5, seconds: 900 };
const TURNOVER_SHORT: Turnover = { ...TURNOVER, perSecond: 1000, keptSeconds: 65, seconds: 200 };
const RESIDENT_MEGABYTES_MAX = 100;

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
  context.progress('a list whose entries come and go');
  const turnover = context.isShort ? TURNOVER_SHORT : TURNOVER;
  const held = await inOwnProcess((worker) => worker.call('turnover', turnover));
  goals.push(
    atMost(
      'memory of the process for 36 million an hour',
      held.residentBytesMax / 1e6,
      RESIDENT_MEGABYTES_MAX,
      ' MB',
    ),
  );
  return {
    figures: { ...figures, turnover: { ...turnover, ...turnoverFiguresOf(held) } },
    goals,
    tables: [
      turnoverTable(turnover, held),
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

function turnoverFiguresOf(held: TurnoverFigures): Record<string, number> {
  return {
    entries_max: held.entriesMax,
    list_bytes_max: held.listBytesMax,
    resident_bytes_max: held.residentBytesMax,
    longest_pause_ms: held.longestPauseMs,
  };
}

function turnoverTable({ perSecond, keptSeconds, seconds }: Turnover, held: TurnoverFigures) {
  const megabytes = (bytes: number): string => formatNumber(bytes / 1e6);
  return {
    title: `${perSecond} revocations of sessions a second for ${seconds} s, kept for ${keptSeconds} s: the most of each`,
    rows: [
      ['entries', 'arrays of the list, MB', 'growth of the process, MB', 'longest pause ms'],
      [
        held.entriesMax.toLocaleString('en-US'),
        megabytes(held.listBytesMax),
        megabytes(held.residentBytesMax),
        formatNumber(held.longestPauseMs),
      ],
    ],
  };
}

function measure(holder: Holder, entries: number): Promise<HolderFigures> {
  return inOwnProcess((worker) => worker.call('measure', { holder, entries }));
}

/** A process of its own for each measurement, so that none affects the next. */
async function inOwnProcess<T>(work: (worker: Worker<ListCommands>) => Promise<T>): Promise<T> {
  const worker = startWorker<ListCommands>({
    program: 'list-process',
    // Not pinned: V8 compiles on other threads, which would pause this one on a single core.
    core: undefined,
    nodeArguments: ['--expose-gc', `--max-old-space-size=${HEAP_MEBIBYTES}`],
  });
  try {
    return await work(worker);
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
