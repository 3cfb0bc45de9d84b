/** Clients: the services that get tokens of their own, as administrators manage them. */

import type { Client } from '../records/clients.js';
import type { PageRequest } from '../records/page.js';
import type { ClientRequest } from './client-change.js';
import { type CreateClientDeps, type CreateClientRequest, createClient } from './create-client.js';
import {
  type DisableClientDeps,
  type DisabledClient,
  disableClient,
  enableClient,
} from './disable-client.js';

/** The commands on clients; each is documented where it is defined. */
export interface Clients {
  create(request: CreateClientRequest): Promise<Client>;
  /** A page of clients, by id. Throws FIELD_INVALID. */
  list(page: PageRequest): Promise<{ clients: Client[]; nextPageToken: string }>;
  disable(request: ClientRequest & { readonly reason: string }): Promise<DisabledClient>;
  enable(request: ClientRequest): Promise<Client>;
}

interface ClientsDeps extends CreateClientDeps, DisableClientDeps {}

export function createClients(deps: ClientsDeps): Clients {
  return {
    create: (request) => createClient(deps, request),
    list: (page) => deps.store.transaction((tx) => tx.clients.list(page)),
    disable: (request) => disableClient(deps, request),
    enable: (request) => enableClient(deps, request),
  };
}
