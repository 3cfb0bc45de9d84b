/** Revocations as the broker brings them: fast, signed, and never trusted for more than they say. */

import { connect, type NatsConnection } from 'nats';
import { Broadcast } from '../../gen/portcullis/revocation/v1/revocation.js';
import type { PublicKey } from '../../gen/portcullis/token/v1/token.js';
import { BROADCAST_BYTES_MAX } from '../limits.js';
import { parseCompactToken } from '../token/compact.js';
import { type ImportKeys, KeyRing, type VerificationKeys } from '../token/key-ring.js';
import { BROKER_RECONNECT_WAIT_MS, type BrokerFiles, brokerConnection } from './broker.js';

/** The subject on which revocations are broadcast. */
export const BROADCAST_SUBJECT = 'portcullis.v1.revocations';

/** `typ` of a broadcast, so that it is never taken for a token, nor a token for it. */
export const BROADCAST_TYPE = 'portcullis-revocations+jws';

/** Keys that sign broadcasts, ready for use. */
export interface BroadcastKeys {
  readonly text: string;
  readonly ring: VerificationKeys;
}

/** Opens and verifies broadcasts. */
export class BroadcastReader {
  readonly #import: ImportKeys;
  #keys: BroadcastKeys = { text: '', ring: KeyRing.EMPTY };

  constructor(importKeys: ImportKeys = KeyRing.import) {
    this.#import = importKeys;
  }

  /** Imports keys; none if they are the ones in place. */
  async importKeys(keys: readonly PublicKey[]): Promise<BroadcastKeys> {
    const inPlace = this.#keys;
    const text = keys.map((key) => `${key.kid} ${key.algorithm} ${key.jwk}`).join('\n');
    return text === inPlace.text ? inPlace : { text, ring: await this.#import(keys) };
  }

  /** Puts the keys in place that sign broadcasts; they come from the issuer alone, never from the broker. */
  replaceKeys(keys: BroadcastKeys): void {
    this.#keys = keys;
  }

  /**
   * Opens a broadcast.
   *
   * @param now - verify it before this returns, where that can be done: the caller's thread does nothing else meanwhile
   * @returns undefined when the bytes are not a broadcast signed by a key in place; never rejects
   */
  read(bytes: Uint8Array, now = false): Broadcast | undefined | Promise<Broadcast | undefined> {
    if (bytes.byteLength > BROADCAST_BYTES_MAX) return undefined;
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
    const token = parseCompactToken(text, BROADCAST_TYPE, BROADCAST_BYTES_MAX);
    if (token === undefined) return undefined;
    const { ring } = this.#keys;
    const opened = (isGood: boolean): Broadcast | undefined => (isGood ? decode(token.payload) : undefined);
    if (now && ring.verifyNow !== undefined) return opened(ring.verifyNow(token));
    return ring.verify(token).then(opened);
  }
}

function decode(payload: Uint8Array): Broadcast | undefined {
  try {
    return Broadcast.decode(payload);
  } catch {
    return undefined;
  }
}

/** A subscription that lives until it is closed, however often the broker goes away. */
export interface Subscription {
  close(): Promise<void>;
}

/**
 * Subscribes to broadcasts.
 *
 * The broker may be missing for as long as it likes: this keeps trying.
 *
 * @param options.onMessage - called with every message, as it came
 * @param options.onConnected - called after every connection to the broker
 */
export function subscribeToBroadcasts(options: {
  url: string;
  name: string;
  files?: BrokerFiles | undefined;
  onMessage: (bytes: Uint8Array) => void;
  onConnected: () => void;
  onDisconnected: (why: string) => void;
}): Subscription {
  let connection: NatsConnection | undefined;
  let closed = false;
  let told = false;

  const run = async (): Promise<void> => {
    connection = await connect(brokerConnection(options.url, options.name, options.files));
    if (closed) return connection.close();
    const subscription = connection.subscribe(BROADCAST_SUBJECT, {
      callback: (error, message) => {
        if (error === null) options.onMessage(message.data);
      },
    });
    // What is broadcast before the broker knows of the subscription would be missed.
    await connection.flush();
    told = false;
    options.onConnected();
    void watch(connection);
    await subscription.closed;
  };

  const watch = async (current: NatsConnection): Promise<void> => {
    for await (const event of current.status()) {
      if (event.type === 'reconnect') options.onConnected();
      if (event.type === 'disconnect') options.onDisconnected('the broker is gone');
    }
  };

  const forever = async (): Promise<void> => {
    while (!closed) {
      try {
        await run();
      } catch (error) {
        // Told once, not with every attempt.
        if (!told && !closed) options.onDisconnected(whyOf(error));
        told = true;
      }
      if (!closed) await new Promise((resolve) => setTimeout(resolve, BROKER_RECONNECT_WAIT_MS).unref());
    }
  };
  void forever();

  return {
    close: async () => {
      closed = true;
      await connection?.close();
    },
  };
}

function whyOf(error: unknown): string {
  return error instanceof Error ? error.message : 'the broker refuses';
}
