/** Client authentication: by an assertion signed with the client's key (RFC 7523), or by a secret. */

import { createHash } from 'node:crypto';
import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { type JWTPayload, jwtVerify } from 'jose';
import { WORD_LENGTH_MAX } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { type ClientKey, clientAuthenticationFailed } from '../clients/credentials.js';
import { clientKeysOf } from '../clients/stored-credentials.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { AuthStore, AuthTransaction, TransactionPlace } from '../transaction.js';

/** Maximum time until an assertion expires, in seconds. Its `jti` is remembered for that long. */
const ASSERTION_SECONDS_MAX = 300;

/** Maximum length of an assertion, in characters. */
const ASSERTION_LENGTH_MAX = 4096;

/** Maximum length of an assertion's `jti`, in characters. */
const ASSERTION_JTI_LENGTH_MAX = 128;

/** What a client presents to authenticate. */
export type ClientCredential =
  | { readonly kind: 'assertion'; readonly assertion: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** Authenticates the client whose row the transaction has locked. */
type AuthenticateClient = (tx: AuthTransaction, client: Client) => Promise<boolean>;

export interface ClientAuthenticationDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** The only audience of a valid assertion. */
  readonly issuer: string;
}

/** Whether the text can be a client's id; any other text must not reach the database. */
export function mayBeClientId(text: string): boolean {
  return text.length <= WORD_LENGTH_MAX && !text.includes('\0');
}

/**
 * Does the part of the authentication that takes long, before any row is locked, and returns the rest.
 *
 * @param place - of the transactions
 * @throws ServiceError CLIENT_AUTHENTICATION_FAILED
 */
export async function prepareAuthentication(
  { store, passwords, issuer }: ClientAuthenticationDeps,
  clientId: string,
  credential: ClientCredential | undefined,
  place: TransactionPlace,
): Promise<AuthenticateClient> {
  if (!mayBeClientId(clientId)) throw clientAuthenticationFailed();
  switch (credential?.kind) {
    case 'assertion': {
      const { assertion } = credential;
      if (assertion.length > ASSERTION_LENGTH_MAX) throw clientAuthenticationFailed();
      return (tx, client) => verifyAssertion(tx, client, assertion, issuer);
    }
    case 'secret': {
      const before = await store.transaction((tx) => tx.clients.find(clientId), place);
      const verified = await verifiedSecret(passwords, before, credential.secret);
      // Removed meanwhile, it is no longer among the credentials of the locked row.
      return (_tx, client) =>
        Promise.resolve(
          client.credentials.some((one) => one.kind === 'secret' && one.hash !== '' && one.hash === verified),
        );
    }
    case undefined:
      throw clientAuthenticationFailed();
  }
}

/** The hash of the client's secret that equals the given one; undefined when none does. */
async function verifiedSecret(
  passwords: Passwords,
  client: Client | undefined,
  secret: string,
): Promise<string | undefined> {
  const hashes = (client?.credentials ?? []).flatMap((one) => (one.kind === 'secret' ? [one.hash] : []));
  // Without a secret, the same work is done: the time must not tell which clients exist.
  if (hashes.length === 0) await passwords.verify(undefined, secret);
  for (const hash of hashes) if (await passwords.verify(hash, secret)) return hash;
  return undefined;
}

/** Verifies an assertion by any of the client's keys, and uses it up. */
async function verifyAssertion(
  tx: AuthTransaction,
  client: Client,
  assertion: string,
  issuer: string,
): Promise<boolean> {
  const keys = await clientKeysOf(client);
  if (keys.length === 0) return false;
  const now = await tx.databaseTime();
  let payload: JWTPayload | undefined;
  for (const key of keys) {
    payload ??= await verifySignature(assertion, key, { clientId: client.clientId, issuer, now });
  }
  const claims = payload && checkClaims(payload, issuer, now.getTime() / 1000);
  if (claims === undefined) return false;
  const outcome = await tx.clients.useAssertion({
    clientId: client.clientId,
    jtiHash: createHash('sha256').update(claims.jti, 'utf8').digest(),
    expireTime: new Date((claims.exp + CLOCK_SKEW_SECONDS) * 1000),
  });
  // The client has authenticated, so it may learn why it gets no token.
  if (outcome === 'FULL') {
    throw new AuthError('RATE_LIMITED', 'the client has used too many assertions that have not expired', {
      retryAfterMs: ASSERTION_SECONDS_MAX * 100,
    });
  }
  return outcome === 'USED';
}

async function verifySignature(
  assertion: string,
  clientKey: ClientKey,
  { clientId, issuer, now }: { clientId: string; issuer: string; now: Date },
): Promise<JWTPayload | undefined> {
  try {
    const { payload, protectedHeader } = await jwtVerify(assertion, clientKey.key, {
      algorithms: [...clientKey.algorithms],
      issuer: clientId,
      subject: clientId,
      audience: issuer,
      requiredClaims: ['iss', 'sub', 'aud', 'exp', 'jti'],
      clockTolerance: CLOCK_SKEW_SECONDS,
      currentDate: now,
    });
    return isAssertionType(protectedHeader.typ) ? payload : undefined;
  } catch {
    return undefined;
  }
}

/** RFC 7523 §3, with the stricter choice where it leaves one. */
function checkClaims(
  { aud, exp, iat, jti }: JWTPayload,
  issuer: string,
  nowSeconds: number,
): { readonly jti: string; readonly exp: number } | undefined {
  // Any of several audiences could present the assertion here (RFC 7523bis).
  if (aud !== issuer && !(Array.isArray(aud) && aud.length === 1)) return undefined;
  if (typeof jti !== 'string' || jti === '' || jti.length > ASSERTION_JTI_LENGTH_MAX) return undefined;
  if (exp === undefined || exp > nowSeconds + ASSERTION_SECONDS_MAX + CLOCK_SKEW_SECONDS) return undefined;
  if (iat !== undefined && iat > nowSeconds + CLOCK_SKEW_SECONDS) return undefined;
  return { jti, exp };
}

/** A token of another type that the same key signed is no assertion (RFC 8725 §3.11). */
function isAssertionType(type: string | undefined): boolean {
  if (type === undefined) return true;
  // Without a slash, `application/` belongs before it (RFC 7515 §4.1.9).
  const name = type.toLowerCase().replace(/^application\/(?=[^/]*$)/, '');
  return name === 'jwt' || name === 'client-authentication+jwt';
}
