/** What is published of the keys, and a shared read of it for callers from outside. */

import { createHash } from 'node:crypto';
import type { KeyPurpose, KeyRow, PublishedKey, PublishedKeys } from '../records/keys.js';
import { createSharedReads } from '../revocation/shared-reads.js';
import type { AuthStore } from '../transaction.js';

/** The published keys for callers from outside. */
export interface PublicKeys {
  /** The epoch and its keys, from a read of the database that begins after the call. */
  read(): Promise<PublishedKeys & { readonly epoch: Buffer }>;
}

/** Creates shared reads of the published keys, because any client may request them at any rate. */
export function createPublicKeys(store: AuthStore): PublicKeys {
  const reads = createSharedReads<undefined, PublishedKeys & { readonly epoch: Buffer }>(async () => {
    const published = await store.transaction(async ({ keys }) => ({
      epoch: await keys.epoch(),
      ...publish(await keys.live()),
    }));
    return () => published;
  });
  return { read: () => reads.read(undefined) };
}

/** The public part of these keys, in one order. */
export function publish(rows: readonly KeyRow[]): PublishedKeys {
  const keysOf = (wanted: KeyPurpose): PublishedKey[] =>
    rows
      .filter(({ purpose }) => purpose === wanted)
      .map(({ kid, algorithm, jwk }) => ({ kid, algorithm, jwk }))
      .sort((a, b) => (a.kid < b.kid ? -1 : 1));
  const keys = keysOf('token');
  return { keySet: { version: versionOf(keys), keys }, broadcastKeys: keysOf('broadcast') };
}

/** Equal for equal sets. The keys are in the order of their ids. */
function versionOf(keys: readonly PublishedKey[]): Buffer {
  const lines = keys.map(({ kid, algorithm, jwk }) => `${kid}\n${algorithm}\n${jwk}\n`);
  return createHash('sha256').update(lines.join(''), 'utf8').digest();
}
