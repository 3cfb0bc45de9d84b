/** Signing keys as the database has them, and their rows inside a transaction. */

/** What a key signs. One purpose's keys are never taken for the other's. */
export type KeyPurpose = 'token' | 'broadcast';

/**
 * A key's life: `next` is published and does not sign yet, `signing` signs, `verify-only` still
 * verifies what it signed, `retired` does nothing any more.
 */
export type KeyState = 'next' | 'signing' | 'verify-only' | 'retired';

/** A public key as it is published. */
export interface PublishedKey {
  readonly kid: string;
  readonly algorithm: string;
  /** The public key as JWK text. */
  readonly jwk: string;
}

/** Every key that verifies something now, as one reading of the database. */
export interface PublishedKeys {
  /** Keys of access tokens; `version` is the hash of their content. */
  readonly keySet: { readonly version: Buffer; readonly keys: readonly PublishedKey[] };
  /** Keys of broadcasts. */
  readonly broadcastKeys: readonly PublishedKey[];
}

/** A key that is not retired, as the database has it. */
export interface KeyRow extends PublishedKey {
  readonly purpose: KeyPurpose;
  readonly state: KeyState;
  /** Nonce, tag and ciphertext of AES-256-GCM over the PKCS #8 text. */
  readonly sealedPrivateKey: Buffer;
}

/** A key and what it did when, without any secret. */
export interface KeyRecord {
  readonly kid: string;
  readonly algorithm: string;
  readonly purpose: KeyPurpose;
  readonly state: KeyState;
  readonly createTime: Date;
  /** From when on everybody who reads the keys is told of it. */
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
  /** Without a time while it is not known that its publication has committed. */
  readonly next: { readonly kid: string; readonly publishTime: Date | undefined } | undefined;
  /** How many keys of the purpose are published. */
  readonly live: number;
  /** The longest lease that an answer given now grants. */
  readonly leaseMs: number;
  /** When the leases of a greater length, granted before it was lowered, are over. */
  readonly olderLeasesEndBy: Date;
}

/** The keys' rows, inside a transaction. Only keys of the log's current epoch are seen. */
export interface KeyRows extends KeyLifeRows {
  /** The current epoch of the revocation log, to which all these keys belong. */
  epoch(): Promise<Buffer>;
  /** Waits until no other replica makes keys; held until the end of the transaction. */
  lockMaking(): Promise<void>;
  /** Every key that is not retired. */
  live(): Promise<KeyRow[]>;
  insert(key: KeyRow): Promise<void>;
  /**
   * Takes a key out of publication for good, erases its private half, and answers what it was before; undefined
   * when there is no such key. Whoever mints waits until the end of the transaction.
   */
  retire(kid: string): Promise<{ readonly purpose: KeyPurpose; readonly state: KeyState } | undefined>;
  /** Retires every key and erases the private halves; whoever mints waits until the end of the transaction. */
  retireAll(): Promise<void>;
  /** Lets the purpose's next key sign, if there is one. */
  promoteNext(purpose: KeyPurpose): Promise<void>;
  /** The key that signs; its row stays share-locked until the end of the transaction. */
  lockSigning(purpose: KeyPurpose): Promise<KeyRow | undefined>;
  /** Whether this key still verifies; its row stays share-locked until the end of the transaction. */
  lockLive(kid: string): Promise<boolean>;
}

/** What the life of keys needs of their rows, inside a transaction. */
export interface KeyLifeRows {
  /** Notes that every key whose row has been committed is published by now. */
  markPublished(): Promise<void>;
  outlook(purpose: KeyPurpose): Promise<RotationOutlook>;
  /** Lets the key that signs only verify from now on; whoever mints waits until the end of the transaction. */
  stopSigning(purpose: KeyPurpose): Promise<void>;
  /** Retires the keys that have signed nothing for so many seconds, and answers which. */
  retireStopped(afterSeconds: number): Promise<string[]>;
  record(kid: string): Promise<KeyRecord | undefined>;
  /** Keys of every epoch, newest first. */
  list(request: { readonly pageSize: number; readonly pageToken: string }): Promise<KeyPage>;
}
