/** Ending sessions: of one user, or by what they have in common. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type User, UserServiceService } from '../../../proto/gen/auth/v1/user_service.js';
import {
  RevocationServiceService,
  type RevokeRequest,
  type RevokeResponse,
  type RevokeTarget,
  RevokeWait,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { CallError } from './calls.js';
import { type Html, html } from './html.js';
import type { ConsoleRequest, ConsoleResponse, LoginCookies } from './http.js';
import { alertOf, documentOf, failureStatus, failureText } from './layout.js';
import { LoginEndedError, NotOperatorError, type Operator, type Operators } from './operators.js';
import { COMMON, choicePage, planByCommon } from './revoke-by.js';
import { countText, formOf, type Plan } from './revoke-form.js';
import { findUser } from './users-page.js';

/** Maximum number of sessions that one form ends. */
const SESSIONS_MAX = 200;

/** Rows of one answer of auth when the sessions of a user are looked up; so many answers are read. */
const LOOKUP_PAGE_SIZE = 200;
const LOOKUP_PAGES_MAX = 500;

/** How long a form waits for the instances, in milliseconds. */
const SHORT_WAIT_MS = 400;

/** Sessions of one user. */
interface Wanted {
  readonly userId: string;
  readonly username: string;
  /** All sessions of the user when empty. */
  readonly sessionIds: readonly string[];
}

/** Shows what will be revoked, and asks for confirmation. */
export async function revokePage(operator: Operator, { query }: ConsoleRequest): Promise<ConsoleResponse> {
  const plan = await planOf(operator, query);
  return 'run' in plan ? formOf(operator, plan, { reason: query.get('reason') ?? '' }) : plan;
}

/**
 * Revokes, and goes to the page that shows how the revocation spreads.
 *
 * @throws CallError; LoginEndedError
 */
export async function revoke(
  operator: Operator,
  request: ConsoleRequest,
  { operators, cookies }: { readonly operators: Operators; readonly cookies: LoginCookies },
): Promise<ConsoleResponse> {
  const { form, peer, loginId = '' } = request;
  const plan = await planOf(operator, form);
  if (!('run' in plan)) return plan;
  const reason = form.get('reason') ?? '';
  const password = form.get('password') ?? '';
  if (operator.isFresh()) return await run(operator, plan, reason);
  const refused = (problem: string): ConsoleResponse =>
    formOf(operator, plan, { reason, problem, status: 403 });
  if (password === '') return refused('Enter your password to confirm.');
  let next: { readonly id: string; readonly operator: Operator };
  try {
    const id = await operators.confirm(loginId, { password, peer });
    const confirmed = operators.find(id, peer, true);
    if (confirmed === undefined) throw new LoginEndedError('the login has ended');
    next = { id, operator: confirmed };
  } catch (error) {
    if (error instanceof NotOperatorError) return refused(error.message);
    if (!(error instanceof CallError)) throw error;
    return refused(failureText(error));
  }
  return { ...(await run(next.operator, plan, reason)), cookie: cookies.set(next.id) };
}

async function run(operator: Operator, plan: Plan, reason: string): Promise<ConsoleResponse> {
  if (reason.trim() === '')
    return formOf(operator, plan, { reason, problem: 'State a reason.', status: 400 });
  try {
    return await plan.run(operator, reason);
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return formOf(operator, plan, { reason, problem: failureText(error), status: failureStatus(error) });
  }
}

/** What the parameters name, or the response when they name nothing that can be revoked. */
async function planOf(operator: Operator, parameters: URLSearchParams): Promise<Plan | ConsoleResponse> {
  const named = ['user', ...COMMON].filter((name) => parameters.has(name));
  if (named.length === 0) return choicePage(operator);
  if (named.length > 1 || parameters.getAll(named[0] ?? '').length > 1) {
    return choicePage(operator, 'Name one user, role, client or key.', 400);
  }
  const common = COMMON.find((name) => parameters.has(name));
  if (common !== undefined) return await planByCommon(operator, common, parameters.get(common) ?? '');
  const wanted = await wantedOf(operator, parameters);
  return 'userId' in wanted ? planForUser(operator, wanted) : wanted;
}

/** The sessions that the parameters name, or the response when they name nothing that can be ended. */
async function wantedOf(operator: Operator, parameters: URLSearchParams): Promise<Wanted | ConsoleResponse> {
  const user = await findUser(operator, parameters.get('user') ?? '');
  if (user === undefined) return { redirectTo: '/' };
  const { userId, username } = user;
  const sessionIds = [...new Set(parameters.getAll('session').map((id) => id.toLowerCase()))];
  if (sessionIds.length > SESSIONS_MAX) {
    return refusal(
      operator,
      user,
      html`${alertOf(`One form ends at most ${SESSIONS_MAX} sessions, and ${sessionIds.length} were chosen. Choose fewer.`)}`,
    );
  }
  if (sessionIds.length === 0 && parameters.get('all') !== '1') {
    return refusal(
      operator,
      user,
      alertOf('No session was chosen. Choose the sessions to end, then try again.'),
    );
  }
  const missing = await notOpen(operator, userId, sessionIds);
  if (missing.length > 0) {
    const problem = `Nothing was ended: not every chosen session is an open session of ${username}.`;
    return refusal(
      operator,
      user,
      html`${alertOf(problem)}
<p>These have ended, or belong to another user:</p>
<ul>${missing.map((id) => html`<li><code>${id}</code></li>`)}</ul>`,
    );
  }
  return { userId, username, sessionIds };
}

/** Of the given sessions, those that are not open sessions of the user. */
async function notOpen(
  operator: Operator,
  userId: string,
  sessionIds: readonly string[],
): Promise<readonly string[]> {
  const missing = new Set(sessionIds);
  let pageToken = '';
  for (
    let page = 0;
    missing.size > 0 && page < LOOKUP_PAGES_MAX && (page === 0 || pageToken !== '');
    page += 1
  ) {
    const found = await operator.call(UserServiceService.listUserSessions, {
      userId,
      pageSize: LOOKUP_PAGE_SIZE,
      pageToken,
    });
    for (const { sessionId } of found.sessions) missing.delete(sessionId);
    pageToken = found.nextPageToken;
  }
  return [...missing];
}

function refusal(operator: Operator, { userId, username }: User, problem: Html): ConsoleResponse {
  const body = html`${problem}
<p><a href="/users/${userId}">Back to the sessions of ${username}</a></p>`;
  return { status: 400, page: documentOf({ title: `End sessions of ${username}`, body }, operator, '/') };
}

function planForUser(operator: Operator, wanted: Wanted): Plan {
  const { userId, username, sessionIds } = wanted;
  const count = sessionIds.length;
  const hidden = (name: string, value: string): Html =>
    html`<input type="hidden" name="${name}" value="${value}">`;
  return {
    title: count === 0 ? `End all sessions of ${username}` : `End ${countText(count)} of ${username}`,
    preview: html`<p>${count === 0 ? 'Every session of the user ends, and all tokens of the user are revoked at every instance.' : 'The sessions end, and their tokens are revoked at every instance.'} This cannot be undone; the user can log in again.</p>
${count > 0 && html`<ul>${sessionIds.map((id) => html`<li><code>${id}</code>${id === operator.sessionId && html` <span class="tag">this console</span>`}</li>`)}</ul>`}`,
    fields: html`${hidden('user', userId)}
${count === 0 ? hidden('all', '1') : sessionIds.map((id) => hidden('session', id))}`,
    action: count === 0 ? 'End all sessions' : `End ${countText(count)}`,
    cancelPath: `/users/${userId}`,
    place: '/',
    run: (as, reason) => revokeWanted(as, wanted, reason),
  };
}

async function revokeWanted(operator: Operator, wanted: Wanted, reason: string): Promise<ConsoleResponse> {
  const { userId, sessionIds } = wanted;
  const targets = sessionIds.map((value): RevokeTarget => ({ target: { $case: 'sessionId', value } }));
  const request: RevokeRequest = {
    target: targets.length === 0 ? { $case: 'userId', value: userId } : undefined,
    targets,
    reason,
    // With the wait, instances confirm at once, and the page of the revocation shows how it spreads. Of several sessions, some
    // may fail: without the wait, the response comes at once and has the result of each.
    wait: sessionIds.length > 1 ? RevokeWait.REVOKE_WAIT_NONE : RevokeWait.REVOKE_WAIT_KNOWN_INSTANCES,
    fences: [],
    dryRun: false,
  };
  const response =
    sessionIds.length > 1
      ? await operator.call(RevocationServiceService.revoke, request)
      : await revokeAndShow(operator, request, sessionIds[0] ?? userId);
  return resultOf(operator, wanted, response);
}

/**
 * Revokes, and waits for the instances, but not for long: the operator sees the slow ones on the page of the revocation.
 *
 * @param target - what the last entry of the revocation will name
 */
async function revokeAndShow(
  operator: Operator,
  request: RevokeRequest,
  target: string,
): Promise<Pick<RevokeResponse, 'sequence' | 'results'>> {
  const former = await lastEntryOf(operator, target);
  const responding = operator.call(RevocationServiceService.revoke, request);
  // A failure after the entry was found is about the wait alone.
  responding.catch(() => undefined);
  const response = await Promise.race([responding, sleep(SHORT_WAIT_MS, undefined, { ref: false })]);
  if (response !== undefined) return response;
  const sequence = await lastEntryOf(operator, target);
  return sequence > former ? { sequence, results: [] } : await responding;
}

/** The last entry of the log that names this target; 0 when there is none. */
async function lastEntryOf(operator: Operator, target: string): Promise<bigint> {
  const { revocations } = await operator.call(RevocationServiceService.listRevocations, {
    pageSize: 1,
    pageToken: '',
    target,
    actor: '',
    eventId: '',
  });
  return revocations[0]?.sequence ?? 0n;
}

/** The page of the revocation; or what failed of it. */
function resultOf(
  operator: Operator,
  wanted: Wanted,
  { sequence, results }: Pick<RevokeResponse, 'sequence' | 'results'>,
): ConsoleResponse {
  const failed = results.flatMap(({ errorReason, errorMessage }, at) =>
    errorReason === '' ? [] : [{ sessionId: wanted.sessionIds[at] ?? '', errorReason, errorMessage }],
  );
  const path = `/revocations/${sequence}`;
  if (failed.length === 0) return { redirectTo: path };
  const body = html`${alertOf(`${countText(failed.length)} could not be ended.`)}
<ul>${failed.map(({ sessionId, errorReason, errorMessage }) => html`<li><code>${sessionId}</code>: ${errorMessage} (${errorReason})</li>`)}</ul>
${sequence > 0n && html`<p>The others have ended: <a href="${path}">revocation ${sequence}</a></p>`}
<p><a href="/users/${wanted.userId}">Back to ${wanted.username}</a></p>`;
  return { status: 409, page: documentOf({ title: 'Not all sessions ended', body }, operator, '/') };
}
