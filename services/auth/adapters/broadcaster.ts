/** Broadcasts new entries of the log. Broadcasts make revocation fast; its safety does not depend on them. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { BrokerFiles, BrokerState, GuardLog } from '@portcullis/guard';
import { BROADCAST_SUBJECT, keepConnected } from '@portcullis/guard/internal';
import { Broadcast } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import type { BroadcastSigner } from '../keys/keys.js';
import type { LogBatch } from '../records/revocations.js';
import { entryMessageOf } from './revocation-messages.js';

/** Maximum number of entries in one message, which keeps it far below the broker's usual limit of 1 MiB. */
export const BROADCAST_ENTRIES_MAX = 500;

/** Maximum number of entries that wait to be signed and sent. */
export const BACKLOG_ENTRIES_MAX = 10_000;

/** How long a close waits for unsent messages, in milliseconds. */
const BROKER_CLOSE_MS_MAX = 1000;

/** The state of a broadcaster. */
interface BroadcasterState {
  readonly connected: boolean;
  /** Messages handed to the broker. */
  readonly sent: number;
  /** Entries that were not sent; instances receive them with their next sync. */
  readonly dropped: number;
}

/** Sends batches to all subscribers. */
export interface Broadcaster {
  /** Sends a batch soon, or drops it; returns at once and never throws. */
  publish(batch: LogBatch): void;
  state(): BroadcasterState;
  /** The state of its connection to the broker. */
  brokerState(): BrokerState;
  /** Calls the listener whenever `connected` changes; returns a function that stops it. */
  onStateChange(listener: () => void): () => void;
  /** Sends what is left, within {@link BROKER_CLOSE_MS_MAX}, and disconnects. */
  close(): Promise<void>;
}

/** Creates a broadcaster, which connects in the background and reconnects until it is closed. */
export function createBroadcaster(options: {
  /** Addresses of the broker, separated by commas; the first may have a user name and a password. */
  readonly url: string;
  /** Certificates for TLS. */
  readonly files?: BrokerFiles | undefined;
  readonly signer: BroadcastSigner;
  readonly log: Pick<GuardLog, 'info' | 'warn'>;
}): Broadcaster {
  const { url, files, signer, log } = options;
  const listeners = new Set<() => void>();
  let wasConnected = false;
  const link = keepConnected({
    url,
    name: 'portcullis auth',
    files,
    onChange: ({ state, problem }) => {
      const isConnected = state === 'connected';
      if (isConnected) log.info({ event: 'broadcasts_connected' }, 'revocations are broadcast');
      else
        log.warn(
          { event: 'broadcasts_lost', reason: state, why: problem },
          'only syncs deliver revocations now',
        );
      if (isConnected === wasConnected) return;
      wasConnected = isConnected;
      for (const listener of listeners) listener();
    },
  });
  const connected = (): boolean => link.connection() !== undefined;
  let backlog: LogBatch[] = [];
  let backlogEntries = 0;
  let sending: Promise<void> | undefined;
  let sent = 0;
  let dropped = 0;

  const emptyBacklog = (): LogBatch[] => {
    const batches = backlog;
    backlog = [];
    backlogEntries = 0;
    return batches;
  };
  const send = async (message: Broadcast): Promise<void> => {
    try {
      const payload = await signer.sign(Broadcast.encode(message).finish(), message.epoch);
      const connection = link.connection();
      if (connection === undefined) throw new Error('not connected to the broker');
      connection.publish(BROADCAST_SUBJECT, payload);
      sent += 1;
    } catch (error) {
      dropped += message.entries.length;
      log.warn({ err: error, entries: message.entries.length }, 'a broadcast was dropped');
    }
  };
  // Batches that arrive while a message is being signed wait, and are sent together.
  const sendBacklog = async (): Promise<void> => {
    while (backlog.length > 0) {
      for (const message of messagesOf(emptyBacklog())) await send(message);
    }
    sending = undefined;
  };

  return {
    publish: (batch) => {
      // The batch of a new epoch has no entries.
      if (batch.entries.length === 0) return;
      if (!connected() || backlogEntries + batch.entries.length > BACKLOG_ENTRIES_MAX) {
        dropped += batch.entries.length;
        return;
      }
      backlog.push(batch);
      backlogEntries += batch.entries.length;
      sending ??= sendBacklog();
    },
    state: () => ({ connected: connected(), sent, dropped }),
    brokerState: () => link.status().state,
    onStateChange: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: async () => {
      const timeout = new AbortController();
      await Promise.race([sending, sleep(BROKER_CLOSE_MS_MAX, undefined, { signal: timeout.signal })]);
      timeout.abort();
      await link.close(BROKER_CLOSE_MS_MAX);
    },
  };
}

/** The messages of these batches: as few as possible, none with entries of two epochs. */
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
