/** The connection to the broker over which auth broadcasts. */

import { setTimeout as sleep } from 'node:timers/promises';
import { BROADCAST_SUBJECT, BROKER_RECONNECT_WAIT_MS } from '@portcullis/guard/internal';
import { type ConnectionOptions, connect, Events, type NatsConnection } from 'nats';

/** How long a close waits for unsent messages, in milliseconds. */
export const BROKER_CLOSE_MS_MAX = 1000;

/** The log of the connection. */
export interface BrokerLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** A connection to the broker that is restored whenever it is lost. */
export interface BrokerLink {
  connected(): boolean;
  onChange(listener: () => void): () => void;
  /** Sends a message; throws when the broker is not connected. */
  publish(payload: string): void;
  close(): Promise<void>;
}

/** Creates the link; it connects in the background. */
export function createBrokerLink(connecting: ConnectionOptions, log: BrokerLog): BrokerLink {
  const listeners = new Set<() => void>();
  const closing = new AbortController();
  let connection: NatsConnection | undefined;
  let connected = false;

  const change = (next: boolean): void => {
    if (connected === next) return;
    connected = next;
    if (next) log.info({}, 'connected to the broker');
    else if (!closing.signal.aborted) log.warn({}, 'lost the broker; only syncs deliver revocations now');
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
    let isLogged = false;
    while (!closing.signal.aborted) {
      try {
        connection = await connect(connecting);
        isLogged = false;
        if (closing.signal.aborted) await connection.close();
        else await follow(connection);
      } catch (error) {
        if (!isLogged)
          log.warn({ err: error }, 'cannot connect to the broker; only syncs deliver revocations now');
        isLogged = true;
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
      const timeout = new AbortController();
      // A frozen broker never confirms that it has read what was sent.
      await Promise.race([
        connection.drain().catch(() => undefined),
        sleep(BROKER_CLOSE_MS_MAX, undefined, { signal: timeout.signal }),
      ]);
      timeout.abort();
      await connection.close();
    },
  };
}
