/** Tables for people: aligned columns, or one block for each row where the terminal is too narrow. */

import { printable } from './failures.js';
import type { Terminal } from './terminal.js';

/** Spaces between two columns. */
const COLUMN_GAP = 2;

/** How good what a cell says is. */
type Tone = 'good' | 'bad' | 'warning';

const COLORS: Readonly<Record<Tone, string>> = {
  good: '\u001b[32m',
  bad: '\u001b[31m',
  warning: '\u001b[33m',
};
const RESET = '\u001b[0m';

/** A text of a table. */
export type Cell = string | { readonly text: string; readonly tone: Tone };

/**
 * A table with its columns aligned. On a terminal that is narrower, each row is a block of lines `COLUMN  text`. Without a
 * terminal the lines are as long as they need.
 */
export function tableOf(
  header: readonly string[],
  rows: readonly (readonly Cell[])[],
  terminal: Pick<Terminal, 'columns' | 'hasColor'> = {},
): string {
  const texts = [header, ...rows.map((row) => row.map(textOf))];
  const widths = header.map((_, column) => Math.max(...texts.map((row) => row[column]?.length ?? 0)));
  const width = widths.reduce((sum, column) => sum + column + COLUMN_GAP, -COLUMN_GAP);
  if (terminal.columns !== undefined && width > terminal.columns) return blocksOf(header, rows, terminal);
  const line = (row: readonly Cell[]): string =>
    row
      .map((cell, column) => {
        const padding = column === row.length - 1 ? 0 : (widths[column] ?? 0) - textOf(cell).length;
        return shown(cell, terminal) + ' '.repeat(Math.max(0, padding));
      })
      .join(' '.repeat(COLUMN_GAP))
      .trimEnd();
  return [header, ...rows].map(line).join('\n');
}

function blocksOf(
  header: readonly string[],
  rows: readonly (readonly Cell[])[],
  terminal: Pick<Terminal, 'columns' | 'hasColor'>,
): string {
  const width = Math.max(...header.map(({ length }) => length)) + COLUMN_GAP;
  return rows
    .map((row) =>
      row
        .map((cell, column) => [header[column] ?? '', cell] as const)
        .filter(([, cell]) => textOf(cell) !== '')
        .map(([name, cell]) => `${name.padEnd(width)}${shown(cell, terminal)}`)
        .join('\n'),
    )
    .join('\n\n');
}

function textOf(cell: Cell): string {
  return printable(typeof cell === 'string' ? cell : cell.text).replaceAll('\n', ' ');
}

function shown(cell: Cell, { hasColor }: Pick<Terminal, 'hasColor'>): string {
  if (typeof cell === 'string' || hasColor !== true) return textOf(cell);
  return `${COLORS[cell.tone]}${textOf(cell)}${RESET}`;
}

/** A time in UTC to the second; empty for none. */
export function timeText(time: Date | undefined): string {
  return time === undefined
    ? ''
    : time
        .toISOString()
        .replace('T', ' ')
        .replace(/\.\d+Z$/, 'Z');
}

/** A duration of the protocol, in milliseconds; undefined for none. */
export function millisecondsOf(
  duration: { readonly seconds: bigint; readonly nanos: number } | undefined,
): number | undefined {
  return duration && Number(duration.seconds) * 1000 + Math.floor(duration.nanos / 1_000_000);
}

/** A duration in a unit that fits. */
export function durationText(ms: number | undefined): string {
  if (ms === undefined) return '';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return ms < 172_800_000 ? `${Math.round(ms / 3_600_000)} h` : `${Math.round(ms / 86_400_000)} d`;
}
