/** The signing keys of this issuer: created once for all replicas, encrypted at rest, and the signers that use them. */

import { type Clock, systemClock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { ACCESS_TOKEN_TYPE } from '@portcullis/guard/limits';
import { AuthError } from '../errors.js';
import type { KeyRow, PublishedKeys } from '../records/keys.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { createSign, type Sign } from './compact-signature.js';
import { adoptAlgorithm, createMissingKeys, insertMissingKeys, type NewKeyOptions } from './new-keys.js';
import { publish } from './published-keys.js';
import { KEY_ENCRYPTION_KEY_BYTES, unseal } from './sealed-keys.js';

/** `typ` of a broadcast. */
export const BROADCAST_TYPE = 'portcullis-revocations+jws';

/** `typ` of a receipt. */
const RECEIPT_TYPE = 'portcullis-receipt+jws';

/** How long the broadcast key is used before it is read again, in milliseconds. */
const BROADCAST_KEY_FRESH_MS = 1000;

/** When a caller should retry while no key exists yet, in milliseconds. */
const NO_KEY_RETRY_MS = 500;

/** Signs broadcasts of revocations. */
export interface BroadcastSigner {
  /**
   * Returns a compact JWS over the payload, by the present broadcast key.
   *
   * @param epoch - the epoch of the payload; without it, the last known epoch is used
   */
  sign(payload: Uint8Array, epoch?: Uint8Array): Promise<string>;
}

/** The keys of this issuer. */
export interface Keys {
  /**
   * Creates missing keys, and proves that every key can be used. Replaces a next token key of another algorithm than
   * the configured one; the new one signs from the next rotation on.
   *
   * @throws UnusableKeyError naming the `kid`
   */
  open(): Promise<void>;
  /** Creates the keys that are missing after a promotion, a revocation or a new epoch. */
  replenish(): Promise<void>;
  /** Creates a whole set of new keys, for the caller to insert. */
  createAll(): Promise<readonly KeyRow[]>;
  /**
   * Locks the key that signs access tokens, so that it cannot be retired before the transaction ends. Returns the
   * function that signs claims with it.
   */
  lockTokenSigner(tx: AuthTransaction): Promise<(claims: object) => Promise<string>>;
  /**
   * Signs the payload of a receipt: returns a compact JWS.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE while no key for receipts exists
   */
  signReceipt(payload: Uint8Array): Promise<string>;
  /** The signer of broadcasts. It can sign once {@link Keys.open} has returned. */
  broadcastSigner(): BroadcastSigner;
  /** The published keys, as the transaction sees them. */
  published(tx: AuthTransaction): Promise<PublishedKeys>;
}

/** The collaborators of the keys. */
export interface KeysDeps extends NewKeyOptions {
  readonly store: AuthStore;
  /** {@link KEY_ENCRYPTION_KEY_BYTES} bytes, from the environment or a file; never from the database. */
  readonly keyEncryptionKey: Buffer;
  /** Further key-encryption keys under which keys may be encrypted: the former one, or the next one. */
  readonly otherKeyEncryptionKeys?: readonly Buffer[];
  /** Whether the secrets of this process are read; until then no token is signed. */
  readonly canSign?: () => boolean;
  readonly clock?: Clock;
}

/** Creates the keys of this database. */
export function createKeys(deps: KeysDeps): Keys {
  const { store, keyEncryptionKey, otherKeyEncryptionKeys = [] } = deps;
  if (keyEncryptionKey.length !== KEY_ENCRYPTION_KEY_BYTES) {
    throw new TypeError(`the key-encryption key must have ${KEY_ENCRYPTION_KEY_BYTES} bytes`);
  }
  const signers = createSigners([keyEncryptionKey, ...otherKeyEncryptionKeys]);
  const broadcasts = createBroadcastKey(deps, signers);
  const replenish = async (): Promise<void> => {
    const created = await createMissingKeys(await store.transaction((tx) => tx.keys.live()), deps);
    if (created.length > 0) await insertMissingKeys(store, created);
    // In a transaction of its own, because only what has been committed is known to be published.
    await store.transaction((tx) => tx.keys.markPublished());
    await broadcasts.reload();
  };
  const openAll = async (): Promise<void> => {
    for (const row of await store.transaction((tx) => tx.keys.live())) await signers.open(row);
  };
  return {
    open: async () => {
      // Before any is created: keys under a wrong key-encryption key must not mix with the others.
      await openAll();
      await replenish();
      if (await adoptAlgorithm(store, deps)) await replenish();
      await openAll();
    },
    replenish,
    createAll: () => createMissingKeys([], deps),
    lockTokenSigner: (tx) => lockTokenSigner(tx, signers, deps.canSign),
    signReceipt: (payload) =>
      store.transaction(async (tx) => {
        const row = await tx.keys.lockSigning('receipt');
        if (row === undefined) throw noKeyYet('there is no key for receipts yet');
        return await signers.sign(row, RECEIPT_TYPE, payload);
      }),
    broadcastSigner: () => ({ sign: broadcasts.sign }),
    published: async (tx) => publish(await tx.keys.live()),
  };
}

async function lockTokenSigner(
  tx: AuthTransaction,
  signers: Signers,
  canSign: () => boolean = () => true,
): Promise<(claims: object) => Promise<string>> {
  if (!canSign()) throw noKeyYet('the secrets are not read yet');
  const row = await tx.keys.lockSigning('token');
  if (row === undefined) throw noKeyYet('there is no signing key yet');
  return (claims) => signers.sign(row, ACCESS_TOKEN_TYPE, Buffer.from(JSON.stringify(claims), 'utf8'));
}

function noKeyYet(message: string): ServiceError {
  return new AuthError('DEPENDENCY_UNAVAILABLE', message, { retryAfterMs: NO_KEY_RETRY_MS });
}

/** The decrypted keys of one process. */
interface Signers {
  /** @throws UnusableKeyError */
  open(row: KeyRow): Promise<Sign>;
  sign(row: KeyRow, type: string, payload: Uint8Array): Promise<string>;
  /** Forgets all keys but these. */
  retain(rows: readonly KeyRow[]): void;
}

function createSigners(keyEncryptionKeys: readonly Buffer[]): Signers {
  const opened = new Map<string, Sign>();
  const open = async (row: KeyRow): Promise<Sign> => {
    const known = opened.get(row.kid);
    if (known) return known;
    const sign = createSign(row, await unseal(row, keyEncryptionKeys));
    opened.set(row.kid, sign);
    return sign;
  };
  return {
    open,
    sign: async (row, type, payload) => await (await open(row))(type, payload),
    retain: (rows) => {
      for (const kid of opened.keys()) if (!rows.some((row) => row.kid === kid)) opened.delete(kid);
    },
  };
}

/** The key that signs broadcasts, as it was last read. */
interface BroadcastKey {
  readonly epoch: Buffer;
  readonly key: KeyRow;
  readonly readAtMs: number;
}

/** Keeps the key that signs broadcasts up to date. */
function createBroadcastKey({ store, clock = systemClock }: KeysDeps, signers: Signers) {
  let current: BroadcastKey | undefined;
  let reloading: Promise<void> | undefined;

  const readNow = async (): Promise<void> => {
    const { epoch, rows } = await store.transaction(async ({ keys }) => ({
      epoch: await keys.epoch(),
      rows: await keys.live(),
    }));
    const key = rows.find(({ purpose, state }) => purpose === 'broadcast' && state === 'signing');
    signers.retain(rows);
    current = key && { epoch, key, readAtMs: clock.monotonicMs() };
  };
  const reload = (): Promise<void> => {
    reloading ??= readNow().finally(() => {
      reloading = undefined;
    });
    return reloading;
  };

  return {
    /** Reads the key again; concurrent calls share one read. */
    reload,
    sign: async (payload: Uint8Array, epoch?: Uint8Array): Promise<string> => {
      if (current === undefined) throw new Error('no key signs broadcasts');
      if (epoch !== undefined && !current.epoch.equals(epoch)) await reload();
      const { key, epoch: known, readAtMs } = current;
      if (epoch !== undefined && !known.equals(epoch)) throw new Error('the epoch of the entries is over');
      // Another replica may have retired the key. The reload runs in the background, because a broadcast that instances
      // reject only delays the revocation until their next sync.
      if (clock.monotonicMs() - readAtMs > BROADCAST_KEY_FRESH_MS) reload().catch(() => undefined);
      return await signers.sign(key, BROADCAST_TYPE, payload);
    },
  };
}
