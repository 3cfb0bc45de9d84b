/** Output of the proofs: tables, figures as JSON, and progress. */

import { writeFile } from 'node:fs/promises';

const BAR_WIDTH = 30;
/** Spaces between two columns of a table. */
const COLUMN_GAP = 2;
const CLEAR_LINE = '\r\u001b[2K';

/** Rows of a table, the header first: the first column is text, the others are numbers. */
export type Rows = readonly (readonly string[])[];

/** Aligns a table: the first column to the left, the others to the right. */
export function tableText(rows: Rows): string {
  const widths = widthsOf(rows);
  return rows.map((row) => alignedCells(row, widths).join(' '.repeat(COLUMN_GAP)).trimEnd()).join('\n');
}

export function markdownTable(rows: Rows): string {
  const widths = widthsOf(rows);
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(Math.max(1, width - 1))}:`,
  );
  const [header = [], ...body] = rows.map((row) => alignedCells(row, widths));
  return [line(header), line(rule), ...body.map(line)].join('\n');
}

function widthsOf(rows: Rows): number[] {
  return (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
}

function alignedCells(row: readonly string[], widths: readonly number[]): string[] {
  return row.map((cell, column) =>
    column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
  );
}

/** A number with three significant digits where that is enough. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 10_000) return Math.round(value).toLocaleString('en-US');
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(size >= 1 ? 2 : 3);
}

/** Writes figures as JSON; does nothing without a file. */
export async function writeFigures(file: string | undefined, figures: object): Promise<void> {
  if (file !== undefined) await writeFile(file, `${JSON.stringify(figures, null, 2)}\n`);
}

/** Shows how far a proof has come. */
interface Progress {
  /** @param of - the number of steps; 0 when it is unknown, then there is no bar */
  show(done: number, of: number, text: string): void;
  /** Removes the bar from the terminal. */
  end(): void;
}

/**
 * Draws a progress bar on a terminal, and prints lines elsewhere.
 *
 * @param options.barIntervalMs - the shortest time between two drawings of the bar
 * @param options.lineIntervalMs - the shortest time between two lines
 */
export function createProgress(
  out: NodeJS.WriteStream,
  { barIntervalMs = 0, lineIntervalMs = 0 } = {},
): Progress {
  let shownMs = Number.NEGATIVE_INFINITY;
  let shown = '';
  return {
    show(done, of, text) {
      const nowMs = performance.now();
      if (nowMs - shownMs < (out.isTTY ? barIntervalMs : lineIntervalMs)) return;
      const line = out.isTTY ? barOf(done, of, text, out.columns) : `${countOf(done, of)}${text}`;
      if (line === shown) return;
      shownMs = nowMs;
      shown = line;
      out.write(out.isTTY ? `${CLEAR_LINE}${line}` : `${line}\n`);
    },
    end() {
      if (out.isTTY) out.write(CLEAR_LINE);
    },
  };
}

function barOf(done: number, of: number, text: string, columns: number): string {
  const filled = Math.round((done / of) * BAR_WIDTH);
  const bar = of === 0 ? '' : `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)} `;
  // A line longer than the terminal is wide would wrap, and could not be cleared.
  return `${bar}${countOf(done, of)}${text}`.slice(0, Math.max(BAR_WIDTH, columns) - 1);
}

function countOf(done: number, of: number): string {
  return of === 0 ? '' : `${String(done).padStart(String(of).length)}/${of}  `;
}
