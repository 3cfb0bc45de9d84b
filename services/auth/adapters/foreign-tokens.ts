/** Verification of other issuers' tokens as the guard does it, for the token exchange. */

import type { GuardLog, Plaintext, TrustedIssuer } from '@portcullis/guard';
import { type Clock, systemClock, systemTimers } from '@portcullis/guard/clock';
import { createTrustedIssuers, issuerNamedIn, pointerOf } from '@portcullis/guard/internal';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import { AuthError } from '../errors.js';
import type { ForeignTokens } from '../tokens/tokens.js';

/** Another trusted issuer, with the audiences by which its tokens name our services, where they differ from our names. */
export interface NamingIssuer extends TrustedIssuer {
  readonly audiences: ReadonlyMap<string, string>;
}

/**
 * Starts fetching the keys of the issuers.
 *
 * @throws TypeError when the configuration of an issuer is invalid
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
        throw new AuthError(
          'DEPENDENCY_UNAVAILABLE',
          'the token of another issuer cannot be verified at this moment',
          {
            retryAfterMs: 1000,
          },
        );
      }
      if (verdict === 'BAD') return 'INVALID';
      const nowSeconds = clock.wallMs() / 1000;
      const claims = issuer.read(token, verdict.verifiedBy, { nowSeconds, audience: 'ANY' });
      if ('fault' in claims) return 'INVALID';
      return { ...claims, audiences: servicesNamed(claims.audiences, audiences.get(issuer.issuer)) };
    },
    close: () => trusted.close(),
  };
}

/** The JSON Pointers of the claims by which tokens of each issuer can be revoked. */
export function revocableClaimsOf(issuers: readonly TrustedIssuer[]): ReadonlyMap<string, readonly string[]> {
  return new Map(issuers.map(({ issuer, revocable = [] }) => [issuer, revocable.map(pointerOf)]));
}

/** Our services that an audience names. A service without another name has its own. */
function servicesNamed(
  given: readonly string[],
  names: ReadonlyMap<string, string> = new Map(),
): readonly string[] {
  const renamed = [...names].flatMap(([service, name]) => (given.includes(name) ? [service] : []));
  return [...renamed, ...given.filter((name) => !names.has(name))];
}
