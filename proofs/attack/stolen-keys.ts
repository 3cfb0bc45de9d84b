/** The issuer's private keys, decrypted as an attacker with the database and the key-encryption key would. */

import { createDecipheriv, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import pg from 'pg';
import type { System } from '../../scripts/system/system.js';

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

export interface StolenKey {
  readonly kid: string;
  readonly algorithm: string;
  /** The public key as published. */
  readonly jwkText: string;
  readonly privateKey: KeyObject;
}

/** The key that signs tokens, and the key that signs broadcasts. */
export interface StolenKeys {
  readonly token: StolenKey;
  readonly broadcast: StolenKey;
}

/**
 * Decrypts the current signing keys. With them, a token can have a valid signature and one wrong claim; otherwise the
 * bad signature would hide whether the claim is checked.
 */
export async function stealKeys(system: System): Promise<StolenKeys> {
  const url = system.postgres?.url('portcullis_auth');
  if (url === undefined)
    throw new Error('the keys can be read only from a private database: unset DATABASE_URL');
  const keyEncryptionKey = Buffer.from(
    (await readFile(system.secrets.keyEncryptionKeyFile, 'utf8')).trim(),
    'base64url',
  );
  const client = new pg.Client(url);
  await client.connect();
  try {
    const { rows } = await client.query<EncryptedKeyRow>(
      `SELECT kid, purpose, algorithm, public_jwk, sealed_private_key FROM signing_keys WHERE state = 'signing'`,
    );
    const keyOf = (purpose: EncryptedKeyRow['purpose']): StolenKey => {
      const row = rows.find((candidate) => candidate.purpose === purpose);
      if (row === undefined) throw new Error(`there is no signing key of purpose ${purpose}`);
      return decryptKey(row, keyEncryptionKey);
    };
    return { token: keyOf('token'), broadcast: keyOf('broadcast') };
  } finally {
    await client.end();
  }
}

interface EncryptedKeyRow {
  readonly kid: string;
  readonly purpose: 'token' | 'broadcast';
  readonly algorithm: string;
  readonly public_jwk: string;
  readonly sealed_private_key: Buffer;
}

function decryptKey(row: EncryptedKeyRow, keyEncryptionKey: Buffer): StolenKey {
  const sealed = row.sealed_private_key;
  const decipher = createDecipheriv('aes-256-gcm', keyEncryptionKey, sealed.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAAD(Buffer.from(`${row.kid}\n${row.purpose}\n${row.algorithm}`, 'utf8'));
  decipher.setAuthTag(sealed.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES));
  const text = Buffer.concat([decipher.update(sealed.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()]);
  const privateKey = createPrivateKey(text.toString('utf8'));
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new Error('these attacks support EdDSA only');
  return { kid: row.kid, algorithm: row.algorithm, jwkText: row.public_jwk, privateKey };
}

/** Signs a text whose characters are one byte each. */
export function signatureOf(text: string, key: KeyObject): Buffer {
  return sign(null, Buffer.from(text, 'latin1'), key);
}
