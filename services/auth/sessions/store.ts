/** Sessions and refresh tokens in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import type { PageRequest } from '../records/page.js';
import type {
  LockedSession,
  RefreshTokenRow,
  Session,
  SessionEnd,
  SessionRows,
} from '../records/sessions.js';
import { countMatchingSessions, matchSessions } from './search-store.js';

/** For how many days the database keeps a session after its end. */
const SESSION_KEPT_DAYS = 30;

/** The rows of sessions and refresh tokens, inside a transaction. */
export function createSessionRows(sql: Sql): SessionRows {
  return {
    insert: (session) => insertSession(sql, session),
    lockShared: (sessionId) => selectSession(sql, sessionId, 'FOR SHARE'),
    lock: (sessionId) => selectSession(sql, sessionId, 'FOR UPDATE'),
    setLastUse: async (sessionId, time) => {
      await sql.query('UPDATE sessions SET last_use_time = $2 WHERE session_id = $1', [sessionId, time]);
    },
    end: async (sessionId, why) => (await endSessions(sql, 'session_id', sessionId, why)) > 0,
    lockEach: (sessionIds, busy) => lockEachSession(sql, sessionIds, busy),
    existing: async (sessionIds) => {
      const { rows } = await sql.query<{ session_id: string }>(
        'SELECT session_id FROM sessions WHERE session_id = ANY($1::uuid[])',
        [sessionIds],
      );
      return rows.map(({ session_id: sessionId }) => sessionId);
    },
    endEach: (endings) => endEachSession(sql, endings),
    endAllOfUser: (userId, why) => endSessions(sql, 'user_id', userId, why),
    endOthersOfUser: (userId, others) => endOtherSessions(sql, userId, others),
    match: (filter, page) => matchSessions(sql, filter, page),
    countMatching: (filter, after) => countMatchingSessions(sql, filter, after),
    endEvery: (why) => endEverySession(sql, why),
    restamp: (userId, change) => restampSessions(sql, userId, change),
    listOpen: (userId, page) => listOpenSessions(sql, userId, page),
    insertRefreshToken: async ({ hash, sessionId, expireTime }) => {
      await sql.query(
        'INSERT INTO refresh_tokens (token_hash, session_id, expire_time) VALUES ($1, $2, $3)',
        [hash, sessionId, expireTime],
      );
    },
    findRefreshToken: (hash) => findRefreshToken(sql, hash),
    markUsed: (token) => markUsed(sql, token),
    deleteOld: (limit) => deleteOldSessions(sql, limit),
  };
}

interface SessionRow {
  readonly session_id: string;
  readonly user_id: string;
  readonly client_id: string;
  readonly generation: bigint;
  readonly client_generation: bigint;
  readonly device_name: string;
  readonly audiences: string[];
  readonly scopes: string[];
  readonly amr: string[];
  readonly certificate_thumbprint: string | null;
  readonly network: string;
  readonly create_time: Date;
  readonly last_use_time: Date;
  readonly expire_time: Date;
  readonly open: boolean;
}

const IS_OPEN = 'end_time IS NULL AND expire_time > clock_timestamp()';
const SESSION_COLUMNS = `session_id, user_id, client_id, generation, client_generation, device_name, audiences,
  scopes, amr, certificate_thumbprint, network, create_time, last_use_time, expire_time, ${IS_OPEN} AS open`;

// A page token must distinguish sessions of the same millisecond, which a Date cannot.
const MICROSECONDS = '(extract(epoch FROM create_time) * 1000000)::bigint';

async function insertSession(sql: Sql, session: Omit<Session, 'open'>): Promise<void> {
  await sql.query(
    `INSERT INTO sessions (session_id, user_id, client_id, generation, client_generation, device_name,
       audiences, scopes, amr, certificate_thumbprint, create_time, last_use_time, expire_time, network)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
    [
      session.sessionId,
      session.userId,
      session.clientId,
      session.generation,
      session.clientGeneration,
      session.deviceName,
      session.audiences,
      session.scopes,
      session.amr,
      session.certificateThumbprint ?? null,
      session.createTime,
      session.lastUseTime,
      session.expireTime,
      session.network ?? '',
    ],
  );
}

async function selectSession(
  sql: Sql,
  sessionId: string,
  locking: 'FOR SHARE' | 'FOR UPDATE',
): Promise<Session | undefined> {
  const { rows } = await sql.query<SessionRow>(
    `SELECT ${SESSION_COLUMNS} FROM sessions WHERE session_id = $1 ${locking}`,
    [sessionId],
  );
  return rows[0] && sessionOf(rows[0]);
}

/**
 * The weakest lock that excludes another end, so that tokens which refer to the session do not count as locks. Rows are
 * locked in the order of their ids.
 */
async function lockEachSession(
  sql: Sql,
  sessionIds: readonly string[],
  busy: 'wait' | 'skip',
): Promise<readonly LockedSession[]> {
  const { rows } = await sql.query<Pick<SessionRow, 'session_id' | 'user_id' | 'open'> & { ended: boolean }>(
    `SELECT session_id, user_id, ${IS_OPEN} AS open, end_time IS NOT NULL AS ended FROM sessions
     WHERE session_id = ANY($1::uuid[]) ORDER BY session_id FOR NO KEY UPDATE${busy === 'skip' ? ' SKIP LOCKED' : ''}`,
    [sessionIds],
  );
  return rows.map(({ session_id: sessionId, user_id: userId, open, ended }) => ({
    sessionId,
    userId,
    open,
    ended,
  }));
}

async function endEachSession(sql: Sql, endings: Parameters<SessionRows['endEach']>[0]): Promise<void> {
  await sql.query(
    `UPDATE sessions SET end_time = clock_timestamp(), end_reason = ending.why
     FROM unnest($1::uuid[], $2::text[]) AS ending (session_id, why)
     WHERE sessions.session_id = ending.session_id AND end_time IS NULL`,
    [endings.map(({ sessionId }) => sessionId), endings.map(({ why }) => why)],
  );
}

async function endSessions(
  sql: Sql,
  column: 'session_id' | 'user_id',
  id: string,
  why: SessionEnd,
): Promise<number> {
  const { rowCount } = await sql.query(
    `UPDATE sessions SET end_time = clock_timestamp(), end_reason = $2
     WHERE ${column} = $1 AND end_time IS NULL`,
    [id, why],
  );
  return rowCount;
}

async function endOtherSessions(
  sql: Sql,
  userId: string,
  { than, why, limit }: Parameters<SessionRows['endOthersOfUser']>[1],
): Promise<readonly string[]> {
  const { rows } = await sql.query<{ session_id: string }>(
    `UPDATE sessions SET end_time = clock_timestamp(), end_reason = $3
     WHERE session_id IN (
       SELECT session_id FROM sessions WHERE user_id = $1 AND session_id <> $2 AND ${IS_OPEN}
       ORDER BY session_id LIMIT $4 FOR UPDATE)
     RETURNING session_id`,
    [userId, than, why, limit],
  );
  return rows.map(({ session_id: sessionId }) => sessionId);
}

async function endEverySession(sql: Sql, why: SessionEnd): Promise<number> {
  const { rowCount } = await sql.query(
    'UPDATE sessions SET end_time = clock_timestamp(), end_reason = $1 WHERE end_time IS NULL',
    [why],
  );
  return rowCount;
}

async function restampSessions(
  sql: Sql,
  userId: string,
  { from, to, scopes, audiences }: Parameters<SessionRows['restamp']>[1],
): Promise<void> {
  await sql.query(
    `UPDATE sessions SET generation = $3,
       scopes = ARRAY(SELECT s FROM unnest(scopes) WITH ORDINALITY AS t (s, n) WHERE s = ANY($4) ORDER BY n),
       audiences = ARRAY(SELECT a FROM unnest(audiences) WITH ORDINALITY AS t (a, n) WHERE a = ANY($5) ORDER BY n)
     WHERE user_id = $1 AND generation = $2 AND end_time IS NULL`,
    [userId, from, to, scopes, audiences],
  );
  await sql.query(
    `UPDATE sessions SET end_time = clock_timestamp(), end_reason = $2
     WHERE user_id = $1 AND end_time IS NULL AND (generation <> $3 OR audiences = '{}')`,
    [userId, 'ROLES_CHANGED' satisfies SessionEnd, to],
  );
}

async function listOpenSessions(
  sql: Sql,
  userId: string,
  request: PageRequest,
): Promise<{ sessions: Session[]; nextPageToken: string }> {
  const { limit, after } = pageOf(request, [cursorPatterns.integer, cursorPatterns.uuid]);
  const { rows } = await sql.query<SessionRow & { microseconds: bigint }>(
    `SELECT ${SESSION_COLUMNS}, ${MICROSECONDS} AS microseconds FROM sessions
     WHERE user_id = $1 AND ${IS_OPEN} AND ($2::bigint IS NULL OR (${MICROSECONDS}, session_id) < ($2, $3))
     ORDER BY create_time DESC, session_id DESC LIMIT $4`,
    [userId, after?.[0] ?? null, after?.[1] ?? null, limit + 1],
  );
  const page = rows.slice(0, limit);
  const last = rows.length > limit ? page.at(-1) : undefined;
  return {
    sessions: page.map(sessionOf),
    nextPageToken: last ? pageTokenOf([String(last.microseconds), last.session_id]) : '',
  };
}

async function findRefreshToken(sql: Sql, hash: Buffer): Promise<RefreshTokenRow | undefined> {
  const { rows } = await sql.query<RefreshRow>(
    `SELECT session_id, user_id, t.expire_time, use_time, request_id, successor_hash
     FROM refresh_tokens t JOIN sessions USING (session_id) WHERE token_hash = $1`,
    [hash],
  );
  return rows[0] && refreshTokenOf(rows[0]);
}

async function markUsed(
  sql: Sql,
  { hash, time, requestId, successorHash }: Parameters<SessionRows['markUsed']>[0],
): Promise<void> {
  const { rowCount } = await sql.query(
    `UPDATE refresh_tokens SET use_time = $2, request_id = $3, successor_hash = $4
     WHERE token_hash = $1 AND use_time IS NULL`,
    [hash, time, requestId ?? null, successorHash],
  );
  // Unreachable while the session is locked; without that lock, two callers would both succeed here.
  if (rowCount !== 1) throw new Error('a refresh token was used twice at once');
}

async function deleteOldSessions(sql: Sql, limit: number): Promise<number> {
  const { rowCount } = await sql.query(
    `DELETE FROM sessions WHERE session_id IN (
       SELECT session_id FROM sessions
       WHERE expire_time < clock_timestamp() - make_interval(days => $1)
       ORDER BY expire_time LIMIT $2 FOR UPDATE SKIP LOCKED)`,
    [SESSION_KEPT_DAYS, limit],
  );
  return rowCount;
}

interface RefreshRow {
  readonly session_id: string;
  readonly user_id: string;
  readonly expire_time: Date;
  readonly use_time: Date | null;
  readonly request_id: string | null;
  readonly successor_hash: Buffer | null;
}

function refreshTokenOf(row: RefreshRow): RefreshTokenRow {
  return {
    sessionId: row.session_id,
    userId: row.user_id,
    expireTime: row.expire_time,
    useTime: row.use_time ?? undefined,
    requestId: row.request_id ?? undefined,
    successorHash: row.successor_hash ?? undefined,
  };
}

function sessionOf(row: SessionRow): Session {
  return {
    sessionId: row.session_id,
    userId: row.user_id,
    clientId: row.client_id,
    generation: row.generation,
    clientGeneration: row.client_generation,
    deviceName: row.device_name,
    audiences: row.audiences,
    scopes: row.scopes,
    amr: row.amr,
    certificateThumbprint: row.certificate_thumbprint ?? undefined,
    network: row.network,
    createTime: row.create_time,
    lastUseTime: row.last_use_time,
    expireTime: row.expire_time,
    open: row.open,
  };
}
