/** Tokens of services: a client authenticates and gets an access token of its own. */

import { ServiceError } from '@portcullis/guard/errors';
import { parseWords } from '../../common/validation/words.js';
import { certificateBindingOf } from '../clients/certificate-binding.js';
import { clientAuthenticationFailed } from '../clients/credentials.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import { networkOf, type Throttle } from '../security/throttle.js';
import type { AuthTransaction, TransactionPlace } from '../transaction.js';
import {
  type ClientAuthenticationDeps,
  type ClientCredential,
  mayBeClientId,
  prepareAuthentication,
} from './client-authentication.js';
import { requireKnownRights } from './known-words.js';
import type { MintedToken, Tokens } from './tokens.js';

/** A client's request for a token. */
interface ServiceTokenRequest {
  readonly clientId: string;
  readonly credential: ClientCredential | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  /** The peer's address. */
  readonly peer: string;
  /** The thumbprint of the client's certificate, if it has one. */
  readonly certificateThumbprint?: string | undefined;
}

/** Issues tokens to services. */
export interface ServiceTokens {
  /**
   * Issues a token of the client's own.
   *
   * @throws ServiceError CLIENT_AUTHENTICATION_FAILED whatever is wrong with the credential; AUDIENCE_NOT_ALLOWED,
   *   SCOPE_MISSING for a request beyond the client's rights; CERTIFICATE_REQUIRED; RATE_LIMITED; FIELD_INVALID
   */
  issue(request: ServiceTokenRequest): Promise<MintedToken>;
}

interface ServiceTokensDeps extends ClientAuthenticationDeps {
  /** Called after a failed authentication with the client's id, if such a client exists, and the peer's address. */
  readonly onRefused?: (clientId: string | undefined, peer: string) => void;
  readonly tokens: Tokens;
  readonly throttle: Throttle;
}

export function createServiceTokens(deps: ServiceTokensDeps): ServiceTokens {
  return {
    issue: (request) =>
      issue(deps, request).catch((error: unknown) => {
        if (error instanceof ServiceError && error.code === 'CLIENT_AUTHENTICATION_FAILED') {
          // The client does not wait for the report.
          void reportRefusal(deps, request).catch(() => undefined);
        }
        throw error;
      }),
  };
}

/**
 * Reports a refused request. Omits the id if no such client exists: the caller may have sent a secret in its place.
 */
async function reportRefusal(
  { store, onRefused }: ServiceTokensDeps,
  { clientId, peer }: ServiceTokenRequest,
): Promise<void> {
  if (onRefused === undefined) return;
  const client = mayBeClientId(clientId)
    ? await store.transaction((tx) => tx.clients.find(clientId), placeOf(peer))
    : undefined;
  onRefused(client?.clientId, peer);
}

async function issue(deps: ServiceTokensDeps, request: ServiceTokenRequest): Promise<MintedToken> {
  const { clientId, credential, peer, certificateThumbprint } = request;
  const requested = {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
  };
  // Counted by peer alone: if a name could be locked out, an attacker could stop a service by its client id.
  const attempt = await deps.throttle.attempt(undefined, peer);
  const place = placeOf(peer);
  const authenticate = await prepareAuthentication(deps, clientId, credential, place);
  const minted = await deps.store.transaction(async (tx) => {
    const client = await tx.clients.lockShared(clientId);
    const isAuthentic = client !== undefined && !client.disabled && (await authenticate(tx, client));
    if (!isAuthentic) throw clientAuthenticationFailed();
    return await deps.tokens.mint(tx, {
      subject: clientId,
      clientId,
      ...(await grantOf(tx, client, requested)),
      roles: [],
      clients: [[clientId, client.generation]],
      certificateThumbprint: certificateBindingOf(client, certificateThumbprint),
    });
  }, place);
  await attempt.succeeded();
  return minted;
}

/** Anyone may try to authenticate; the clients of one network take turns with those of all others, and with logins. */
function placeOf(peer: string): TransactionPlace {
  return { importance: 'unknown', caller: `client ${networkOf(peer)}` };
}

/** The requested audiences and scopes; all of the client's when none are requested, an error when it lacks one. */
async function grantOf(
  tx: AuthTransaction,
  client: Client,
  requested: { audiences: readonly string[]; scopes: readonly string[] },
): Promise<{ audiences: readonly string[]; scopes: readonly string[] }> {
  const audiences = requested.audiences.length === 0 ? client.audiences : requested.audiences;
  const scopes = requested.scopes.length === 0 ? client.scopes : requested.scopes;
  const foreign = audiences.find((audience) => !client.audiences.includes(audience));
  const missing = scopes.find((scope) => !client.scopes.includes(scope));
  if (foreign !== undefined || missing !== undefined) {
    await requireKnownRights(tx, requested);
  }
  if (foreign !== undefined || audiences.length === 0) {
    throw new AuthError(
      'AUDIENCE_NOT_ALLOWED',
      `the client may not have a token for ${foreign ?? 'any service'}`,
    );
  }
  if (missing !== undefined) {
    throw new AuthError('SCOPE_MISSING', `the client may not have scope ${missing}`);
  }
  return { audiences, scopes };
}
