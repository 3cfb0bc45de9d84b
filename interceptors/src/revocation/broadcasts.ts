/** Broadcasts of revocations over the broker. They are signed; they make revocation fast, and nothing depends on them. */

import { Broadcast } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import { BROADCAST_BYTES_MAX } from '../limits.js';
import { parseCompactToken } from '../token/compact.js';
import { type ImportKeys, KeyRing, type VerificationKeys } from '../token/key-ring.js';
import type { BrokerFiles } from './broker.js';
import { type BrokerStatus, keepConnected } from './broker-link.js';

/** The subject on which revocations are broadcast. */
export const BROADCAST_SUBJECT = 'portcullis.v1.revocations';

/** `typ` of a broadcast, so that a broadcast and a token cannot be confused. */
export const BROADCAST_TYPE = 'portcullis-revocations+jws';

/** The imported keys of broadcasts. */
export interface BroadcastKeys {
  readonly text: string;
  readonly ring: VerificationKeys;
}

/** Verifies and decodes broadcasts. */
export class BroadcastReader {
  readonly #import: ImportKeys;
  #keys: BroadcastKeys = { text: '', ring: KeyRing.EMPTY };

  constructor(importKeys: ImportKeys = KeyRing.import) {
    this.#import = importKeys;
  }

  /** Imports keys, unless they are the current ones. */
  async importKeys(keys: readonly PublicKey[]): Promise<BroadcastKeys> {
    const inPlace = this.#keys;
    const text = keys.map((key) => `${key.kid} ${key.algorithm} ${key.jwk}`).join('\n');
    return text === inPlace.text ? inPlace : { text, ring: await this.#import(keys) };
  }

  /** Replaces the keys. They come from sync responses, never from the broker. */
  replaceKeys(keys: BroadcastKeys): void {
    this.#keys = keys;
  }

  /**
   * Verifies and decodes a broadcast. Never rejects.
   *
   * @param now - verify synchronously on the caller's thread, where that is possible
   * @returns undefined when the bytes are not a broadcast signed by a current key
   */
  read(bytes: Uint8Array, now = false): Broadcast | undefined | Promise<Broadcast | undefined> {
    if (bytes.byteLength > BROADCAST_BYTES_MAX) return undefined;
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
    const token = parseCompactToken(text, BROADCAST_TYPE, BROADCAST_BYTES_MAX);
    if (token === undefined) return undefined;
    const { ring } = this.#keys;
    const decodeIf = (isGood: boolean): Broadcast | undefined => (isGood ? decode(token.payload) : undefined);
    if (now && ring.verifyNow !== undefined) return decodeIf(ring.verifyNow(token));
    return ring.verify(token).then(decodeIf);
  }
}

function decode(payload: Uint8Array): Broadcast | undefined {
  try {
    return Broadcast.decode(payload);
  } catch {
    return undefined;
  }
}

/** A subscription that reconnects until it is closed. */
export interface Subscription {
  close(): Promise<void>;
}

/**
 * Subscribes to broadcasts, and keeps trying to connect while the broker is unreachable or refuses.
 *
 * @param options.onMessage - called with every message, unverified
 * @param options.onConnected - called whenever the connection was established
 * @param options.onDisconnected - called when the connection was lost, and when the cause of its absence changes
 */
export function subscribeToBroadcasts(options: {
  url: string;
  name: string;
  files?: BrokerFiles | undefined;
  onMessage: (bytes: Uint8Array) => void;
  onConnected: () => void;
  onDisconnected: (status: BrokerStatus) => void;
}): Subscription {
  const { url, name, files, onMessage, onConnected, onDisconnected } = options;
  return keepConnected({
    url,
    name,
    files,
    onOpen: async (connection) => {
      const refusal = new Promise<never>((_, reject) => {
        connection.subscribe(BROADCAST_SUBJECT, {
          callback: (error, message) => {
            if (error === null) onMessage(message.data);
            else reject(error);
          },
        });
      });
      // The permission to subscribe may also be withdrawn later.
      refusal.catch(() => connection.close());
      // Broadcasts before the broker has processed the subscription would be missed.
      await Promise.race([connection.flush(), refusal]);
    },
    onChange: (status) => (status.state === 'connected' ? onConnected() : onDisconnected(status)),
  });
}
