/** The credentials with which clients authenticate: a public key or a secret. */

import { createPublicKey, type KeyObject } from 'node:crypto';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { RSA_BITS_MIN } from '@portcullis/guard/limits';
import { PASSWORD_LENGTH_MAX, passwordFault } from '../accounts/passwords.js';
import { AuthError } from '../errors.js';

/** Minimum length of a client's secret, in UTF-16 code units. */
const CLIENT_SECRET_LENGTH_MIN = 32;

/** Maximum length of a public key in PEM, in characters. An RSA key of 16384 bits is shorter. */
const CLIENT_KEY_PEM_LENGTH_MAX = 8192;

/** The credential of a client to be created. */
export type NewCredential =
  | { readonly kind: 'public-key'; readonly pem: string }
  | { readonly kind: 'secret'; readonly secret: string };

/** A client's public key, and the algorithms that it verifies. */
interface ClientKey {
  readonly key: KeyObject;
  readonly algorithms: readonly string[];
}

/** Throws FIELD_INVALID unless the credential is present and valid. */
export function requireCredential(
  credential: NewCredential | undefined,
): asserts credential is NewCredential {
  if (credential === undefined) throw invalidField('credential', 'must be set');
  if (credential.kind === 'secret') {
    const fault = clientSecretFault(credential.secret);
    if (fault !== undefined) throw invalidField('client_secret', fault);
    return;
  }
  if (credential.pem.length > CLIENT_KEY_PEM_LENGTH_MAX) {
    throw invalidField('public_key_pem', `must have at most ${CLIENT_KEY_PEM_LENGTH_MAX} characters`);
  }
  const key = parseClientKey(credential.pem);
  if ('fault' in key) throw invalidField('public_key_pem', key.fault);
}

/** What is wrong with a client's secret; undefined when it is valid. */
export function clientSecretFault(secret: string): string | undefined {
  if (secret.length < CLIENT_SECRET_LENGTH_MIN || secret.length > PASSWORD_LENGTH_MAX) {
    return `must have ${CLIENT_SECRET_LENGTH_MIN} to ${PASSWORD_LENGTH_MAX} characters`;
  }
  return passwordFault(secret);
}

/**
 * Reads a client's public key. The key decides which algorithms verify, never the assertion's header.
 *
 * @returns the key, or what is wrong with it
 */
export function parseClientKey(pem: string): ClientKey | { readonly fault: string } {
  if (pem.includes('PRIVATE KEY')) return { fault: 'must be a public key, not a private one' };
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    return { fault: 'must be a public key in PEM' };
  }
  const algorithms = algorithmsOf(key);
  return algorithms.length > 0
    ? { key, algorithms }
    : { fault: `must be Ed25519, P-256, or RSA of at least ${RSA_BITS_MIN} bits` };
}

/** The one response to every client that fails to authenticate, whatever the cause. */
export function clientAuthenticationFailed(cause?: unknown): ServiceError {
  return new AuthError('CLIENT_AUTHENTICATION_FAILED', 'the client is unknown or its proof is wrong', {
    cause,
  });
}

function algorithmsOf(key: KeyObject): readonly string[] {
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ed25519') return ['EdDSA', 'Ed25519'];
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256'];
  return key.asymmetricKeyType === 'rsa' && modulusLength >= RSA_BITS_MIN ? ['RS256', 'PS256'] : [];
}
