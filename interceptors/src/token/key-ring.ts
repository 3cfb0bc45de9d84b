/** The public keys of one purpose: each `kid` has one key, and each key one algorithm (RFC 8725 §3.1). */

import { constants, type KeyObject, type VerifyKeyObjectInput, verify } from 'node:crypto';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import { KEYS_MAX, SIGNATURE_ALGORITHMS } from '../limits.js';
import type { CompactToken } from './compact.js';
import { checkPublicKey, type SignatureAlgorithm } from './key-checks.js';
import { parseJsonObject } from './strict-json.js';

/** OpenSSL's parameters for an algorithm (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1). */
interface SignatureParameters {
  readonly digest: 'sha256' | null;
  readonly options: Omit<VerifyKeyObjectInput, 'key'>;
}

const PARAMETERS: Readonly<Record<SignatureAlgorithm, SignatureParameters>> = {
  EdDSA: { digest: null, options: {} },
  // Two numbers of fixed length. In DER one signature would have several encodings.
  ES256: { digest: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
  RS256: { digest: 'sha256', options: { padding: constants.RSA_PKCS1_PADDING } },
  PS256: {
    digest: 'sha256',
    // The salt is as long as the hash, whatever the signature says.
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
  },
};

/** Keys that verify signatures. */
export interface VerificationKeys {
  has(keyId: string): boolean;
  /** The identifiers of all keys. */
  keyIds(): Iterable<string>;
  /** Whether the signature was made by the key that the token names. Never rejects. */
  verify(token: CompactToken): Promise<boolean>;
  /** The same, synchronously on the caller's thread; absent where that is not possible. Never throws. */
  verifyNow?(token: CompactToken): boolean;
}

/** Imports a set of public keys. Rejects when one of them cannot be used as its algorithm says. */
export type ImportKeys = (keys: readonly PublicKey[]) => Promise<VerificationKeys>;

/** An imported public key. */
export interface VerificationKey {
  readonly keyId: string;
  readonly algorithm: SignatureAlgorithm;
  readonly key: KeyObject;
}

/** The keys of one purpose, by `kid`. Immutable: a new key set is a new ring. */
export class KeyRing implements VerificationKeys {
  readonly #keys: ReadonlyMap<string, VerificationKey>;

  private constructor(keys: ReadonlyMap<string, VerificationKey>) {
    this.#keys = keys;
  }

  static readonly EMPTY = new KeyRing(new Map());

  /**
   * Imports a set of public keys, all of them or none.
   *
   * @throws Error when one of them cannot be used as its algorithm says, or two have the same `kid`
   */
  static async import(keys: readonly PublicKey[]): Promise<KeyRing> {
    if (keys.length > KEYS_MAX)
      throw new Error(`expected at most ${KEYS_MAX} keys in a key set, got ${keys.length}`);
    const imported = await Promise.all(keys.map(importKey));
    const ring = new Map(imported.map((key) => [key.keyId, key]));
    if (ring.size !== keys.length) throw new Error('two keys of a key set have the same kid');
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
   * Verifies the signature of a token. The key determines the algorithm, never the token's header (RFC 8725 §3.1): a
   * header with another algorithm is rejected before any cryptography.
   */
  verify(token: CompactToken): Promise<boolean> {
    const found = this.#keyOf(token);
    return found === undefined ? NOT_VERIFIED : verifySignature(found, token);
  }

  verifyNow(token: CompactToken): boolean {
    const found = this.#keyOf(token);
    if (found === undefined) return false;
    const { digest, options } = PARAMETERS[found.algorithm];
    try {
      return verify(digest, token.signed, { ...options, key: found.key }, token.signature);
    } catch {
      return false;
    }
  }

  #keyOf({ keyId, algorithm }: CompactToken): VerificationKey | undefined {
    const found = this.#keys.get(keyId);
    return found?.algorithm === algorithm ? found : undefined;
  }
}

const NOT_VERIFIED = Promise.resolve(false);

/** Verifies a signature with one key. Never rejects. */
export function verifySignature(
  { algorithm, key }: Pick<VerificationKey, 'algorithm' | 'key'>,
  { signed, signature }: CompactToken,
): Promise<boolean> {
  const { digest, options } = PARAMETERS[algorithm];
  return new Promise((resolve) => {
    // With a callback, Node verifies on the thread pool, so new tokens do not delay calls with cached ones. It passes no
    // result with an error.
    verify(digest, signed, { ...options, key }, signature, (_error, isGood) => resolve(isGood === true));
  });
}

async function importKey({ kid, algorithm, jwk }: PublicKey): Promise<VerificationKey> {
  const known = SIGNATURE_ALGORITHMS.find((name) => name === algorithm);
  if (known === undefined) {
    throw new Error(
      `key ${kid}: expected one of ${SIGNATURE_ALGORITHMS.join(', ')}, got algorithm ${algorithm}`,
    );
  }
  const members = parseJsonObject(Buffer.from(jwk));
  const checked = members && (await checkPublicKey({ jwk: members }));
  if (checked === undefined) throw new Error(`key ${kid} must be a JWK`);
  if ('fault' in checked) throw new Error(`key ${kid} ${checked.fault}`);
  if (!checked.algorithms.includes(known)) throw new Error(`key ${kid} must be a key for ${known}`);
  return { keyId: kid, algorithm: known, key: checked.key };
}
