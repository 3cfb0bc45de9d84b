/** The issuer's private keys, taken as an intruder would who has both the database and the key-encryption key. */

import { createDecipheriv, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import pg from 'pg';
import type { System } from '../../scripts/system/system.js';

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** A key of the issuer, both halves. */
export interface StolenKey {
  readonly kid: string;
  readonly algorithm: string;
  /** The public key as it is published. */
  readonly jwkText: string;
  readonly privateKey: KeyObject;
}

/** What signs tokens, and what signs broadcasts. */
export interface StolenKeys {
  readonly token: StolenKey;
  readonly broadcast: StolenKey;
}

/**
 * Opens the keys that sign now. With them a token can be wrong in one claim and right in its signature:
 * otherwise the signature would hide whether anybody looks at the claim.
 */
export async function stealKeys(system: System): Promise<StolenKeys> {
  const url = system.postgres?.url('portcullis_auth');
  if (url === undefined) throw new Error('the keys can be taken from a database of our own alone');
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
    const opened = (purpose: EncryptedKeyRow['purpose']): StolenKey => {
      const row = rows.find((candidate) => candidate.purpose === purpose);
      if (row === undefined) throw new Error(`no key of purpose ${purpose} signs`);
      return decryptKey(row, keyEncryptionKey);
    };
    return { token: opened('token'), broadcast: opened('broadcast') };
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
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new Error('these attacks are made for EdDSA');
  return { kid: row.kid, algorithm: row.algorithm, jwkText: row.public_jwk, privateKey };
}

/** The signature over the bytes of a text, each character one byte. */
export function signatureOf(text: string, key: KeyObject): Buffer {
  return sign(null, Buffer.from(text, 'latin1'), key);
}
