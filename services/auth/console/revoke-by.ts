/** Revocations by what sessions or tokens have in common: the role of the user, a client, or the key that signed. */

import { ClientServiceService } from '../../../proto/gen/auth/v1/client_service.js';
import { type Key, KeyServiceService } from '../../../proto/gen/auth/v1/key_service.js';
import {
  type MatchedSession,
  RevocationServiceService,
  type RevokeRequest,
  type RevokeSessionsResponse,
  RevokeWait,
  type SessionFilter,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { CallError } from './calls.js';
import { type Html, html } from './html.js';
import type { ConsoleResponse } from './http.js';
import { alertOf, documentOf, failureStatus, failureText, tableOf, timeOf } from './layout.js';
import type { Operator } from './operators.js';
import { countText, formOf, type Plan } from './revoke-form.js';

/** Keys of one answer of auth; so many answers are searched. */
const KEYS_PAGE_SIZE = 200;
const KEYS_PAGES_MAX = 10;

const PLACE = '/revocations';

/** The parameters that name what sessions or tokens have in common. */
export const COMMON = ['role', 'client', 'key'] as const;

type Common = (typeof COMMON)[number];

/** Asks for a role, a client or a key. */
export function choicePage(operator: Operator, problem = '', status = 200): ConsoleResponse {
  const body = html`${problem !== '' && alertOf(problem)}
<p>To end sessions of one user, <a href="/">find the user</a>. Nothing ends before you have seen what it is, and confirmed.</p>
<h2>By role</h2>
<p>All open sessions of the users who have a role.</p>
${choiceOf('role', 'Role')}
<h2>By client</h2>
<p>All tokens whose chain includes a client, and the sessions that began through it.</p>
${choiceOf('client', 'Client id')}
<h2>By key</h2>
<p>All tokens that a key signed. The key is withdrawn, and the next one signs.</p>
${choiceOf('key', 'Key id, or its beginning')}`;
  return { status, page: documentOf({ title: 'Revoke by role, client or key', body }, operator, PLACE) };
}

function choiceOf(name: Common, label: string): Html {
  return html`<form method="get" action="/revoke" class="line">
<label>${label} <input name="${name}" required maxlength="255" autocapitalize="none" autocomplete="off" spellcheck="false"></label>
<button type="submit">Preview…</button>
</form>`;
}

/** The plan for what the parameters have in common; or a page that says why there is none. */
export async function planByCommon(
  operator: Operator,
  name: Common,
  text: string,
): Promise<Plan | ConsoleResponse> {
  const value = text.trim();
  try {
    const plan = await PLANS[name](operator, value);
    return plan ?? choicePage(operator, `There is no ${name} ${value}.`, 404);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return choicePage(operator, failureText(error), failureStatus(error));
  }
}

const PLANS: Readonly<Record<Common, (operator: Operator, value: string) => Promise<Plan | undefined>>> = {
  role: planByRole,
  client: planByClient,
  key: planByKey,
};

const NO_FILTER: SessionFilter = {
  role: '',
  clientId: '',
  loggedInBeforeTime: undefined,
  network: '',
  userId: '',
};

async function planByRole(operator: Operator, role: string): Promise<Plan> {
  const filter = { ...NO_FILTER, role };
  const matched = await revokeSessions(operator, filter, undefined);
  const plan: Plan = {
    title: `End the sessions of role ${role}`,
    preview: html`<p>${isOrAre(matched)} open now. Those that begin before you confirm end as well, and all their tokens are revoked at every instance. This cannot be undone; the users can log in again.</p>
${sessionsOf(operator, matched)}`,
    fields: html`<input type="hidden" name="role" value="${role}">`,
    action: `End all sessions of role ${role}`,
    cancelPath: '/revoke',
    place: PLACE,
    run: async (as, reason) => {
      try {
        const { sequence } = await revokeSessions(as, filter, reason);
        return sequence === 0n
          ? formOf(as, plan, { reason, problem: 'There was no session to end.', status: 409 })
          : { redirectTo: `/revocations/${sequence}` };
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        const problem = `${failureText(error)} Some sessions may have ended already: confirm again to end the rest.`;
        return formOf(as, plan, { reason, problem, status: failureStatus(error) });
      }
    },
  };
  return plan;
}

async function planByClient(operator: Operator, clientId: string): Promise<Plan | undefined> {
  const { client } = await operator.call(ClientServiceService.getClient, { clientId });
  if (client === undefined) return undefined;
  const matched = await revokeSessions(operator, { ...NO_FILTER, clientId }, undefined);
  return targetPlan({
    title: `Revoke what client ${clientId} takes part in`,
    preview: html`<p>${isOrAre(matched)} open now that began through the client. They get no further tokens, and every token whose chain includes the client is revoked at every instance. This cannot be undone. The client can authenticate itself again.</p>
${sessionsOf(operator, matched)}`,
    fields: html`<input type="hidden" name="client" value="${clientId}">`,
    action: `Revoke all tokens of client ${clientId}`,
    target: { $case: 'clientId', value: clientId },
  });
}

async function planByKey(operator: Operator, start: string): Promise<Plan | undefined> {
  const found = (await allKeys(operator)).filter(({ kid }) => kid.startsWith(start));
  const [key] = found.some(({ kid }) => kid === start) ? found.filter(({ kid }) => kid === start) : found;
  if (start === '' || key === undefined || (found.length > 1 && key.kid !== start)) return undefined;
  return targetPlan({
    title: `Revoke what key ${key.kid.slice(0, 8)} signed`,
    preview: html`<p>Every token that the key <code>${key.kid}</code> signed is revoked at every instance; the key is no longer published, and the next one signs. Sessions stay open and get tokens of the next key. This cannot be undone. Auth keeps no record of single tokens, so it cannot count them.</p>`,
    fields: html`<input type="hidden" name="key" value="${key.kid}">`,
    action: 'Revoke all tokens of the key',
    target: { $case: 'keyId', value: key.kid },
  });
}

async function allKeys(operator: Operator): Promise<readonly Key[]> {
  const keys: Key[] = [];
  let pageToken = '';
  for (let page = 0; page < KEYS_PAGES_MAX && (page === 0 || pageToken !== ''); page += 1) {
    const found = await operator.call(KeyServiceService.listKeys, { pageSize: KEYS_PAGE_SIZE, pageToken });
    keys.push(...found.keys);
    pageToken = found.nextPageToken;
  }
  return keys;
}

/** A plan that revokes one target, and then shows how the revocation spreads. */
function targetPlan({
  target,
  ...plan
}: Pick<Plan, 'title' | 'preview' | 'fields' | 'action'> & {
  readonly target: NonNullable<RevokeRequest['target']>;
}): Plan {
  return {
    ...plan,
    cancelPath: '/revoke',
    place: PLACE,
    run: async (operator, reason) => {
      const { sequence } = await operator.call(RevocationServiceService.revoke, {
        target,
        targets: [],
        reason,
        wait: RevokeWait.REVOKE_WAIT_NONE,
        fences: [],
        dryRun: false,
      });
      return { redirectTo: `/revocations/${sequence}` };
    },
  };
}

/** @param reason - a dry run, which only counts and lists, when undefined */
async function revokeSessions(
  operator: Operator,
  filter: SessionFilter,
  reason: string | undefined,
): Promise<RevokeSessionsResponse> {
  return await operator.call(RevocationServiceService.revokeSessions, {
    filter,
    reason: reason ?? '',
    wait: RevokeWait.REVOKE_WAIT_NONE,
    dryRun: reason === undefined,
    fences: [],
  });
}

function isOrAre({ sessionCount }: RevokeSessionsResponse): string {
  return `${countText(sessionCount)} ${sessionCount === 1n ? 'is' : 'are'}`;
}

/** The sessions of a dry run, which lists the first hundred. */
function sessionsOf(operator: Operator, { sessionCount, sessions }: RevokeSessionsResponse): Html {
  const caption =
    BigInt(sessions.length) < sessionCount
      ? `The first ${sessions.length} of ${sessionCount} sessions`
      : 'The sessions';
  const rowOf = ({ userId, username, sessionId, clientId, createTime }: MatchedSession) => [
    html`<a href="/users/${userId}">${username}</a>`,
    html`<a href="/sessions/${sessionId}">${sessionId.slice(0, 8)}</a>${sessionId === operator.sessionId && html` <span class="tag">this console</span>`}`,
    clientId,
    timeOf(createTime),
  ];
  return tableOf(caption, ['User', 'Session', 'Client', 'Started'], sessions.map(rowOf), '');
}
