/** DisableClient and EnableClient: whether a client gets tokens. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import type { Client } from '../records/clients.js';
import type { Receipt } from '../records/revocations.js';
import { checkReason, clientRevocation } from '../revocation/log.js';
import { changeAndRevoke } from '../revocation/revoking-change.js';
import type { AuthStore } from '../transaction.js';
import { type ClientRequest, recordClientEvent, withoutSecretHash } from './client-change.js';
import { DIRECT_CLIENT, noSuchClient, requireClientId } from './client-ids.js';

/** A disabled client, and the receipt of the revocation of its tokens. */
export interface DisabledClient extends Receipt {
  readonly client: Client;
}

export interface DisableClientDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
}

/**
 * Prevents a client from getting tokens, and revokes every token whose chain contains the client.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function disableClient(
  deps: DisableClientDeps,
  request: ClientRequest & { readonly reason: string },
): Promise<DisabledClient> {
  const { actor, clientId, reason } = request;
  checkReason(reason);
  const requestId = parseRequestId(request.requestId);
  requireClientId(clientId);
  // Without it no user could log in, not even to enable it again. To end all logins, an operator can revoke it instead.
  if (clientId === DIRECT_CLIENT) throw invalidField('client_id', 'must not be that of the logins');
  const payload = JSON.stringify([clientId, reason]);
  const idempotent = { subject: actor, method: 'DisableClient', requestId, payload };
  return await changeAndRevoke(deps, idempotent, async (tx) => {
    const generation = await tx.clients.raiseGeneration(clientId);
    if (generation === undefined) throw noSuchClient();
    await tx.clients.setDisabled(clientId, true);
    const client = await tx.clients.find(clientId);
    if (client === undefined) throw noSuchClient();
    await recordClientEvent(tx, 'client-disabled', { actor, clientId, reason });
    const entry = {
      ...clientRevocation(clientId, generation),
      actor,
      reason: reason || 'client disabled',
    };
    return { result: { client: withoutSecretHash(client) }, entry };
  });
}

/**
 * Allows a client to get tokens again. It revokes nothing, so it appends nothing to the revocation log.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function enableClient(
  { store }: Pick<DisableClientDeps, 'store'>,
  { actor, clientId, ...rest }: ClientRequest,
): Promise<Client> {
  const requestId = parseRequestId(rest.requestId);
  requireClientId(clientId);
  return await store.transaction((tx) =>
    tx.once({ subject: actor, method: 'EnableClient', requestId, payload: clientId }, async () => {
      await tx.clients.setDisabled(clientId, false);
      const client = await tx.clients.find(clientId);
      if (client === undefined) throw noSuchClient();
      await recordClientEvent(tx, 'client-enabled', { actor, clientId, reason: '' });
      return withoutSecretHash(client);
    }),
  );
}
