/** The tokens of other issuers, verified as every guard verifies them, for whoever wants to exchange one. */

import type { GuardLog, Plaintext, TrustedIssuer } from '@portcullis/guard';
import { type Clock, systemClock, systemTimers } from '@portcullis/guard/clock';
import { createTrustedIssuers, issuerNamedIn } from '@portcullis/guard/internal';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import { AuthError } from '../errors.js';
import type { ForeignTokens } from '../tokens/tokens.js';

/** Another issuer, and what its tokens call our services where that is not their own name. */
export interface NamingIssuer extends TrustedIssuer {
  readonly audiences: ReadonlyMap<string, string>;
}

/**
 * Begins to fetch the keys of the issuers.
 *
 * @throws TypeError when one of them cannot be trusted as it is described
 */
export function createForeignTokens(options: {
  readonly issuers: readonly NamingIssuer[];
  readonly ownIssuer: string;
  readonly plaintext: Plaintext;
  readonly log: GuardLog;
  readonly clock?: Clock;
}): ForeignTokens {
  const { issuers, clock = systemClock } = options;
  const audiences = new Map(issuers.map((one) => [one.issuer, one.audiences]));
  const trusted = createTrustedIssuers({
    ...options,
    clock,
    audience: OWN_AUDIENCE,
    timers: systemTimers,
    onKeys: () => undefined,
  });
  return {
    verify: async (text) => {
      const name = trusted.size === 0 ? undefined : issuerNamedIn(text);
      const issuer = name === undefined ? undefined : trusted.find(name);
      if (issuer === undefined) return undefined;
      const token = issuer.parse(text);
      if (token === undefined) return 'INVALID';
      const verdict = await issuer.verify(token);
      if (verdict === 'UNKNOWN') {
        throw new AuthError('DEPENDENCY_UNAVAILABLE', 'the subject token cannot be verified at this moment', {
          retryAfterMs: 1000,
        });
      }
      const claims = verdict === 'GOOD' && issuer.read(token, clock.wallMs() / 1000, 'ANY');
      if (claims === false || 'fault' in claims) return 'INVALID';
      return {
        ...claims,
        isFor: (service) => claims.audiences.includes(audiences.get(issuer.issuer)?.get(service) ?? service),
      };
    },
    close: () => trusted.close(),
  };
}
