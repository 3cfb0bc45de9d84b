/** Clients and their used assertions in PostgreSQL. */

import type { Sql } from '../../common/database/database.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../../common/validation/paging.js';
import {
  ASSERTIONS_PER_CLIENT_MAX,
  type Client,
  type ClientRights,
  type ClientRows,
  type NewClient,
  type StoredCredential,
} from '../records/clients.js';
import type { PageRequest } from '../records/page.js';
import { DIRECT_CLIENT } from './client-ids.js';

/** A credential in the column `credentials`. */
interface CredentialJson {
  readonly credentialId: string;
  readonly kind: StoredCredential['kind'];
  readonly createTime: string;
  readonly pem?: string;
  readonly hash?: string;
}

interface ClientRow {
  readonly client_id: string;
  readonly generation: bigint;
  readonly public_key_pem: string | null;
  readonly secret_hash: string | null;
  readonly credentials: readonly CredentialJson[];
  readonly audiences: string[];
  readonly scopes: string[];
  readonly exchange_audiences: string[];
  readonly exchange_scopes: string[] | null;
  readonly certificate_bound: boolean;
  readonly broker_key: string | null;
  readonly disabled: boolean;
  readonly create_time: Date;
}

const CLIENT_COLUMNS = `client_id, generation, public_key_pem, secret_hash, credentials, audiences, scopes, exchange_audiences,
  exchange_scopes, certificate_bound, broker_key, disable_time IS NOT NULL AS disabled, create_time`;

/** The rows of clients and of their used assertions, inside a transaction. */
export function createClientRows(sql: Sql): ClientRows {
  return {
    insertWhenAbsent: (client) => insertWhenAbsent(sql, client),
    find: (clientId) => selectClient(sql, clientId, ''),
    lockShared: (clientId) => selectClient(sql, clientId, 'FOR SHARE'),
    wasDeleted: (clientId) => wasDeleted(sql, clientId),
    lock: async (clientId) => {
      await lockAgainstMinting(sql);
      return await selectClient(sql, clientId, '');
    },
    lockAll: () => lockAgainstMinting(sql),
    some: (which) => someClients(sql, which),
    raiseGeneration: (clientId) => raiseGeneration(sql, clientId),
    setRights: (clientId, rights) => setRights(sql, clientId, rights),
    setCredentials: (clientId, credentials) => setCredentials(sql, clientId, credentials),
    delete: (clientId) => deleteClient(sql, clientId),
    list: (page) => listClients(sql, page),
    knownWords: (words) => knownWords(sql, words),
    setDisabled: (clientId, disabled) => setDisabled(sql, clientId, disabled),
    useAssertion: (assertion) => useAssertion(sql, assertion),
    deleteExpiredAssertions: (limit) => deleteExpiredAssertions(sql, limit),
  };
}

async function insertWhenAbsent(sql: Sql, client: NewClient): Promise<boolean> {
  const { rowCount } = await sql.query(
    `INSERT INTO clients AS former (client_id, create_time) VALUES ($1, clock_timestamp())
     ON CONFLICT (client_id) DO UPDATE
       SET create_time = excluded.create_time, delete_time = NULL, disable_time = NULL
       WHERE former.delete_time IS NOT NULL`,
    [client.clientId],
  );
  if (rowCount === 0) return false;
  await setRights(sql, client.clientId, client);
  await setCredentials(sql, client.clientId, client.credentials);
  return true;
}

async function wasDeleted(sql: Sql, clientId: string): Promise<boolean> {
  const { rowCount } = await sql.query(
    'SELECT FROM clients WHERE client_id = $1 AND delete_time IS NOT NULL',
    [clientId],
  );
  return rowCount > 0;
}

async function setRights(sql: Sql, clientId: string, rights: ClientRights): Promise<void> {
  await sql.query(
    `UPDATE clients SET audiences = $2, scopes = $3, exchange_audiences = $4, exchange_scopes = $5,
       certificate_bound = $6, broker_key = $7
     WHERE client_id = $1`,
    [
      clientId,
      rights.audiences,
      rights.scopes,
      rights.exchangeAudiences,
      rights.exchangeScopes ?? null,
      rights.certificateBound,
      rights.brokerKey ?? null,
    ],
  );
}

async function setCredentials(
  sql: Sql,
  clientId: string,
  credentials: readonly StoredCredential[],
): Promise<void> {
  // Instances of the version before know one credential, and a key is what most clients have.
  const key = credentials.find((credential) => credential.kind === 'public-key');
  const secret = credentials.find((credential) => credential.kind === 'secret');
  await sql.query(
    'UPDATE clients SET credentials = $2::jsonb, public_key_pem = $3, secret_hash = $4 WHERE client_id = $1',
    [
      clientId,
      JSON.stringify(credentials),
      key?.pem ?? null,
      key === undefined ? (secret?.hash ?? null) : null,
    ],
  );
}

async function deleteClient(sql: Sql, clientId: string): Promise<void> {
  await setCredentials(sql, clientId, []);
  await sql.query(
    `UPDATE clients SET delete_time = clock_timestamp(), disable_time = coalesce(disable_time, clock_timestamp())
     WHERE client_id = $1`,
    [clientId],
  );
}

async function selectClient(
  sql: Sql,
  clientId: string,
  locking: '' | 'FOR SHARE',
): Promise<Client | undefined> {
  const { rows } = await sql.query<ClientRow>(
    `SELECT ${CLIENT_COLUMNS} FROM clients WHERE client_id = $1 AND delete_time IS NULL ${locking}`,
    [clientId],
  );
  return rows[0] && clientOf(rows[0]);
}

/**
 * While transactions keep share-locking a client's row, a waiter for the row lock is overtaken by every new one and
 * starves. The table lock is granted in the order of the requests.
 */
async function lockAgainstMinting(sql: Sql): Promise<void> {
  await sql.query('LOCK TABLE clients IN EXCLUSIVE MODE');
}

async function raiseGeneration(sql: Sql, clientId: string): Promise<bigint | undefined> {
  await lockAgainstMinting(sql);
  const { rows } = await sql.query<{ generation: bigint }>(
    `UPDATE clients SET generation = generation + 1 WHERE client_id = $1 AND delete_time IS NULL
     RETURNING generation`,
    [clientId],
  );
  return rows[0]?.generation;
}

async function someClients(sql: Sql, which: Parameters<ClientRows['some']>[0]): Promise<readonly Client[]> {
  const limit = 'limit' in which ? which.limit : which.clientIds.length;
  const { rows } = await sql.query<ClientRow>(
    `SELECT ${CLIENT_COLUMNS} FROM clients
     WHERE client_id <> $1 AND delete_time IS NULL AND ($2::text[] IS NULL OR client_id = ANY($2))
     ORDER BY client_id LIMIT $3`,
    [DIRECT_CLIENT, 'limit' in which ? null : which.clientIds, limit],
  );
  return rows.map(clientOf);
}

async function listClients(
  sql: Sql,
  request: PageRequest,
): Promise<{ clients: Client[]; nextPageToken: string }> {
  const { limit, after } = pageOf(request, [cursorPatterns.text]);
  const { rows } = await sql.query<ClientRow>(
    `SELECT ${CLIENT_COLUMNS} FROM clients WHERE client_id > $1 AND delete_time IS NULL ORDER BY client_id LIMIT $2`,
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
     WHERE client_id = $1 AND delete_time IS NULL`,
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

function credentialsOf(row: ClientRow): readonly StoredCredential[] {
  if (row.credentials.length > 0) return row.credentials.map(credentialOf);
  // Created by an instance of the version before.
  const first = { credentialId: 'first', createTime: row.create_time };
  if (row.public_key_pem !== null) return [{ ...first, kind: 'public-key', pem: row.public_key_pem }];
  return row.secret_hash === null ? [] : [{ ...first, kind: 'secret', hash: row.secret_hash }];
}

function credentialOf({
  credentialId,
  kind,
  createTime,
  pem = '',
  hash = '',
}: CredentialJson): StoredCredential {
  const common = { credentialId, createTime: new Date(createTime) };
  return kind === 'public-key' ? { ...common, kind, pem } : { ...common, kind, hash };
}

function clientOf(row: ClientRow): Client {
  return {
    clientId: row.client_id,
    generation: row.generation,
    credentials: credentialsOf(row),
    audiences: row.audiences,
    scopes: row.scopes,
    exchangeAudiences: row.exchange_audiences,
    exchangeScopes: row.exchange_scopes ?? undefined,
    certificateBound: row.certificate_bound,
    brokerKey: row.broker_key ?? undefined,
    disabled: row.disabled,
    createTime: row.create_time,
  };
}
