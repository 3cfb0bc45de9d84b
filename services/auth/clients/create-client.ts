/** CreateClient: an administrator registers a client. */

import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { parseWords } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { AuthStore } from '../transaction.js';
import { type ClientRequest, recordClientEvent, withoutSecretHash } from './client-change.js';
import { clientIdFault } from './client-ids.js';
import { type NewCredential, requireCredential } from './credentials.js';

/** A client as an administrator requests it. */
export interface CreateClientRequest extends ClientRequest {
  readonly credential: NewCredential | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly exchangeAudiences: readonly string[];
  /** Empty for all scopes that the user's token has. */
  readonly exchangeScopes: readonly string[];
  readonly certificateBound: boolean;
}

export interface CreateClientDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** Keyed hash with which requests that contain a secret can be compared, and nothing else. */
  readonly fingerprint: (secret: string) => string;
}

/**
 * Creates a client. A repeated request with the same id returns the same client.
 *
 * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED
 */
export async function createClient(deps: CreateClientDeps, request: CreateClientRequest): Promise<Client> {
  const { actor, clientId, certificateBound } = request;
  const { rights, credential, requestId } = await parseNewClient(request);
  const { publicKeyPem, secretHash, comparable } = await storedCredential(deps, credential);
  const payload = JSON.stringify([clientId, rights, certificateBound, comparable]);
  return await deps.store.transaction((tx) =>
    tx.once({ subject: actor, method: 'CreateClient', requestId, payload }, async () => {
      const inserted = await tx.clients.insertWhenAbsent({
        clientId,
        publicKeyPem,
        secretHash,
        certificateBound,
        ...rights,
        exchangeScopes: rights.exchangeScopes.length === 0 ? undefined : rights.exchangeScopes,
      });
      const client = inserted ? await tx.clients.find(clientId) : undefined;
      if (client === undefined) throw new AuthError('ALREADY_EXISTS', 'this client id is taken');
      await recordClientEvent(tx, 'client-created', { actor, clientId, reason: '' });
      return withoutSecretHash(client);
    }),
  );
}

async function parseNewClient(request: CreateClientRequest) {
  const { clientId } = request;
  const fault = clientIdFault(clientId);
  if (fault !== undefined) throw invalidField('client_id', fault);
  const rights = {
    audiences: parseWords('audiences', request.audiences),
    scopes: parseWords('scopes', request.scopes),
    exchangeAudiences: parseWords('exchange_audiences', request.exchangeAudiences),
    exchangeScopes: parseWords('exchange_scopes', request.exchangeScopes),
  };
  const credential = await requireCredential(request.credential);
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') throw invalidField('request_id', 'must be set');
  return { rights, credential, requestId };
}

/** The credential as the database stores it, and in a form that is equal for equal requests and holds no secret. */
async function storedCredential({ passwords, fingerprint }: CreateClientDeps, credential: NewCredential) {
  if (credential.kind === 'public-key') {
    return { publicKeyPem: credential.pem, secretHash: undefined, comparable: credential.pem };
  }
  const { secret } = credential;
  return {
    publicKeyPem: undefined,
    secretHash: await passwords.hash(secret),
    comparable: fingerprint(secret),
  };
}
