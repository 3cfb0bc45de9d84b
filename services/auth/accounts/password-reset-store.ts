/** Reset tokens in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import type { PasswordResetRows } from '../records/password-resets.js';

/** The rows of reset tokens, inside a transaction. */
export function createPasswordResetRows(sql: Sql): PasswordResetRows {
  return {
    put: async ({ userId, tokenHash, lifetimeSeconds }) => {
      const { rows } = await sql.query<{ expire_time: Date }>(
        `INSERT INTO password_resets (user_id, token_hash, expire_time)
         VALUES ($1, $2, date_trunc('milliseconds', clock_timestamp()) + make_interval(secs => $3))
         ON CONFLICT (user_id) DO UPDATE SET token_hash = excluded.token_hash, expire_time = excluded.expire_time
         RETURNING expire_time`,
        [userId, tokenHash, lifetimeSeconds],
      );
      const [row] = rows;
      if (row === undefined) throw new TypeError('expected the expiry of a reset token, got no row');
      return row.expire_time;
    },
    find: async (tokenHash) => {
      const { rows } = await sql.query<{ user_id: string }>(
        'SELECT user_id FROM password_resets WHERE token_hash = $1 AND expire_time > clock_timestamp()',
        [tokenHash],
      );
      return rows[0] && { userId: rows[0].user_id };
    },
    take: async ({ userId, tokenHash }) => {
      const { rowCount } = await sql.query(
        `DELETE FROM password_resets
         WHERE user_id = $1 AND token_hash = $2 AND expire_time > clock_timestamp()`,
        [userId, tokenHash],
      );
      return rowCount > 0;
    },
    deleteOfUser: async (userId) => {
      await sql.query('DELETE FROM password_resets WHERE user_id = $1', [userId]);
    },
  };
}

/** Deletes at most `limit` expired reset tokens. */
export async function deleteExpiredResets(sql: Sql, limit: number): Promise<void> {
  await sql.query(
    `DELETE FROM password_resets WHERE user_id IN (
       SELECT user_id FROM password_resets WHERE expire_time < clock_timestamp()
       ORDER BY expire_time LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [limit],
  );
}
