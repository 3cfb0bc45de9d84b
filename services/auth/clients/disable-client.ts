/** DisableClient and EnableClient: whether a client gets tokens. */

import { parseRequestId } from '../../common/validation/request-id.js';
import type { Client } from '../records/clients.js';
import type { Receipt } from '../records/revocations.js';
import { type ChangeAndRevokeDeps, changeAndRevoke } from '../revocation/revoking-change.js';
import {
  type ClientRequest,
  checkClientRequest,
  findClient,
  type RevokingClientRequest,
  raiseGeneration,
  recordClientEvent,
  revocationEntry,
} from './client-change.js';
import { requireClientId } from './client-ids.js';
import { withoutSecretHashes } from './stored-credentials.js';

/** A disabled client, and the receipt of the revocation of its tokens. */
export interface DisabledClient extends Receipt {
  readonly client: Client;
}

/**
 * Prevents a client from getting tokens, and revokes every token whose chain contains the client.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function disableClient(
  deps: ChangeAndRevokeDeps,
  request: RevokingClientRequest,
): Promise<DisabledClient> {
  const { actor, clientId, reason } = request;
  checkClientRequest(request);
  const requestId = parseRequestId(request.requestId);
  const payload = JSON.stringify([clientId, reason]);
  const idempotent = { subject: actor, method: 'DisableClient', requestId, payload };
  return await changeAndRevoke(deps, idempotent, async (tx) => {
    const generation = await raiseGeneration(tx, clientId);
    await tx.clients.setDisabled(clientId, true);
    const client = await findClient(tx, clientId);
    await recordClientEvent(tx, request, { type: 'client-disabled', details: {} });
    const entry = revocationEntry(request, generation, 'client disabled');
    return { result: { client: withoutSecretHashes(client) }, entry };
  });
}

/**
 * Allows a client to get tokens again. It revokes nothing, so it appends nothing to the revocation log.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function enableClient(
  { store }: Pick<ChangeAndRevokeDeps, 'store'>,
  request: ClientRequest,
): Promise<Client> {
  const { actor, clientId } = request;
  const requestId = parseRequestId(request.requestId);
  requireClientId(clientId);
  return await store.transaction((tx) =>
    tx.once({ subject: actor, method: 'EnableClient', requestId, payload: clientId }, async () => {
      await tx.clients.setDisabled(clientId, false);
      const client = await findClient(tx, clientId);
      await recordClientEvent(tx, { ...request, reason: '' }, { type: 'client-enabled', details: {} });
      return withoutSecretHashes(client);
    }),
  );
}
