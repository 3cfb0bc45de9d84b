/** The form that confirms a revocation: what will happen, the reason, and the password when the login is not fresh. */

import { type Html, html, NOTHING } from './html.js';
import type { ConsoleResponse } from './http.js';
import { alertOf, documentOf, formToken } from './layout.js';
import { FRESH_LOGIN_MS, type Operator } from './operators.js';

/** Maximum length of a reason, in characters. */
const REASON_CHARACTERS_MAX = 200;

/** A revocation that the operator may confirm. */
export interface Plan {
  readonly title: string;
  /** What will happen, and to what. */
  readonly preview: Html;
  /** The hidden fields that name the same again. */
  readonly fields: Html;
  /** The text of the button. */
  readonly action: string;
  readonly cancelPath: string;
  /** The place of the navigation to which the form belongs. */
  readonly place: string;
  /** @throws CallError, LoginEndedError */
  run(operator: Operator, reason: string): Promise<ConsoleResponse>;
}

/** What the operator has entered, and what is wrong with it. */
interface Entered {
  readonly reason: string;
  readonly problem?: string;
  readonly status?: number;
}

export function formOf(
  operator: Operator,
  plan: Plan,
  { reason, problem = '', status = 200 }: Entered,
): ConsoleResponse {
  const body = html`${problem !== '' && alertOf(problem)}
${plan.preview}
<form method="post" action="/revoke" class="stack narrow">
${formToken(operator)}
${plan.fields}
<label>Reason <input name="reason" required maxlength="${REASON_CHARACTERS_MAX}" autocomplete="off" value="${reason}" aria-describedby="reason-use"></label>
<p class="hint" id="reason-use">Recorded in the log and in the security event.</p>
${operator.isFresh() ? NOTHING : passwordField()}
<p class="line"><button type="submit" class="danger">${plan.action}</button> <a href="${plan.cancelPath}">Cancel</a></p>
</form>`;
  return { status, page: documentOf({ title: plan.title, body }, operator, plan.place) };
}

function passwordField(): Html {
  const minutes = FRESH_LOGIN_MS / 60_000;
  return html`<label>Your password <input name="password" type="password" autocomplete="current-password" required aria-describedby="password-use"></label>
<p class="hint" id="password-use">You logged in more than ${minutes} minutes ago.</p>`;
}

/** `1 session`, or the number of them. */
export function countText(count: number | bigint): string {
  return Number(count) === 1 ? '1 session' : `${count} sessions`;
}
