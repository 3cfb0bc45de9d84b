/** Tokens for services: a client proves who it is and gets a token of its own. */

import { createHash } from 'node:crypto';
import { ServiceError } from '@portcullis/guard/errors';
import { type JWTPayload, jwtVerify } from 'jose';
import { parseWords, WORD_LENGTH_MAX } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { bindingOf, clientAuthenticationFailed, parseClientKey } from '../clients/clients.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { Throttle } from '../security/throttle.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import type { MintedToken, Tokens } from './tokens.js';

/** How far ahead an assertion may expire, in seconds: so long its `jti` is remembered. */
export const ASSERTION_SECONDS_MAX = 300;

/** By how much a client's clock may differ from the database's, in seconds. */
export const ASSERTION_SKEW_SECONDS = 5;

/** Longest assertion that is looked at, in characters. */
export const ASSERTION_LENGTH_MAX = 4096;

/** Longest `jti` of an assertion, in characters. */
export const ASSERTION_JTI_LENGTH_MAX = 128;

/** How a client proves who it is. */
export type ClientCredential =
  | { readonly kind: 'assertion'; readonly assertion: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** Issues tokens to services. */
export interface ServiceTokens {
  /**
   * A token of the client's own.
   *
   * @throws ServiceError CLIENT_AUTHENTICATION_FAILED whatever is wrong with the proof;
   *   AUDIENCE_NOT_ALLOWED, SCOPE_MISSING for more than the client may have; CERTIFICATE_REQUIRED; RATE_LIMITED;
   *   FIELD_INVALID
   */
  issue(request: {
    clientId: string;
    credential: ClientCredential | undefined;
    audiences: readonly string[];
    scopes: readonly string[];
    /** The address the request came from. */
    peer: string;
    /** The certificate that the client has shown, if any. */
    certificateThumbprint?: string | undefined;
  }): Promise<MintedToken>;
}

/** What {@link createServiceTokens} needs. */
export interface ServiceTokensDeps {
  /** Told of a proof that was refused: whose it would have been, if anybody's, and the address it came from. */
  readonly onRefused?: (clientId: string | undefined, peer: string) => void;
  readonly store: AuthStore;
  readonly tokens: Tokens;
  readonly passwords: Passwords;
  readonly throttle: Throttle;
  /** Assertions must be made for this issuer alone. */
  readonly issuer: string;
}

/** The service tokens of this issuer. */
export function createServiceTokens(deps: ServiceTokensDeps): ServiceTokens {
  return {
    issue: (request) =>
      issue(deps, request).catch((error: unknown) => {
        if (error instanceof ServiceError && error.code === 'CLIENT_AUTHENTICATION_FAILED') {
          // Nobody waits for it.
          void tellOfRefusal(deps, request).catch(() => undefined);
        }
        throw error;
      }),
  };
}

/** What is no client's name is told to nobody: it may be anything, a secret too. */
async function tellOfRefusal(
  { store, onRefused }: ServiceTokensDeps,
  { clientId, peer }: { clientId: string; peer: string },
): Promise<void> {
  if (onRefused === undefined) return;
  const mayExist = clientId.length <= WORD_LENGTH_MAX && !clientId.includes('\0');
  const client = mayExist ? await store.transaction((tx) => tx.clients.find(clientId)) : undefined;
  onRefused(client?.clientId, peer);
}

async function issue(
  deps: ServiceTokensDeps,
  { clientId, credential, peer, certificateThumbprint, ...request }: Parameters<ServiceTokens['issue']>[0],
): Promise<MintedToken> {
  const wanted = {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
  };
  // Only the peer is counted: whoever could lock out a client by its name could stop a service.
  const counted = await deps.throttle.attempt(undefined, peer);
  const prove = await proofOf(deps, clientId, credential);
  const minted = await deps.store.transaction(async (tx) => {
    const client = await tx.clients.lockShared(clientId);
    const proved = client !== undefined && !client.disabled && (await prove(tx, client));
    if (!proved) throw clientAuthenticationFailed();
    return await deps.tokens.mint(tx, {
      subject: clientId,
      clientId,
      ...grantOf(client, wanted),
      roles: [],
      clients: [[clientId, client.generation]],
      certificateThumbprint: bindingOf(client, certificateThumbprint),
    });
  });
  await counted.succeeded();
  return minted;
}

/** Judges the proof once the client's row is locked. */
type Prove = (tx: AuthTransaction, client: Client) => Promise<boolean>;

async function proofOf(
  deps: ServiceTokensDeps,
  clientId: string,
  credential: ClientCredential | undefined,
): Promise<Prove> {
  if (clientId.length > WORD_LENGTH_MAX || clientId.includes('\0')) throw clientAuthenticationFailed();
  switch (credential?.kind) {
    case 'assertion': {
      const { assertion } = credential;
      if (assertion.length > ASSERTION_LENGTH_MAX) throw clientAuthenticationFailed();
      return (tx, client) => proveByAssertion(tx, client, assertion, deps.issuer);
    }
    case 'secret': {
      // Hashing takes its time, so it is done before any row is locked.
      const before = await deps.store.transaction((tx) => tx.clients.find(clientId));
      const equal = await deps.passwords.verify(before?.secretHash, credential.secret);
      return (_tx, client) => Promise.resolve(equal && client.secretHash === before?.secretHash);
    }
    case undefined:
      throw clientAuthenticationFailed();
  }
}

/** RFC 7523 §3, and more strictly where it leaves room. */
async function proveByAssertion(
  tx: AuthTransaction,
  client: Client,
  assertion: string,
  issuer: string,
): Promise<boolean> {
  if (client.publicKeyPem === undefined) return false;
  const clientKey = parseClientKey(client.publicKeyPem);
  if ('fault' in clientKey) throw new Error(`the key of client ${client.clientId} ${clientKey.fault}`);
  const now = await tx.databaseTime();
  let payload: JWTPayload;
  try {
    const verified = await jwtVerify(assertion, clientKey.key, {
      algorithms: [...clientKey.algorithms],
      issuer: client.clientId,
      subject: client.clientId,
      audience: issuer,
      requiredClaims: ['iss', 'sub', 'aud', 'exp', 'jti'],
      clockTolerance: ASSERTION_SKEW_SECONDS,
      currentDate: now,
    });
    if (!isAssertionType(verified.protectedHeader.typ)) return false;
    payload = verified.payload;
  } catch {
    return false;
  }
  const { aud, exp, iat, jti } = payload;
  const nowSeconds = now.getTime() / 1000;
  // An assertion for several audiences could be taken here by one of the others (RFC 7523bis).
  if (aud !== issuer && !(Array.isArray(aud) && aud.length === 1)) return false;
  if (typeof jti !== 'string' || jti === '' || jti.length > ASSERTION_JTI_LENGTH_MAX) return false;
  if (exp === undefined || exp > nowSeconds + ASSERTION_SECONDS_MAX + ASSERTION_SKEW_SECONDS) return false;
  if (iat !== undefined && iat > nowSeconds + ASSERTION_SKEW_SECONDS) return false;
  const outcome = await tx.clients.useAssertion({
    clientId: client.clientId,
    jtiHash: createHash('sha256').update(jti, 'utf8').digest(),
    expireTime: new Date((exp + ASSERTION_SKEW_SECONDS) * 1000),
  });
  // Its proof is good, so it may hear why it gets nothing: it asks far too often.
  if (outcome === 'FULL') {
    throw new AuthError('RATE_LIMITED', 'the client has used too many assertions that have not expired', {
      retryAfterMs: ASSERTION_SECONDS_MAX * 100,
    });
  }
  return outcome === 'USED';
}

/** A token of another kind, signed by the same key, is no assertion (RFC 8725 §3.11). */
function isAssertionType(type: string | undefined): boolean {
  return type === undefined || ['jwt', 'client-authentication+jwt'].includes(type.toLowerCase());
}

/** What the client asks for, or all it may have; asking for more is a mistake it must hear of. */
function grantOf(
  client: Client,
  wanted: { audiences: readonly string[]; scopes: readonly string[] },
): { audiences: readonly string[]; scopes: readonly string[] } {
  const audiences = wanted.audiences.length === 0 ? client.audiences : wanted.audiences;
  const scopes = wanted.scopes.length === 0 ? client.scopes : wanted.scopes;
  const foreign = audiences.find((audience) => !client.audiences.includes(audience));
  if (foreign !== undefined || audiences.length === 0) {
    throw new AuthError(
      'AUDIENCE_NOT_ALLOWED',
      `the client may not have a token for ${foreign ?? 'anybody'}`,
    );
  }
  const missing = scopes.find((scope) => !client.scopes.includes(scope));
  if (missing !== undefined) {
    throw new AuthError('SCOPE_MISSING', `the client may not have scope ${missing}`);
  }
  return { audiences, scopes };
}
