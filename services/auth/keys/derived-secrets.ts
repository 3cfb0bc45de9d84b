/** Secrets derived from the key-encryption key, so that operators keep only one secret. */

import { createHmac, hkdfSync } from 'node:crypto';

/** Bytes of a derived secret. */
export const DERIVED_SECRET_BYTES = 32;

/** The purposes of derived secrets; secrets of different purposes are unrelated. */
export const SECRET_PURPOSES = [
  'refresh-successor',
  'request-fingerprint',
  'attempt-counters',
  'event-names',
  'password-reset',
] as const;

/** One of {@link SECRET_PURPOSES}. */
export type SecretPurpose = (typeof SECRET_PURPOSES)[number];

/** Derives the secret of one purpose (RFC 5869). */
export function deriveSecret(keyEncryptionKey: Buffer, purpose: SecretPurpose): Buffer {
  const info = `portcullis ${purpose} v1`;
  return Buffer.from(hkdfSync('sha256', keyEncryptionKey, '', info, DERIVED_SECRET_BYTES));
}

/**
 * Creates a keyed hash that distinguishes two requests which hold a secret. With an unkeyed hash, an attacker with the
 * database could find a weak password by trying.
 */
export function createFingerprint(key: Buffer): (secret: string) => string {
  return (secret) => createHmac('sha256', key).update(secret, 'utf8').digest('base64url');
}
