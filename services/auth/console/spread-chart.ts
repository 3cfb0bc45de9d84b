/** A revocation spreading over the instances, on a time axis that begins with the revocation. */

import { type Html, html, NOTHING } from './html.js';
import { durationText } from './names.js';

/** One instance on the axis. Times are milliseconds after the revocation. */
export type SpreadRow = { readonly name: string } & (
  | { readonly state: 'enforced'; readonly atMs: number }
  | { readonly state: 'pending'; readonly nowMs: number; readonly leaseEndMs: number | undefined }
  | { readonly state: 'refusing'; readonly leaseEndMs: number | undefined }
);

/** Rows beyond it are in the table alone. */
const ROWS_MAX = 40;

/** Parts of the axis. */
const PARTS = 4;

const ROW_HEIGHT = 40;
const AXIS_HEIGHT = 24;

/** The drawing. Assistive technology has the table beside it, which says the same. */
export function spreadChart(rows: readonly SpreadRow[]): Html {
  if (rows.length === 0) return NOTHING;
  const drawn = rows.slice(0, ROWS_MAX);
  const endMs = niceEnd(Math.max(1, ...drawn.map(lastMs)));
  const height = drawn.length * ROW_HEIGHT + AXIS_HEIGHT;
  const ticks = Array.from({ length: PARTS + 1 }, (_, part) => part / PARTS);
  // Lengths along the axis are percentages, so that the text keeps its size in every window.
  return html`<figure class="chart"><figcaption>Time from the revocation to the confirmation of each instance. Red marks the end of a lease, from which on a silent instance refuses calls.</figcaption>
<svg width="100%" height="${height}" aria-hidden="true" focusable="false">
<svg x="2%" width="94%" height="${height}" overflow="visible">
${ticks.map(
  (
    part,
  ) => html`<line class="grid" x1="${part * 100}%" x2="${part * 100}%" y1="0" y2="${height - AXIS_HEIGHT}"/>
<text class="tick" x="${part * 100}%" y="${height - 6}" text-anchor="${part === 0 ? 'start' : part === 1 ? 'end' : 'middle'}">${durationText(part * endMs)}</text>`,
)}
${drawn.map((row, at) => rowOf(row, at * ROW_HEIGHT, endMs))}
</svg>
</svg>
</figure>`;
}

function lastMs(row: SpreadRow): number {
  switch (row.state) {
    case 'enforced':
      return row.atMs;
    case 'pending':
      return Math.max(row.nowMs, row.leaseEndMs ?? 0);
    case 'refusing':
      return row.leaseEndMs ?? 0;
  }
}

/** The next number of milliseconds that has four round parts. */
function niceEnd(ms: number): number {
  const power = 10 ** Math.floor(Math.log10(ms));
  const factor = [1, 2, 4, 8, 10].find((one) => one * power >= ms) ?? 10;
  return Math.max(4, factor * power);
}

function rowOf(row: SpreadRow, top: number, endMs: number): Html {
  const share = (ms: number): number => Math.min(100, Math.max(0, (ms / endMs) * 100));
  const barY = top + 20;
  const middle = barY + 6;
  const label = (text: string): Html =>
    html`<text class="row-name" x="0" y="${top + 14}">${row.name}: ${text}</text>`;
  const bar = (ms: number): Html =>
    html`<rect class="bar ${row.state}" x="0" y="${barY}" width="${share(ms)}%" height="12"/>`;
  switch (row.state) {
    case 'enforced':
      return html`${label(durationText(row.atMs))}${bar(row.atMs)}<circle class="mark enforced" cx="${share(row.atMs)}%" cy="${middle}" r="7"/>`;
    case 'pending':
      return html`${label('waiting')}${bar(row.nowMs)}<circle class="mark pending" cx="${share(row.nowMs)}%" cy="${middle}" r="6"/>${
        row.leaseEndMs !== undefined &&
        html`<line class="lease" x1="${share(row.leaseEndMs)}%" x2="${share(row.leaseEndMs)}%" y1="${barY - 4}" y2="${barY + 16}"/>`
      }`;
    case 'refusing': {
      const ms = row.leaseEndMs ?? endMs;
      return html`${label('silent, refuses calls')}${bar(ms)}<line class="mark refusing" x1="${share(ms)}%" x2="${share(ms)}%" y1="${barY - 4}" y2="${barY + 16}"/>`;
    }
  }
}
