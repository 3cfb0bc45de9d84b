/** What an administrator's changes of one client have in common. */

import type { Client } from '../records/clients.js';
import type { AuthTransaction } from '../transaction.js';

/** An administrator's request about one client. */
export interface ClientRequest {
  readonly actor: string;
  readonly clientId: string;
  /** A repeated request with the same id changes nothing and returns the first response; empty for none. */
  readonly requestId: string;
}

export async function recordClientEvent(
  tx: AuthTransaction,
  type: 'client-created' | 'client-disabled' | 'client-enabled',
  { actor, clientId, reason }: { actor: string; clientId: string; reason: string },
): Promise<void> {
  await tx.events.record({ type, subject: { clientId }, actor, reason, network: '', details: {} });
}

/**
 * The client as responses contain it. Responses are stored with their requests, so the hash of a secret must not be in
 * them; whether there is one remains visible.
 */
export function withoutSecretHash(client: Client): Client {
  return client.secretHash === undefined ? client : { ...client, secretHash: '' };
}
