/** Counted attempts, and the networks from which users have logged in, in PostgreSQL. */

import type { Sql } from '../common/database.js';
import { type AttemptCounters, type LoginNetworkRows, NETWORK_KEPT_DAYS } from './throttle.js';

/** The counters; each statement is a transaction of its own. */
export function createAttemptCounters(sql: Sql): AttemptCounters {
  return {
    take: async (key, limit, windowSeconds) => {
      // Milliseconds, because the time comes back to be compared, and a Date has no more.
      const { rows } = await sql.query<{ end_time: Date }>(
        `INSERT INTO attempt_counters AS c (key, attempts, end_time)
         VALUES ($1, 1, date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $3))
         ON CONFLICT (key) DO UPDATE SET
           attempts = CASE WHEN c.end_time <= clock_timestamp() THEN 1 ELSE c.attempts + 1 END,
           end_time = CASE WHEN c.end_time <= clock_timestamp() THEN excluded.end_time ELSE c.end_time END
         WHERE c.end_time <= clock_timestamp() OR c.attempts < $2
         RETURNING end_time`,
        [key, limit, windowSeconds],
      );
      const [taken] = rows;
      if (taken !== undefined) return { admitted: true, endTime: taken.end_time };
      const left = await sql.query<{ milliseconds: number }>(
        `SELECT (extract(epoch FROM end_time - clock_timestamp()) * 1000)::float8 AS milliseconds
         FROM attempt_counters WHERE key = $1`,
        [key],
      );
      return { admitted: false, retryAfterMs: Math.max(1, left.rows[0]?.milliseconds ?? 1) };
    },

    giveBack: async (key, endTime) => {
      await sql.query(
        `UPDATE attempt_counters SET attempts = attempts - 1
         WHERE key = $1 AND end_time = $2 AND attempts > 0`,
        [key, endTime],
      );
    },

    isKnownNetwork: async (key) => {
      const { rowCount } = await sql.query(
        `SELECT FROM login_networks
         WHERE key = $1 AND last_use_time > clock_timestamp() - make_interval(days => $2)`,
        [key, NETWORK_KEPT_DAYS],
      );
      return rowCount > 0;
    },
  };
}

/** The networks' rows inside a transaction. */
export function createLoginNetworkRows(sql: Sql): LoginNetworkRows {
  return {
    remember: async ({ key, userId }) => {
      // Once a day is often enough to know what is old, and spares most logins the write.
      await sql.query(
        `INSERT INTO login_networks AS n (key, user_id, last_use_time) VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (key) DO UPDATE SET user_id = excluded.user_id, last_use_time = excluded.last_use_time
         WHERE n.last_use_time < clock_timestamp() - interval '1 day' OR n.user_id <> excluded.user_id`,
        [key, userId],
      );
    },

    forgetAllOf: async (userId) => {
      await sql.query('DELETE FROM login_networks WHERE user_id = $1', [userId]);
    },
  };
}

/** Drops what counts no longer, at most so many rows of each kind. */
export async function dropOldAttempts(sql: Sql, limit: number): Promise<void> {
  await sql.query(
    `DELETE FROM attempt_counters WHERE key IN (
       SELECT key FROM attempt_counters WHERE end_time < clock_timestamp()
       ORDER BY end_time LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [limit],
  );
  await sql.query(
    `DELETE FROM login_networks WHERE key IN (
       SELECT key FROM login_networks WHERE last_use_time < clock_timestamp() - make_interval(days => $2)
       ORDER BY last_use_time LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [limit, NETWORK_KEPT_DAYS],
  );
}
