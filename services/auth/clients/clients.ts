/** Clients: the services that get tokens of their own, as administrators manage them. */

import type { Client } from '../records/clients.js';
import type { PageRequest } from '../records/page.js';
import type { Receipt } from '../records/revocations.js';
import {
  type AddedCredential,
  addCredential,
  type ChangeCredentialsDeps,
  type CredentialAdded,
  type CredentialRemoved,
  type RemoveCredentialRequest,
  removeCredential,
} from './change-credentials.js';
import { type ClientRequest, findClient, type RevokingClientRequest } from './client-change.js';
import { requireClientId } from './client-ids.js';
import { type CreateClientDeps, type CreateClientRequest, createClient } from './create-client.js';
import { deleteClient } from './delete-client.js';
import { type DisabledClient, disableClient, enableClient } from './disable-client.js';
import { withoutSecretHashes } from './stored-credentials.js';
import { type UpdateClientRequest, type UpdatedClient, updateClient } from './update-client.js';

/** The commands on clients; each is documented where it is defined. */
export interface Clients {
  create(request: CreateClientRequest): Promise<Client>;
  /** One client. Throws NOT_FOUND. */
  get(clientId: string): Promise<Client>;
  /** A page of clients, by id, for a user who takes turns with others. Throws FIELD_INVALID. */
  list(page: PageRequest, caller?: string): Promise<{ clients: Client[]; nextPageToken: string }>;
  update(request: UpdateClientRequest): Promise<UpdatedClient>;
  addCredential(
    request: ClientRequest & { readonly credential: AddedCredential | undefined },
  ): Promise<CredentialAdded>;
  removeCredential(request: RemoveCredentialRequest): Promise<CredentialRemoved>;
  disable(request: RevokingClientRequest): Promise<DisabledClient>;
  enable(request: ClientRequest): Promise<Client>;
  delete(request: RevokingClientRequest): Promise<Receipt>;
}

interface ClientsDeps extends CreateClientDeps, ChangeCredentialsDeps {}

export function createClients(deps: ClientsDeps): Clients {
  return {
    create: (request) => createClient(deps, request),
    get: async (clientId) => {
      requireClientId(clientId);
      return withoutSecretHashes(await deps.store.transaction((tx) => findClient(tx, clientId)));
    },
    list: (page, caller) => deps.store.transaction((tx) => tx.clients.list(page), { caller }),
    update: (request) => updateClient(deps, request),
    addCredential: (request) => addCredential(deps, request),
    removeCredential: (request) => removeCredential(deps, request),
    disable: (request) => disableClient(deps, request),
    enable: (request) => enableClient(deps, request),
    delete: (request) => deleteClient(deps, request),
  };
}
