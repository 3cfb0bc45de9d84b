/** UpdateClient: an administrator changes what a client may do. */

import { createHash } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId, payloadOf } from '../../common/validation/request-id.js';
import { parseWords } from '../../common/validation/words.js';
import { AuthError } from '../errors.js';
import type { Client, ClientRights } from '../records/clients.js';
import type { Receipt } from '../records/revocations.js';
import { type ChangeAndRevokeDeps, changeAndPerhapsRevoke } from '../revocation/revoking-change.js';
import { parseBrokerKey } from './broker-keys.js';
import {
  checkClientRequest,
  findClient,
  lockClient,
  type RevokingClientRequest,
  raiseGeneration,
  recordClientEvent,
  revocationEntry,
} from './client-change.js';
import { withoutSecretHashes } from './stored-credentials.js';

/** The members of a client that can be changed, as they stand in an update mask (AIP-134). */
const UPDATABLE_FIELDS = [
  'audiences',
  'scopes',
  'exchange_audiences',
  'exchange_scopes',
  'certificate_bound',
  'broker_public_key',
] as const;

type UpdatableField = (typeof UPDATABLE_FIELDS)[number];

/** A request to change a client. */
export interface UpdateClientRequest extends RevokingClientRequest {
  /** The new values; only those in the mask count. Empty `exchangeScopes` are all that the user's token has. */
  readonly rights: Omit<ClientRights, 'exchangeScopes'> & { readonly exchangeScopes: readonly string[] };
  /** Names of {@link UPDATABLE_FIELDS}, or `*` for all of them. */
  readonly updateMask: readonly string[];
  /** The etag of the client that the caller has read; empty for any. */
  readonly etag: string;
}

/** The changed client, and the receipt when it has lost a right. */
export interface UpdatedClient {
  readonly client: Client;
  readonly revocation: Receipt | undefined;
}

/**
 * Changes what a client may do. If it loses a right, every token whose chain contains it is revoked; it gets new ones
 * with the rights that it has left. A right that it gains revokes nothing.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, ETAG_MISMATCH, REQUEST_ID_REUSED
 */
export async function updateClient(
  deps: ChangeAndRevokeDeps,
  request: UpdateClientRequest,
): Promise<UpdatedClient> {
  const { actor, clientId, reason, etag } = request;
  checkClientRequest(request);
  const requestId = parseRequestId(request.requestId);
  const change = parseChange(request);
  const payload = payloadOf(clientId, reason, etag, change);
  const idempotent = { subject: actor, method: 'UpdateClient', requestId, payload };
  const { revocation, ...result } = await changeAndPerhapsRevoke(deps, idempotent, async (tx) => {
    const before = await lockClient(tx, clientId);
    if (etag !== '' && etag !== etagOf(before)) {
      throw new AuthError('ETAG_MISMATCH', 'the client was changed since it was read');
    }
    const after: ClientRights = { ...before, ...change };
    const loses = isNarrower(before, after);
    const generation = loses ? await raiseGeneration(tx, clientId) : undefined;
    await tx.clients.setRights(clientId, after);
    const details = { fields: Object.keys(change), revoked: loses };
    await recordClientEvent(tx, request, { type: 'client-updated', details });
    return {
      result: { client: withoutSecretHashes(await findClient(tx, clientId)) },
      entry: generation === undefined ? undefined : revocationEntry(request, generation, 'client updated'),
    };
  });
  return { ...result, revocation };
}

/** A text that is another one after every change of the client by an administrator (AIP-154). */
export function etagOf(client: Client): string {
  const { audiences, scopes, exchangeAudiences, exchangeScopes, certificateBound, brokerKey, disabled } =
    client;
  const ids = client.credentials.map(({ credentialId }) => credentialId);
  const content: unknown[] = [
    audiences,
    scopes,
    exchangeAudiences,
    exchangeScopes,
    certificateBound,
    disabled,
    ids,
  ];
  if (brokerKey !== undefined) content.push(brokerKey);
  const created = client.createTime.getTime();
  return createHash('sha256')
    .update(payloadOf(created, ...content), 'utf8')
    .digest('base64url')
    .slice(0, 22);
}

function parseChange({ rights, updateMask }: UpdateClientRequest): Partial<ClientRights> {
  const mask = new Set(updateMask);
  if (mask.size === 0) throw invalidField('update_mask', 'must be set');
  const isMasked = (field: UpdatableField): boolean => mask.has(field) || mask.has('*');
  for (const path of mask) {
    if (path !== '*' && !UPDATABLE_FIELDS.some((field) => field === path)) {
      throw invalidField('update_mask', `must hold only * or ${UPDATABLE_FIELDS.join(', ')}`);
    }
  }
  const words = (field: UpdatableField, given: readonly string[]) => parseWords(`client.${field}`, given);
  const { exchangeScopes } = rights;
  return {
    ...(isMasked('audiences') && { audiences: words('audiences', rights.audiences) }),
    ...(isMasked('scopes') && { scopes: words('scopes', rights.scopes) }),
    ...(isMasked('exchange_audiences') && {
      exchangeAudiences: words('exchange_audiences', rights.exchangeAudiences),
    }),
    ...(isMasked('exchange_scopes') && {
      exchangeScopes: exchangeScopes.length === 0 ? undefined : words('exchange_scopes', exchangeScopes),
    }),
    ...(isMasked('certificate_bound') && { certificateBound: rights.certificateBound }),
    ...(isMasked('broker_public_key') && {
      brokerKey: parseBrokerKey('client.broker_public_key', rights.brokerKey),
    }),
  };
}

/** Whether a token issued under the rights `before` may exceed the rights `after`. */
export function isNarrower(before: ClientRights, after: ClientRights): boolean {
  const loses = (had: readonly string[], has: readonly string[]) => had.some((word) => !has.includes(word));
  const losesExchangeScopes =
    after.exchangeScopes !== undefined &&
    (before.exchangeScopes === undefined || loses(before.exchangeScopes, after.exchangeScopes));
  return (
    loses(before.audiences, after.audiences) ||
    loses(before.scopes, after.scopes) ||
    loses(before.exchangeAudiences, after.exchangeAudiences) ||
    losesExchangeScopes ||
    (after.certificateBound && !before.certificateBound)
  );
}
