/** Gives the services that are registered at auth their users at the system's own broker. */

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

/** How often auth's clients are read, in milliseconds. */
const POLL_MS = 1000;

/** Maximum time for a query, in milliseconds. */
const QUERY_MS_MAX = 2000;

/** The public nkeys of services, by their client. */
export type BrokerKeys = Readonly<Record<string, string>>;

/** Follows auth's clients until it is stopped. */
export interface BrokerUsers {
  stop(): Promise<void>;
}

/**
 * Reads the keys of auth's clients every second, and passes them on when they have changed. While the database cannot be
 * read, the broker keeps its users.
 *
 * @param databaseUrl - auth's database
 * @param allow - tells the broker
 */
export function followBrokerKeys(
  databaseUrl: string,
  allow: (keys: BrokerKeys) => Promise<void>,
): BrokerUsers {
  const stopping = new AbortController();
  const { signal } = stopping;
  const following = (async () => {
    const pool = new pg.Pool({ connectionString: databaseUrl, max: 1, query_timeout: QUERY_MS_MAX });
    // The connection of a database that restarts: the next query opens another one.
    pool.on('error', () => undefined);
    while (!signal.aborted) {
      const keys = await readKeys(pool).catch(() => undefined);
      // A full disk must not end the system; the next round tries again.
      if (keys !== undefined && !signal.aborted) await allow(keys).catch(() => undefined);
      await sleep(POLL_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
    await pool.end().catch(() => undefined);
  })();
  return {
    stop: async () => {
      stopping.abort();
      await following;
    },
  };
}

async function readKeys(pool: pg.Pool): Promise<BrokerKeys> {
  const { rows } = await pool.query<{ client_id: string; broker_key: string }>(
    `SELECT client_id, broker_key FROM clients
     WHERE broker_key IS NOT NULL AND delete_time IS NULL AND disable_time IS NULL ORDER BY client_id`,
  );
  return Object.fromEntries(rows.map(({ client_id, broker_key }) => [client_id, broker_key]));
}
