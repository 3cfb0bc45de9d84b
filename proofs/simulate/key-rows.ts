/** The rows of signing keys and stored secrets in the simulated database. */

import type { KeyRow } from '../../services/auth/records/keys.js';
import type { AuthTransaction } from '../../services/auth/transaction.js';
import type { Transaction } from './database.js';
import { onlyThese } from './only-these.js';

interface StoredSecret {
  readonly sealed: Buffer;
}

/** A key and the epoch that it belongs to. */
export type StoredKey = KeyRow & { readonly epoch: Buffer };

/**
 * The rows of signing keys and stored secrets, inside a transaction.
 *
 * @param epochOf - reads the current epoch of the log
 */
export function keyRows(transaction: Transaction, epochOf: () => Buffer): AuthTransaction['keys'] {
  const live = (): StoredKey[] => liveKeys(transaction.all('keys'), epochOf());
  const change = (key: StoredKey, state: KeyRow['state']): void =>
    transaction.put('keys', key.kid, { ...key, state });
  return onlyThese<AuthTransaction['keys']>({
    epoch: () => transaction.statement(() => epochOf()),
    lockCreation: () => transaction.statement(() => transaction.lock('making keys', 'exclusive')),
    live: () => transaction.statement(live),
    insert: (key) =>
      transaction.statement(() => transaction.put('keys', key.kid, { ...key, epoch: epochOf() })),
    retire: (kid) =>
      transaction.statement(async () => {
        await transaction.lock('keys', 'exclusive');
        const key = transaction.get('keys', kid) as StoredKey | undefined;
        if (key === undefined || !key.epoch.equals(epochOf())) return undefined;
        change(key, 'retired');
        return key;
      }),
    retireAll: () =>
      transaction.statement(async () => {
        await transaction.lock('keys', 'exclusive');
        for (const key of live()) change(key, 'retired');
      }),
    // The publish time matters only to scheduled rotation, which is not simulated.
    markPublished: () => transaction.statement(() => undefined),
    promoteNext: (purpose) =>
      transaction.statement(() => {
        for (const key of live()) if (key.purpose === purpose && key.state === 'next') change(key, 'signing');
      }),
    lockSigning: (purpose) =>
      transaction.statement(async () => {
        await transaction.lock('keys', 'share');
        return live().find((key) => key.purpose === purpose && key.state === 'signing');
      }),
    sealed: () =>
      transaction.statement(() => {
        const all = [...transaction.all('keys').values()] as StoredKey[];
        return all.filter(({ state }) => state !== 'retired').sort(byKid);
      }),
    reseal: (row, to) =>
      transaction.statement(async () => {
        const isKey = 'kid' in row;
        if (isKey) await transaction.lock('keys', 'exclusive');
        const found = isKey ? transaction.get('keys', row.kid) : transaction.get('secrets', row.purpose);
        const former = isKey
          ? (found as StoredKey | undefined)?.sealedPrivateKey
          : (found as StoredSecret | undefined)?.sealed;
        if (former === undefined || !former.equals(row.sealed)) return false;
        if (isKey) transaction.put('keys', row.kid, { ...found, sealedPrivateKey: to });
        else transaction.put('secrets', row.purpose, { sealed: to });
        return true;
      }),
    secrets: () =>
      transaction.statement(() => {
        const rows = [...transaction.all('secrets')] as [string, StoredSecret][];
        return new Map(rows.map(([purpose, { sealed }]) => [purpose, sealed]));
      }),
    putSecret: (purpose, sealed) =>
      transaction.statement(() => transaction.put('secrets', purpose, { sealed })),
    lockLive: (kid) =>
      transaction.statement(async () => {
        await transaction.lock('keys', 'share');
        return live().some((key) => key.kid === kid);
      }),
  });
}

/** The keys of an epoch that are not retired, by kid. */
export function liveKeys(keys: ReadonlyMap<string, object>, epoch: Buffer): StoredKey[] {
  const live: StoredKey[] = [];
  for (const row of keys.values()) {
    const key = row as StoredKey;
    if (key.state !== 'retired' && key.epoch.equals(epoch)) live.push(key);
  }
  return live.sort(byKid);
}

function byKid(one: StoredKey, other: StoredKey): number {
  return one.kid < other.kid ? -1 : 1;
}
