/** Encrypts private keys and secrets again when another key-encryption key takes the place of the former one. */

import type { SealedRow } from '../records/keys.js';
import type { AuthStore } from '../transaction.js';
import { associatedData, encrypt, type KeyEncryptionKeys, secretData, tryDecrypt } from './sealed-keys.js';

/** What a run has done. */
interface ReEncrypted {
  /** Number of private keys and secrets that are now encrypted under the current key. */
  readonly replaced: number;
  /** Number of those that still are not. */
  readonly left: number;
}

/** The re-encryption of one process. */
export interface ReEncryption {
  /**
   * Encrypts everything under the current key, one row at a time: a process that is killed meanwhile loses nothing, and
   * the next run, of any replica, continues. Keys in use stay in use.
   */
  run(): Promise<ReEncrypted>;
  /** What the last run has left. */
  left(): number;
}

interface SealedItem {
  readonly row: SealedRow;
  readonly associated: Buffer;
}

export function createReEncryption(deps: {
  readonly store: AuthStore;
  readonly keyEncryptionKeys: KeyEncryptionKeys;
}): ReEncryption {
  let left = 0;
  return {
    run: async () => {
      const result = await reEncrypt(deps.store, deps.keyEncryptionKeys);
      left = result.left;
      return result;
    },
    left: () => left,
  };
}

async function reEncrypt(store: AuthStore, keys: KeyEncryptionKeys): Promise<ReEncrypted> {
  let replaced = 0;
  let left = 0;
  for (const { row, associated } of await sealedItems(store)) {
    if (tryDecrypt(associated, row.sealed, keys.current) !== undefined) continue;
    const plaintext = tryDecrypt(associated, row.sealed, keys.previous);
    if (plaintext === undefined) {
      left += 1;
      continue;
    }
    const sealed = encrypt(associated, plaintext, keys.current);
    // Another replica may have been faster, or the key was retired meanwhile.
    if (await store.transaction((tx) => tx.keys.reseal(row, sealed))) replaced += 1;
  }
  if (replaced > 0) await recordReplacement(store, replaced);
  return { replaced, left };
}

async function sealedItems(store: AuthStore): Promise<readonly SealedItem[]> {
  const { keys, secrets } = await store.transaction(async (tx) => ({
    keys: await tx.keys.sealed(),
    secrets: await tx.keys.secrets(),
  }));
  return [
    ...keys.map((key) => ({
      row: { kid: key.kid, sealed: key.sealedPrivateKey },
      associated: associatedData(key),
    })),
    ...[...secrets].map(([purpose, sealed]) => ({
      row: { purpose, sealed },
      associated: secretData(purpose),
    })),
  ];
}

async function recordReplacement(store: AuthStore, keys: number): Promise<void> {
  await store.transaction((tx) =>
    tx.events.record({
      type: 'key-encryption-key-replaced',
      subject: {},
      actor: 'auth',
      reason: 'another key-encryption key is configured',
      network: '',
      details: { keys },
    }),
  );
}
