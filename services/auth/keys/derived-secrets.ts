/** Secrets that follow from the key-encryption key, so that operators keep one secret only. */

import { createHmac, hkdfSync } from 'node:crypto';

/** Bytes of a derived secret. */
export const DERIVED_SECRET_BYTES = 32;

/** What a secret is derived for; another purpose gives an unrelated secret. */
export type SecretPurpose = 'refresh-successor' | 'request-fingerprint' | 'attempt-counters' | 'event-names';

/** The secret of one purpose (RFC 5869). */
export function deriveSecret(keyEncryptionKey: Buffer, purpose: SecretPurpose): Buffer {
  const info = `portcullis ${purpose} v1`;
  return Buffer.from(hkdfSync('sha256', keyEncryptionKey, '', info, DERIVED_SECRET_BYTES));
}

/**
 * A keyed hash by which two requests that hold a secret can be told apart. Without the key, a weak
 * password could be found by trying, because only it would stand between the hash and the guess.
 */
export function createFingerprint(key: Buffer): (secret: string) => string {
  return (secret) => createHmac('sha256', key).update(secret, 'utf8').digest('base64url');
}
