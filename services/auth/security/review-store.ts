/** The database as the review reads it, in PostgreSQL. */

import type { Database } from '../../common/database/database.js';
import type { KeyPurpose, KeyState } from '../records/keys.js';
import { REPORT_KEPT_HOURS } from './events.js';
import type { ReviewStore } from './review-facts.js';

/** Maximum number of rows of one kind that the review reads. */
const REVIEW_ROWS_MAX = 500;

/** Oldest report that the review reads, in minutes. */
const REVIEW_REPORT_MINUTES = 10;

/** A condition on a row of user_roles: the role grants more of auth than a user's own affairs. */
const IS_PRIVILEGED = `role IN (
  SELECT role FROM role_scopes JOIN service_scopes USING (scope) WHERE audience = 'auth' AND scope <> 'auth.self')`;

/** Creates the reader of this database. */
export function createReviewStore(database: Database): ReviewStore {
  return {
    time: async () => {
      const { rows } = await database.query<{ now: Date }>('SELECT clock_timestamp() AS now');
      return rows[0]?.now ?? new Date(0);
    },
    keys: async () => {
      const { rows } = await database.query<{
        kid: string;
        purpose: KeyPurpose;
        algorithm: string;
        state: KeyState;
        public_jwk: string;
        sign_time: Date | null;
      }>(
        `SELECT kid, purpose, algorithm, state, public_jwk, sign_time FROM signing_keys
         WHERE epoch = (SELECT epoch FROM log_state) AND state <> 'retired' LIMIT $1`,
        [REVIEW_ROWS_MAX],
      );
      return rows.map(({ public_jwk: jwk, sign_time, ...key }) => ({
        ...key,
        jwk,
        signTime: sign_time ?? undefined,
      }));
    },
    clients: async () => {
      const { rows } = await database.query<{ client_id: string; pem: string | null; has_secret: boolean }>(
        // A client created by an instance of the previous version has only the previous columns.
        `SELECT client_id, CASE WHEN credential IS NULL THEN public_key_pem ELSE credential->>'pem' END AS pem,
                CASE WHEN credential IS NULL THEN secret_hash IS NOT NULL ELSE credential->>'kind' = 'secret' END
                  AS has_secret
         FROM clients LEFT JOIN jsonb_array_elements(credentials) AS credential ON true
         WHERE disable_time IS NULL ORDER BY client_id LIMIT $1`,
        [REVIEW_ROWS_MAX],
      );
      return rows.map((row) => ({
        clientId: row.client_id,
        publicKeyPem: row.pem ?? undefined,
        hasSecret: row.has_secret,
      }));
    },
    users: async ({ names, privileged }) => {
      const { rows } = await database.query<{
        user_id: string;
        username: string;
        password_hash: string;
        password_version: bigint;
        privileged: boolean;
      }>(
        `SELECT user_id, username, password_hash, password_version,
                user_id IN (SELECT user_id FROM user_roles WHERE ${IS_PRIVILEGED}) AS privileged
         FROM users u
         WHERE disable_time IS NULL AND (username = ANY($1) OR user_id IN (
           SELECT user_id FROM user_roles WHERE ${IS_PRIVILEGED} ORDER BY user_id LIMIT $2))
         ORDER BY username LIMIT $3`,
        [names, privileged, REVIEW_ROWS_MAX],
      );
      return rows.map((row) => ({
        userId: row.user_id,
        username: row.username,
        passwordHash: row.password_hash,
        passwordVersion: row.password_version,
        isPrivileged: row.privileged,
      }));
    },
    admins: async () => {
      const { rows } = await database.query<{ username: string }>(
        `SELECT username FROM users JOIN user_roles USING (user_id)
         WHERE role = 'admin' AND disable_time IS NULL ORDER BY username LIMIT 2`,
      );
      return rows.map(({ username }) => username);
    },
    reporting: async () => {
      const { rows } = await database.query<{
        service: string;
        instance: string;
        difference: number;
        plaintext: boolean;
        remote: boolean;
      }>(
        // A report can only arrive late, so the fastest one measures the clock best.
        `SELECT details->>'service' AS service, details->>'instance' AS instance,
                max(extract(epoch FROM (details->>'endTime')::timestamptz
                    - (keep_until - make_interval(hours => $1))) * 1000)::float8 AS difference,
                bool_or((details->>'plaintext')::boolean) AS plaintext,
                bool_or((details->>'remotePlaintext')::boolean) AS remote
         FROM (
           SELECT details, keep_until FROM security_reports
           WHERE event_time > statement_timestamp() - make_interval(mins => $2)
             AND position > (SELECT security_position(statement_timestamp() - make_interval(mins => $2)) - early_us
                             FROM security_stream)
           UNION ALL
           SELECT details, keep_until FROM security_events_unplaced
           WHERE life = 'report' AND event_time > statement_timestamp() - make_interval(mins => $2)
         ) AS reports
         GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $3`,
        [REPORT_KEPT_HOURS, REVIEW_REPORT_MINUTES, REVIEW_ROWS_MAX],
      );
      return rows.map(({ remote, difference, ...row }) => ({
        ...row,
        clockDifferenceMs: difference,
        remotePlaintext: remote,
      }));
    },
    recentLosses: async () => {
      const { rows } = await database.query<{ lost: bigint; changed: bigint }>(
        `SELECT coalesce(sum((details->>'events')::bigint) FILTER (WHERE type = 'events-lost'), 0)::bigint AS lost,
                count(*) FILTER (WHERE type = 'log-changed') AS changed
         FROM (
           SELECT type, details FROM security_events_lasting
           WHERE type IN ('events-lost', 'log-changed') AND event_time > statement_timestamp() - interval '1 day'
             AND position > (SELECT security_position(statement_timestamp() - interval '1 day') - early_us
                             FROM security_stream)
           UNION ALL
           SELECT type, details FROM security_events_unplaced
           WHERE type IN ('events-lost', 'log-changed') AND event_time > statement_timestamp() - interval '1 day'
         ) AS losses`,
      );
      return { lostEvents: Number(rows[0]?.lost ?? 0n), changedLogs: Number(rows[0]?.changed ?? 0n) };
    },
  };
}
