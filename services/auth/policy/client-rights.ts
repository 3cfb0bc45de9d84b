/** What clients may ask for, as part of the policy. It stands in the rows of the clients. */

import { createHash } from 'node:crypto';
import { recordClientEvent, revocationEntry } from '../clients/client-change.js';
import { isNarrower } from '../clients/update-client.js';
import type { Client, ClientRights } from '../records/clients.js';
import type { Policy, PolicyClient, PolicyDocument } from '../records/policy.js';
import type { NewEntry } from '../records/revocations.js';
import type { AuthTransaction } from '../transaction.js';
import { clientDifferences, type PolicyChange } from './differences.js';
import { CLIENTS_MAX, type PolicyFault } from './document.js';

/** The rights that a document wants clients to have, beside those that they have. */
export interface RightsPlan {
  /** The named clients as the document wants them, in its order. */
  readonly wanted: readonly PolicyClient[];
  /** The same clients as they are; one that does not exist is missing. */
  readonly present: ReadonlyMap<string, Client>;
  readonly changes: readonly PolicyChange[];
}

/** The clients that a policy shows: the first {@link CLIENTS_MAX} by id. */
export async function shownClients(tx: AuthTransaction): Promise<readonly PolicyClient[]> {
  return (await tx.clients.some({ limit: CLIENTS_MAX })).map(policyClientOf);
}

/** Another text after every change of the policy, or of what the shown clients may ask for. */
export function etagOfAll({ etag }: Pick<Policy, 'etag'>, clients: readonly PolicyClient[]): string {
  const content = JSON.stringify([etag, clients]);
  return createHash('sha256').update(content, 'utf8').digest('base64url').slice(0, 22);
}

/** @param wanted - a document's clients, without faults of their own */
export async function planRights(tx: AuthTransaction, wanted: readonly PolicyClient[]): Promise<RightsPlan> {
  if (wanted.length === 0) return { wanted, present: new Map(), changes: [] };
  const clients = await tx.clients.some({ clientIds: wanted.map(({ clientId }) => clientId) });
  const changes = clientDifferences(
    clients.map(policyClientOf),
    sortedClients(wanted).filter(({ clientId }) => clients.some((client) => client.clientId === clientId)),
  );
  return { wanted, present: new Map(clients.map((client) => [client.clientId, client])), changes };
}

/** What is wrong with the rights under the services of the document. What a client has already may stay. */
export function* rightsFaultsIn(
  { wanted, present }: RightsPlan,
  { services }: PolicyDocument,
): Iterable<PolicyFault> {
  const audiences = new Set(services.map(({ audience }) => audience));
  const scopes = new Set(services.flatMap((service) => service.scopes));
  for (const [at, client] of wanted.entries()) {
    const place = `clients[${at}]`;
    const former = present.get(client.clientId);
    if (former === undefined) {
      yield { field: `${place}.client_id`, description: `there is no client ${client.clientId}` };
      continue;
    }
    const lists = [
      ['audiences', client.audiences, former.audiences, audiences],
      ['scopes', client.scopes, former.scopes, scopes],
      ['exchange_audiences', client.exchangeAudiences, former.exchangeAudiences, audiences],
      ['exchange_scopes', client.exchangeScopes, former.exchangeScopes ?? [], scopes],
    ] as const;
    for (const [name, words, had, known] of lists) {
      for (const [index, word] of words.entries()) {
        if (known.has(word) || had.includes(word)) continue;
        const what = known === audiences ? 'is no service of the policy' : 'is a scope of no service';
        yield { field: `${place}.${name}[${index}]`, description: `${word} ${what}` };
      }
    }
  }
}

/** Whether a client has a right that is named like this after the plan. */
export function hasAfter({ wanted }: RightsPlan, clientId: string, word: string): boolean {
  const client = wanted.find((one) => one.clientId === clientId);
  if (client === undefined) return true;
  return [client.audiences, client.scopes, client.exchangeAudiences, client.exchangeScopes].some((words) =>
    words.includes(word),
  );
}

/** Gives the clients their rights, and returns an entry of the log for each that has lost one. */
export async function applyRights(
  tx: AuthTransaction,
  { wanted, present, changes }: RightsPlan,
  { actor, reason, eventId }: { readonly actor: string; readonly reason: string; readonly eventId: string },
): Promise<readonly NewEntry[]> {
  const changed = new Set(changes.map(({ clientId }) => clientId));
  const entries: NewEntry[] = [];
  for (const { clientId, ...given } of sortedClients(wanted)) {
    const before = present.get(clientId);
    if (before === undefined || !changed.has(clientId)) continue;
    const after: ClientRights = {
      ...before,
      ...given,
      exchangeScopes: given.exchangeScopes.length === 0 ? undefined : given.exchangeScopes,
    };
    const loses = isNarrower(before, after);
    const request = { actor, clientId, requestId: '', reason };
    const generation = loses ? await tx.clients.raiseGeneration(clientId) : undefined;
    await tx.clients.setRights(clientId, after);
    const details = { fields: fieldsOf(changes, clientId), revoked: loses };
    await recordClientEvent(tx, request, { type: 'client-updated', details });
    if (generation !== undefined) {
      entries.push({ ...revocationEntry(request, generation, 'policy changed'), eventId });
    }
  }
  return entries;
}

/** The clients as they are after the plan. */
export function clientsAfter(
  shown: readonly PolicyClient[],
  { wanted }: RightsPlan,
): readonly PolicyClient[] {
  const byId = new Map(sortedClients(wanted).map((client) => [client.clientId, client]));
  return shown.map((client) => byId.get(client.clientId) ?? client);
}

/** The clients of a document, with their lists sorted. */
function sortedClients(clients: readonly PolicyClient[]): readonly PolicyClient[] {
  return clients
    .map(({ clientId, audiences, scopes, exchangeAudiences, exchangeScopes }) => ({
      clientId,
      audiences: audiences.toSorted(),
      scopes: scopes.toSorted(),
      exchangeAudiences: exchangeAudiences.toSorted(),
      exchangeScopes: exchangeScopes.toSorted(),
    }))
    .sort((left, right) => (left.clientId < right.clientId ? -1 : 1));
}

function policyClientOf({ exchangeScopes = [], ...client }: Client): PolicyClient {
  const [sorted] = sortedClients([{ ...client, exchangeScopes }]);
  if (sorted === undefined) throw new TypeError('sorting has lost the client');
  return sorted;
}

const FIELDS = {
  AUDIENCE: 'audiences',
  SCOPE: 'scopes',
  EXCHANGE_AUDIENCE: 'exchange_audiences',
  EXCHANGE_SCOPE: 'exchange_scopes',
} as const;

/** The members of the client that change, as UpdateClient names them in its events. */
function fieldsOf(changes: readonly PolicyChange[], clientId: string): string[] {
  const rights = changes.flatMap((change) => (change.clientId === clientId ? (change.right ?? []) : []));
  return [...new Set(rights.map((right) => FIELDS[right]))];
}
