/** The public keys of one purpose: each `kid` has one key, and each key one algorithm. */

import { type CryptoKey, compactVerify, importJWK, type JWK } from 'jose';
import type { PublicKey } from '../proto/gen/portcullis/token/v1/token.js';
import type { CompactToken } from './compact-token.js';

/** The algorithms a key of our own issuer may have; never a symmetric one. */
export const SIGNATURE_ALGORITHMS = ['EdDSA', 'ES256', 'RS256', 'PS256'] as const;

/** How many keys one set may hold. */
export const KEYS_MAX = 32;

/** Keys that verify signatures, as those see them who use them. */
export interface VerificationKeys {
  has(keyId: string): boolean;
  /** The identifiers of all keys. */
  keyIds(): Iterable<string>;
  /** Whether one of these keys made the signature. Never rejects. */
  verify(token: CompactToken): Promise<boolean>;
}

/** Makes a set of public keys ready for use. Rejects when one of them is not what it says. */
export type ImportKeys = (keys: readonly PublicKey[]) => Promise<VerificationKeys>;

/** A public key, ready for use. */
export interface VerificationKey {
  readonly keyId: string;
  readonly algorithm: string;
  readonly key: CryptoKey;
}

/** The keys of one purpose, by `kid`. Immutable: a new set is a new ring. */
export class KeyRing implements VerificationKeys {
  readonly #keys: ReadonlyMap<string, VerificationKey>;

  private constructor(keys: ReadonlyMap<string, VerificationKey>) {
    this.#keys = keys;
  }

  static readonly EMPTY = new KeyRing(new Map());

  /**
   * Imports a set of public keys.
   *
   * @throws Error when one of them is not what it says: a set is taken whole or not at all
   */
  static async import(keys: readonly PublicKey[]): Promise<KeyRing> {
    if (keys.length > KEYS_MAX)
      throw new Error(`a key set holds ${keys.length} keys, ${KEYS_MAX} are allowed`);
    const imported = await Promise.all(keys.map(importKey));
    const ring = new Map(imported.map((key) => [key.keyId, key]));
    if (ring.size !== keys.length) throw new Error('a key set names one kid twice');
    return new KeyRing(ring);
  }

  has(keyId: string): boolean {
    return this.#keys.has(keyId);
  }

  /** The identifiers of all keys. */
  keyIds(): Iterable<string> {
    return this.#keys.keys();
  }

  /**
   * Verifies the signature of a token. The key decides the algorithm, never the token's header
   * (RFC 8725 §3.1): a header that names another one is refused before any cryptography.
   */
  async verify(token: CompactToken): Promise<boolean> {
    const key = this.#keys.get(token.keyId);
    if (key === undefined || key.algorithm !== token.algorithm) return false;
    try {
      await compactVerify(token.text, key.key, { algorithms: [key.algorithm] });
      return true;
    } catch {
      return false;
    }
  }
}

async function importKey({ kid, algorithm, jwk }: PublicKey): Promise<VerificationKey> {
  if (!SIGNATURE_ALGORITHMS.some((known) => known === algorithm)) {
    throw new Error(
      `key ${kid} has algorithm ${algorithm}, which is not among ${SIGNATURE_ALGORITHMS.join(', ')}`,
    );
  }
  const { kty, crv, x, y, n, e } = JSON.parse(jwk) as JWK;
  // Only the public members are taken, so that a private key published by mistake stays unused.
  const members = Object.fromEntries(
    Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined),
  );
  const key = await importJWK({ ...members, kty: kty ?? '', alg: algorithm }, algorithm);
  if (key instanceof Uint8Array) throw new Error(`key ${kid} is symmetric`);
  return { keyId: kid, algorithm, key };
}
