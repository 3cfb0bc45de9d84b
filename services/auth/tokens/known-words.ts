/** Which scopes and audiences exist, for requests of clients. */

import { requireKnownWords } from '../../common/validation/words.js';
import type { AuthTransaction } from '../transaction.js';

/**
 * Requires that every requested scope and audience exists: the policy has it, or a client's configuration names it. The caller has authenticated, so the error reveals nothing to strangers.
 *
 * @param audienceField - the name of the field that holds the audiences
 * @throws ServiceError FIELD_INVALID with the unknown words
 */
export async function requireKnownRights(
  tx: AuthTransaction,
  requested: { readonly scopes: readonly string[]; readonly audiences: readonly string[] },
  audienceField = 'audiences',
): Promise<void> {
  const policy = await tx.policy.current();
  const scopes = requested.scopes.filter((scope) => !policy.audienceOfScope.has(scope));
  const audiences = requested.audiences.filter(
    (audience) => !policy.services.some((service) => service.audience === audience),
  );
  if (scopes.length === 0 && audiences.length === 0) return;
  const known = await tx.clients.knownWords({ scopes, audiences });
  requireKnownWords(audienceField, audiences, {
    kind: 'audience',
    isKnown: (audience) => known.audiences.includes(audience),
  });
  requireKnownWords('scopes', scopes, { kind: 'scope', isKnown: (scope) => known.scopes.includes(scope) });
}
