/** Attempt counters, and the networks from which users have logged in, in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import type { LoginNetworkRows } from '../records/login-networks.js';
import { type AttemptCounters, type AttemptImportance, NETWORK_KEPT_DAYS } from './throttle.js';

/**
 * In a select list: the statement's own commit does not wait for the disk. A crash of the server loses the attempts of
 * its last second, which an attacker cannot cause. With a synchronous commit, all attempts from one network or with one
 * name would wait for each other's disk write.
 */
const QUICK_COMMIT = "set_config('synchronous_commit', 'off', true)";

/** Counts an attempt on the row whose key `source` selects, unless its present window has reached `limit`. */
const upsert = (source: string, limit: string): string =>
  // In milliseconds, because a later statement compares the time, and a Date has no finer unit.
  `INSERT INTO attempt_counters AS c (key, attempts, end_time)
   SELECT key, 1, date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $3) FROM ${source}
   ON CONFLICT (key) DO UPDATE SET
     attempts = CASE WHEN c.end_time <= clock_timestamp() THEN 1 ELSE c.attempts + 1 END,
     end_time = CASE WHEN c.end_time <= clock_timestamp() THEN excluded.end_time ELSE c.end_time END
   WHERE c.end_time <= clock_timestamp() OR c.attempts < ${limit}
   RETURNING key, end_time`;

/** The order peer, network, name is the same everywhere, so that two attempts never deadlock. */
const TAKE = `
  WITH known AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM login_networks
                   WHERE key = $4 AND last_use_time > clock_timestamp() - make_interval(days => $5)) AS yes
  ), peer AS (
    ${upsert('(SELECT $1::bytea AS key) AS of_peer', '$2')}
  ), network AS (
    ${upsert('(SELECT $4::bytea AS key FROM peer) AS of_network WHERE key IS NOT NULL', '$7')}
  ), name AS (
    ${upsert('(SELECT $6::bytea AS key FROM network) AS of_name WHERE key IS NOT NULL', '$7')}
  )
  SELECT (SELECT yes FROM known) AS is_known, (SELECT end_time FROM peer) AS peer_end_time,
         (SELECT end_time FROM network) AS network_end_time, (SELECT end_time FROM name) AS name_end_time,
         ${QUICK_COMMIT}`;

/**
 * Creates the counters; each statement is its own transaction.
 *
 * @param laneOf - the connections for attempts of a class
 */
export function createAttemptCounters(laneOf: (importance: AttemptImportance) => Sql): AttemptCounters {
  return {
    count: async ({ peer, name }, windowSeconds, importance) => {
      const sql = laneOf(importance);
      const { rows } = await sql.query<{
        is_known: boolean;
        peer_end_time: Date | null;
        network_end_time: Date | null;
        name_end_time: Date | null;
      }>(
        TAKE,
        [
          peer.key,
          peer.limit,
          windowSeconds,
          name?.networkKey,
          NETWORK_KEPT_DAYS,
          name?.nameKey,
          name?.limit,
        ],
        { caller: peer.key.toString('hex') },
      );
      const [row] = rows;
      if (row === undefined) throw new TypeError('a statement without a result');
      const { is_known, peer_end_time, network_end_time, name_end_time } = row;
      const counted = (key: Buffer | undefined, endTime: Date | null) => key && endTime && { key, endTime };
      const [ofNetwork, ofName] = [
        counted(name?.networkKey, network_end_time),
        counted(name?.nameKey, name_end_time),
      ];
      return {
        isKnown: is_known,
        ...(peer_end_time && { peer: { key: peer.key, endTime: peer_end_time } }),
        ...(ofNetwork && { network: ofNetwork }),
        ...(ofName && { name: ofName }),
      };
    },

    windowLeftMs: async (key) => {
      const { rows } = await laneOf('unknown').query<{ milliseconds: number }>(
        `SELECT (extract(epoch FROM end_time - clock_timestamp()) * 1000)::float8 AS milliseconds
         FROM attempt_counters WHERE key = $1`,
        [key],
      );
      return Math.max(1, rows[0]?.milliseconds ?? 1);
    },

    subtract: async ({ key, endTime }, importance) => {
      await laneOf(importance).query(
        `WITH quick AS MATERIALIZED (SELECT ${QUICK_COMMIT} AS setting)
         UPDATE attempt_counters SET attempts = attempts - 1 FROM quick
         WHERE key = $1 AND end_time = $2 AND attempts > 0 AND quick.setting <> ''`,
        [key, endTime],
      );
    },
  };
}

/** The networks' rows inside a transaction. */
export function createLoginNetworkRows(sql: Sql): LoginNetworkRows {
  return {
    remember: async ({ key, userId }) => {
      // One write a day is enough for the age of the row, and spares most logins the write.
      await sql.query(
        `INSERT INTO login_networks AS n (key, user_id, last_use_time) VALUES ($1, $2, clock_timestamp())
         ON CONFLICT (key) DO UPDATE SET user_id = excluded.user_id, last_use_time = excluded.last_use_time
         WHERE n.last_use_time < clock_timestamp() - interval '1 day' OR n.user_id <> excluded.user_id`,
        [key, userId],
      );
    },

    clearFailures: async ({ userId, nameKey }) => {
      await sql.query(
        `DELETE FROM attempt_counters
         WHERE key = $1 OR key IN (SELECT key FROM login_networks WHERE user_id = $2)`,
        [nameKey, userId],
      );
    },

    deleteAllOfUser: async (userId) => {
      await sql.query('DELETE FROM login_networks WHERE user_id = $1', [userId]);
    },
  };
}

/** Drops expired counters and networks, at most `limit` rows of each. */
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
