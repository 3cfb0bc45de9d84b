/** The policy in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import type { Policy, PolicyDocument, PolicyRole, PolicyRows, PolicyService } from '../records/policy.js';
import { policyOf } from './policy.js';

/**
 * Name of the lock of the policy, among the advisory locks of the database. Minting shares it; a row lock would make all
 * mints of all replicas write to one row.
 */
const POLICY_LOCK = 'portcullis policy';

/** Longest idle time of a transaction that keeps minting from the policy, in milliseconds. */
const POLICY_LOCK_MS_MAX = 1000;

/** The policy that a process has read last. Every change has another etag, so what is kept under one never changes. */
export interface PolicyCache {
  policy: Policy | undefined;
}

/** The rows of the policy, inside a transaction, which must be read committed. */
export function createPolicyRows(sql: Sql, cache: PolicyCache): PolicyRows {
  let locked: Promise<Policy> | undefined;
  return {
    current: () => {
      locked ??= readLocked(sql, cache, 'pg_advisory_xact_lock_shared');
      return locked;
    },
    lock: async () => {
      // While a frozen process held the lock, no user could log in.
      await sql.query("SELECT set_config('idle_in_transaction_session_timeout', $1, true)", [
        `${POLICY_LOCK_MS_MAX}ms`,
      ]);
      locked = readLocked(sql, cache, 'pg_advisory_xact_lock');
      return await locked;
    },
    replace: async (document) => {
      const replaced = await replacePolicy(sql, document);
      locked = Promise.resolve(replaced);
      return replaced;
    },
    countUsers: (roles) => countUsers(sql, roles),
    clientsNaming: (words) => clientsNaming(sql, words),
  };
}

/** The policy at this moment. Takes no lock: it may be replaced before it is used. */
export async function readPolicy(sql: Sql, cache: PolicyCache): Promise<Policy> {
  const { rows } = await sql.query<{ etag: string }>('SELECT etag FROM policy');
  if (cache.policy !== undefined && cache.policy.etag === rows[0]?.etag) return cache.policy;
  cache.policy = await selectPolicy(sql);
  return cache.policy;
}

/** Two statements, sent together and executed in this order: the snapshot of a single one would be older than the lock. */
async function readLocked(
  sql: Sql,
  cache: PolicyCache,
  lock: 'pg_advisory_xact_lock' | 'pg_advisory_xact_lock_shared',
): Promise<Policy> {
  const [, policy] = await Promise.all([
    sql.query(`SELECT ${lock}(hashtextextended($1, 0))`, [POLICY_LOCK]),
    readPolicy(sql, cache),
  ]);
  return policy;
}

interface PolicyRow {
  readonly etag: string;
  readonly changed: boolean;
  readonly update_time: Date;
  readonly services: readonly PolicyService[];
  readonly roles: readonly PolicyRole[];
}

/** One statement, so that all of it is of one snapshot. */
async function selectPolicy(sql: Sql): Promise<Policy> {
  const { rows } = await sql.query<PolicyRow>(
    `SELECT etag, changed, update_time,
       (SELECT json_agg(json_build_object('audience', audience, 'description', description, 'clientIds', client_ids,
          'scopes', ARRAY(SELECT scope FROM service_scopes s WHERE s.audience = services.audience)))
        FROM services) AS services,
       (SELECT json_agg(json_build_object('role', role, 'description', description,
          'scopes', ARRAY(SELECT scope FROM role_scopes s WHERE s.role = roles.role)))
        FROM roles) AS roles
     FROM policy`,
  );
  const [row] = rows;
  if (row === undefined) throw new TypeError('the database has no policy');
  const { etag, changed, update_time: updateTime } = row;
  return policyOf(row, { etag, changed, updateTime });
}

async function replacePolicy(sql: Sql, { services, roles }: PolicyDocument): Promise<Policy> {
  const audiences = services.map(({ audience }) => audience);
  const names = roles.map(({ role }) => role);
  const ofServices = services.flatMap(({ audience, scopes }) => scopes.map((scope) => [scope, audience]));
  const ofRoles = roles.flatMap(({ role, scopes }) => scopes.map((scope) => [role, scope]));
  await sql.query('DELETE FROM role_scopes');
  await sql.query('DELETE FROM services');
  await sql.query('DELETE FROM roles WHERE role <> ALL($1)', [names]);
  await sql.query(
    `INSERT INTO services (audience, description, client_ids)
     SELECT audience, description, ARRAY(SELECT jsonb_array_elements_text(client_ids))
     FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS s (audience, description, client_ids)`,
    [
      audiences,
      services.map(({ description }) => description),
      services.map(({ clientIds }) => JSON.stringify(clientIds)),
    ],
  );
  await sql.query(
    'INSERT INTO service_scopes (scope, audience) SELECT * FROM unnest($1::text[], $2::text[])',
    [ofServices.map(([scope]) => scope), ofServices.map(([, audience]) => audience)],
  );
  // Users refer to the roles that stay.
  await sql.query(
    `INSERT INTO roles (role, description) SELECT * FROM unnest($1::text[], $2::text[])
     ON CONFLICT (role) DO UPDATE SET description = excluded.description`,
    [names, roles.map(({ description }) => description)],
  );
  await sql.query('INSERT INTO role_scopes (role, scope) SELECT * FROM unnest($1::text[], $2::text[])', [
    ofRoles.map(([role]) => role),
    ofRoles.map(([, scope]) => scope),
  ]);
  await sql.query(
    'UPDATE policy SET etag = gen_random_uuid(), changed = true, update_time = clock_timestamp()',
  );
  return await selectPolicy(sql);
}

async function countUsers(sql: Sql, roles: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql.query<{ role: string; count: bigint }>(
    'SELECT role, count(*) AS count FROM user_roles WHERE role = ANY($1) GROUP BY role',
    [roles],
  );
  return new Map(rows.map(({ role, count }) => [role, Number(count)]));
}

async function clientsNaming(
  sql: Sql,
  { scopes, audiences }: Parameters<PolicyRows['clientsNaming']>[0],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const { rows } = await sql.query<{ word: string; client_ids: string[] }>(
    `SELECT word, array_agg(client_id ORDER BY client_id) AS client_ids FROM (
       SELECT word, client_id FROM clients, unnest($1::text[]) AS word
       WHERE delete_time IS NULL AND (word = ANY(scopes) OR word = ANY(exchange_scopes))
       UNION
       SELECT word, client_id FROM clients, unnest($2::text[]) AS word
       WHERE delete_time IS NULL AND (word = ANY(audiences) OR word = ANY(exchange_audiences))) AS named
     GROUP BY word`,
    [scopes, audiences],
  );
  return new Map(rows.map(({ word, client_ids: clientIds }) => [word, clientIds]));
}
