/** The credentials with which clients authenticate: a public key or a secret. */

import type { KeyObject } from 'node:crypto';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { type CheckedKey, checkPublicKey, checkPublicKeySync, type KeyFault } from '@portcullis/guard/keys';
import { LRUCache } from 'lru-cache';
import { PASSWORD_LENGTH_MAX, passwordFault } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';

/** Minimum length of a client's secret, in UTF-16 code units. */
const CLIENT_SECRET_LENGTH_MIN = 32;

/** Maximum length of a public key in PEM, in characters. An RSA key of the maximum size is shorter. */
const CLIENT_KEY_PEM_LENGTH_MAX = 8192;

/** Maximum number of client keys whose check is cached: it takes milliseconds, and clients authenticate often. */
const CHECKED_KEYS_MAX = 1000;

/** The credential of a client to be created. */
export type NewCredential =
  | { readonly kind: 'public-key'; readonly pem: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** A client's public key, and the algorithms that it verifies. */
export interface ClientKey {
  readonly key: KeyObject;
  readonly algorithms: readonly string[];
}

/** Throws FIELD_INVALID unless the credential is present and valid. */
export async function requireCredential(credential: NewCredential | undefined): Promise<NewCredential> {
  if (credential === undefined) throw invalidField('credential', 'must be set');
  if (credential.kind === 'secret') {
    const fault = clientSecretFault(credential.secret);
    if (fault !== undefined) throw invalidField('client_secret', fault);
    return credential;
  }
  const key = await parseClientKey(credential.pem);
  if ('fault' in key) throw invalidField('public_key_pem', key.fault);
  return credential;
}

/** What is wrong with a client's secret; undefined when it is valid. */
export function clientSecretFault(secret: string): string | undefined {
  if (secret.length < CLIENT_SECRET_LENGTH_MIN || secret.length > PASSWORD_LENGTH_MAX) {
    return `must have ${CLIENT_SECRET_LENGTH_MIN} to ${PASSWORD_LENGTH_MAX} characters`;
  }
  return passwordFault(secret);
}

const checkedKeys = new LRUCache<string, CheckedKey | KeyFault>({ max: CHECKED_KEYS_MAX });

/**
 * Reads and checks a client's public key. The key decides which algorithms verify, never the assertion's header.
 *
 * @returns the key, or what is wrong with it
 */
export async function parseClientKey(pem: string): Promise<ClientKey | { readonly fault: string }> {
  const fault = lengthFault(pem);
  if (fault !== undefined) return { fault };
  let checked = checkedKeys.get(pem);
  if (checked === undefined) {
    checked = await checkPublicKey({ pem });
    checkedKeys.set(pem, checked);
  }
  if ('fault' in checked) return checked;
  const { key, algorithms } = checked;
  // RFC 9864 gives the algorithm of Ed25519 a second name.
  return { key, algorithms: algorithms.flatMap((name) => (name === 'EdDSA' ? [name, 'Ed25519'] : [name])) };
}

/** What is wrong with a client's public key; undefined when it is valid. Blocks the caller for milliseconds. */
export function clientKeyFault(pem: string): string | undefined {
  const fault = lengthFault(pem);
  if (fault !== undefined) return fault;
  const checked = checkPublicKeySync({ pem });
  return 'fault' in checked ? checked.fault : undefined;
}

function lengthFault(pem: string): string | undefined {
  return pem.length > CLIENT_KEY_PEM_LENGTH_MAX
    ? `must have at most ${CLIENT_KEY_PEM_LENGTH_MAX} characters`
    : undefined;
}

/** The one response to every client that fails to authenticate, whatever the cause. */
export function clientAuthenticationFailed(cause?: unknown): ServiceError {
  return new AuthError('CLIENT_AUTHENTICATION_FAILED', 'the client is unknown or its proof is wrong', {
    cause,
  });
}
