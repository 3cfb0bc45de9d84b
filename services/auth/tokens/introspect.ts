/** What a token of this issuer says, by the database's state at this moment (RFC 7662). */

import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { AuthError } from '../errors.js';
import type { AuthStore } from '../transaction.js';
import { isLive } from './live-tokens.js';
import type { Tokens, VerifiedToken } from './tokens.js';

export interface IntrospectDeps {
  readonly store: AuthStore;
  readonly tokens: Tokens;
}

/** The token's content; undefined when the token is not valid, whatever the reason. */
export function introspect(
  { store, tokens }: IntrospectDeps,
  token: string,
): Promise<VerifiedToken | undefined> {
  return store.transaction(async (tx) => {
    const verify = await tokens.verifierIn(tx);
    const verified = await verify(token, undefined);
    return verified !== undefined && (await isLive(tx, verified)) ? verified : undefined;
  });
}

/**
 * The `jti` of a token of this issuer that has not expired, whether or not it was revoked.
 *
 * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED
 */
export function tokenIdOf({ store, tokens }: IntrospectDeps, token: string): Promise<string> {
  return store.transaction(async (tx) => {
    const verify = await tokens.verifierIn(tx);
    const verified = await verify(token, undefined);
    if (verified === undefined) throw new AuthError('TOKEN_INVALID', 'the token is not valid');
    // Instances tolerate the clock skew and admit the token for that long, so it stays revocable for that long.
    const goneMs = (verified.expiresAtSeconds + CLOCK_SKEW_SECONDS) * 1000;
    if (goneMs <= (await tx.databaseTime()).getTime()) {
      throw new AuthError('TOKEN_EXPIRED', 'the token has expired');
    }
    return verified.tokenId;
  });
}
