/** Security events, anomalies among them, with filters by type and by what they are about. */

import {
  type SecurityEvent,
  SecurityEventType,
  SecurityServiceService,
} from '../../../proto/gen/auth/v1/security_service.js';
import { type Html, type HtmlValue, html, NOTHING } from './html.js';
import type { ConsoleRequest } from './http.js';
import { alertOf, type Page, pagesOf, pathWith, tableOf, timeOf } from './layout.js';
import { type LivePart, type LiveSource, liveRegion } from './live.js';
import { isUuid, userNames } from './names.js';
import type { Operator } from './operators.js';
import { findUser } from './users-page.js';

const PAGE_SIZE = 50;

const PREFIX = 'SECURITY_EVENT_TYPE_';

/** The types by the names that operators use, such as `login-failed`. */
const TYPES: ReadonlyMap<string, SecurityEventType> = new Map(
  Object.entries(SecurityEventType).flatMap(([key, type]) =>
    typeof type === 'number' &&
    key.startsWith(PREFIX) &&
    type !== SecurityEventType.SECURITY_EVENT_TYPE_UNSPECIFIED
      ? [[key.slice(PREFIX.length).toLowerCase().replaceAll('_', '-'), type] as const]
      : [],
  ),
);

const NAMES: ReadonlyMap<SecurityEventType, string> = new Map([...TYPES].map(([name, type]) => [type, name]));

const ALARMS: ReadonlySet<SecurityEventType> = new Set([
  SecurityEventType.SECURITY_EVENT_TYPE_ANOMALY_DETECTED,
  SecurityEventType.SECURITY_EVENT_TYPE_REFRESH_TOKEN_REUSED,
  SecurityEventType.SECURITY_EVENT_TYPE_LOG_CHANGED,
  SecurityEventType.SECURITY_EVENT_TYPE_BROADCASTS_FORGED,
  SecurityEventType.SECURITY_EVENT_TYPE_EVENTS_LOST,
]);

/** Whether an event needs an operator's attention. */
export function isAlarm({ type }: SecurityEvent): boolean {
  return ALARMS.has(type);
}

/** The name of an event's type, in red when it needs attention. */
export function eventName({ type, details }: SecurityEvent): Html {
  const name = NAMES.get(type) ?? 'unknown';
  if (!ALARMS.has(type)) return html`${name}`;
  const { rule } = details;
  return html`<strong class="bad">${name}${rule !== undefined && `: ${rule}`}</strong>`;
}

/** The newest events are read again after this long, in milliseconds. */
const READ_INTERVAL_MS = 2_000;

/** What the page shows: a page of the events of a type and about a subject. */
interface Choice {
  readonly wantedType: string;
  readonly wantedSubject: string;
  readonly pageToken: string;
}

function choiceOf({ query }: ConsoleRequest): Choice {
  return {
    wantedType: query.get('type') ?? '',
    wantedSubject: (query.get('subject') ?? '').trim(),
    pageToken: query.get('page') ?? '',
  };
}

/** Events, the newest first. The first page is live. */
export async function eventsPage(
  operator: Operator,
  request: ConsoleRequest,
  nowMs: () => number,
): Promise<Page> {
  const choice = choiceOf(request);
  const { wantedType, wantedSubject, pageToken } = choice;
  const part = await readerOf(operator, choice, nowMs)();
  const livePath = pathWith('/events/live', { type: wantedType, subject: wantedSubject });
  const body = html`${wantedType !== '' && !TYPES.has(wantedType) && alertOf(`There is no type ${wantedType} of events.`)}
<form method="get" action="/events" role="search" class="line">
<label>Type <select name="type"><option value="">all</option>${[...TYPES.keys()]
    .sort()
    .map(
      (name) => html`<option${name === wantedType ? html` selected` : NOTHING}>${name}</option>`,
    )}</select></label>
<label>About a user, session, client, key or network <input name="subject" autocapitalize="none" autocomplete="off" spellcheck="false" value="${wantedSubject}"></label>
<button type="submit">Filter</button>
</form>
<p><a href="/events?type=anomaly-detected">Only anomalies</a></p>
${pageToken === '' ? liveRegion(livePath, part) : part.body}`;
  return { title: 'Events', body };
}

/** The newest events, read again and again. */
export function eventsSource(operator: Operator, request: ConsoleRequest, nowMs: () => number): LiveSource {
  const choice = { ...choiceOf(request), pageToken: '' };
  return { intervalMs: READ_INTERVAL_MS, read: readerOf(operator, choice, nowMs) };
}

/** Reads a page of events, and counts those that are new since the first reading. */
function readerOf(
  operator: Operator,
  { wantedType, wantedSubject, pageToken }: Choice,
  nowMs: () => number,
): () => Promise<LivePart> {
  const type = TYPES.get(wantedType);
  const nameOf = userNames(operator);
  const path = pathWith('/events', { type: wantedType, subject: wantedSubject });
  const news = createNews(nowMs());
  let subject: Promise<string> | undefined;
  return async () => {
    subject ??= subjectOf(operator, wantedSubject);
    const filter = {
      types: type === undefined ? [] : [type],
      subject: await subject.catch((error: unknown) => {
        subject = undefined;
        throw error;
      }),
      beginTime: undefined,
      endTime: undefined,
    };
    const { events, nextPageToken } = await operator.call(SecurityServiceService.listSecurityEvents, {
      pageSize: PAGE_SIZE,
      pageToken,
      filter,
    });
    const rows = await Promise.all(events.map((event) => rowOf(event, nameOf)));
    return {
      body: html`${tableOf('Events, the newest first', ['When', 'Event', 'About', 'By', 'From', 'Reason and details'], rows)}
${events.length === 0 ? html`<p>There is no such event.</p>` : NOTHING}
${pagesOf(path, pageToken, nextPageToken)}`,
      summary: news.summaryOf(events),
      isFinal: false,
    };
  };
}

async function rowOf(event: SecurityEvent, nameOf: (id: string) => Promise<Html>): Promise<HtmlValue[]> {
  return [
    timeOf(event.eventTime),
    eventName(event),
    await aboutOf(event, nameOf),
    await nameOf(event.actor),
    event.network,
    html`${event.reason}${detailsOf(event)}`,
  ];
}

/** Counts the events that a list did not have before. */
function createNews(startMs: number): { summaryOf(events: readonly SecurityEvent[]): string } {
  const since = `since ${new Date(startMs).toISOString().slice(11, 19)} UTC`;
  let known: ReadonlySet<string> | undefined;
  let count = 0;
  let isAtLeast = false;
  return {
    summaryOf: (events) => {
      const fresh = known === undefined ? [] : events.filter(({ eventId }) => known?.has(eventId) === false);
      count += fresh.length;
      // More events than the list has rows: those in between were never read.
      isAtLeast ||= fresh.length === PAGE_SIZE;
      known = new Set(events.map(({ eventId }) => eventId));
      if (count === 0) return `No new event ${since}.`;
      const newest = events[0] === undefined ? '' : `, the newest: ${NAMES.get(events[0].type) ?? 'unknown'}`;
      return `${isAtLeast ? 'At least ' : ''}${count} new ${count === 1 ? 'event' : 'events'} ${since}${newest}.`;
    },
  };
}

/** The text of the filter: a user's id in the place of the name. */
async function subjectOf(operator: Operator, wanted: string): Promise<string> {
  if (wanted === '' || isUuid(wanted)) return wanted;
  return (await findUser(operator, wanted))?.userId ?? wanted;
}

/** What an event is about. */
async function aboutOf({ subject }: SecurityEvent, nameOf: (id: string) => Promise<Html>): Promise<Html> {
  if (subject === undefined) return NOTHING;
  const { userId, sessionId, clientId, tokenId, keyId, nameHash, network, issuer, service } = subject;
  const parts = [
    userId !== '' && (await nameOf(userId)),
    sessionId !== '' && sessionOf(sessionId),
    clientId !== '' && html`client ${clientId}`,
    tokenId !== '' && html`token <code>${tokenId}</code>`,
    keyId !== '' && html`key <code>${keyId}</code>`,
    nameHash !== '' && html`unknown name <code>${nameHash.slice(0, 12)}</code>`,
    network !== '' && html`network ${network}`,
    issuer !== '' && html`issuer ${issuer}`,
    service !== '' && html`service ${service}`,
  ].filter((part) => part !== false);
  return html`${parts.map((part, at) => html`${at > 0 && html`<br>`}${part}`)}`;
}

/** A session of another issuer has a name of any form, and no page. */
function sessionOf(sessionId: string): Html {
  if (!isUuid(sessionId)) return html`session <code>${sessionId}</code>`;
  return html`session <a href="/sessions/${sessionId}">${sessionId.slice(0, 8)}</a>`;
}

function detailsOf({ details }: SecurityEvent): Html {
  const entries = Object.entries(details);
  if (entries.length === 0) return NOTHING;
  return html`<span class="muted">${entries.map(([name, value]) => html` ${name}=${value}`)}</span>`;
}
