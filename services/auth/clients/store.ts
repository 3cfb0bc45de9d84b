/** Clients and their used assertions in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import {
  ASSERTIONS_PER_CLIENT_MAX,
  type Client,
  type ClientRows,
  type NewClient,
} from '../records/clients.js';
import type { PageRequest } from '../records/page.js';

interface ClientRow {
  readonly client_id: string;
  readonly generation: bigint;
  readonly public_key_pem: string | null;
  readonly secret_hash: string | null;
  readonly audiences: string[];
  readonly scopes: string[];
  readonly exchange_audiences: string[];
  readonly exchange_scopes: string[] | null;
  readonly certificate_bound: boolean;
  readonly disabled: boolean;
  readonly create_time: Date;
}

const CLIENT_COLUMNS = `client_id, generation, public_key_pem, secret_hash, audiences, scopes, exchange_audiences,
  exchange_scopes, certificate_bound, disable_time IS NOT NULL AS disabled, create_time`;

/** The rows of clients and of their used assertions, inside a transaction. */
export function createClientRows(sql: Sql): ClientRows {
  return {
    insertWhenAbsent: (client) => insertWhenAbsent(sql, client),
    find: (clientId) => selectClient(sql, clientId, ''),
    lockShared: (clientId) => selectClient(sql, clientId, 'FOR SHARE'),
    raiseGeneration: (clientId) => raiseGeneration(sql, clientId),
    list: (page) => listClients(sql, page),
    knownWords: (words) => knownWords(sql, words),
    setDisabled: (clientId, disabled) => setDisabled(sql, clientId, disabled),
    useAssertion: (assertion) => useAssertion(sql, assertion),
    deleteExpiredAssertions: (limit) => deleteExpiredAssertions(sql, limit),
  };
}

async function insertWhenAbsent(sql: Sql, client: NewClient): Promise<boolean> {
  const { rowCount } = await sql.query(
    `INSERT INTO clients
       (client_id, public_key_pem, secret_hash, audiences, scopes, exchange_audiences, exchange_scopes,
        certificate_bound)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
    [
      client.clientId,
      client.publicKeyPem ?? null,
      client.secretHash ?? null,
      client.audiences,
      client.scopes,
      client.exchangeAudiences,
      client.exchangeScopes ?? null,
      client.certificateBound,
    ],
  );
  return rowCount > 0;
}

async function selectClient(
  sql: Sql,
  clientId: string,
  locking: '' | 'FOR SHARE',
): Promise<Client | undefined> {
  const { rows } = await sql.query<ClientRow>(
    `SELECT ${CLIENT_COLUMNS} FROM clients WHERE client_id = $1 ${locking}`,
    [clientId],
  );
  return rows[0] && clientOf(rows[0]);
}

async function raiseGeneration(sql: Sql, clientId: string): Promise<bigint | undefined> {
  // While transactions keep share-locking the row, a waiter for the row lock is overtaken by every new one and starves.
  // The table lock is granted in the order of the requests.
  await sql.query('LOCK TABLE clients IN EXCLUSIVE MODE');
  const { rows } = await sql.query<{ generation: bigint }>(
    'UPDATE clients SET generation = generation + 1 WHERE client_id = $1 RETURNING generation',
    [clientId],
  );
  return rows[0]?.generation;
}

async function listClients(
  sql: Sql,
  request: PageRequest,
): Promise<{ clients: Client[]; nextPageToken: string }> {
  const { limit, after } = pageOf(request, [cursorPatterns.text]);
  const { rows } = await sql.query<ClientRow>(
    `SELECT ${CLIENT_COLUMNS} FROM clients WHERE client_id > $1 ORDER BY client_id LIMIT $2`,
    [after?.[0] ?? '', limit + 1],
  );
  const clients = rows.slice(0, limit).map(clientOf);
  const last = rows.length > limit ? clients.at(-1) : undefined;
  return { clients, nextPageToken: last ? pageTokenOf([last.clientId]) : '' };
}

async function knownWords(
  sql: Sql,
  { scopes, audiences }: Parameters<ClientRows['knownWords']>[0],
): ReturnType<ClientRows['knownWords']> {
  const { rows } = await sql.query<{ scopes: string[]; audiences: string[] }>(
    `SELECT
       ARRAY(SELECT word FROM unnest($1::text[]) AS word WHERE EXISTS (
         SELECT FROM clients WHERE word = ANY(scopes) OR word = ANY(exchange_scopes))) AS scopes,
       ARRAY(SELECT word FROM unnest($2::text[]) AS word WHERE EXISTS (
         SELECT FROM clients
         WHERE word = ANY(audiences) OR word = ANY(exchange_audiences) OR word = client_id)) AS audiences`,
    [scopes, audiences],
  );
  return rows[0] ?? { scopes: [], audiences: [] };
}

async function setDisabled(sql: Sql, clientId: string, disabled: boolean): Promise<boolean> {
  const { rowCount } = await sql.query(
    `UPDATE clients SET disable_time = CASE WHEN $2 THEN coalesce(disable_time, clock_timestamp()) END
     WHERE client_id = $1`,
    [clientId, disabled],
  );
  return rowCount > 0;
}

async function useAssertion(
  sql: Sql,
  { clientId, jtiHash, expireTime }: Parameters<ClientRows['useAssertion']>[0],
): ReturnType<ClientRows['useAssertion']> {
  const kept = await sql.query('SELECT FROM client_assertions WHERE client_id = $1 OFFSET $2 - 1 LIMIT 1', [
    clientId,
    ASSERTIONS_PER_CLIENT_MAX,
  ]);
  if (kept.rowCount > 0) return 'FULL';
  const { rowCount } = await sql.query(
    `INSERT INTO client_assertions (client_id, jti_hash, expire_time)
     VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [clientId, jtiHash, expireTime],
  );
  return rowCount > 0 ? 'USED' : 'REUSED';
}

async function deleteExpiredAssertions(sql: Sql, limit: number): Promise<number> {
  const { rowCount } = await sql.query(
    `DELETE FROM client_assertions WHERE (client_id, jti_hash) IN (
       SELECT client_id, jti_hash FROM client_assertions
       WHERE expire_time < clock_timestamp() - interval '1 minute'
       ORDER BY expire_time LIMIT $1 FOR UPDATE SKIP LOCKED)`,
    [limit],
  );
  return rowCount;
}

function clientOf(row: ClientRow): Client {
  return {
    clientId: row.client_id,
    generation: row.generation,
    publicKeyPem: row.public_key_pem ?? undefined,
    secretHash: row.secret_hash ?? undefined,
    audiences: row.audiences,
    scopes: row.scopes,
    exchangeAudiences: row.exchange_audiences,
    exchangeScopes: row.exchange_scopes ?? undefined,
    certificateBound: row.certificate_bound,
    disabled: row.disabled,
    createTime: row.create_time,
  };
}
