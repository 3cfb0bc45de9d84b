/** What all pages share: the frame around them, tables, times, and links to further pages. */

import { errorOf } from '@portcullis/guard/client';
import { type Html, type HtmlValue, html, NOTHING } from './html.js';
import type { Operator } from './operators.js';

/** A page, without the frame. */
export interface Page {
  readonly title: string;
  readonly body: Html;
}

const PLACES = [
  ['/', 'Users'],
  ['/revocations', 'Revocations'],
  ['/instances', 'Instances'],
  ['/events', 'Events'],
  ['/keys', 'Keys'],
  ['/policy', 'Policy'],
] as const;

/** The whole document. The navigation marks the place under which `path` is. */
export function documentOf({ title, body }: Page, operator: Operator | undefined, path = ''): Html {
  return html`<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} · Portcullis console</title>
<link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/console.css">
<script type="module" src="/assets/console.js"></script>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header>
<p class="brand">Portcullis console</p>
${operator === undefined ? NOTHING : navigationOf(operator, path)}
</header>
<main id="main" tabindex="-1">
<h1>${title}</h1>
${body}
</main>
</body>
</html>
`;
}

function navigationOf(operator: Operator, path: string): Html {
  return html`<nav aria-label="Pages"><ul>${PLACES.filter(
    ([place]) => place !== '/policy' || operator.canReadPolicy,
  ).map(
    ([place, name]) =>
      html`<li><a href="${place}"${placeOf(path) === place ? html` aria-current="page"` : NOTHING}>${name}</a></li>`,
  )}</ul></nav>
<form class="account" method="post" action="/logout">${formToken(operator)}<span>${operator.username}</span>
<button type="submit" class="plain">Log out</button></form>`;
}

/** The place of the navigation to which a page belongs. */
function placeOf(path: string): string {
  const [, first = ''] = path.split('/');
  return PLACES.some(([place]) => place === `/${first}`) ? `/${first}` : '/';
}

/** The hidden field without which a form is refused. */
export function formToken({ formToken: token }: Pick<Operator, 'formToken'>): Html {
  return html`<input type="hidden" name="form_token" value="${token}">`;
}

/**
 * A table, or `empty` in the place of a table without rows. On narrow screens, each row becomes a block in which every cell has the
 * name of its column.
 */
export function tableOf(
  caption: string,
  columns: readonly string[],
  rows: readonly (readonly HtmlValue[])[],
  empty?: string,
): Html {
  if (rows.length === 0 && empty !== undefined) return empty === '' ? NOTHING : html`<p>${empty}</p>`;
  // The roles restore what `display: block` takes from tables in browsers.
  return html`<table role="table"><caption>${caption}</caption>
<thead role="rowgroup"><tr role="row">${columns.map((column) => html`<th role="columnheader" scope="col">${column}</th>`)}</tr></thead>
<tbody role="rowgroup">${rows.map(
    (cells) =>
      html`<tr role="row">${cells.map((cell, at) => html`<td role="cell" data-label="${columns[at] ?? ''}">${cell}</td>`)}</tr>
`,
  )}</tbody></table>`;
}

/** A moment, to the second, in UTC. */
export function timeOf(time: Date | undefined): Html {
  if (time === undefined) return html`<span class="muted">not known</span>`;
  const iso = time.toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 19)}\u00A0UTC</time>`;
}

/** A link to the next page of a list, and one to the first. */
export function pagesOf(path: string, pageToken: string, nextPageToken: string): Html {
  if (pageToken === '' && nextPageToken === '') return NOTHING;
  return html`<nav aria-label="Pages of the list" class="pages">
${pageToken !== '' && html`<a href="${path}">First page</a>`}
${nextPageToken !== '' && html`<a href="${pathWith(path, { page: nextPageToken })}" rel="next">Next page</a>`}
</nav>`;
}

/** A path with further parameters; those that are empty are left out. */
export function pathWith(path: string, parameters: Readonly<Record<string, string>>): string {
  const [base = '', query = ''] = path.split('?', 2);
  const all = new URLSearchParams(query);
  for (const [name, value] of Object.entries(parameters)) if (value !== '') all.set(name, value);
  return all.size === 0 ? base : `${base}?${all.toString()}`;
}

/** A problem that the operator has to read first. */
export function alertOf(text: HtmlValue): Html {
  return html`<p class="alert" role="alert">${text}</p>`;
}

/** What a failed call means, in a sentence. */
export function failureText(error: unknown): string {
  const { reason, message, violations } = errorOf(error);
  const fields = violations.map(({ field, description }) => `${field} ${description}`).join('; ');
  switch (reason) {
    case 'LOGIN_FAILED':
      return 'The name or the password is wrong.';
    case 'RATE_LIMITED':
      return 'Too many requests or attempts. Wait a minute, then try again.';
    case 'FIELD_INVALID':
      return fields === '' ? message : `${fields}.`;
    case '':
      return 'Auth did not respond. Try again.';
    default:
      return `${message} (${reason})`;
  }
}

/** The HTTP status of a page whose call has failed. */
export function failureStatus(error: unknown): number {
  switch (errorOf(error).reason) {
    case 'NOT_FOUND':
      return 404;
    case 'LOGIN_FAILED':
    case 'SCOPE_MISSING':
    case 'ROLE_MISSING':
      return 403;
    case 'FIELD_INVALID':
      return 400;
    case 'RATE_LIMITED':
      return 429;
    default:
      return 502;
  }
}

/** The first characters of an id, with the whole in its title. */
export function shortId(id: string): Html {
  return html`<code title="${id}">${id.slice(0, 8)}</code>`;
}
