/** The page on which operators log in. */

import { CallError } from './calls.js';
import { html } from './html.js';
import type { ConsoleRequest, ConsoleResponse, LoginCookies } from './http.js';
import { alertOf, documentOf, failureStatus, failureText } from './layout.js';
import { NotOperatorError, type Operators } from './operators.js';

/** Shows the form. */
export function loginPage(problem = '', username = '', status = 200): ConsoleResponse {
  const body = html`${problem !== '' && alertOf(problem)}
<form method="post" action="/login" class="stack narrow">
<label>User name <input name="username" autocomplete="username" autocapitalize="none" spellcheck="false" required value="${username}"></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button type="submit">Log in</button>
</form>`;
  return { status, page: documentOf({ title: 'Log in', body }, undefined) };
}

/** Logs in, and goes to the first page. */
export async function logIn(
  { form, peer, loginId }: ConsoleRequest,
  operators: Operators,
  cookies: LoginCookies,
): Promise<ConsoleResponse> {
  const username = form.get('username') ?? '';
  try {
    const id = await operators.logIn({ username, password: form.get('password') ?? '', peer });
    if (loginId !== undefined) await operators.logOut(loginId, peer, id);
    return { redirectTo: '/', cookie: cookies.set(id) };
  } catch (error) {
    if (error instanceof NotOperatorError) return loginPage(error.message, username, 403);
    if (error instanceof CallError) return loginPage(failureText(error), username, failureStatus(error));
    throw error;
  }
}
