/** Signatures as a list of signed messages: forging is impossible here, so that only the protocol is tested. */

import type { CompactToken, VerificationKeys } from '@portcullis/guard/internal';
import type { PublicKey } from '../../proto/gen/portcullis/token/v1/token.js';
import type { Random } from '../shared/random.js';

/** The one algorithm of these keys. */
const ALGORITHM = 'EdDSA';

const SIGNATURE_BYTES = 12;

/** Signs messages and records them. */
export class Signatures {
  readonly #random: Random;
  readonly #signed = new Map<string, string>();

  constructor(random: Random) {
    this.#random = random;
  }

  /** A compact JWS by the key. */
  sign(keyId: string, type: string, payload: Uint8Array): string {
    const text = this.forge(keyId, type, payload);
    this.#signed.set(text, keyId);
    return text;
  }

  /** A well-formed compact JWS with an invalid signature. */
  forge(keyId: string, type: string, payload: Uint8Array): string {
    const header = Buffer.from(`{"alg":"${ALGORITHM}","kid":"${keyId}","typ":"${type}"}`);
    const signature = this.#random.bytes(SIGNATURE_BYTES).toString('base64url');
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
    return `${header.toString('base64url')}.${bytes.toString('base64url')}.${signature}`;
  }

  isSigned(token: CompactToken): boolean {
    return this.#signed.get(token.text) === token.keyId;
  }
}

/** Keys that verify against the list. */
export class ListedKeys implements VerificationKeys {
  readonly #keyIds: ReadonlySet<string>;
  readonly #verify: (token: CompactToken) => Promise<boolean>;

  constructor(keys: readonly PublicKey[], verify: (token: CompactToken) => Promise<boolean>) {
    this.#keyIds = new Set(keys.map(({ kid }) => kid));
    this.#verify = verify;
  }

  has(keyId: string): boolean {
    return this.#keyIds.has(keyId);
  }

  keyIds(): Iterable<string> {
    return this.#keyIds;
  }

  verify(token: CompactToken): Promise<boolean> {
    return this.has(token.keyId) ? this.#verify(token) : Promise.resolve(false);
  }
}
