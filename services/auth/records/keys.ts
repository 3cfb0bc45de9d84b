/** Signing keys as the database has them, and their rows inside a transaction. */

/** What a key signs. A key of one purpose never verifies signatures of another. */
export type KeyPurpose = 'token' | 'broadcast' | 'receipt';

/**
 * The states of a key, in order: `next` is published and does not sign yet, `signing` signs, `verify-only` only
 * verifies earlier signatures, `retired` is no longer published.
 */
export type KeyState = 'next' | 'signing' | 'verify-only' | 'retired';

/** A public key as it is published. */
export interface PublishedKey {
  readonly kid: string;
  readonly algorithm: string;
  /** The public key as JWK text. */
  readonly jwk: string;
}

/** All keys that verify signatures now, from one snapshot of the database. */
export interface PublishedKeys {
  /** The keys of access tokens; `version` is a hash of the set. */
  readonly keySet: { readonly version: Buffer; readonly keys: readonly PublishedKey[] };
  /** The keys of broadcasts. */
  readonly broadcastKeys: readonly PublishedKey[];
}

/** A key that is not retired, as the database has it. */
export interface KeyRow extends PublishedKey {
  readonly purpose: KeyPurpose;
  readonly state: KeyState;
  /** Nonce, tag and ciphertext of AES-256-GCM over the PKCS #8 text. */
  readonly sealedPrivateKey: Buffer;
}

/** A ciphertext and where it is stored: a private key by its `kid`, or a secret by its purpose. */
export type SealedRow = { readonly sealed: Buffer } & (
  | { readonly kid: string }
  | { readonly purpose: string }
);

/** A key and the times of its states, without its private half. */
export interface KeyRecord {
  readonly kid: string;
  readonly algorithm: string;
  readonly purpose: KeyPurpose;
  readonly state: KeyState;
  readonly createTime: Date;
  /** From this time on, every reading of the key set contains the key. */
  readonly publishTime: Date | undefined;
  readonly signTime: Date | undefined;
  readonly stopTime: Date | undefined;
  readonly retireTime: Date | undefined;
}

/** A page of keys, newest first. */
export interface KeyPage {
  readonly keys: readonly KeyRecord[];
  readonly nextPageToken: string;
}

/** What decides whether the next key may sign. All times are the database's. */
export interface RotationOutlook {
  readonly now: Date;
  readonly signing: { readonly kid: string; readonly signTime: Date } | undefined;
  /** `publishTime` is undefined until the commit of its publication is known. */
  readonly next: { readonly kid: string; readonly publishTime: Date | undefined } | undefined;
  /** How many keys of the purpose are published. */
  readonly live: number;
  /** The longest lease that a sync response grants now. */
  readonly leaseMs: number;
  /** When the last lease of a former, greater length ends. */
  readonly olderLeasesEndBy: Date;
}

/** The rows of signing keys, inside a transaction. Only keys of the log's current epoch are visible. */
export interface KeyRows extends KeyLifeRows {
  /** The current epoch of the revocation log. */
  epoch(): Promise<Buffer>;
  /** Waits until no other replica makes keys, and prevents it until the end of the transaction. */
  lockCreation(): Promise<void>;
  /** Every key that is not retired. */
  live(): Promise<KeyRow[]>;
  insert(key: KeyRow): Promise<void>;
  /**
   * Retires a key, deletes its private half, and returns its purpose and former state; undefined when there is no such
   * key. Minting tokens waits until the end of the transaction.
   */
  retire(kid: string): Promise<{ readonly purpose: KeyPurpose; readonly state: KeyState } | undefined>;
  /** Retires all keys and deletes their private halves. Minting tokens waits until the end of the transaction. */
  retireAll(): Promise<void>;
  /** Moves the purpose's `next` key to `signing`, if there is one. */
  promoteNext(purpose: KeyPurpose): Promise<void>;
  /** The signing key; its row stays share-locked until the end of the transaction. */
  lockSigning(purpose: KeyPurpose): Promise<KeyRow | undefined>;
  /** Every row that has a private half, of any epoch. */
  sealed(): Promise<KeyRow[]>;
  /**
   * Replaces the ciphertext of a private key or a secret, if it is still the given one; returns whether it did. Minting
   * tokens waits until the end of the transaction.
   */
  reseal(row: SealedRow, to: Buffer): Promise<boolean>;
  /** The stored secrets by purpose, each encrypted. */
  secrets(): Promise<ReadonlyMap<string, Buffer>>;
  /** Stores a secret; replaces a stored one. */
  putSecret(purpose: string, sealed: Buffer): Promise<void>;
  /** Whether this key still verifies; its row stays share-locked until the end of the transaction. */
  lockLive(kid: string): Promise<boolean>;
}

/** The part of the key rows that the key life cycle uses, inside a transaction. */
interface KeyLifeRows {
  /** Sets the publish time of every key whose row has been committed and has none yet. */
  markPublished(): Promise<void>;
  rotationOutlook(purpose: KeyPurpose): Promise<RotationOutlook>;
  /** Moves the signing key to `verify-only`. Minting tokens waits until the end of the transaction. */
  stopSigning(purpose: KeyPurpose): Promise<void>;
  /** Retires the keys that stopped signing more than `afterSeconds` ago, and returns their ids. */
  retireStopped(afterSeconds: number): Promise<string[]>;
  record(kid: string): Promise<KeyRecord | undefined>;
  /** Keys of every epoch, newest first. */
  list(request: { readonly pageSize: number; readonly pageToken: string }): Promise<KeyPage>;
}
