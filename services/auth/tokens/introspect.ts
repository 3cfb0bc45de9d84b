/** What a token says, by the database's state at this moment (RFC 7662). */

import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { AuthError } from '../errors.js';
import type { AuthStore, AuthTransaction, TransactionPlace } from '../transaction.js';
import { isExpired, isLive } from './live-tokens.js';
import type { ForeignToken, ForeignTokens, Tokens, VerifiedToken } from './tokens.js';

export interface IntrospectDeps {
  readonly store: AuthStore;
  readonly tokens: Tokens;
  readonly foreignTokens: Pick<ForeignTokens, 'verify'>;
}

/** The content of an active token. */
export type Introspection = Pick<
  VerifiedToken,
  | 'issuer'
  | 'tokenId'
  | 'subject'
  | 'clientId'
  | 'sessionId'
  | 'kind'
  | 'scopes'
  | 'roles'
  | 'audiences'
  | 'actors'
  | 'issuedAtSeconds'
  | 'expiresAtSeconds'
  | 'authTimeSeconds'
  | 'certificateThumbprint'
>;

/**
 * The token's content, if an instance that it is for would admit it at this moment; undefined when the token is not valid,
 * whatever the reason.
 *
 * @throws ServiceError DEPENDENCY_UNAVAILABLE when the keys of the token's issuer cannot be fetched
 */
export async function introspect(
  { store, tokens, foreignTokens }: IntrospectDeps,
  token: string,
  callerId?: string,
): Promise<Introspection | undefined> {
  // Before the transaction, because the other issuer's keys may have to be fetched.
  const foreign = await foreignTokens.verify(token);
  if (foreign === 'INVALID') return undefined;
  return await store.transaction(async (tx) => {
    if (foreign !== undefined) return await introspectForeign(tx, foreign);
    const verify = await tokens.verifierIn(tx);
    const verified = await verify(token, undefined);
    return verified !== undefined && (await isLive(tx, verified)) ? verified : undefined;
  }, turnOf(callerId));
}

/** One client that asks as fast as it can makes only its own requests wait. */
export function turnOf(clientId: string | undefined): TransactionPlace {
  return clientId === undefined ? {} : { caller: `client ${clientId}` };
}

async function introspectForeign(
  tx: AuthTransaction,
  token: ForeignToken,
): Promise<Introspection | undefined> {
  const [isRevoked, now] = await Promise.all([tx.tokens.foreignRevoked(token), tx.databaseTime()]);
  if (isRevoked || isExpired(token, now, CLOCK_SKEW_SECONDS)) return undefined;
  // A token for no service of ours is admitted nowhere.
  return token.audiences.length === 0 ? undefined : { ...token, subject: token.id, actors: [] };
}

/**
 * The `jti` and the expiry of a token of this issuer that has not expired, whether or not it was revoked.
 *
 * @throws ServiceError TOKEN_INVALID, TOKEN_EXPIRED
 */
export function identify(
  { store, tokens }: IntrospectDeps,
  token: string,
): Promise<{ readonly tokenId: string; readonly expireTime: Date }> {
  return store.transaction(async (tx) => {
    const verify = await tokens.verifierIn(tx);
    const verified = await verify(token, undefined);
    if (verified === undefined) throw new AuthError('TOKEN_INVALID', 'the token is not valid');
    // For as long as instances admit it, it stays revocable.
    if (isExpired(verified, await tx.databaseTime(), CLOCK_SKEW_SECONDS)) {
      throw new AuthError('TOKEN_EXPIRED', 'the token has expired');
    }
    return { tokenId: verified.tokenId, expireTime: new Date(verified.expiresAtSeconds * 1000) };
  });
}
