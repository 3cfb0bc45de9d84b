/** The instances that enforce revocations: whether they are up to date, and how long they may serve. */

import {
  type Instance,
  RevocationServiceService,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Html, html } from './html.js';
import { type Page, tableOf, timeOf } from './layout.js';
import { type LivePart, type LiveSource, liveRegion } from './live.js';
import { durationText, instanceName, millisecondsOf } from './names.js';
import type { Operator } from './operators.js';

/** How often the instances are read, in milliseconds. */
const READ_INTERVAL_MS = 1_000;

/** Rows of one answer of auth; so many answers are read. */
const PAGE_SIZE = 200;
const PAGES_MAX = 5;

export async function instancesPage(operator: Operator): Promise<Page> {
  const body = html`<p>An instance refuses calls once its lease has ended. A sync renews the lease.</p>
${liveRegion('/instances/live', await read(operator))}`;
  return { title: 'Instances', body };
}

/** The instances, read again and again. */
export function instancesSource(operator: Operator): LiveSource {
  return { intervalMs: READ_INTERVAL_MS, read: () => read(operator) };
}

async function read(operator: Operator): Promise<LivePart> {
  const instances: Instance[] = [];
  let pageToken = '';
  for (let page = 0; page < PAGES_MAX && (page === 0 || pageToken !== ''); page += 1) {
    const found = await operator.call(RevocationServiceService.listInstances, {
      pageSize: PAGE_SIZE,
      pageToken,
    });
    instances.push(...found.instances);
    pageToken = found.nextPageToken;
  }
  const rows = instances.map((one) => [
    instanceName(one),
    stateOf(one),
    one.currentEpoch ? String(one.lag) : html`${one.lag} <span class="bad">(another epoch)</span>`,
    leaseOf(one),
    `${durationText(millisecondsOf(one.lastSyncAge))} ago`,
    one.description?.version ?? 'not known',
    timeOf(one.description?.startTime),
  ]);
  const columns = ['Instance', 'State', 'Lag', 'Lease left', 'Last sync', 'Version', 'Started'];
  const cut = pageToken === '' ? '' : ` Only the first ${instances.length} are shown.`;
  return {
    body: tableOf(
      'Instances that have synced within the last minutes',
      columns,
      rows,
      'No instance has synced within the last minutes.',
    ),
    summary: `${summaryOf(instances)}${cut}`,
    isFinal: false,
  };
}

function leaseMs({ leaseLeft }: Instance): number {
  return millisecondsOf(leaseLeft) ?? 0;
}

function isStale(instance: Instance): boolean {
  return !instance.left && leaseMs(instance) <= 0;
}

function stateOf(instance: Instance): Html {
  if (instance.left) return html`<span class="muted">stopped</span>`;
  return isStale(instance)
    ? html`<strong class="bad">refuses calls</strong>`
    : html`<span class="good">serving</span>`;
}

/** The time, and a bar: its length is the lease's part of ten seconds. */
function leaseOf(instance: Instance): Html {
  const ms = Math.max(0, leaseMs(instance));
  const share = Math.min(100, ms / 100);
  return html`<span class="with-bar"><svg width="60" height="10" aria-hidden="true" focusable="false"><rect class="track" width="100%" height="10"/><rect class="bar enforced" width="${share}%" height="10"/></svg> ${durationText(ms)}</span>`;
}

function summaryOf(instances: readonly Instance[]): string {
  const stale = instances.filter(isStale).length;
  const stopped = instances.filter(({ left }) => left).length;
  const behind = instances.filter((one) => !one.left && one.lag > 0n).length;
  return `${instances.length - stale - stopped} serving, ${stale} refusing calls, ${stopped} stopped; ${behind} behind the log.`;
}
