/** The keys on a time axis: when each was published, signed, and only verified. */

import { type Key, KeyPurpose, KeyServiceService, KeyState } from '../../../proto/gen/auth/v1/key_service.js';
import { type Html, html, NOTHING } from './html.js';
import type { ConsoleRequest } from './http.js';
import { type Page, pagesOf, tableOf, timeOf } from './layout.js';
import type { Operator } from './operators.js';

const PAGE_SIZE = 50;

/** Rows of the axis; older keys are in the table alone. */
const ROWS_MAX = 20;

const ROW_HEIGHT = 40;
const AXIS_HEIGHT = 24;

const PURPOSES: Readonly<Record<KeyPurpose, string>> = {
  [KeyPurpose.KEY_PURPOSE_UNSPECIFIED]: 'unknown',
  [KeyPurpose.KEY_PURPOSE_TOKEN]: 'tokens',
  [KeyPurpose.KEY_PURPOSE_BROADCAST]: 'broadcasts',
  [KeyPurpose.KEY_PURPOSE_RECEIPT]: 'receipts',
  [KeyPurpose.UNRECOGNIZED]: 'unknown',
};

const STATES: Readonly<Record<KeyState, string>> = {
  [KeyState.KEY_STATE_UNSPECIFIED]: 'unknown',
  [KeyState.KEY_STATE_NEXT]: 'next',
  [KeyState.KEY_STATE_SIGNING]: 'signing',
  [KeyState.KEY_STATE_VERIFY_ONLY]: 'verify-only',
  [KeyState.KEY_STATE_RETIRED]: 'retired',
  [KeyState.UNRECOGNIZED]: 'unknown',
};

export async function keysPage(operator: Operator, { query }: ConsoleRequest, nowMs: number): Promise<Page> {
  const pageToken = query.get('page') ?? '';
  const { keys, nextPageToken } = await operator.call(KeyServiceService.listKeys, {
    pageSize: PAGE_SIZE,
    pageToken,
  });
  const rows = keys.map((key) => [
    html`<code>${key.kid}</code>`,
    PURPOSES[key.purpose],
    key.algorithm,
    STATES[key.state],
    eventTimeOf(key.publishTime),
    eventTimeOf(key.signTime),
    eventTimeOf(key.stopTime),
    eventTimeOf(key.retireTime),
  ]);
  const columns = [
    'Key',
    'Signs',
    'Algorithm',
    'State',
    'Published',
    'Signed from',
    'Signed until',
    'Withdrawn',
  ];
  const body = html`${keyChart(keys, nowMs)}
${tableOf('Keys, the newest first', columns, rows)}
${pagesOf('/keys', pageToken, nextPageToken)}`;
  return { title: 'Keys', body };
}

/** A step in a key's life, which may still be ahead. */
function eventTimeOf(time: Date | undefined): Html {
  return time === undefined ? html`<span class="muted">not yet</span>` : timeOf(time);
}

/** The drawing. Assistive technology has the table below it, which says the same. */
function keyChart(keys: readonly Key[], nowMs: number): Html {
  const drawn = keys.slice(0, ROWS_MAX);
  const starts = drawn.flatMap(({ publishTime }) =>
    publishTime === undefined ? [] : [publishTime.getTime()],
  );
  if (starts.length === 0) return NOTHING;
  const startMs = Math.min(...starts);
  const share = (ms: number): number =>
    Math.min(100, Math.max(0, ((ms - startMs) / Math.max(1, nowMs - startMs)) * 100));
  const height = drawn.length * ROW_HEIGHT + AXIS_HEIGHT;
  return html`<figure class="chart"><figcaption>From the first publication to now: <span class="key published">published</span> <span class="key enforced">signing</span> <span class="key verifying">verify-only</span></figcaption>
<svg width="100%" height="${height}" aria-hidden="true" focusable="false">
<svg x="2%" width="94%" height="${height}" overflow="visible">
${[0, 50, 100].map(
  (part) => html`<line class="grid" x1="${part}%" x2="${part}%" y1="0" y2="${height - AXIS_HEIGHT}"/>
<text class="tick" x="${part}%" y="${height - 6}" text-anchor="${part === 0 ? 'start' : part === 100 ? 'end' : 'middle'}">${part === 100 ? 'now' : tickText(startMs + ((nowMs - startMs) * part) / 100, nowMs - startMs)}</text>`,
)}
${drawn.map((key, at) => keyRow(key, at * ROW_HEIGHT, share, nowMs))}
</svg>
</svg>
</figure>`;
}

/** The day; for a short axis the time of day. */
function tickText(ms: number, lengthMs: number): string {
  const iso = new Date(ms).toISOString();
  return lengthMs < 2 * 24 * 3600 * 1000 ? iso.slice(11, 19) : iso.slice(0, 10);
}

function keyRow(key: Key, top: number, share: (ms: number) => number, nowMs: number): Html {
  const { publishTime, signTime, stopTime, retireTime } = key;
  const endMs = retireTime?.getTime() ?? nowMs;
  const periods = [
    ['published', publishTime, signTime ?? stopTime],
    ['enforced', signTime, stopTime],
    ['verifying', stopTime, undefined],
  ] as const;
  const bars = periods.map(([name, from, until]) => {
    if (from === undefined) return NOTHING;
    const [left, right] = [share(from.getTime()), share(until?.getTime() ?? endMs)];
    return html`<rect class="${name}" x="${left}%" width="${Math.max(0.4, right - left)}%" y="${top + 20}" height="12"/>`;
  });
  const text = `${PURPOSES[key.purpose]}, ${key.kid.slice(0, 8)}: ${STATES[key.state]}`;
  return html`<text class="row-name" x="0" y="${top + 14}">${text}</text>${bars}`;
}
