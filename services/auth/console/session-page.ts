/** One session: the chain of its refresh tokens, as the security events have it. */

import {
  type SecurityEvent,
  SecurityEventType,
  SecurityServiceService,
} from '../../../proto/gen/auth/v1/security_service.js';
import { eventName, isAlarm } from './events-page.js';
import { type Html, html } from './html.js';
import { alertOf, type Page, timeOf } from './layout.js';
import { isUuid, userNames } from './names.js';
import type { Operator } from './operators.js';

/** Events of a session that are shown, the newest ones. */
const EVENTS_MAX = 200;

/** What the chain says of an event, where it differs from the name of the type. */
const STEPS: ReadonlyMap<SecurityEventType, string> = new Map([
  [SecurityEventType.SECURITY_EVENT_TYPE_SESSION_ESTABLISHED, 'Login: the first refresh token'],
  [SecurityEventType.SECURITY_EVENT_TYPE_TOKEN_REFRESHED, 'Refresh: the next refresh token'],
  [SecurityEventType.SECURITY_EVENT_TYPE_SESSION_REVOKED, 'Ended'],
]);

/** Undefined when auth has no event of such a session. */
export async function sessionPage(operator: Operator, sessionId: string): Promise<Page | undefined> {
  if (!isUuid(sessionId)) return undefined;
  const { events, nextPageToken } = await operator.call(SecurityServiceService.listSecurityEvents, {
    pageSize: EVENTS_MAX,
    pageToken: '',
    filter: { types: [], subject: sessionId, beginTime: undefined, endTime: undefined },
  });
  if (events.length === 0) return undefined;
  const nameOf = userNames(operator);
  const userId = events.find(({ subject }) => (subject?.userId ?? '') !== '')?.subject?.userId ?? '';
  const isReused = events.some(isReuse);
  const isEnded = events.some(({ type }) => type === SecurityEventType.SECURITY_EVENT_TYPE_SESSION_REVOKED);
  const steps = await Promise.all(events.toReversed().map((event) => stepOf(event, userId, nameOf)));
  const body = html`${isReused && alertOf('A used refresh token was presented again. Two parties had it, so it was probably stolen.')}
<dl class="facts">
<div><dt>Id</dt><dd><code>${sessionId}</code></dd></div>
<div><dt>User</dt><dd>${await nameOf(userId)}</dd></div>
<div><dt>State</dt><dd>${isEnded ? 'ended' : 'open, unless all sessions of the user have ended'}</dd></div>
</dl>
<h2>Refresh chain</h2>
${nextPageToken !== '' && html`<p class="hint">Only the last ${EVENTS_MAX} steps are shown.</p>`}
<ol class="chain">${steps}</ol>
<p><a href="/events?subject=${sessionId}">All events of the session</a></p>`;
  return { title: `Session ${sessionId.slice(0, 8)}`, body };
}

function isReuse({ type }: SecurityEvent): boolean {
  return type === SecurityEventType.SECURITY_EVENT_TYPE_REFRESH_TOKEN_REUSED;
}

async function stepOf(
  event: SecurityEvent,
  userId: string,
  nameOf: (id: string) => Promise<Html>,
): Promise<Html> {
  const { type, eventTime, network, actor, reason } = event;
  const text = STEPS.get(type);
  const name = isReuse(event)
    ? html`<strong class="bad">Reuse: a used refresh token was presented again</strong>`
    : text === undefined
      ? eventName(event)
      : html`${text}`;
  // Who ended the session, and why, is not in the name of the step.
  const isPlain = type !== SecurityEventType.SECURITY_EVENT_TYPE_SESSION_REVOKED && actor === userId;
  return html`<li${isAlarm(event) && html` class="alarm"`}>${name}<br>
<span class="muted">${timeOf(eventTime)}${network !== '' && html`, from ${network}`}${!isPlain && html`, by ${await nameOf(actor)}${reason !== '' && html` (${reason})`}`}</span></li>
`;
}
