/** Users in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import type { PageRequest } from '../records/page.js';
import type { User, UserCredentials, UserRows, UserState } from '../records/users.js';
import { foldUsername } from './usernames.js';

interface UserRow {
  readonly user_id: string;
  readonly username: string;
  readonly roles: string[];
  readonly create_time: Date;
  readonly disabled: boolean;
}

interface CredentialsRow {
  readonly user_id: string;
  readonly username: string;
  readonly password_hash: string;
  readonly password_version: bigint;
  readonly generation: bigint;
}

const CREDENTIALS_COLUMNS = 'user_id, username, password_hash, password_version, generation';
const ROLES_OF_USER = 'ARRAY(SELECT role FROM user_roles r WHERE r.user_id = u.user_id ORDER BY role)';

/** A condition: the user was not deleted. Every query but that for a taken name has it. */
const EXISTS = 'u.delete_time IS NULL';

/** Name of the lock of all changes that can take an administrator away, among the advisory locks of the database. */
const ADMINS_LOCK = 'portcullis administrators';

const USER_COLUMNS = `u.user_id, u.username, ${ROLES_OF_USER} AS roles, u.create_time,
  u.disable_time IS NOT NULL AS disabled`;

/** The rows of users, inside a transaction. */
export function createUserRows(sql: Sql): UserRows {
  return {
    insert: (user) => insertUser(sql, user),
    find: (userId) => findUser(sql, userId),
    list: (page) => listUsers(sql, page),
    hasName: async (username) => {
      const { rowCount } = await sql.query('SELECT FROM users WHERE folded_name = $1', [
        foldUsername(username),
      ]);
      return rowCount > 0;
    },
    credentialsByName: (username) => selectCredentials(sql, 'folded_name', foldUsername(username)),
    credentialsById: (userId) => selectCredentials(sql, 'user_id', userId),
    lockShared: (userId) => lockShared(sql, userId),
    lock: async (userId) => {
      const { rowCount } = await sql.query(
        `SELECT FROM users u WHERE user_id = $1 AND ${EXISTS} FOR NO KEY UPDATE`,
        [userId],
      );
      return rowCount > 0;
    },
    raiseGeneration: async (userId) => {
      const { rows } = await sql.query<{ generation: bigint }>(
        `UPDATE users u SET generation = generation + 1 WHERE user_id = $1 AND ${EXISTS} RETURNING generation`,
        [userId],
      );
      return rows[0]?.generation;
    },
    lockAdmins: () => lockAdmins(sql),
    changePassword: (from, passwordHash) => changePassword(sql, from, passwordHash),
    setPassword: async (userId, passwordHash) => {
      const { rowCount } = await sql.query(
        `UPDATE users SET password_hash = $2, password_version = password_version + 1
         WHERE user_id = $1 AND disable_time IS NULL`,
        [userId, passwordHash],
      );
      return rowCount > 0;
    },
    setRoles: async (userId, roles) => {
      await sql.query('DELETE FROM user_roles WHERE user_id = $1', [userId]);
      await insertRoles(sql, userId, roles);
    },
    setDisabled: (userId, disabled) => setDisabled(sql, userId, disabled),
    delete: async (userId) => {
      await sql.query(
        `UPDATE users SET delete_time = clock_timestamp(), disable_time = coalesce(disable_time, clock_timestamp()),
           password_hash = '', password_version = password_version + 1
         WHERE user_id = $1`,
        [userId],
      );
      await sql.query('DELETE FROM user_roles WHERE user_id = $1', [userId]);
    },
  };
}

async function insertUser(
  sql: Sql,
  { userId, username, nameSkeleton, passwordHash, roles }: Parameters<UserRows['insert']>[0],
): Promise<User | undefined> {
  const { rows } = await sql.query<{ create_time: Date }>(
    `INSERT INTO users (user_id, username, name_skeleton, password_hash) VALUES ($1, $2, $3, $4)
     ON CONFLICT DO NOTHING RETURNING create_time`,
    [userId, username, nameSkeleton, passwordHash],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  await insertRoles(sql, userId, roles);
  return { userId, username, roles, createTime: row.create_time, disabled: false };
}

async function insertRoles(sql: Sql, userId: string, roles: readonly string[]): Promise<void> {
  await sql.query('INSERT INTO user_roles (user_id, role) SELECT $1, unnest($2::text[])', [userId, roles]);
}

async function findUser(sql: Sql, userId: string): Promise<User | undefined> {
  const { rows } = await sql.query<UserRow>(
    `SELECT ${USER_COLUMNS} FROM users u WHERE user_id = $1 AND ${EXISTS}`,
    [userId],
  );
  return rows[0] && userOf(rows[0]);
}

async function listUsers(sql: Sql, request: PageRequest): Promise<{ users: User[]; nextPageToken: string }> {
  const { limit, after } = pageOf(request, [cursorPatterns.text]);
  const { rows } = await sql.query<UserRow>(
    `SELECT ${USER_COLUMNS} FROM users u WHERE username > $1 AND ${EXISTS} ORDER BY username LIMIT $2`,
    [after?.[0] ?? '', limit + 1],
  );
  const users = rows.slice(0, limit).map(userOf);
  const last = rows.length > limit ? users.at(-1) : undefined;
  return { users, nextPageToken: last ? pageTokenOf([last.username]) : '' };
}

async function selectCredentials(
  sql: Sql,
  column: 'folded_name' | 'user_id',
  value: string,
): Promise<UserCredentials | undefined> {
  const { rows } = await sql.query<CredentialsRow>(
    `SELECT ${CREDENTIALS_COLUMNS} FROM users u WHERE ${column} = $1 AND ${EXISTS}`,
    [value],
  );
  return rows[0] && credentialsOf(rows[0]);
}

async function lockShared(sql: Sql, userId: string): Promise<UserState | undefined> {
  const { rows } = await sql.query<{ generation: bigint; password_version: bigint; disabled: boolean }>(
    `SELECT generation, password_version, disable_time IS NOT NULL AS disabled
     FROM users u WHERE user_id = $1 AND ${EXISTS} FOR SHARE`,
    [userId],
  );
  const [row] = rows;
  if (row === undefined) return undefined;
  // A separate statement: the snapshot of one that waited for the lock was taken before the wait, with the old roles.
  const roles = await sql.query<{ role: string }>(
    'SELECT role FROM user_roles WHERE user_id = $1 ORDER BY role',
    [userId],
  );
  return {
    userId,
    generation: row.generation,
    passwordVersion: row.password_version,
    roles: roles.rows.map(({ role }) => role),
    disabled: row.disabled,
  };
}

async function lockAdmins(sql: Sql): Promise<readonly string[]> {
  // Row locks would not do: two transactions could each lock the row of the other one's administrator.
  await sql.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [ADMINS_LOCK]);
  // A separate statement: its snapshot is taken after the wait for the lock.
  const { rows } = await sql.query<{ user_id: string }>(
    `SELECT u.user_id FROM users u JOIN user_roles r USING (user_id)
     WHERE r.role = 'admin' AND u.disable_time IS NULL ORDER BY u.user_id LIMIT 2`,
  );
  return rows.map(({ user_id: userId }) => userId);
}

async function changePassword(
  sql: Sql,
  { userId, passwordVersion, generation }: Parameters<UserRows['changePassword']>[0],
  passwordHash: string,
): Promise<bigint | undefined> {
  const { rows } = await sql.query<{ generation: bigint }>(
    `UPDATE users SET password_hash = $4, password_version = password_version + 1, generation = generation + 1
     WHERE user_id = $1 AND password_version = $2 AND generation = $3 AND disable_time IS NULL
     RETURNING generation`,
    [userId, passwordVersion, generation, passwordHash],
  );
  return rows[0]?.generation;
}

async function setDisabled(sql: Sql, userId: string, disabled: boolean): Promise<boolean> {
  const { rowCount } = await sql.query(
    `UPDATE users u SET disable_time = CASE WHEN $2 THEN coalesce(disable_time, clock_timestamp()) END
     WHERE user_id = $1 AND ${EXISTS}`,
    [userId, disabled],
  );
  return rowCount > 0;
}

function credentialsOf(row: CredentialsRow): UserCredentials {
  return {
    userId: row.user_id,
    username: row.username,
    passwordHash: row.password_hash,
    passwordVersion: row.password_version,
    generation: row.generation,
  };
}

function userOf(row: UserRow): User {
  return {
    userId: row.user_id,
    username: row.username,
    roles: row.roles,
    createTime: row.create_time,
    disabled: row.disabled,
  };
}
