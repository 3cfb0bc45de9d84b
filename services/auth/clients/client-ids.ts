/** Identifiers of clients. */

import type { ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { OWN_AUDIENCE } from '../accounts/roles.js';
import { AuthError } from '../errors.js';

/** The client of every login, because Login names no client. */
export const DIRECT_CLIENT = 'direct';

/** The client in the tokens with which auth measures revocations; no client may have this id. */
export const CANARY_CLIENT = 'portcullis-canary';

/** What is wrong with a client id; undefined when it is valid. */
export function clientIdFault(clientId: string): string | undefined {
  if (!/^[a-z0-9][a-z0-9._-]{0,63}$/.test(clientId)) {
    return 'must be 1 to 64 lower-case letters, digits, dots, underscores and hyphens';
  }
  // Instances appear under their client's id, and auth's own appear under this one.
  if (clientId === OWN_AUDIENCE) return `must not be ${OWN_AUDIENCE}`;
  if (clientId === CANARY_CLIENT) return `must not be ${CANARY_CLIENT}`;
  // The id becomes the subject of the client's tokens, and the subjects of users are UUIDs.
  return parseUuid(clientId) === undefined ? undefined : 'must not be a UUID';
}

/** Throws NOT_FOUND for an id that no client can have, so that it does not reach the database. */
export function requireClientId(clientId: string): void {
  if (clientIdFault(clientId) !== undefined) throw noSuchClient();
}

export function noSuchClient(): ServiceError {
  return new AuthError('NOT_FOUND', 'there is no such client');
}
