/** Tokens of services: a client authenticates and gets an access token of its own. */

import { ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { parseWords } from '../../common/validation/words.js';
import { certificateBindingOf } from '../clients/certificate-binding.js';
import { clientAuthenticationFailed } from '../clients/credentials.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { AuthTransaction, TransactionPlace } from '../transaction.js';
import {
  type ClientAuthenticationDeps,
  type ClientCredential,
  prepareAuthentication,
} from './client-authentication.js';
import { ClientFault, type ClientFaultName, clientFault } from './client-faults.js';
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

/** A refused authentication, for the event and the log. */
export interface ClientRefusal {
  /** Undefined if no such client exists: the caller may have sent a secret in its place. */
  readonly clientId: string | undefined;
  readonly peer: string;
  readonly fault: ClientFault;
}

interface ServiceTokensDeps extends ClientAuthenticationDeps {
  readonly onRefused?: (refusal: ClientRefusal) => void;
  readonly tokens: Tokens;
}

export function createServiceTokens(deps: ServiceTokensDeps): ServiceTokens {
  const report = createRefusalReport(deps);
  return {
    issue: (request) =>
      issue(deps, request).catch((error: unknown) => {
        if (error instanceof ServiceError && error.cause instanceof ClientFault) {
          // The client does not wait for the report.
          void report(request, error.cause).catch(() => undefined);
        }
        throw error;
      }),
  };
}

/** Faults of a request that was refused before its client was looked up. */
const FORM_FAULTS: readonly ClientFaultName[] = ['no-credential', 'malformed', 'typ', 'iss', 'sub'];

/** Maximum number of concurrent lookups for reports. */
const LOOKUPS_AT_ONCE_MAX = 4;

/**
 * Reports refusals. A report that needs a lookup is left out while {@link LOOKUPS_AT_ONCE_MAX} others look up, because
 * malformed requests cost their senders nothing.
 */
function createRefusalReport({ store, onRefused }: ServiceTokensDeps) {
  let lookups = 0;
  return async ({ clientId, peer }: ServiceTokenRequest, fault: ClientFault): Promise<void> => {
    if (onRefused === undefined) return;
    if (!FORM_FAULTS.includes(fault.fault)) {
      onRefused({ clientId: fault.fault === 'unknown-client' ? undefined : clientId, peer, fault });
      return;
    }
    if (lookups >= LOOKUPS_AT_ONCE_MAX) return;
    lookups += 1;
    try {
      const client = await store.reads.clients.find(clientId, { caller: callerOf(peer) });
      onRefused({ clientId: client?.clientId, peer, fault });
    } finally {
      lookups -= 1;
    }
  };
}

async function issue(deps: ServiceTokensDeps, request: ServiceTokenRequest): Promise<MintedToken> {
  const { clientId, certificateThumbprint } = request;
  const requested = {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
  };
  const caller = callerOf(request.peer);
  const { authenticate, succeeded } = await prepareAuthentication(deps, { ...request, caller });
  // The client has shown its credential, so it does not wait behind those that have none.
  const place: TransactionPlace = { importance: 'known', caller };
  const minted = await deps.store.transaction(async (tx) => {
    const client = await tx.clients.lockShared(clientId);
    const fault = await faultOf(tx, client, authenticate);
    if (client === undefined || fault !== undefined) throw clientAuthenticationFailed(fault);
    return await deps.tokens.mint(tx, {
      subject: clientId,
      clientId,
      ...(await grantOf(tx, client, requested)),
      roles: [],
      clients: [[clientId, client.generation]],
      certificateThumbprint: certificateBindingOf(client, certificateThumbprint),
    });
  }, place);
  succeeded();
  return minted;
}

/** The clients of one network take turns with those of all others, and with logins. */
function callerOf(peer: string): string {
  return `client ${networkOfPeer(peer)}`;
}

async function faultOf(
  tx: AuthTransaction,
  client: Client | undefined,
  authenticate: (tx: AuthTransaction, client: Client) => Promise<ClientFault | undefined>,
): Promise<ClientFault | undefined> {
  if (client === undefined) return clientFault('unknown-client');
  return client.disabled ? clientFault('disabled') : await authenticate(tx, client);
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
