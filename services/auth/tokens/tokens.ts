/** Access tokens: minted inside a transaction, and verified with the keys that the transaction reads. */

import { randomUUID } from 'node:crypto';
import type { Keys } from '../keys/keys.js';
import type { PublishedKeys } from '../records/keys.js';
import type { ClientLink, TokenOrigin } from '../records/tokens.js';
import type { AuthTransaction } from '../transaction.js';
import { claimsOf, wholeSeconds } from './claims.js';
import type { Grant } from './grant.js';

/** A token of another issuer that was verified. Expiry and revocation are checked separately. */
export interface ForeignToken extends TokenOrigin {
  /** The subject's name in our tokens, unique among the subjects of all issuers. */
  readonly id: string;
  readonly clientId: string;
  readonly kind: 'USER' | 'SERVICE';
  readonly scopes: ReadonlySet<string>;
  readonly roles: ReadonlySet<string>;
  /** The services that its audience names, by our names. */
  readonly audiences: readonly string[];
  readonly authTimeSeconds: number | undefined;
  readonly expiresAtSeconds: number;
  readonly certificateThumbprint: string | undefined;
}

/** Verifies tokens of other issuers. */
export interface ForeignTokens {
  /**
   * The verified token; INVALID when anything is wrong with it, undefined when no trusted issuer issued it.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the issuer's keys cannot be fetched
   */
  verify(token: string): Promise<ForeignToken | 'INVALID' | undefined>;
  close(): void;
}

/** A signed token, and what it grants. */
export interface MintedToken {
  readonly token: string;
  readonly expireTime: Date;
  readonly scopes: readonly string[];
  readonly audiences: readonly string[];
}

/** The content of a token whose form, signature and claims were verified. */
export interface VerifiedToken {
  readonly issuer: string;
  readonly tokenId: string;
  readonly subject: string;
  readonly clientId: string;
  readonly sessionId: string | undefined;
  readonly generation: bigint | undefined;
  readonly kind: 'USER' | 'SERVICE';
  readonly scopes: ReadonlySet<string>;
  readonly roles: ReadonlySet<string>;
  readonly audiences: readonly string[];
  readonly actors: readonly string[];
  readonly clients: readonly ClientLink[];
  readonly ancestors: readonly string[];
  readonly issuedAtSeconds: number;
  readonly expiresAtSeconds: number;
  readonly keyId: string;
  readonly certificateThumbprint: string | undefined;
  readonly origin: TokenOrigin | undefined;
  readonly authTimeSeconds: number | undefined;
}

/**
 * Verifies form, signature and claims of an access token of this issuer with the given keys; undefined when anything is
 * wrong. Expiry and revocation are checked separately.
 *
 * @param expected.audience - the service that the token must be for; undefined for any
 */
export type VerifyToken = (
  token: string,
  keySet: PublishedKeys['keySet'],
  expected: { readonly audience: string | undefined; readonly nowSeconds: number },
) => Promise<VerifiedToken | undefined>;

/**
 * Verifies form, signature and claims of a token; undefined when anything is wrong. Whether the token may still be used
 * is the question of `isLive`.
 *
 * @param audience - the service that the token must be for; undefined for any
 */
type Verifier = (token: string, audience: string | undefined) => Promise<VerifiedToken | undefined>;

/** Mints and verifies access tokens. */
export interface Tokens {
  /**
   * Signs a token in this transaction. The caller has share-locked and checked the user, the session and the clients
   * that the grant names. Because a revocation waits for these locks, it covers the new token. The lifetime is that of the
   * log's state, because entries are kept according to it.
   */
  mint(tx: AuthTransaction, grant: Grant): Promise<MintedToken>;
  /** Reads keys and time of the database once, and returns a verifier that uses them. */
  verifierIn(tx: AuthTransaction): Promise<Verifier>;
}

interface TokensDeps {
  readonly issuer: string;
  readonly keys: Keys;
  readonly verifyToken: VerifyToken;
}

/** The access tokens of this issuer. */
export function createTokens(deps: TokensDeps): Tokens {
  return {
    mint: (tx, grant) => mint(deps, tx, grant),
    verifierIn: async (tx) => {
      const [{ keySet }, now] = await Promise.all([deps.keys.published(tx), tx.databaseTime()]);
      const nowSeconds = now.getTime() / 1000;
      return (token, audience) => deps.verifyToken(token, keySet, { audience, nowSeconds });
    },
  };
}

async function mint({ issuer, keys }: TokensDeps, tx: AuthTransaction, grant: Grant): Promise<MintedToken> {
  // The time is read after all locks are held: `iat` must not lie before the checks that the token rests on.
  const [sign, { now, lifetimeSeconds }] = await Promise.all([
    keys.lockTokenSigner(tx),
    tx.tokens.mintingTimes(),
  ]);
  const issuedAtSeconds = wholeSeconds(now);
  const latestSeconds = grant.notAfter ? wholeSeconds(grant.notAfter) : Number.POSITIVE_INFINITY;
  const expiresAtSeconds = Math.min(issuedAtSeconds + lifetimeSeconds, latestSeconds);
  const times = { iat: issuedAtSeconds, exp: expiresAtSeconds };
  const token = await sign({ iss: issuer, ...claimsOf(grant), ...times, jti: randomUUID() });
  const { scopes, audiences } = grant;
  return { token, expireTime: new Date(expiresAtSeconds * 1000), scopes, audiences };
}
