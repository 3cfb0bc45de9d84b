/** Revocations: those in the log, and one of them as it spreads over the instances. */

import {
  EnforcementState,
  EntryKind,
  type Revocation,
  type RevocationAtInstance,
  RevocationServiceService,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { type Html, html, NOTHING } from './html.js';
import type { ConsoleRequest } from './http.js';
import { type Page, pagesOf, tableOf, timeOf } from './layout.js';
import { type LivePart, type LiveSource, liveRegion } from './live.js';
import { durationText, instanceName, millisecondsOf, userNames } from './names.js';
import type { Operator } from './operators.js';
import { type SpreadRow, spreadChart } from './spread-chart.js';

const PAGE_SIZE = 50;

/** How often the state of a revocation is read, in milliseconds. */
const READ_INTERVAL_MS = 200;

const KINDS: Readonly<Record<EntryKind, string>> = {
  [EntryKind.ENTRY_KIND_UNSPECIFIED]: 'unknown',
  [EntryKind.ENTRY_KIND_TOKEN]: 'token',
  [EntryKind.ENTRY_KIND_SESSION]: 'session',
  [EntryKind.ENTRY_KIND_USER]: 'user',
  [EntryKind.ENTRY_KIND_CLIENT]: 'client',
  [EntryKind.ENTRY_KIND_KEY]: 'key',
  [EntryKind.ENTRY_KIND_CLAIM]: 'claim',
  [EntryKind.UNRECOGNIZED]: 'unknown',
};

/** The log, the newest first. */
export async function revocationsPage(operator: Operator, { query }: ConsoleRequest): Promise<Page> {
  const pageToken = query.get('page') ?? '';
  const { revocations, nextPageToken } = await operator.call(RevocationServiceService.listRevocations, {
    pageSize: PAGE_SIZE,
    pageToken,
    target: '',
    actor: '',
    eventId: '',
  });
  const nameOf = userNames(operator);
  const rows = await Promise.all(
    revocations.map(async (revocation) => [
      html`<a href="/revocations/${revocation.sequence}">${revocation.sequence}</a>`,
      KINDS[revocation.kind],
      await targetOf(revocation, nameOf),
      revocation.reason,
      await nameOf(revocation.actor),
      timeOf(revocation.revokeTime),
    ]),
  );
  const body = html`<p>An entry leaves the log when all tokens that it revokes have expired.</p>
${operator.canRevoke && html`<p><a href="/revoke">Revoke by role, client or key…</a></p>`}
${tableOf('Entries of the log, the newest first', ['Entry', 'Kind', 'Target', 'Reason', 'By', 'When'], rows, 'There is no entry: nothing was revoked whose tokens could still be valid.')}
${pagesOf('/revocations', pageToken, nextPageToken)}`;
  return { title: 'Revocations', body };
}

async function targetOf(
  { kind, target, issuer, claim }: Revocation,
  nameOf: (id: string) => Promise<Html>,
): Promise<Html> {
  if (issuer !== '') return html`<code>${claim === '' ? target : `${claim} = ${target}`}</code> of ${issuer}`;
  return kind === EntryKind.ENTRY_KIND_USER ? await nameOf(target) : html`<code>${target}</code>`;
}

/** One revocation. Undefined when the text is no position in the log. */
export async function revocationPage(
  operator: Operator,
  sequence: bigint,
  nowMs: () => number,
): Promise<Page> {
  const nameOf = userNames(operator);
  const { revocation, instances } = await operator.call(RevocationServiceService.getRevocation, { sequence });
  if (revocation === undefined) return { title: `Revocation ${sequence}`, body: NOTHING };
  const body = html`<dl class="facts">
<div><dt>Revoked</dt><dd>${KINDS[revocation.kind]} ${await targetOf(revocation, nameOf)}</dd></div>
<div><dt>Reason</dt><dd>${revocation.reason === '' ? 'none' : revocation.reason}</dd></div>
<div><dt>By</dt><dd>${await nameOf(revocation.actor)}${revocation.network !== '' && html`, from ${revocation.network}`}</dd></div>
<div><dt>When</dt><dd>${timeOf(revocation.revokeTime)}</dd></div>
</dl>
<h2>Enforcement</h2>
${liveRegion(`/revocations/${sequence}/live`, partOf(revocation, instances, nowMs()))}`;
  return { title: `Revocation ${sequence}`, body };
}

/** The state of a revocation, read again and again. */
export function spreadSource(operator: Operator, sequence: bigint, nowMs: () => number): LiveSource {
  return {
    intervalMs: READ_INTERVAL_MS,
    read: async () => {
      const { revocation, instances } = await operator.call(RevocationServiceService.getRevocation, {
        sequence,
      });
      return partOf(revocation, instances, nowMs());
    },
  };
}

/** The position in the log that a path names. */
export function sequenceOf(text: string): bigint | undefined {
  return /^[1-9]\d{0,17}$/.test(text) ? BigInt(text) : undefined;
}

function partOf(
  revocation: Revocation | undefined,
  instances: readonly RevocationAtInstance[],
  nowMs: number,
): LivePart {
  const startMs = revocation?.revokeTime?.getTime();
  const named = instances
    .map((instance) => ({ ...instance, name: instanceName(instance) }))
    .sort((a, b) => a.name.localeCompare(b.name));
  const rows = startMs === undefined ? [] : named.flatMap((one) => chartRowOf(one, startMs, nowMs));
  const table = tableOf(
    'Instances that have synced, or held a lease, since the revocation',
    ['Instance', 'State', 'Confirmed', 'Last sync'],
    named.map((one) => [
      one.name,
      stateOf(one),
      confirmedText(one, startMs),
      one.lastSyncAge === undefined ? 'not known' : `${durationText(roundedMs(one))} ago`,
    ]),
    '',
  );
  return {
    body: html`${spreadChart(rows)}${table}`,
    summary: summaryOf(named),
    isFinal: !named.some(isPending),
  };
}

/** To the second, so that a page is not sent again for every reading. */
function roundedMs({ lastSyncAge }: RevocationAtInstance): number {
  return Math.floor((millisecondsOf(lastSyncAge) ?? 0) / 1000) * 1000;
}

function isPending({ state }: RevocationAtInstance): boolean {
  return state === EnforcementState.ENFORCEMENT_STATE_PENDING;
}

function isEnforced({ state }: RevocationAtInstance): boolean {
  return state === EnforcementState.ENFORCEMENT_STATE_ENFORCED;
}

/** An instance that started after the revocation had the entry in its first list, and is not on the axis. */
function startedLater({ description }: RevocationAtInstance, startMs: number): boolean {
  return (description?.startTime?.getTime() ?? 0) > startMs;
}

function chartRowOf(
  one: RevocationAtInstance & { readonly name: string },
  startMs: number,
  nowMs: number,
): readonly SpreadRow[] {
  if (startedLater(one, startMs)) return [];
  const { name, enforcedTime, leaseEndTime } = one;
  const leaseEndMs = leaseEndTime && leaseEndTime.getTime() - startMs;
  if (isPending(one)) return [{ name, state: 'pending', nowMs: Math.max(0, nowMs - startMs), leaseEndMs }];
  if (!isEnforced(one))
    return [{ name, state: 'refusing', leaseEndMs: leaseEndMs && Math.max(0, leaseEndMs) }];
  if (enforcedTime === undefined) return [];
  return [{ name, state: 'enforced', atMs: Math.max(0, enforcedTime.getTime() - startMs) }];
}

function stateOf(one: RevocationAtInstance): Html {
  if (isEnforced(one)) return html`<span class="good">enforces it</span>`;
  if (isPending(one)) return html`<strong class="warn">not confirmed yet</strong>`;
  return html`<span class="bad">${one.left ? 'stopped; its lease has ended' : 'silent; refuses calls'}</span>`;
}

function confirmedText(one: RevocationAtInstance, startMs: number | undefined): string {
  const { enforcedTime, leaseEndTime } = one;
  if (startMs !== undefined && startedLater(one, startMs)) return 'started later';
  if (isEnforced(one) && enforcedTime !== undefined) {
    return startMs === undefined
      ? enforcedTime.toISOString()
      : `after ${durationText(Math.max(0, enforcedTime.getTime() - startMs))}`;
  }
  if (leaseEndTime === undefined || startMs === undefined) return '';
  const leaseText = durationText(Math.max(0, leaseEndTime.getTime() - startMs));
  return isPending(one) ? `at the latest after ${leaseText}` : `lease ended after ${leaseText}`;
}

function summaryOf(instances: readonly RevocationAtInstance[]): string {
  const waiting = instances.filter(isPending).length;
  const enforced = instances.filter(isEnforced).length;
  const stopped = instances.filter((one) => one.left && !isPending(one) && !isEnforced(one)).length;
  const silent = instances.length - waiting - enforced - stopped;
  const parts = [
    enforcedText(enforced, instances.length),
    ...(waiting > 0 ? [`${countText(waiting, 'has', 'have')} not confirmed it yet.`] : []),
    ...(silent > 0 ? [`${countText(silent, 'is silent and refuses', 'are silent and refuse')} calls.`] : []),
    ...(stopped > 0 ? [`${countText(stopped, 'has', 'have')} stopped.`] : []),
  ];
  return parts.join(' ').trim();
}

function enforcedText(count: number, all: number): string {
  if (all === 0) return 'No instance has synced, or held a lease, since the revocation.';
  if (count === 0) return 'No instance has confirmed it.';
  if (all === 1) return 'The only instance enforces it.';
  return count === all ? `All ${all} instances enforce it.` : `${count} of ${all} instances enforce it.`;
}

function countText(count: number, singular: string, plural: string): string {
  return count === 1 ? `1 instance ${singular}` : `${count} instances ${plural}`;
}
