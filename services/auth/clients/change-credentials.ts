/** AddClientCredential and RemoveClientCredential: a client's keys and secrets are replaced without a refused call. */

import { randomBytes } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId, payloadOf } from '../../common/validation/request-id.js';
import type { Passwords } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';
import type { Client, StoredCredential } from '../records/clients.js';
import type { Receipt } from '../records/revocations.js';
import { type ChangeAndRevokeDeps, changeAndPerhapsRevoke } from '../revocation/revoking-change.js';
import {
  type ClientRequest,
  checkClientRequest,
  findClient,
  lockClient,
  type RevokingClientRequest,
  raiseGeneration,
  recordClientEvent,
  revocationEntry,
} from './client-change.js';
import { type NewCredential, requireCredential } from './credentials.js';
import { storedCredential, withCredential, withoutSecretHashes } from './stored-credentials.js';

/** Begins every secret that auth makes, so that scanners of source code recognise it. */
const SECRET_PREFIX = 'pcs_';

/** Random bytes of a secret that auth makes. */
const SECRET_BYTES = 32;

export interface ChangeCredentialsDeps extends ChangeAndRevokeDeps {
  readonly passwords: Passwords;
  /** Keyed hash with which requests that contain a secret can be compared, and nothing else. */
  readonly fingerprint: (secret: string) => string;
}

/** A credential to be added; `generated-secret` is a secret that auth makes. */
export type AddedCredential = NewCredential | { readonly kind: 'generated-secret' };

/** The result of adding a credential. */
export interface CredentialAdded {
  readonly client: Client;
  readonly credentialId: string;
  /** A secret that auth has made; empty for any other credential, and in the answer to a repeated request. */
  readonly clientSecret: string;
}

/** A request to remove a credential. */
export interface RemoveCredentialRequest extends RevokingClientRequest {
  readonly credentialId: string;
  /** Revokes the tokens that the client has, because an attacker may have got them with the credential. */
  readonly revokeTokens: boolean;
}

/** A client without the removed credential, and the receipt when tokens were revoked. */
export interface CredentialRemoved {
  readonly client: Client;
  readonly revocation: Receipt | undefined;
}

/**
 * Adds a key or a secret. The client can authenticate with it and with those that it had.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, ALREADY_EXISTS, TOO_MANY_CREDENTIALS, REQUEST_ID_REUSED
 */
export async function addCredential(
  deps: ChangeCredentialsDeps,
  request: ClientRequest & { readonly credential: AddedCredential | undefined },
): Promise<CredentialAdded> {
  const { store, passwords } = deps;
  const { actor, clientId } = request;
  checkClientRequest({ ...request, reason: '' });
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') throw invalidField('request_id', 'must be set');
  const { credential, clientSecret, comparable } = await parseCredential(deps, request.credential);
  // Outside of the transaction, because the hash of a secret takes long.
  const added = await storedCredential(passwords, credential);
  const payload = payloadOf(clientId, comparable);
  let isNew = false;
  const answer = await store.transaction((tx) => {
    isNew = false;
    return tx.once({ subject: actor, method: 'AddClientCredential', requestId, payload }, async () => {
      const client = await lockClient(tx, clientId);
      const dated: StoredCredential = { ...added, createTime: await tx.databaseTime() };
      await tx.clients.setCredentials(clientId, await withCredential(client, dated));
      const { credentialId, kind } = dated;
      const details = { credentialId, credential: kind };
      await recordClientEvent(tx, { ...request, reason: '' }, { type: 'client-credential-added', details });
      isNew = true;
      return { client: withoutSecretHashes(await findClient(tx, clientId)), credentialId };
    });
  });
  // The stored answer must not contain the secret, so a repeated request cannot return it.
  return { ...answer, clientSecret: isNew ? clientSecret : '' };
}

/**
 * Removes a key or a secret: from the commit on, nothing that was signed with it is accepted. Tokens that the client got
 * with it stay valid until they expire, unless `revokeTokens` revokes all tokens of the client.
 *
 * @throws ServiceError NOT_FOUND, LAST_CREDENTIAL, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function removeCredential(
  deps: ChangeAndRevokeDeps,
  request: RemoveCredentialRequest,
): Promise<CredentialRemoved> {
  const { actor, clientId, credentialId, reason, revokeTokens } = request;
  checkClientRequest(request);
  const requestId = parseRequestId(request.requestId);
  const payload = payloadOf(clientId, credentialId, reason, revokeTokens);
  const idempotent = { subject: actor, method: 'RemoveClientCredential', requestId, payload };
  const { revocation, ...result } = await changeAndPerhapsRevoke(deps, idempotent, async (tx) => {
    const client = await lockClient(tx, clientId);
    const removed = client.credentials.find((credential) => credential.credentialId === credentialId);
    if (removed === undefined) throw new AuthError('NOT_FOUND', 'the client has no such credential');
    if (client.credentials.length === 1) {
      const problem = 'the client would have no credential: add another one first, or disable the client';
      throw new AuthError('LAST_CREDENTIAL', problem);
    }
    const generation = revokeTokens ? await raiseGeneration(tx, clientId) : undefined;
    await tx.clients.setCredentials(
      clientId,
      client.credentials.filter((credential) => credential !== removed),
    );
    const details = { credentialId, credential: removed.kind, revoked: revokeTokens };
    await recordClientEvent(tx, request, { type: 'client-credential-removed', details });
    return {
      result: { client: withoutSecretHashes(await findClient(tx, clientId)) },
      entry:
        generation === undefined
          ? undefined
          : revocationEntry(request, generation, 'client credential removed'),
    };
  });
  return { ...result, revocation };
}

/** The credential to add; its secret when auth makes it; and what is equal for equal requests and holds no secret. */
async function parseCredential(
  { fingerprint }: ChangeCredentialsDeps,
  given: AddedCredential | undefined,
): Promise<{ credential: NewCredential; clientSecret: string; comparable: string }> {
  if (given?.kind === 'generated-secret') {
    const clientSecret = `${SECRET_PREFIX}${randomBytes(SECRET_BYTES).toString('base64url')}`;
    const credential = { kind: 'secret', secret: clientSecret } as const;
    return { credential, clientSecret, comparable: 'generated' };
  }
  const credential = await requireCredential(given);
  const comparable = credential.kind === 'secret' ? fingerprint(credential.secret) : credential.pem;
  return { credential, clientSecret: '', comparable };
}
