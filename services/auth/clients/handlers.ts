/** The handlers of ClientService. */

import { principalOf, unary } from '@portcullis/guard';
import {
  ClientAuthentication,
  type ClientServiceServer,
  ClientState,
  type CreateClientRequest,
  type RegisteredClient,
} from '../../../proto/gen/auth/v1/client_service.js';
import type { Client } from '../records/clients.js';
import type { Clients } from './clients.js';
import type { NewCredential } from './credentials.js';

export function createClientHandlers({ clients }: { readonly clients: Clients }): ClientServiceServer {
  return {
    createClient: unary(async (request, call) => {
      const credential = credentialOf(request);
      const client = await clients.create({ ...request, credential, actor: principalOf(call).subject });
      return { client: messageOf(client) };
    }),
    listClients: unary(async (request) => {
      const { clients: page, nextPageToken } = await clients.list(request);
      return { clients: page.map(messageOf), nextPageToken };
    }),
    disableClient: unary(async (request, call) => {
      const disabled = await clients.disable({ ...request, actor: principalOf(call).subject });
      return { ...disabled, client: messageOf(disabled.client) };
    }),
    enableClient: unary(async (request, call) => {
      const client = await clients.enable({ ...request, actor: principalOf(call).subject });
      return { client: messageOf(client) };
    }),
  };
}

function credentialOf({ credential }: CreateClientRequest): NewCredential | undefined {
  switch (credential?.$case) {
    case 'publicKeyPem':
      return { kind: 'public-key', pem: credential.value };
    case 'clientSecret':
      return { kind: 'secret', secret: credential.value };
    case undefined:
      return undefined;
  }
}

function messageOf(client: Client): RegisteredClient {
  const { clientId, publicKeyPem = '', createTime } = client;
  return {
    clientId,
    publicKeyPem,
    createTime,
    authentication: authenticationOf(client),
    audiences: [...client.audiences],
    scopes: [...client.scopes],
    exchangeAudiences: [...client.exchangeAudiences],
    exchangeScopes: [...(client.exchangeScopes ?? [])],
    certificateBound: client.certificateBound,
    state: client.disabled ? ClientState.CLIENT_STATE_DISABLED : ClientState.CLIENT_STATE_ACTIVE,
  };
}

function authenticationOf({ publicKeyPem, secretHash }: Client): ClientAuthentication {
  if (publicKeyPem !== undefined) return ClientAuthentication.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT;
  return secretHash === undefined
    ? ClientAuthentication.CLIENT_AUTHENTICATION_NONE
    : ClientAuthentication.CLIENT_AUTHENTICATION_SECRET;
}
