/** Users, and the sessions and devices of one user. */

import { errorOf } from '@portcullis/guard/client';
import type { Session } from '../../../proto/gen/auth/v1/auth_service.js';
import { type User, UserServiceService, UserState } from '../../../proto/gen/auth/v1/user_service.js';
import { type Html, html, NOTHING } from './html.js';
import type { ConsoleRequest, ConsoleResponse } from './http.js';
import { alertOf, type Page, pagesOf, pathWith, shortId, tableOf, timeOf } from './layout.js';
import { isUuid } from './names.js';
import type { Operator } from './operators.js';

/** Rows of a page of a list. */
const PAGE_SIZE = 50;

/** A user by name, in any of its spellings, or by id; undefined when there is none. */
export async function findUser(operator: Operator, nameOrId: string): Promise<User | undefined> {
  const request = isUuid(nameOrId) ? { userId: nameOrId, username: '' } : { userId: '', username: nameOrId };
  try {
    return (await operator.call(UserServiceService.getUser, request)).user;
  } catch (error) {
    const { reason } = errorOf(error);
    // No user has a name that the rules do not allow.
    if (reason === 'NOT_FOUND' || reason === 'FIELD_INVALID') return undefined;
    throw error;
  }
}

/** The search, and all users by name. */
export async function usersPage(
  operator: Operator,
  { query }: ConsoleRequest,
): Promise<Page | Extract<ConsoleResponse, { redirectTo: string }>> {
  const wanted = (query.get('user') ?? '').trim();
  const found = wanted === '' ? undefined : await findUser(operator, wanted);
  if (found !== undefined) return { redirectTo: `/users/${found.userId}` };
  const pageToken = query.get('page') ?? '';
  const { users, nextPageToken } = await operator.call(UserServiceService.listUsers, {
    pageSize: PAGE_SIZE,
    pageToken,
  });
  const rows = users.map((user) => [
    html`<a href="/users/${user.userId}">${user.username}</a>`,
    user.roles.join(', '),
    stateOf(user),
    timeOf(user.createTime),
  ]);
  const body = html`${wanted !== '' && alertOf(`There is no user ${wanted}.`)}
<form method="get" action="/" role="search" class="line">
<label>User name or id <input name="user" required autocapitalize="none" autocomplete="off" spellcheck="false" value="${wanted}"></label>
<button type="submit">Find</button>
</form>
${tableOf('Users by name', ['Name', 'Roles', 'State', 'Created'], rows)}
${pagesOf('/', pageToken, nextPageToken)}`;
  return { title: 'Users', body };
}

function stateOf({ state }: User): Html {
  return state === UserState.USER_STATE_DISABLED
    ? html`<strong class="bad">disabled</strong>`
    : html`<span class="good">active</span>`;
}

/** One user with a page of the open sessions, each on a device. */
export async function userPage(
  operator: Operator,
  userId: string,
  { query }: ConsoleRequest,
): Promise<Page | undefined> {
  const user = isUuid(userId) ? await findUser(operator, userId) : undefined;
  if (user === undefined) return undefined;
  const pageToken = query.get('page') ?? '';
  const { sessions, nextPageToken } = await operator.call(UserServiceService.listUserSessions, {
    userId,
    pageSize: PAGE_SIZE,
    pageToken,
  });
  const path = `/users/${userId}`;
  const body = html`<dl class="facts">
<div><dt>Id</dt><dd><code>${user.userId}</code></dd></div>
<div><dt>Roles</dt><dd>${user.roles.length === 0 ? 'none' : user.roles.join(', ')}</dd></div>
<div><dt>State</dt><dd>${stateOf(user)}</dd></div>
<div><dt>Created</dt><dd>${timeOf(user.createTime)}</dd></div>
</dl>
<p><a href="/events?subject=${user.userId}">Events of ${user.username}</a></p>
<h2>Open sessions</h2>
${sessions.length === 0 ? html`<p>${user.username} has no open session.</p>` : sessionsForm(operator, user, sessions)}
${pagesOf(path, pageToken, nextPageToken)}
${operator.canRevoke ? endAllOf(user) : html`<p class="muted">Ending sessions needs the scope auth.revoke.</p>`}`;
  return { title: user.username, body };
}

function sessionsForm(operator: Operator, user: User, sessions: readonly Session[]): Html {
  const columns = ['Device', 'Session', 'Client', 'Network', 'Started', 'Last used'];
  const rows = sessions.map((session) => [
    ...(operator.canRevoke ? [choiceOf(session)] : []),
    deviceOf(session, operator),
    html`<a href="/sessions/${session.sessionId}">${shortId(session.sessionId)}</a>`,
    session.clientId,
    session.network,
    timeOf(session.createTime),
    timeOf(session.lastUseTime),
  ]);
  const table = tableOf(
    'Sessions, the newest first',
    operator.canRevoke ? ['Choose', ...columns] : columns,
    rows,
  );
  if (!operator.canRevoke) return table;
  return html`<form method="get" action="/revoke">
<input type="hidden" name="user" value="${user.userId}">
${table}
<p><button type="submit">End the chosen sessions…</button></p>
</form>`;
}

function choiceOf({ sessionId, deviceName }: Session): Html {
  const name = `Session ${sessionId.slice(0, 8)}${deviceName === '' ? '' : ` on ${deviceName}`}`;
  return html`<input type="checkbox" name="session" value="${sessionId}" aria-label="${name}">`;
}

function deviceOf({ deviceName, sessionId }: Session, operator: Operator): Html {
  const name = deviceName === '' ? html`<span class="muted">not named</span>` : html`${deviceName}`;
  const own = sessionId === operator.sessionId ? html` <span class="tag">this console</span>` : NOTHING;
  return html`${name}${own}`;
}

function endAllOf({ userId, username }: User): Html {
  return html`<p><a class="button danger" href="${pathWith('/revoke', { user: userId, all: '1' })}">End all sessions of ${username}…</a></p>`;
}
