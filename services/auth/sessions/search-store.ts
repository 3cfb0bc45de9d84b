/** The search for open sessions in PostgreSQL. A step looks at a bounded number of them, however many there are. */

import type { Sql } from '../../common/database/database.js';
import type { MatchedSession, SearchedSessions, SessionFilter } from '../records/sessions.js';

/** Maximum number of open sessions at which one step looks. */
export const SEARCHED_MAX = 5000;

/** Before every session that auth makes: their ids are random. */
const FIRST_ID = '00000000-0000-0000-0000-000000000000';

interface StepRow {
  readonly searched: bigint;
  readonly last: string | null;
}

interface MatchRow extends StepRow {
  readonly session_id: string | null;
  readonly user_id: string;
  readonly client_id: string;
  readonly create_time: Date;
  readonly username: string;
}

/** See `SessionRows.match`. */
export async function matchSessions(
  sql: Sql,
  filter: SessionFilter,
  { after, limit }: { readonly after: string | undefined; readonly limit: number },
): Promise<SearchedSessions> {
  const { searched, matches, values } = stepOf(filter, after);
  const { rows } = await sql.query<MatchRow>(
    `WITH ${searched}
     SELECT ${PLACE}, matched.* FROM (VALUES (1)) AS always LEFT JOIN (
       SELECT session_id, user_id, client_id, session.create_time, username
       FROM searched AS session JOIN users USING (user_id)
       WHERE ${matches} ORDER BY session_id LIMIT ${limit}
     ) AS matched ON true ORDER BY session_id`,
    values,
  );
  const sessions = rows.flatMap(sessionsOf);
  return { sessions, next: sessions.length === limit ? sessions.at(-1)?.sessionId : nextOf(rows[0]) };
}

/** See `SessionRows.countMatching`. */
export async function countMatchingSessions(
  sql: Sql,
  filter: SessionFilter,
  after: string | undefined,
): Promise<{ readonly count: number; readonly next: string | undefined }> {
  const { searched, matches, values } = stepOf(filter, after);
  const { rows } = await sql.query<StepRow & { readonly count: bigint }>(
    `WITH ${searched}
     SELECT ${PLACE}, (SELECT count(*) FROM searched AS session WHERE ${matches}) AS count`,
    values,
  );
  return { count: Number(rows[0]?.count ?? 0n), next: nextOf(rows[0]) };
}

const PLACE = `(SELECT count(*) FROM searched) AS searched,
  (SELECT session_id FROM searched ORDER BY session_id DESC LIMIT 1) AS last`;

/** The statements of one step. Only conditions that are set are part of them, so that each can use its index. */
interface Step {
  /** The sessions at which it looks. */
  readonly searched: string;
  /** What a session of them must meet. */
  readonly matches: string;
  readonly values: readonly unknown[];
}

function stepOf(
  { role, clientId, loggedInBeforeTime, network, userId }: SessionFilter,
  after: string = FIRST_ID,
): Step {
  const values: unknown[] = [after];
  const parameter = (value: unknown): string => `$${values.push(value)}`;
  const conditions = ['true'];
  if (clientId !== undefined) conditions.push(`session.client_id = ${parameter(clientId)}`);
  if (loggedInBeforeTime !== undefined) {
    conditions.push(`session.create_time < ${parameter(loggedInBeforeTime)}`);
  }
  if (role !== undefined) {
    conditions.push(`EXISTS (
      SELECT FROM user_roles WHERE user_roles.user_id = session.user_id AND user_roles.role = ${parameter(role)})`);
  }
  if (network !== undefined) {
    // Events are found by the session's id, for which placed ones have an index. The positions around the time of the
    // login let the database leave out partitions.
    const isLogin = `event.subjects && ARRAY[session.session_id::text] AND event.type = 'session-established'
        AND event.network = ${parameter(network)}`;
    conditions.push(`(EXISTS (
      SELECT FROM security_events_unplaced AS event WHERE ${isLogin}
    ) OR EXISTS (
      SELECT FROM security_events_routine AS event WHERE ${isLogin}
        AND position BETWEEN security_position(session.create_time - interval '1 minute')
                             - (SELECT early_us FROM security_stream)
                         AND security_position(session.create_time + interval '1 minute')
                             + (SELECT late_us FROM security_stream)))`);
  }
  return {
    searched: `searched AS MATERIALIZED (
       SELECT session_id, user_id, client_id, create_time FROM sessions
       WHERE session_id > $1 AND end_time IS NULL AND expire_time > clock_timestamp()
         ${userId === undefined ? '' : `AND user_id = ${parameter(userId)}`}
       ORDER BY session_id LIMIT ${SEARCHED_MAX})`,
    matches: conditions.join(' AND '),
    values,
  };
}

/** Undefined once fewer sessions were left than a step looks at. */
function nextOf(row: StepRow | undefined): string | undefined {
  return row === undefined || row.last === null || row.searched < BigInt(SEARCHED_MAX) ? undefined : row.last;
}

function sessionsOf(row: MatchRow): MatchedSession[] {
  if (row.session_id === null) return [];
  return [
    {
      sessionId: row.session_id,
      userId: row.user_id,
      clientId: row.client_id,
      createTime: row.create_time,
      username: row.username,
    },
  ];
}
