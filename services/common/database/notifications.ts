/** LISTEN on a connection of its own, which is made again, without end, when it breaks. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Log } from '../host/log.js';
import { describeMissing } from './pg-errors.js';

/** How often a listening connection is probed: by itself it does not report that the server is gone. */
const LISTEN_HEARTBEAT_MS = 2_000;

const HEARTBEAT_TIMEOUT_MS = 2_000;
const RECONNECT_DELAY_MS_MIN = 100;
const RECONNECT_DELAY_MS_MAX = 2_000;

/** Notifications, until it is closed. */
export interface Subscription {
  close(): Promise<void>;
}

/** Resolves when LISTEN is in place for the first time; rejects only when the signal is aborted before. */
export async function listenTo(
  database: { connect: () => pg.Client; log: Log; signal: AbortSignal },
  wanted: { channel: string; onNotification: (payload: string) => void; onReconnect: () => void },
): Promise<Subscription> {
  const { channel, onReconnect } = wanted;
  const stopped = new AbortController();
  const signal = AbortSignal.any([stopped.signal, database.signal]);
  let client = await connectWithoutLimit();
  const running = keepAlive();
  return {
    close: async () => {
      stopped.abort();
      await running;
    },
  };

  async function keepAlive(): Promise<void> {
    while (!signal.aborted) {
      await heartbeat(client, signal);
      await endQuietly(client);
      if (signal.aborted) return;
      database.log.warn({ channel }, 'lost the connection that receives notifications');
      try {
        client = await connectWithoutLimit();
      } catch {
        return;
      }
      onReconnect();
    }
  }

  async function connectWithoutLimit(): Promise<pg.Client> {
    for (let delayMs = RECONNECT_DELAY_MS_MIN; ; delayMs = Math.min(delayMs * 2, RECONNECT_DELAY_MS_MAX)) {
      signal.throwIfAborted();
      const next = database.connect();
      try {
        next.on('notification', (message) => wanted.onNotification(message.payload ?? ''));
        await next.connect();
        await next.query(`LISTEN ${next.escapeIdentifier(channel)}`);
        return next;
      } catch (error) {
        await endQuietly(next);
        database.log.debug({ channel, missing: describeMissing(error) }, 'cannot receive notifications yet');
      }
      await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}

/** Returns when the connection has broken or the signal is aborted. */
async function heartbeat(client: pg.Client, signal: AbortSignal): Promise<void> {
  const broken = new AbortController();
  const breakOff = () => broken.abort();
  client.once('end', breakOff);
  const stop = AbortSignal.any([signal, broken.signal]);
  try {
    while (!stop.aborted) {
      await sleep(LISTEN_HEARTBEAT_MS, undefined, { signal: stop, ref: false });
      await client.query({ text: 'SELECT 1', query_timeout: HEARTBEAT_TIMEOUT_MS } as pg.QueryConfig);
    }
  } catch {
    // Aborted or broken: either way this connection is of no more use.
  } finally {
    client.removeListener('end', breakOff);
  }
}

async function endQuietly(client: pg.Client): Promise<void> {
  // A server that does not answer must not delay the next connection.
  await Promise.race([client.end().catch(() => {}), sleep(HEARTBEAT_TIMEOUT_MS, undefined, { ref: false })]);
}
