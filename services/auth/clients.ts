/** Clients: the services that get tokens of their own, and how they prove who they are. */

import { createPublicKey, type KeyObject } from 'node:crypto';
import { ServiceError } from '../../interceptors/errors.js';

/** The smallest RSA key of a client, in bits. */
export const CLIENT_RSA_BITS_MIN = 2048;

/** A client as the database has it. */
export interface Client {
  readonly clientId: string;
  /** Raised to kill every token in whose chain the client takes part. */
  readonly generation: bigint;
  /** The key that verifies the client's assertions; at most one of this and the next is set. */
  readonly publicKeyPem: string | undefined;
  readonly secretHash: string | undefined;
  /** The services that its own tokens may be for. */
  readonly audiences: readonly string[];
  /** The scopes that its own tokens may have. */
  readonly scopes: readonly string[];
  /** The services that it may call for a user. */
  readonly exchangeAudiences: readonly string[];
}

/** The clients' rows, inside a transaction. */
export interface ClientRows {
  /** Creates the client unless there is one of its name; answers whether it did. */
  insertWhenAbsent(client: Omit<Client, 'generation'>): Promise<boolean>;
  /** The client; takes no lock. */
  find(clientId: string): Promise<Client | undefined>;
  /** The client; its row stays share-locked until the end of the transaction. */
  lockShared(clientId: string): Promise<Client | undefined>;
  /**
   * Raises the client's generation and answers it; undefined when there is no such client. Whoever mints waits
   * until the end of the transaction.
   */
  raiseGeneration(clientId: string): Promise<bigint | undefined>;
  /**
   * Notes that an assertion was used; false when it had been used before. It is forgotten some time
   * after it has expired.
   */
  useAssertion(assertion: { clientId: string; jtiHash: Buffer; expireTime: Date }): Promise<boolean>;
  /** Drops assertions that have expired, at most so many; answers how many. */
  dropExpiredAssertions(limit: number): Promise<number>;
}

/** A client's public key, and the algorithms that it verifies. */
export interface ClientKey {
  readonly key: KeyObject;
  readonly algorithms: readonly string[];
}

/**
 * Reads the public key of a client. The key decides the algorithms, never the assertion's header.
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
    : { fault: `must be Ed25519, P-256, or RSA of at least ${CLIENT_RSA_BITS_MIN} bits` };
}

/** What every client hears that could not prove who it is. */
export function clientAuthenticationFailed(cause?: unknown): ServiceError {
  return new ServiceError('CLIENT_AUTHENTICATION_FAILED', 'the client is unknown or its proof is wrong', {
    cause,
  });
}

function algorithmsOf(key: KeyObject): readonly string[] {
  const { namedCurve, modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ed25519') return ['EdDSA', 'Ed25519'];
  if (key.asymmetricKeyType === 'ec' && namedCurve === 'prime256v1') return ['ES256'];
  return key.asymmetricKeyType === 'rsa' && modulusLength >= CLIENT_RSA_BITS_MIN ? ['RS256', 'PS256'] : [];
}
