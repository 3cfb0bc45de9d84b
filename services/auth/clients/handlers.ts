/** The handlers of ClientService. */

import { invalidField, principalOf, type ServiceHandlers } from '@portcullis/guard';
import {
  type AddClientCredentialRequest,
  ClientAuthentication,
  type ClientCredential,
  type ClientServiceService,
  ClientState,
  type CreateClientRequest,
  type RegisteredClient,
} from '../../../proto/gen/auth/v1/client_service.js';
import { adminOf } from '../accounts/admin.js';
import type { Client, StoredCredential } from '../records/clients.js';
import type { Receipt } from '../records/revocations.js';
import type { AddedCredential } from './change-credentials.js';
import type { Clients } from './clients.js';
import type { NewCredential } from './credentials.js';
import { etagOf } from './update-client.js';

export function createClientHandlers({
  clients,
}: {
  readonly clients: Clients;
}): ServiceHandlers<ClientServiceService> {
  return {
    createClient: async (request, call) => {
      const credential = credentialOf(request);
      const client = await clients.create({ ...request, credential, ...adminOf(principalOf(call), call) });
      return { client: messageOf(client) };
    },
    listClients: async (request, call) => {
      const { clients: page, nextPageToken } = await clients.list(request, principalOf(call).subject);
      return { clients: page.map(messageOf), nextPageToken };
    },
    getClient: async ({ clientId }) => ({ client: messageOf(await clients.get(clientId)) }),
    updateClient: async (request, call) => {
      if (request.client === undefined) throw invalidField('client', 'must be set');
      const { clientId, etag, brokerPublicKey, ...rights } = request.client;
      const updated = await clients.update({
        ...request,
        clientId,
        etag,
        rights: { ...rights, brokerKey: brokerPublicKey },
        updateMask: request.updateMask ?? [],
        ...adminOf(principalOf(call), call),
      });
      return { client: messageOf(updated.client), ...receiptFields(updated.revocation) };
    },
    addClientCredential: async (request, call) => {
      const credential = credentialOf(request);
      const added = await clients.addCredential({
        ...request,
        credential,
        ...adminOf(principalOf(call), call),
      });
      return { ...added, client: messageOf(added.client) };
    },
    removeClientCredential: async (request, call) => {
      const removed = await clients.removeCredential({ ...request, ...adminOf(principalOf(call), call) });
      return { client: messageOf(removed.client), ...receiptFields(removed.revocation) };
    },
    deleteClient: (request, call) => clients.delete({ ...request, ...adminOf(principalOf(call), call) }),
    disableClient: async (request, call) => {
      const disabled = await clients.disable({ ...request, ...adminOf(principalOf(call), call) });
      return { ...disabled, client: messageOf(disabled.client) };
    },
    enableClient: async (request, call) => {
      const client = await clients.enable({ ...request, ...adminOf(principalOf(call), call) });
      return { client: messageOf(client) };
    },
  };
}

function credentialOf({ credential }: CreateClientRequest): NewCredential | undefined;
function credentialOf({ credential }: AddClientCredentialRequest): AddedCredential | undefined;
function credentialOf({
  credential,
}: CreateClientRequest | AddClientCredentialRequest): AddedCredential | undefined {
  switch (credential?.$case) {
    case 'publicKeyPem':
      return { kind: 'public-key', pem: credential.value };
    case 'clientSecret':
      return { kind: 'secret', secret: credential.value };
    case 'generatedSecret':
      return { kind: 'generated-secret' };
    case undefined:
      return undefined;
  }
}

function receiptFields(receipt: Receipt | undefined) {
  return { sequence: receipt?.sequence ?? 0n, enforcedEverywhereBy: receipt?.enforcedEverywhereBy };
}

function messageOf(client: Client): RegisteredClient {
  const { clientId, createTime } = client;
  // An answer that the version before has stored for a retry has none.
  const { credentials = [] }: Partial<Client> = client;
  const key = credentials.find((credential) => credential.kind === 'public-key');
  return {
    clientId,
    publicKeyPem: key?.pem ?? '',
    createTime,
    authentication: authenticationOf((key ?? credentials[0])?.kind),
    audiences: [...client.audiences],
    scopes: [...client.scopes],
    exchangeAudiences: [...client.exchangeAudiences],
    exchangeScopes: [...(client.exchangeScopes ?? [])],
    certificateBound: client.certificateBound,
    brokerPublicKey: client.brokerKey ?? '',
    state: client.disabled ? ClientState.CLIENT_STATE_DISABLED : ClientState.CLIENT_STATE_ACTIVE,
    credentials: credentials.map(credentialMessageOf),
    etag: etagOf({ ...client, credentials }),
  };
}

function credentialMessageOf(credential: StoredCredential): ClientCredential {
  const { credentialId, createTime, kind } = credential;
  const publicKeyPem = credential.kind === 'public-key' ? credential.pem : '';
  return { credentialId, createTime, authentication: authenticationOf(kind), publicKeyPem };
}

function authenticationOf(kind: StoredCredential['kind'] | undefined): ClientAuthentication {
  switch (kind) {
    case 'public-key':
      return ClientAuthentication.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT;
    case 'secret':
      return ClientAuthentication.CLIENT_AUTHENTICATION_SECRET;
    case undefined:
      return ClientAuthentication.CLIENT_AUTHENTICATION_NONE;
  }
}
