/** The policy in force, to read. */

import { PolicyServiceService } from '../../../proto/gen/auth/v1/policy_service.js';
import { type Html, html } from './html.js';
import { type Page, tableOf, timeOf } from './layout.js';
import type { Operator } from './operators.js';

export async function policyPage(operator: Operator): Promise<Page> {
  const { policy } = await operator.call(PolicyServiceService.getPolicy, {});
  const { services = [], roles = [], clients = [], updateTime, etag = '' } = policy ?? {};
  const body = html`<dl class="facts">
<div><dt>Changed</dt><dd>${timeOf(updateTime)}</dd></div>
<div><dt>Etag</dt><dd><code>${etag}</code></dd></div>
</dl>
<p>The policy is changed on the command line: <code>portcullis policy</code>.</p>
${tableOf(
  'Roles of users',
  ['Role', 'What it is for', 'Scopes'],
  roles.map(({ role, description, scopes }) => [role, description, wordsOf(scopes)]),
  'The policy has no role.',
)}
${tableOf(
  'Services',
  ['Audience', 'What it is', 'Clients that serve it', 'Scopes'],
  services.map(({ audience, description, clientIds, scopes }) => [
    audience,
    description,
    wordsOf(clientIds.length === 0 ? [audience] : clientIds),
    wordsOf(scopes),
  ]),
  'The policy has no service.',
)}
${tableOf(
  'What clients may ask for',
  ['Client', 'Audiences', 'Scopes', 'For users: audiences', 'For users: scopes'],
  clients.map(({ clientId, audiences, scopes, exchangeAudiences, exchangeScopes }) => [
    clientId,
    wordsOf(audiences),
    wordsOf(scopes),
    wordsOf(exchangeAudiences),
    exchangeAudiences.length > 0 && exchangeScopes.length === 0
      ? 'all that the user’s token has'
      : wordsOf(exchangeScopes),
  ]),
  'The policy has no rule for clients.',
)}`;
  return { title: 'Policy', body };
}

function wordsOf(words: readonly string[]): Html {
  return words.length === 0 ? html`<span class="muted">none</span>` : html`${words.join(', ')}`;
}
