/** Creates the keys that are missing, once for all replicas. */

import { randomBytes } from 'node:crypto';
import type { SIGNATURE_ALGORITHMS } from '@portcullis/guard/limits';
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose';
import type { KeyPurpose, KeyRow, KeyState } from '../records/keys.js';
import type { AuthStore } from '../transaction.js';
import { publicMembers, seal } from './sealed-keys.js';

/** An algorithm that may sign access tokens. */
export type SigningAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

/** Bits of a new RSA key. */
const RSA_MODULUS_BITS = 3072;

/** What every new key needs. */
export interface NewKeyOptions {
  readonly keyEncryptionKey: Buffer;
  /** The algorithm of new token keys; the others are always EdDSA. */
  readonly algorithm: SigningAlgorithm;
}

/** Creates the keys that the live keys lack, outside of any transaction: an RSA key takes longer than one may last. */
export async function createMissingKeys(
  live: readonly KeyRow[],
  { keyEncryptionKey, algorithm }: NewKeyOptions,
): Promise<KeyRow[]> {
  const algorithmOf = { token: algorithm, broadcast: 'EdDSA', receipt: 'EdDSA' } as const;
  const created: KeyRow[] = [];
  for (const purpose of ['token', 'broadcast', 'receipt'] as const) {
    for (const state of ['signing', 'next'] as const) {
      if (hasKey(live, { purpose, state })) continue;
      created.push(await createKey(purpose, state, algorithmOf[purpose], keyEncryptionKey));
    }
  }
  return created;
}

/** Inserts the created keys that are still missing. Of replicas that start at once, the first one's keys count. */
export async function insertMissingKeys(store: AuthStore, created: readonly KeyRow[]): Promise<void> {
  await store.transaction(async (tx) => {
    await tx.keys.lockCreation();
    const live = await tx.keys.live();
    for (const key of created) if (!hasKey(live, key)) await tx.keys.insert(key);
  });
}

/** Replaces a next token key of another algorithm than the configured one; returns whether it did. */
export async function adoptAlgorithm(
  store: AuthStore,
  { keyEncryptionKey, algorithm }: NewKeyOptions,
): Promise<boolean> {
  const isOutdated = (row: KeyRow): boolean =>
    row.purpose === 'token' && row.state === 'next' && row.algorithm !== algorithm;
  const outdated = (await store.transaction((tx) => tx.keys.live())).find(isOutdated);
  if (outdated === undefined) return false;
  const created = await createKey('token', 'next', algorithm, keyEncryptionKey);
  await store.transaction(async (tx) => {
    await tx.keys.lockCreation();
    // It may have begun to sign meanwhile, or another replica may have replaced it.
    if (!(await tx.keys.live()).some((row) => row.kid === outdated.kid && isOutdated(row))) return;
    await tx.keys.retire(outdated.kid);
    await tx.keys.insert(created);
  });
  return true;
}

function hasKey(rows: readonly KeyRow[], { purpose, state }: Pick<KeyRow, 'purpose' | 'state'>): boolean {
  return rows.some((row) => row.purpose === purpose && row.state === state);
}

async function createKey(
  purpose: KeyPurpose,
  state: KeyState,
  algorithm: SigningAlgorithm,
  keyEncryptionKey: Buffer,
): Promise<KeyRow> {
  const pair = await generateKeyPair(algorithm, { extractable: true, modulusLength: RSA_MODULUS_BITS });
  const kid = randomBytes(16).toString('base64url');
  const jwk = JSON.stringify(publicMembers(await exportJWK(pair.publicKey)));
  const identity = { kid, purpose, algorithm };
  const privateKeyText = await exportPKCS8(pair.privateKey);
  return { ...identity, state, jwk, sealedPrivateKey: seal(identity, privateKeyText, keyEncryptionKey) };
}
