/** Signing keys: made once for all replicas, encrypted at rest, published whole. */

import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { type Clock, systemClock } from '@portcullis/guard/clock';
import { ACCESS_TOKEN_TYPE, type SIGNATURE_ALGORITHMS } from '@portcullis/guard/limits';
import type { CryptoKey, JWK } from 'jose';
import { calculateJwkThumbprint, exportJWK, exportPKCS8, generateKeyPair, importPKCS8 } from 'jose';
import { AuthError } from '../errors.js';
import type { KeyPurpose, KeyRow, KeyState, PublishedKey, PublishedKeys } from '../records/keys.js';
import { createSharedReads } from '../revocation/shared-reads.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { createSign, type Sign } from './compact-signature.js';

/** An algorithm that may sign access tokens. */
export type SigningAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

/** Bits of a new RSA key. */
export const RSA_MODULUS_BITS = 3072;

/** Bytes of the key that encrypts the private keys. */
export const KEY_ENCRYPTION_KEY_BYTES = 32;

/** `typ` of a broadcast. */
export const BROADCAST_TYPE = 'portcullis-revocations+jws';

/** After this many milliseconds the key that signs broadcasts is read again. */
export const BROADCAST_KEY_FRESH_MS = 1000;

/** When to ask again while no key has been made yet, in milliseconds. */
export const NO_KEY_RETRY_MS = 500;

/** The published keys, for whoever asks from outside. */
export interface PublicKeys {
  /** The epoch and its keys, from a reading of the database that begins after the call. */
  read(): Promise<PublishedKeys & { readonly epoch: Buffer }>;
}

/** Signs broadcasts of revocations. */
export interface BroadcastSigner {
  /**
   * A compact JWS over the payload, by the broadcast key that signs now.
   *
   * @param epoch - the epoch that the payload belongs to; whichever is known when absent
   */
  sign(payload: Uint8Array, epoch?: Uint8Array): Promise<string>;
}

/** The keys of this issuer. */
export interface Keys {
  /**
   * Makes the keys where there are none, and proves that every key can be used. A next key of another algorithm
   * than the configured one makes way for one of that algorithm, which then signs from the next rotation on.
   *
   * @throws UnusableKeyError naming the `kid`
   */
  open(): Promise<void>;
  /** Makes the keys that have come to lack, because one was promoted or revoked or an epoch was opened. */
  replenish(): Promise<void>;
  /** A whole set of new keys, to be inserted by the caller. */
  makeAll(): Promise<readonly KeyRow[]>;
  /**
   * Locks the key that signs access tokens now, so that it cannot be retired before the transaction
   * ends, and answers the function that signs claims with it.
   */
  lockTokenSigner(tx: AuthTransaction): Promise<(claims: object) => Promise<string>>;
  /** The signer of broadcasts. It can sign once {@link Keys.open} has returned. */
  broadcastSigner(): BroadcastSigner;
  /** The published keys, as the transaction sees them. */
  published(tx: AuthTransaction): Promise<PublishedKeys>;
}

/** A stored key cannot be used: the service must not start with it. */
export class UnusableKeyError extends Error {
  readonly kid: string;

  constructor(kid: string, problem: string, options?: ErrorOptions) {
    super(`signing key ${kid} cannot be used: ${problem}`, options);
    this.name = 'UnusableKeyError';
    this.kid = kid;
  }
}

/** What {@link createKeys} needs. */
export interface KeysDeps {
  readonly store: AuthStore;
  /** 32 bytes, from the environment or a file; never from the database. */
  readonly keyEncryptionKey: Buffer;
  /** For keys that are still to be made. */
  readonly algorithm: SigningAlgorithm;
  readonly clock?: Clock;
}

/** The key that signs broadcasts, as it was last read. */
interface Broadcasting {
  readonly epoch: Buffer;
  readonly key: KeyRow;
  readonly readAtMs: number;
}

/** The keys in this database, opened with the given key-encryption key. */
export function createKeys({ store, keyEncryptionKey, algorithm, clock = systemClock }: KeysDeps): Keys {
  if (keyEncryptionKey.length !== KEY_ENCRYPTION_KEY_BYTES) {
    throw new TypeError(`the key-encryption key must have ${KEY_ENCRYPTION_KEY_BYTES} bytes`);
  }
  const opened = new Map<string, Sign>();
  const making = { keyEncryptionKey, algorithm };
  let broadcasting: Broadcasting | undefined;
  let reloading: Promise<void> | undefined;

  const open = async (row: KeyRow): Promise<Sign> => {
    const known = opened.get(row.kid);
    if (known) return known;
    const sign = createSign(row, await unseal(row, keyEncryptionKey));
    opened.set(row.kid, sign);
    return sign;
  };
  const sign = async (row: KeyRow, type: string, payload: Uint8Array): Promise<string> => {
    return await (await open(row))(type, payload);
  };

  const reload = async (): Promise<void> => {
    const { epoch, rows } = await store.transaction(async ({ keys }) => ({
      epoch: await keys.epoch(),
      rows: await keys.live(),
    }));
    const key = rows.find(({ purpose, state }) => purpose === 'broadcast' && state === 'signing');
    for (const kid of opened.keys()) if (!rows.some((row) => row.kid === kid)) opened.delete(kid);
    broadcasting = key && { epoch, key, readAtMs: clock.monotonicMs() };
  };
  const reloadOnce = (): Promise<void> => {
    reloading ??= reload().finally(() => {
      reloading = undefined;
    });
    return reloading;
  };
  const replenish = async (): Promise<void> => {
    const missing = await makeMissingKeys(await store.transaction((tx) => tx.keys.live()), making);
    if (missing.length > 0) await store.transaction((tx) => insertStillMissing(tx, missing));
    // In a transaction of its own: only what has been committed is known to be published.
    await store.transaction((tx) => tx.keys.markPublished());
    await reloadOnce();
  };
  const adoptAlgorithm = async (): Promise<void> => {
    const isOutdated = (row: KeyRow): boolean =>
      row.purpose === 'token' && row.state === 'next' && row.algorithm !== algorithm;
    const outdated = (await store.transaction((tx) => tx.keys.live())).find(isOutdated);
    if (outdated === undefined) return;
    const made = await makeKey('token', 'next', algorithm, keyEncryptionKey);
    await store.transaction(async (tx) => {
      await tx.keys.lockMaking();
      // It may have begun to sign meanwhile, or another replica may have been faster.
      if (!(await tx.keys.live()).some((row) => row.kid === outdated.kid && isOutdated(row))) return;
      await tx.keys.retire(outdated.kid);
      await tx.keys.insert(made);
    });
    await replenish();
  };

  return {
    open: async () => {
      // Before any is made: keys under a wrong key-encryption key must not get among the others.
      for (const row of await store.transaction((tx) => tx.keys.live())) await open(row);
      await replenish();
      await adoptAlgorithm();
      for (const row of await store.transaction((tx) => tx.keys.live())) await open(row);
    },
    replenish,
    makeAll: () => makeMissingKeys([], making),
    lockTokenSigner: async (tx) => {
      const row = await tx.keys.lockSigning('token');
      if (row === undefined) {
        const retryAfterMs = NO_KEY_RETRY_MS;
        throw new AuthError('DEPENDENCY_UNAVAILABLE', 'there is no signing key yet', { retryAfterMs });
      }
      return (claims) => sign(row, ACCESS_TOKEN_TYPE, Buffer.from(JSON.stringify(claims), 'utf8'));
    },
    broadcastSigner: () => ({
      sign: async (payload, epoch) => {
        if (broadcasting === undefined) throw new Error('no key signs broadcasts');
        if (epoch !== undefined && !broadcasting.epoch.equals(epoch)) await reloadOnce();
        const { key, epoch: known, readAtMs } = broadcasting;
        if (epoch !== undefined && !known.equals(epoch)) throw new Error('the epoch of the entries is over');
        // Another replica may have retired the key. Nobody waits for that: a broadcast that is not believed costs
        // the next sync.
        if (clock.monotonicMs() - readAtMs > BROADCAST_KEY_FRESH_MS) reloadOnce().catch(() => undefined);
        return await sign(key, BROADCAST_TYPE, payload);
      },
    }),
    published: async (tx) => publish(await tx.keys.live()),
  };
}

/** Shares readings, because anybody may ask, and as often as they like. */
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

/** What is published of these keys. */
export function publish(rows: readonly KeyRow[]): PublishedKeys {
  const keysOf = (wanted: KeyPurpose): PublishedKey[] =>
    rows
      .filter(({ purpose }) => purpose === wanted)
      .map(({ kid, algorithm, jwk }) => ({ kid, algorithm, jwk }))
      .sort((a, b) => (a.kid < b.kid ? -1 : 1));
  const keys = keysOf('token');
  return { keySet: { version: versionOf(keys), keys }, broadcastKeys: keysOf('broadcast') };
}

/** Equal for equal sets, whatever order the keys come in. */
function versionOf(keys: readonly PublishedKey[]): Buffer {
  const lines = keys.map(({ kid, algorithm, jwk }) => `${kid}\n${algorithm}\n${jwk}\n`).sort();
  return createHash('sha256').update(lines.join(''), 'utf8').digest();
}

/** Made outside of any transaction, because an RSA key may take longer than a transaction may. */
async function makeMissingKeys(
  live: readonly KeyRow[],
  { keyEncryptionKey, algorithm }: Pick<KeysDeps, 'keyEncryptionKey' | 'algorithm'>,
): Promise<KeyRow[]> {
  const algorithmOf = { token: algorithm, broadcast: 'EdDSA' } as const;
  const made: KeyRow[] = [];
  for (const purpose of ['token', 'broadcast'] as const) {
    for (const state of ['signing', 'next'] as const) {
      if (hasKey(live, { purpose, state })) continue;
      made.push(await makeKey(purpose, state, algorithmOf[purpose], keyEncryptionKey));
    }
  }
  return made;
}

/** Replicas that start at once must not use a set each: the first one's is kept, the others find it. */
async function insertStillMissing(tx: AuthTransaction, made: readonly KeyRow[]): Promise<KeyRow[]> {
  await tx.keys.lockMaking();
  const live = await tx.keys.live();
  for (const key of made) if (!hasKey(live, key)) await tx.keys.insert(key);
  return await tx.keys.live();
}

function hasKey(rows: readonly KeyRow[], { purpose, state }: Pick<KeyRow, 'purpose' | 'state'>): boolean {
  return rows.some((row) => row.purpose === purpose && row.state === state);
}

async function makeKey(
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

type KeyIdentity = Pick<KeyRow, 'kid' | 'purpose' | 'algorithm'>;

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Binds the ciphertext to its row: a private key copied to another row, another purpose or another
 * algorithm does not open there.
 */
function associatedData({ kid, purpose, algorithm }: KeyIdentity): Buffer {
  return Buffer.from(`${kid}\n${purpose}\n${algorithm}`, 'utf8');
}

function seal(identity: KeyIdentity, privateKeyText: string, keyEncryptionKey: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyEncryptionKey, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(associatedData(identity));
  const ciphertext = Buffer.concat([cipher.update(privateKeyText, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), ciphertext]);
}

async function unseal(row: KeyRow, keyEncryptionKey: Buffer): Promise<CryptoKey> {
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
  // The public half is not encrypted. Were it replaced, others would trust tokens of somebody else's key.
  if (!(await isPublicHalf(row.jwk, privateKey))) {
    throw new UnusableKeyError(kid, 'its public half belongs to another private key');
  }
  return privateKey;
}

function doesNotOpen(kid: string, cause: unknown): UnusableKeyError {
  return new UnusableKeyError(kid, 'the key-encryption key is another one, or the row was changed', {
    cause,
  });
}

async function isPublicHalf(jwkText: string, privateKey: CryptoKey): Promise<boolean> {
  try {
    const stated = await calculateJwkThumbprint(JSON.parse(jwkText) as JWK);
    return stated === (await calculateJwkThumbprint(publicMembers(await exportJWK(privateKey))));
  } catch {
    return false;
  }
}

/** The members that RFC 7638 hashes: all that is needed to verify, and nothing private. */
function publicMembers(jwk: JWK): JWK {
  const { kty, crv, x, y, n, e } = jwk;
  const members = Object.entries({ kty, crv, x, y, n, e }).filter(([, value]) => value !== undefined);
  return Object.fromEntries(members) as JWK;
}
