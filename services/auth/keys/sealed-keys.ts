/** Private keys and secrets at rest: encrypted under a key-encryption key, and bound to their row. */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { CryptoKey, JWK } from 'jose';
import { calculateJwkThumbprint, exportJWK, importPKCS8 } from 'jose';
import type { KeyRow } from '../records/keys.js';

/** Length of the key that encrypts the private keys, in bytes. */
export const KEY_ENCRYPTION_KEY_BYTES = 32;

/** The key-encryption keys of one process. */
export interface KeyEncryptionKeys {
  /** Encrypts everything new. */
  readonly current: Buffer;
  /** The former one: what it encrypted is encrypted again under the current one. */
  readonly previous?: Buffer | undefined;
  /** The one that is going to follow: other replicas may encrypt under it already. */
  readonly next?: Buffer | undefined;
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

interface UnusableKeyOptions extends ErrorOptions {
  readonly what?: 'signing key' | 'the secret for';
}

/** A stored key or secret cannot be used; the service must not start with it. */
export class UnusableKeyError extends Error {
  readonly kid: string;

  /** @param kid - the key; of a secret, its purpose */
  constructor(kid: string, problem: string, { what = 'signing key', ...options }: UnusableKeyOptions = {}) {
    super(`${what} ${kid} cannot be used: ${problem}`, options);
    this.name = 'UnusableKeyError';
    this.kid = kid;
  }
}

/** What a ciphertext is bound to. */
export type KeyIdentity = Pick<KeyRow, 'kid' | 'purpose' | 'algorithm'>;

/** Encrypts a PKCS #8 text with AES-256-GCM; returns nonce, tag and ciphertext. */
export function seal(identity: KeyIdentity, privateKeyText: string, keyEncryptionKey: Buffer): Buffer {
  return encrypt(associatedData(identity), Buffer.from(privateKeyText, 'utf8'), keyEncryptionKey);
}

/** Encrypts with AES-256-GCM; returns nonce, tag and ciphertext. */
export function encrypt(associated: Buffer, plaintext: Buffer, keyEncryptionKey: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(associated);
  const ciphertext = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext]);
}

/**
 * Decrypts what {@link encrypt} returned.
 *
 * @throws Error when it was encrypted under another key, for another row, or was changed
 */
function decrypt(associated: Buffer, sealed: Buffer, keyEncryptionKey: Buffer): Buffer {
  const nonce = sealed.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(associated);
  decipher.setAuthTag(sealed.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
}

/** Like {@link decrypt}; undefined instead of an error. */
export function tryDecrypt(
  associated: Buffer,
  sealed: Buffer,
  keyEncryptionKey: Buffer | undefined,
): Buffer | undefined {
  if (keyEncryptionKey === undefined) return undefined;
  try {
    return decrypt(associated, sealed, keyEncryptionKey);
  } catch {
    return undefined;
  }
}

/**
 * Decrypts the private key of a row with the first key-encryption key that fits, and checks that the public half belongs
 * to it.
 *
 * @throws UnusableKeyError
 */
export async function unseal(row: KeyRow, keyEncryptionKeys: readonly Buffer[]): Promise<CryptoKey> {
  const { kid, algorithm, sealedPrivateKey } = row;
  const associated = associatedData(row);
  let privateKey: CryptoKey;
  try {
    const text =
      keyEncryptionKeys.map((key) => tryDecrypt(associated, sealedPrivateKey, key)).find(isFound) ??
      raiseNoneFits();
    privateKey = await importPKCS8(text.toString('utf8'), algorithm, { extractable: true });
  } catch (error) {
    throw doesNotOpen(kid, error);
  }
  // The public half is not encrypted. If it was replaced, verifiers would trust tokens of an attacker's key.
  if (!(await isPublicHalf(row.jwk, privateKey))) {
    throw new UnusableKeyError(kid, 'its public half belongs to another private key');
  }
  return privateKey;
}

/** What the ciphertext of a secret is bound to. */
export function secretData(purpose: string): Buffer {
  return Buffer.from(`secret\n${purpose}`, 'utf8');
}

/** The members that RFC 7638 hashes: all that verification needs, and nothing private. */
export function publicMembers(jwk: JWK): JWK {
  const { kty, crv, x, y, n, e } = jwk;
  const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(members) as JWK;
}

/**
 * Binds the ciphertext to its row: a private key that is copied to another row, purpose or algorithm does not decrypt
 * there.
 */
export function associatedData({ kid, purpose, algorithm }: KeyIdentity): Buffer {
  return Buffer.from(`${kid}\n${purpose}\n${algorithm}`, 'utf8');
}

function isFound(found: Buffer | undefined): found is Buffer {
  return found !== undefined;
}

function raiseNoneFits(): never {
  throw new Error('no key-encryption key decrypts it');
}

function doesNotOpen(kid: string, cause: unknown): UnusableKeyError {
  const problem = 'the key-encryption key is another one, or the row was changed';
  return new UnusableKeyError(kid, problem, { cause });
}

async function isPublicHalf(jwkText: string, privateKey: CryptoKey): Promise<boolean> {
  try {
    const stated = await calculateJwkThumbprint(JSON.parse(jwkText) as JWK);
    return stated === (await calculateJwkThumbprint(publicMembers(await exportJWK(privateKey))));
  } catch {
    return false;
  }
}
