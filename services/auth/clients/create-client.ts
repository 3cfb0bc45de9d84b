/** CreateClient: an administrator registers a client. */

import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { parseWords } from '../../common/validation/words.js';
import type { Passwords } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';
import type { Client } from '../records/clients.js';
import type { AuthStore } from '../transaction.js';
import { parseBrokerKey } from './broker-keys.js';
import { type ClientRequest, recordClientEvent } from './client-change.js';
import { clientIdFault } from './client-ids.js';
import { type NewCredential, requireCredential } from './credentials.js';
import { storedCredential, withoutSecretHashes } from './stored-credentials.js';

/** A client as an administrator requests it. */
export interface CreateClientRequest extends ClientRequest {
  readonly credential: NewCredential | undefined;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly exchangeAudiences: readonly string[];
  /** Empty for all scopes that the user's token has. */
  readonly exchangeScopes: readonly string[];
  readonly certificateBound: boolean;
  /** The network of the administrator, for the security event. */
  readonly network?: string;
  /** The public nkey of its service at the broker; empty for none. */
  readonly brokerPublicKey?: string | undefined;
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
  const { rights, credential, brokerKey, requestId } = await parseNewClient(request);
  const comparable = credential.kind === 'secret' ? deps.fingerprint(credential.secret) : credential.pem;
  // Outside of the transaction, because the hash of a secret takes long.
  const stored = await storedCredential(deps.passwords, credential);
  // Without one, the payload is that of the version before, whose requests may be repeated.
  const members = [
    clientId,
    rights,
    certificateBound,
    comparable,
    ...(brokerKey === undefined ? [] : [brokerKey]),
  ];
  const payload = JSON.stringify(members);
  return await deps.store.transaction((tx) =>
    tx.once({ subject: actor, method: 'CreateClient', requestId, payload }, async () => {
      const inserted = await tx.clients.insertWhenAbsent({
        clientId,
        credentials: [{ ...stored, createTime: await tx.databaseTime() }],
        certificateBound,
        brokerKey,
        ...rights,
        exchangeScopes: rights.exchangeScopes.length === 0 ? undefined : rights.exchangeScopes,
      });
      const client = inserted ? await tx.clients.find(clientId) : undefined;
      if (client === undefined) throw new AuthError('ALREADY_EXISTS', 'this client id is taken');
      await recordClientEvent(tx, { ...request, reason: '' }, { type: 'client-created', details: {} });
      return withoutSecretHashes(client);
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
  const brokerKey = parseBrokerKey('broker_public_key', request.brokerPublicKey);
  return { rights, credential, brokerKey, requestId };
}
