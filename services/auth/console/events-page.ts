/** Security events, anomalies among them, with filters by type and by what they are about. */

import {
  type SecurityEvent,
  SecurityEventType,
  SecurityServiceService,
} from '../../../proto/gen/auth/v1/security_service.js';
import { type Html, html, NOTHING } from './html.js';
import type { ConsoleRequest } from './http.js';
import { alertOf, type Page, pagesOf, pathWith, tableOf, timeOf } from './layout.js';
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

/** Events, the newest first. */
export async function eventsPage(operator: Operator, { query }: ConsoleRequest): Promise<Page> {
  const wantedType = query.get('type') ?? '';
  const wantedSubject = (query.get('subject') ?? '').trim();
  const pageToken = query.get('page') ?? '';
  const type = TYPES.get(wantedType);
  const { events, nextPageToken } = await operator.call(SecurityServiceService.listSecurityEvents, {
    pageSize: PAGE_SIZE,
    pageToken,
    filter: {
      types: type === undefined ? [] : [type],
      subject: await subjectOf(operator, wantedSubject),
      beginTime: undefined,
      endTime: undefined,
    },
  });
  const nameOf = userNames(operator);
  const rows = await Promise.all(
    events.map(async (event) => [
      timeOf(event.eventTime),
      eventName(event),
      await aboutOf(event, nameOf),
      await nameOf(event.actor),
      event.network,
      html`${event.reason}${detailsOf(event)}`,
    ]),
  );
  const path = pathWith('/events', { type: wantedType, subject: wantedSubject });
  const body = html`${wantedType !== '' && type === undefined && alertOf(`There is no type ${wantedType} of events.`)}
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
${tableOf('Events, the newest first', ['When', 'Event', 'About', 'By', 'From', 'Reason and details'], rows)}
${events.length === 0 ? html`<p>There is no such event.</p>` : NOTHING}
${pagesOf(path, pageToken, nextPageToken)}`;
  return { title: 'Events', body };
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
