/** Access tokens: minting one inside a transaction, and judging one against the database. */

import { randomUUID } from 'node:crypto';
import type { Keys } from '../keys/keys.js';
import type { PublishedKeys } from '../records/keys.js';
import type { ClientLink, TokenOrigin } from '../records/tokens.js';
import type { AuthTransaction } from '../transaction.js';

/** The longest life of an access token, in seconds, whatever is configured. */
export const ACCESS_TOKEN_SECONDS_MAX = 3600;

/** How long an access token lives unless configured otherwise, in seconds. */
export const ACCESS_TOKEN_SECONDS_DEFAULT = 300;

/** How many services may act for one another in one token (RFC 8693 §4.1). */
export const ACTOR_CHAIN_LENGTH_MAX = 4;

/** The login that a user's token rests on. */
export interface TokenSession {
  readonly sessionId: string;
  /** The user's generation under which the login happened. */
  readonly generation: bigint;
  readonly authTime: Date;
  /** How the user proved who it is (RFC 8176). */
  readonly amr: readonly string[];
}

/** A token of another issuer that was found good; whether it has expired or was revoked is another question. */
export interface ForeignToken extends TokenOrigin {
  /** Its subject among all subjects. */
  readonly id: string;
  readonly kind: 'USER' | 'SERVICE';
  readonly scopes: ReadonlySet<string>;
  readonly roles: ReadonlySet<string>;
  readonly authTimeSeconds: number | undefined;
  readonly expiresAtSeconds: number;
  readonly certificateThumbprint: string | undefined;
  /** Whether it is for this service of ours. */
  isFor(service: string): boolean;
}

/** The tokens of other issuers. */
export interface ForeignTokens {
  /**
   * What such a token says; INVALID when anything is wrong with it, undefined when it is not another issuer's.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when its issuer's keys cannot be had
   */
  verify(token: string): Promise<ForeignToken | 'INVALID' | undefined>;
  close(): void;
}

/** What a token shall say. */
export interface Grant {
  readonly subject: string;
  readonly clientId: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly roles: readonly string[];
  readonly clients: readonly ClientLink[];
  /** Absent in a service's own token, and when the root is another issuer's. */
  readonly session?: TokenSession | undefined;
  /** The token of another issuer that this one is derived from. */
  readonly origin?: TokenOrigin | undefined;
  /** Beside an origin: when its user last proved who it is, if that is known. */
  readonly authTimeSeconds?: number | undefined;
  /** Who acts, the present one first; empty when the subject acts itself. */
  readonly actors?: readonly string[];
  /** The `jti` of every token that this one is derived from. */
  readonly ancestors?: readonly string[];
  /** The token expires no later than this. */
  readonly notAfter?: Date;
  /** The certificate that the token is bound to (RFC 8705); whoever holds the token may use it when undefined. */
  readonly certificateThumbprint?: string | undefined;
}

/** A token that was signed. */
export interface MintedToken {
  readonly token: string;
  readonly expireTime: Date;
}

/** What a token says, once its form, signature and claims were found good. */
export interface VerifiedToken {
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
  readonly expiresAtSeconds: number;
  readonly keyId: string;
  readonly certificateThumbprint: string | undefined;
  readonly origin: TokenOrigin | undefined;
  readonly authTimeSeconds: number | undefined;
}

/**
 * Checks form, signature and claims of an access token of this issuer with these keys; whether it
 * has expired or was revoked is not its business. Undefined when anything is wrong.
 *
 * @param audience - the token must be for this service; any will do when undefined
 */
export type VerifyToken = (
  token: string,
  keySet: PublishedKeys['keySet'],
  expected: { readonly audience: string | undefined; readonly nowSeconds: number },
) => Promise<VerifiedToken | undefined>;

/** Mints and judges access tokens. */
export interface Tokens {
  /**
   * Signs a token in this transaction. The caller has share-locked the user, the session and the
   * clients that the grant names, and has checked them: from then on nothing that is revoked can
   * miss the token, because whoever revokes waits for these locks.
   */
  mint(tx: AuthTransaction, grant: Grant): Promise<MintedToken>;
  /** Reads the keys and the time of the database once, and answers what verifies tokens by them. */
  verifierIn(tx: AuthTransaction): Promise<Verifier>;
}

/**
 * What a token says; undefined when it is not good in form, signature or claims. Whether it may still be used is what
 * {@link isLive} answers.
 *
 * @param audience - the token must be for this service; any will do when undefined
 */
export type Verifier = (token: string, audience: string | undefined) => Promise<VerifiedToken | undefined>;

/** What {@link createTokens} needs. */
export interface TokensDeps {
  readonly issuer: string;
  readonly accessTokenSeconds: number;
  readonly keys: Keys;
  readonly verifyToken: VerifyToken;
}

/** The access tokens of this issuer. */
export function createTokens({ issuer, accessTokenSeconds, keys, verifyToken }: TokensDeps): Tokens {
  return {
    mint: async (tx, grant) => {
      // The time is read after every lock is held: a token must never look older than what was checked for it.
      const [sign, now] = await Promise.all([keys.lockTokenSigner(tx), tx.databaseTime()]);
      const issuedAtSeconds = wholeSeconds(now);
      const latestSeconds = grant.notAfter ? wholeSeconds(grant.notAfter) : Number.POSITIVE_INFINITY;
      const expiresAtSeconds = Math.min(issuedAtSeconds + accessTokenSeconds, latestSeconds);
      const times = { iat: issuedAtSeconds, exp: expiresAtSeconds };
      const token = await sign({ iss: issuer, ...claimsOf(grant), ...times, jti: randomUUID() });
      return { token, expireTime: new Date(expiresAtSeconds * 1000) };
    },
    verifierIn: async (tx) => {
      const [{ keySet }, now] = await Promise.all([keys.published(tx), tx.databaseTime()]);
      const nowSeconds = now.getTime() / 1000;
      return (token, audience) => verifyToken(token, keySet, { audience, nowSeconds });
    },
  };
}

/**
 * Whether a verified token may still be used, by what the database says: expiry, user, session,
 * every client of its chain, its key, and the token and its ancestors themselves. What it asked
 * about stays share-locked until the transaction ends.
 */
export async function isLive(tx: AuthTransaction, token: VerifiedToken): Promise<boolean> {
  // Asked all at once, and locked in this order, so that two transactions do not wait for each other.
  const [isSessionGood, areClientsGood, isKeyGood, isRevoked, isOriginRevoked, now] = await Promise.all([
    token.sessionId === undefined || isSessionLive(tx, token, token.sessionId),
    areClientsLive(tx, token.clients),
    tx.keys.lockLive(token.keyId),
    tx.tokens.anyRevoked([token.tokenId, ...token.ancestors]),
    token.origin !== undefined && tx.tokens.foreignRevoked(token.origin),
    tx.databaseTime(),
  ]);
  if (!isSessionGood || !areClientsGood || !isKeyGood || isRevoked || isOriginRevoked) return false;
  return wholeSeconds(now) < token.expiresAtSeconds;
}

async function isSessionLive(tx: AuthTransaction, token: VerifiedToken, sessionId: string): Promise<boolean> {
  const { subject, generation } = token;
  const [user, session] = await Promise.all([
    tx.users.lockShared(subject),
    tx.sessions.lockShared(sessionId),
  ]);
  if (user === undefined || user.disabled) return false;
  if (generation === undefined || generation < user.generation) return false;
  return session !== undefined && session.userId === subject && session.open;
}

async function areClientsLive(tx: AuthTransaction, links: readonly ClientLink[]): Promise<boolean> {
  const sorted = [...links].sort(([a], [b]) => (a < b ? -1 : 1));
  const clients = await Promise.all(sorted.map(([clientId]) => tx.clients.lockShared(clientId)));
  return sorted.every(([, generation], index) => {
    const client = clients[index];
    return client !== undefined && !client.disabled && generation >= client.generation;
  });
}

function wholeSeconds(time: Date): number {
  return Math.floor(time.getTime() / 1000);
}

function claimsOf(grant: Grant): Record<string, unknown> {
  const { session, origin, actors = [], ancestors = [], certificateThumbprint } = grant;
  return {
    sub: grant.subject,
    aud: grant.audiences,
    client_id: grant.clientId,
    scope: grant.scopes.join(' '),
    roles: grant.roles,
    clients: grant.clients.map(([clientId, generation]) => [clientId, Number(generation)]),
    ...(session && {
      sid: session.sessionId,
      gen: Number(session.generation),
      auth_time: wholeSeconds(session.authTime),
      amr: session.amr,
    }),
    ...(origin && {
      origin: {
        iss: origin.issuer,
        sub: origin.subject,
        ...(origin.sessionId !== undefined && { sid: origin.sessionId }),
        jti: origin.tokenId,
        iat: origin.issuedAtSeconds,
      },
      ...(grant.authTimeSeconds !== undefined && { auth_time: grant.authTimeSeconds }),
    }),
    ...(actors.length > 0 && { act: actorClaim(actors) }),
    ...(ancestors.length > 0 && { ancestors }),
    ...(certificateThumbprint !== undefined && { cnf: { 'x5t#S256': certificateThumbprint } }),
  };
}

/** The chain as RFC 8693 nests it: the present actor outside, who acted before inside. */
function actorClaim(actors: readonly string[]): object | undefined {
  const [sub, ...earlier] = actors;
  return sub === undefined ? undefined : { sub, ...(earlier.length > 0 && { act: actorClaim(earlier) }) };
}
