/** Signing keys: made once, encrypted at rest, published whole. */

/** What a key signs. */
export type KeyPurpose = 'token' | 'broadcast';

/** A public key as it is published. */
export interface PublishedKey {
  readonly kid: string;
  readonly algorithm: string;
  readonly jwk: string;
}

/** Every key that verifies something now, as one reading of the database. */
export interface PublishedKeys {
  /** Keys of access tokens; `version` is the hash of their content. */
  readonly keySet: { readonly version: Buffer; readonly keys: readonly PublishedKey[] };
  /** Keys of broadcasts. */
  readonly broadcastKeys: readonly PublishedKey[];
}

/** The keys' rows, inside a transaction. */
export interface KeyRows {
  /** The published keys of the current epoch. */
  published(): Promise<PublishedKeys>;
}

/** Signs broadcasts of revocations. */
export interface BroadcastSigner {
  /** A compact JWS over the payload, by the broadcast key that signs now. */
  sign(payload: Uint8Array): Promise<string>;
}
