/** DeleteClient: a client is gone, and with it everything that it could do. */

import { parseRequestId, payloadOf } from '../../common/validation/request-id.js';
import type { Receipt } from '../records/revocations.js';
import { type ChangeAndRevokeDeps, changeAndRevoke } from '../revocation/revoking-change.js';
import {
  checkClientRequest,
  type RevokingClientRequest,
  raiseGeneration,
  recordClientEvent,
  revocationEntry,
} from './client-change.js';

/**
 * Deletes a client with its keys, secrets and rights, and revokes every token whose chain contains it. What stays is its
 * id with its generation, so that a later client of the same id revives none of its tokens; its security events; and the
 * entry in the revocation log.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function deleteClient(
  deps: ChangeAndRevokeDeps,
  request: RevokingClientRequest,
): Promise<Receipt> {
  const { actor, clientId, reason } = request;
  checkClientRequest(request);
  const requestId = parseRequestId(request.requestId);
  const payload = payloadOf(clientId, reason);
  const idempotent = { subject: actor, method: 'DeleteClient', requestId, payload };
  return await changeAndRevoke(deps, idempotent, async (tx) => {
    const generation = await raiseGeneration(tx, clientId);
    await tx.clients.delete(clientId);
    await recordClientEvent(tx, request, { type: 'client-deleted', details: {} });
    return { result: {}, entry: revocationEntry(request, generation, 'client deleted') };
  });
}
