/** The narrowings of the policy in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import type { NarrowedUser, Narrowing, NarrowingRows, NarrowingStep } from '../records/policy.js';
import type { SessionEnd } from '../records/sessions.js';

/** Maximum number of open sessions at which one step looks. */
export const SEARCHED_MAX = 2000;

/** Before every user that auth makes: their ids are random. */
const FIRST_ID = '00000000-0000-0000-0000-000000000000';

/** Columns of a user `u`: the scopes that the user's roles grant, and the audiences that they reach. */
const GRANTED = `
  ARRAY(SELECT scope FROM user_roles r JOIN role_scopes USING (role) WHERE r.user_id = u.user_id) AS granted,
  ARRAY['auth'] || ARRAY(
    SELECT audience FROM user_roles r JOIN role_scopes USING (role) JOIN service_scopes USING (scope)
    WHERE r.user_id = u.user_id) AS reached`;

/**
 * A condition on a session `s` of a user `g` with these columns: it is open, and has a lost scope ($1) or audience ($2) that
 * it is not granted any more.
 */
const LOSES = `s.end_time IS NULL AND s.expire_time > clock_timestamp() AND s.generation = g.generation AND (
  s.scopes && $1::text[] AND EXISTS (
    SELECT FROM unnest(s.scopes) AS word WHERE word = ANY($1::text[]) AND word <> ALL(g.granted))
  OR s.audiences && $2::text[] AND EXISTS (
    SELECT FROM unnest(s.audiences) AS word WHERE word = ANY($2::text[]) AND word <> ALL(g.reached)))`;

/** The narrowings, inside a transaction, which must be read committed. */
export function createNarrowingRows(sql: Sql): NarrowingRows {
  return {
    add: (narrowing) => addNarrowing(sql, narrowing),
    find: (narrowingId) => selectNarrowing(sql, narrowingId, ''),
    lock: (narrowingId) => selectNarrowing(sql, narrowingId, 'FOR UPDATE'),
    pending: async () => {
      const { rows } = await sql.query<{ narrowing_id: bigint }>(
        'SELECT narrowing_id FROM policy_narrowings WHERE end_time IS NULL ORDER BY narrowing_id',
      );
      return rows.map(({ narrowing_id: narrowingId }) => narrowingId);
    },
    usersAfter: (narrowing, limit) => usersAfter(sql, narrowing, limit),
    raiseGenerations: (narrowing, userIds) => raiseGenerations(sql, narrowing, userIds),
    restamp: (userIds) => restamp(sql, userIds),
    advance: async ({ narrowingId }, { next, users, sequence, enforcedEverywhereBy }) => {
      await sql.query(
        `UPDATE policy_narrowings SET after_user = coalesce($2, after_user), users = users + $3,
           sequence = CASE WHEN $3 > 0 THEN $4 ELSE sequence END,
           enforced_by = greatest(enforced_by, $5::timestamptz),
           end_time = CASE WHEN $2::uuid IS NULL THEN clock_timestamp() END
         WHERE narrowing_id = $1`,
        [narrowingId, next ?? null, users, sequence, enforcedEverywhereBy ?? null],
      );
    },
  };
}

async function addNarrowing(
  sql: Sql,
  { scopes, audiences, actor, eventId }: Parameters<NarrowingRows['add']>[0],
): Promise<bigint> {
  const { rows } = await sql.query<{ narrowing_id: bigint }>(
    `INSERT INTO policy_narrowings (scopes, audiences, actor, event_id) VALUES ($1, $2, $3, $4)
     RETURNING narrowing_id`,
    [scopes, audiences, actor, eventId],
  );
  const [row] = rows;
  if (row === undefined) throw new TypeError('expected the id of a narrowing, got no row');
  return row.narrowing_id;
}

interface NarrowingRow {
  readonly narrowing_id: bigint;
  readonly scopes: string[];
  readonly audiences: string[];
  readonly actor: string;
  readonly event_id: string;
  readonly after_user: string | null;
  readonly users: bigint;
  readonly sequence: bigint;
  readonly enforced_by: Date | null;
  readonly end_time: Date | null;
}

async function selectNarrowing(
  sql: Sql,
  narrowingId: bigint,
  locking: '' | 'FOR UPDATE',
): Promise<Narrowing | undefined> {
  const { rows } = await sql.query<NarrowingRow>(
    `SELECT narrowing_id, scopes, audiences, actor, event_id, after_user, users, sequence, enforced_by, end_time
     FROM policy_narrowings WHERE narrowing_id = $1 ${locking}`,
    [narrowingId],
  );
  const [row] = rows;
  return (
    row && {
      narrowingId,
      scopes: row.scopes,
      audiences: row.audiences,
      actor: row.actor,
      eventId: row.event_id,
      afterUser: row.after_user ?? undefined,
      users: row.users,
      sequence: row.sequence,
      enforcedEverywhereBy: row.enforced_by ?? undefined,
      ended: row.end_time !== null,
    }
  );
}

/** A step looks at all sessions of the users in a window of {@link SEARCHED_MAX} sessions. */
async function usersAfter(
  sql: Sql,
  { scopes, audiences, afterUser = FIRST_ID }: Narrowing,
  limit: number,
): Promise<NarrowingStep> {
  const { rows: windows } = await sql.query<{ last: string | null; searched: bigint }>(
    `SELECT max(user_id::text) AS last, count(*) AS searched FROM (
       SELECT user_id FROM sessions WHERE end_time IS NULL AND user_id > $1 ORDER BY user_id LIMIT ${SEARCHED_MAX}
     ) AS searched`,
    [afterUser],
  );
  const { last = null, searched = 0n } = windows[0] ?? {};
  if (last === null) return { userIds: [], next: undefined };
  const { rows } = await sql.query<{ user_id: string }>(
    `SELECT user_id FROM (
       SELECT user_id, generation, ${GRANTED} FROM users u WHERE user_id IN (
         SELECT user_id FROM sessions WHERE end_time IS NULL AND user_id > $3 AND user_id <= $4)
     ) AS g WHERE EXISTS (SELECT FROM sessions s WHERE s.user_id = g.user_id AND ${LOSES}) ORDER BY user_id LIMIT $5`,
    [scopes, audiences, afterUser, last, limit],
  );
  const userIds = rows.map(({ user_id: userId }) => userId);
  if (userIds.length === limit) return { userIds, next: userIds.at(-1) };
  return { userIds, next: searched < BigInt(SEARCHED_MAX) ? undefined : last };
}

async function raiseGenerations(
  sql: Sql,
  { scopes, audiences }: Narrowing,
  userIds: readonly string[],
): Promise<readonly NarrowedUser[]> {
  // In one order, as two batches may lock the same users.
  await sql.query('SELECT FROM users WHERE user_id = ANY($1::uuid[]) ORDER BY user_id FOR NO KEY UPDATE', [
    userIds,
  ]);
  // A separate statement: its snapshot has what the transactions have written that held the locks before.
  const { rows } = await sql.query<{ user_id: string; generation: bigint }>(
    `UPDATE users SET generation = users.generation + 1
     FROM (SELECT user_id, generation, ${GRANTED} FROM users u WHERE user_id = ANY($3::uuid[])) AS g
     WHERE users.user_id = g.user_id AND delete_time IS NULL
       AND EXISTS (SELECT FROM sessions s WHERE s.user_id = g.user_id AND ${LOSES})
     RETURNING users.user_id, users.generation`,
    [scopes, audiences, userIds],
  );
  return rows.map(({ user_id: userId, generation }) => ({ userId, generation }));
}

async function restamp(sql: Sql, userIds: readonly string[]): Promise<void> {
  await sql.query(
    `UPDATE sessions s SET generation = g.generation,
       scopes = ARRAY(SELECT word FROM unnest(s.scopes) WITH ORDINALITY AS t (word, n)
                      WHERE word = ANY(g.granted) ORDER BY n),
       audiences = ARRAY(SELECT word FROM unnest(s.audiences) WITH ORDINALITY AS t (word, n)
                         WHERE word = ANY(g.reached) ORDER BY n)
     FROM (SELECT user_id, generation, ${GRANTED} FROM users u WHERE user_id = ANY($1::uuid[])) AS g
     WHERE s.user_id = g.user_id AND s.generation = g.generation - 1 AND s.end_time IS NULL`,
    [userIds],
  );
  await sql.query(
    `UPDATE sessions s SET end_time = clock_timestamp(), end_reason = $2
     FROM users u
     WHERE s.user_id = u.user_id AND u.user_id = ANY($1::uuid[]) AND s.end_time IS NULL
       AND (s.generation <> u.generation OR s.audiences = '{}')`,
    [userIds, 'ROLES_CHANGED' satisfies SessionEnd],
  );
}
