/** Private keys at rest: encrypted under the key-encryption key, and bound to their row. */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { CryptoKey, JWK } from 'jose';
import { calculateJwkThumbprint, exportJWK, importPKCS8 } from 'jose';
import type { KeyRow } from '../records/keys.js';

/** Length of the key that encrypts the private keys, in bytes. */
export const KEY_ENCRYPTION_KEY_BYTES = 32;

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** A stored key cannot be used; the service must not start with it. */
export class UnusableKeyError extends Error {
  readonly kid: string;

  constructor(kid: string, problem: string, options?: ErrorOptions) {
    super(`signing key ${kid} cannot be used: ${problem}`, options);
    this.name = 'UnusableKeyError';
    this.kid = kid;
  }
}

/** What a ciphertext is bound to. */
export type KeyIdentity = Pick<KeyRow, 'kid' | 'purpose' | 'algorithm'>;

/** Encrypts a PKCS #8 text with AES-256-GCM; returns nonce, tag and ciphertext. */
export function seal(identity: KeyIdentity, privateKeyText: string, keyEncryptionKey: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(associatedData(identity));
  const ciphertext = Buffer.concat([cipher.update(privateKeyText, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext]);
}

/**
 * Decrypts the private key of a row, and checks that the public half belongs to it.
 *
 * @throws UnusableKeyError
 */
export async function unseal(row: KeyRow, keyEncryptionKey: Buffer): Promise<CryptoKey> {
  const { kid, algorithm, sealedPrivateKey } = row;
  let privateKey: CryptoKey;
  try {
    const nonce = sealedPrivateKey.subarray(0, NONCE_BYTES);
    const decipher = createDecipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(associatedData(row));
    decipher.setAuthTag(sealedPrivateKey.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
    const ciphertext = sealedPrivateKey.subarray(NONCE_BYTES + TAG_BYTES);
    const text = Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString('utf8');
    privateKey = await importPKCS8(text, algorithm, { extractable: true });
  } catch (error) {
    throw doesNotOpen(kid, error);
  }
  // The public half is not encrypted. If it was replaced, verifiers would trust tokens of an attacker's key.
  if (!(await isPublicHalf(row.jwk, privateKey))) {
    throw new UnusableKeyError(kid, 'its public half belongs to another private key');
  }
  return privateKey;
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
function associatedData({ kid, purpose, algorithm }: KeyIdentity): Buffer {
  return Buffer.from(`${kid}\n${purpose}\n${algorithm}`, 'utf8');
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
