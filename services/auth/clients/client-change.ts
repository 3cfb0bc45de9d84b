/** What an administrator's changes of one client have in common. */

import { invalidField } from '@portcullis/guard/errors';
import type { Client } from '../records/clients.js';
import type { NewEntry } from '../records/revocations.js';
import type { NewSecurityEvent } from '../records/security-events.js';
import { checkReason, clientRevocation } from '../revocation/log.js';
import type { AuthTransaction } from '../transaction.js';
import { DIRECT_CLIENT, noSuchClient, requireClientId } from './client-ids.js';

/** An administrator's request about one client. */
export interface ClientRequest {
  readonly actor: string;
  /** The network of the administrator, for the security event. */
  readonly network?: string;
  readonly clientId: string;
  /** A repeated request with the same id changes nothing and returns the first response; empty for none. */
  readonly requestId: string;
}

/** A request that may revoke tokens. */
export interface RevokingClientRequest extends ClientRequest {
  readonly reason: string;
}

/** The events of clients. */
type ClientEvent = Extract<NewSecurityEvent, { readonly type: `client-${string}` }>;

/** Who did what to which client. */
export async function recordClientEvent<Type extends ClientEvent['type']>(
  tx: AuthTransaction,
  {
    actor,
    clientId,
    reason,
    network = '',
    requestId,
  }: Pick<ClientRequest, 'actor' | 'clientId' | 'network' | 'requestId'> & { readonly reason: string },
  event: Pick<NewSecurityEvent<Type>, 'type' | 'details'>,
): Promise<void> {
  const by = { actor, reason, network, requestId };
  await tx.events.record({ ...event, ...by, subject: { clientId } } as NewSecurityEvent);
}

/**
 * Checks the id and the reason of a request about a client that gets tokens of its own.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID
 */
export function checkClientRequest({ clientId, reason }: RevokingClientRequest): void {
  checkReason(reason);
  requireClientId(clientId);
  // Without it no user could log in, not even to undo the change. To end all logins, an operator can revoke it instead.
  if (clientId === DIRECT_CLIENT) throw invalidField('client_id', 'must not be that of the logins');
}

/** Locks the client until the transaction ends. Throws NOT_FOUND. */
export async function lockClient(tx: AuthTransaction, clientId: string): Promise<Client> {
  return (await tx.clients.lock(clientId)) ?? raiseNotFound();
}

/** The client after a change in this transaction. Throws NOT_FOUND. */
export async function findClient(tx: AuthTransaction, clientId: string): Promise<Client> {
  return (await tx.clients.find(clientId)) ?? raiseNotFound();
}

/** Raises the generation of the client, which revokes its tokens once the entry is in the log. Throws NOT_FOUND. */
export async function raiseGeneration(tx: AuthTransaction, clientId: string): Promise<bigint> {
  return (await tx.clients.raiseGeneration(clientId)) ?? raiseNotFound();
}

/**
 * The entry of the revocation log for a raised generation of the client.
 *
 * @param change - the reason in the log when the administrator gave none
 */
export function revocationEntry(
  { actor, clientId, reason, network, requestId }: RevokingClientRequest,
  generation: bigint,
  change: string,
): NewEntry {
  return {
    ...clientRevocation(clientId, generation),
    actor,
    reason: reason || change,
    network,
    requestId,
  };
}

function raiseNotFound(): never {
  throw noSuchClient();
}
