/** Broadcasts of what has just been revoked: they make revocation fast, and nothing depends on them. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerFiles } from '@portcullis/guard';
import { BROADCAST_SUBJECT, BROKER_RECONNECT_WAIT_MS, brokerConnection } from '@portcullis/guard/internal';
import type { ConnectionOptions, NatsConnection } from 'nats';
import { connect, Events } from 'nats';
import { Broadcast } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { BroadcastSigner } from '../keys/keys.js';
import type { LogBatch } from '../records/revocations.js';
import { entryMessageOf } from './revocation-messages.js';

/** Most entries in one message, which stays far below the broker's usual limit of 1 MiB. */
export const BROADCAST_ENTRIES_MAX = 500;

/** Most entries that wait to be signed and sent. */
export const BACKLOG_ENTRIES_MAX = 10_000;

/** How long closing waits for what has not been sent yet, in milliseconds. */
export const CLOSE_PATIENCE_MS = 1000;

/** What a broadcaster says of itself. */
export interface BroadcasterState {
  readonly connected: boolean;
  /** Messages handed to the broker. */
  readonly sent: number;
  /** Entries that were not sent; instances have them from their next sync. */
  readonly dropped: number;
}

/** Sends what was revoked to whoever listens. */
export interface Broadcaster {
  /** Sends a batch soon, or drops it; returns at once and never throws. */
  publish(batch: LogBatch): void;
  state(): BroadcasterState;
  /** Calls the listener whenever `connected` changes; returns a function that stops it. */
  onStateChange(listener: () => void): () => void;
  /** Sends what is left, within {@link CLOSE_PATIENCE_MS}, and disconnects. */
  close(): Promise<void>;
}

/** Where a broadcaster says what it meets. */
export interface BroadcasterLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** Makes a broadcaster, which connects in the background and keeps at it until it is closed. */
export function createBroadcaster(options: {
  /** Addresses of the broker, separated by commas; the first may carry a user and a password. */
  readonly url: string;
  /** Certificates for TLS. */
  readonly files?: BrokerFiles | undefined;
  readonly signer: BroadcastSigner;
  readonly log: BroadcasterLog;
}): Broadcaster {
  const { signer, log } = options;
  const link = createLink(brokerConnection(options.url, 'portcullis auth', options.files), log);
  let backlog: LogBatch[] = [];
  let backlogEntries = 0;
  let sending: Promise<void> | undefined;
  let sent = 0;
  let dropped = 0;

  const takeBacklog = (): LogBatch[] => {
    const taken = backlog;
    backlog = [];
    backlogEntries = 0;
    return taken;
  };
  const send = async (message: Broadcast): Promise<void> => {
    try {
      const payload = await signer.sign(Broadcast.encode(message).finish(), message.epoch);
      link.publish(payload);
      sent += 1;
    } catch (error) {
      dropped += message.entries.length;
      log.warn({ err: error, entries: message.entries.length }, 'a broadcast was dropped');
    }
  };
  // What is revoked while a message is being made waits, and then travels together.
  const sendBacklog = async (): Promise<void> => {
    while (backlog.length > 0) {
      for (const message of messagesOf(takeBacklog())) await send(message);
    }
    sending = undefined;
  };

  return {
    publish: (batch) => {
      // An epoch that was opened has nothing to tell yet.
      if (batch.entries.length === 0) return;
      if (!link.connected() || backlogEntries + batch.entries.length > BACKLOG_ENTRIES_MAX) {
        dropped += batch.entries.length;
        return;
      }
      backlog.push(batch);
      backlogEntries += batch.entries.length;
      sending ??= sendBacklog();
    },
    state: () => ({ connected: link.connected(), sent, dropped }),
    onStateChange: link.onChange,
    close: async () => {
      const patience = new AbortController();
      await Promise.race([sending, sleep(CLOSE_PATIENCE_MS, undefined, { signal: patience.signal })]);
      patience.abort();
      await link.close();
    },
  };
}

/** The messages that carry some batches: as few as possible, none with entries of two epochs. */
function messagesOf(batches: readonly LogBatch[]): Broadcast[] {
  const messages: Broadcast[] = [];
  for (const { epoch, entries } of batches) {
    for (const entry of entries) {
      let last = messages.at(-1);
      if (last === undefined || last.entries.length === BROADCAST_ENTRIES_MAX || !last.epoch.equals(epoch)) {
        last = { epoch, entries: [] };
        messages.push(last);
      }
      last.entries.push(entryMessageOf(entry));
    }
  }
  return messages;
}

interface Link {
  connected(): boolean;
  onChange(listener: () => void): () => void;
  /** Hands a message to the broker; throws when there is none. */
  publish(payload: string): void;
  close(): Promise<void>;
}

/** One connection to the broker, made again for as long as it takes. */
function createLink(connecting: ConnectionOptions, log: BroadcasterLog): Link {
  const listeners = new Set<() => void>();
  const closing = new AbortController();
  let connection: NatsConnection | undefined;
  let connected = false;

  const change = (next: boolean): void => {
    if (connected === next) return;
    connected = next;
    if (next) log.info({}, 'connected to the broker');
    else if (!closing.signal.aborted) log.warn({}, 'lost the broker; revocations travel by sync alone');
    for (const listener of listeners) listener();
  };

  const follow = async (opened: NatsConnection): Promise<void> => {
    change(true);
    // The iterator ends when the connection is closed for good.
    for await (const { type } of opened.status()) {
      if (type === Events.Disconnect) change(false);
      if (type === Events.Reconnect) change(true);
    }
    change(false);
  };

  const stayConnected = async (): Promise<void> => {
    let told = false;
    while (!closing.signal.aborted) {
      try {
        connection = await connect(connecting);
        told = false;
        if (closing.signal.aborted) await connection.close();
        else await follow(connection);
      } catch (error) {
        if (!told) log.warn({ err: error }, 'the broker cannot be reached; revocations travel by sync alone');
        told = true;
      }
      await sleep(BROKER_RECONNECT_WAIT_MS, undefined, { signal: closing.signal }).catch(() => undefined);
    }
  };
  void stayConnected();

  return {
    connected: () => connected,
    onChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    publish: (payload) => {
      if (connection === undefined || !connected) throw new Error('not connected to the broker');
      connection.publish(BROADCAST_SUBJECT, payload);
    },
    close: async () => {
      closing.abort();
      if (connection === undefined || connection.isClosed()) return;
      const patience = new AbortController();
      // A frozen broker never confirms that it has read what was sent.
      await Promise.race([
        connection.drain().catch(() => undefined),
        sleep(CLOSE_PATIENCE_MS, undefined, { signal: patience.signal }),
      ]);
      patience.abort();
      await connection.close();
    },
  };
}
