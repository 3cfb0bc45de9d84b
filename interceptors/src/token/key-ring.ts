/** The public keys of one purpose: each `kid` has one key, and each key one algorithm (RFC 8725 §3.1). */

import { constants, KeyObject, type VerifyKeyObjectInput, verify } from 'node:crypto';
import { importJWK, type JWK } from 'jose';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import { KEYS_MAX, RSA_BITS_MIN, SIGNATURE_ALGORITHMS } from '../limits.js';
import type { CompactToken } from './compact.js';

type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

/** OpenSSL's parameters for an algorithm (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1). */
interface SignatureParameters {
  readonly digest: 'sha256' | null;
  readonly options: Omit<VerifyKeyObjectInput, 'key'>;
  /** Whether the algorithm can use a key. */
  readonly fits: (key: KeyObject) => boolean;
}

const isStrongRsa = ({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean =>
  asymmetricKeyType === 'rsa' && (asymmetricKeyDetails?.modulusLength ?? 0) >= RSA_BITS_MIN;

const PARAMETERS: Readonly<Record<SignatureAlgorithm, SignatureParameters>> = {
  EdDSA: { digest: null, options: {}, fits: ({ asymmetricKeyType }) => asymmetricKeyType === 'ed25519' },
  ES256: {
    digest: 'sha256',
    // Two numbers of fixed length. In DER one signature would have several encodings.
    options: { dsaEncoding: 'ieee-p1363' },
    fits: ({ asymmetricKeyType, asymmetricKeyDetails }) =>
      asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1',
  },
  RS256: { digest: 'sha256', options: { padding: constants.RSA_PKCS1_PADDING }, fits: isStrongRsa },
  PS256: {
    digest: 'sha256',
    // The salt is as long as the hash, whatever the signature says.
    options: { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST },
    fits: isStrongRsa,
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
    if (found === undefined) return NOT_VERIFIED;
    const { digest, input } = found;
    return new Promise((resolve) => {
      // With a callback, Node verifies on the thread pool, so new tokens do not delay calls with cached ones.
      verify(digest, token.signed, input, token.signature, (error, isGood) =>
        resolve(error === null && isGood),
      );
    });
  }

  verifyNow(token: CompactToken): boolean {
    const found = this.#keyOf(token);
    if (found === undefined) return false;
    try {
      return verify(found.digest, token.signed, found.input, token.signature);
    } catch {
      return false;
    }
  }

  #keyOf({
    keyId,
    algorithm,
  }: CompactToken): { digest: 'sha256' | null; input: VerifyKeyObjectInput } | undefined {
    const found = this.#keys.get(keyId);
    if (found === undefined || found.algorithm !== algorithm) return undefined;
    const { digest, options } = PARAMETERS[found.algorithm];
    return { digest, input: { ...options, key: found.key } };
  }
}

const NOT_VERIFIED = Promise.resolve(false);

async function importKey({ kid, algorithm, jwk }: PublicKey): Promise<VerificationKey> {
  const known = SIGNATURE_ALGORITHMS.find((name) => name === algorithm);
  if (known === undefined) {
    throw new Error(
      `key ${kid}: expected one of ${SIGNATURE_ALGORITHMS.join(', ')}, got algorithm ${algorithm}`,
    );
  }
  const { kty, crv, x, y, n, e } = JSON.parse(jwk) as JWK;
  // Only the public members are imported, so that a private key published by mistake is not used.
  const members = Object.fromEntries(
    Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined),
  );
  const imported = await importJWK({ ...members, kty: kty ?? '', alg: known }, known);
  if (imported instanceof Uint8Array) throw new Error(`key ${kid} is symmetric`);
  const key = KeyObject.from(imported);
  if (key.type !== 'public' || !PARAMETERS[known].fits(key)) {
    throw new Error(`key ${kid}: expected a public key for ${known} of sufficient size`);
  }
  return { keyId: kid, algorithm: known, key };
}
