/**
 * The databases of the services, each with two roles of its own: one owns the tables and runs migrations, the service
 * works with the other. Neither is a superuser, and neither can connect to the database of another service.
 */

import pg from 'pg';
import { SERVICES, type Service } from './forwarded-variables.js';
import { ensureDatabase } from './postgres.js';
import type { DatabasePasswords } from './secrets.js';
import { SystemError } from './system-error.js';

/** The connection strings of one service's database. */
interface ServiceDatabase {
  /** As the role of the service: it reads and writes rows. */
  readonly url: string;
  /** As the role that owns the tables. */
  readonly ownerUrl: string;
}

export type ServiceDatabases = Readonly<Record<Service, ServiceDatabase>>;

/** One database and its roles. */
interface Layout {
  readonly service: Service;
  readonly database: string;
  readonly role: string;
  readonly owner: string;
}

/** The advisory lock under which roles and databases are prepared. */
const PREPARATION_LOCK = '7305489217362';

/** PostgreSQL's `insufficient_privilege`. */
const NOT_PERMITTED = '42501';

/** The migrations of payment grant its role less than all rows: it can append to the ledger, not change it. */
const GRANTED_BY_MIGRATIONS: ReadonlySet<Service> = new Set(['payment']);

/**
 * Creates the databases and roles that are missing, sets the passwords, and gives the tables of an earlier version,
 * which ran its migrations as a superuser, to the owner. A second call changes nothing.
 *
 * @param url - any database of the server, as a superuser, or as a role with CREATEROLE and CREATEDB
 */
export async function prepareDatabases(url: string, passwords: DatabasePasswords): Promise<ServiceDatabases> {
  const layouts = SERVICES.map(layoutOf);
  await withClient(url, async (client) => {
    // Two starts at once would change the same rows of the catalog, and one of them would fail.
    await client.query('SELECT pg_advisory_lock($1)', [PREPARATION_LOCK]);
    for (const layout of layouts) await prepareDatabase(url, client, layout, passwords);
  });
  const databases = layouts.map(({ service, database, role, owner }) => {
    const as = (name: string, password: string) => changed(url, { database, role: name, password });
    return [
      service,
      { url: as(role, passwords[service].service), ownerUrl: as(owner, passwords[service].owner) },
    ];
  });
  return Object.fromEntries(databases) as ServiceDatabases;
}

/**
 * Prepares the databases on a server that the operator named.
 *
 * @throws SystemError that says what its role lacks
 */
export async function prepareGivenDatabases(
  given: string,
  passwords: DatabasePasswords,
): Promise<ServiceDatabases> {
  if (!URL.canParse(given)) throw new SystemError('DATABASE_URL is not a URL.');
  return await prepareDatabases(given, passwords).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const hint = cause instanceof pg.DatabaseError && cause.code === NOT_PERMITTED ? hintFor(given) : '';
    throw new SystemError(`The server that DATABASE_URL names cannot be used: ${reason}.${hint}`, { cause });
  });
}

/** Databases of the server itself, to which no service needs to connect. */
export async function closeMaintenanceDatabases(url: string): Promise<void> {
  await withClient(url, (client) => client.query('REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'));
}

function layoutOf(service: Service): Layout {
  const database = `portcullis_${service}`;
  return { service, database, role: database, owner: `${database}_owner` };
}

function hintFor(given: string): string {
  const role = decodeURIComponent(new URL(given).username);
  return (
    ' A start creates roles and databases, and gives tables of an earlier version to their owner. Put a superuser ' +
    `into DATABASE_URL, or let a superuser run: ALTER ROLE ${pg.escapeIdentifier(role)} CREATEROLE CREATEDB. ` +
    'To create the roles yourself, start each service on its own, with DATABASE_URL and ' +
    'PORTCULLIS_MIGRATION_DATABASE_URL (docs/operating/deploy.md, "Database roles").'
  );
}

async function prepareDatabase(
  url: string,
  client: pg.Client,
  layout: Layout,
  passwords: DatabasePasswords,
): Promise<void> {
  const { service, database, role, owner } = layout;
  await ensureRole(client, owner, passwords[service].owner);
  await ensureRole(client, role, passwords[service].service);
  await joinUnlessMember(client, owner);
  await ensureDatabase(url, database);
  const [quoted, roleName, ownerName] = [database, role, owner].map(pg.escapeIdentifier);
  await client.query(`ALTER DATABASE ${quoted} OWNER TO ${ownerName}`);
  await client.query(`REVOKE ALL ON DATABASE ${quoted} FROM PUBLIC`);
  await client.query(`GRANT CONNECT ON DATABASE ${quoted} TO ${roleName}, ${ownerName}, CURRENT_USER`);
  await withClient(changed(url, { database }), async (within) => {
    await within.query('BEGIN');
    await giveTables(within, owner);
    if (!GRANTED_BY_MIGRATIONS.has(service)) await grantRows(within, layout);
    await within.query('COMMIT');
  });
}

/** Creates a role that may log in and nothing more, unless it exists, and sets its password. */
async function ensureRole(client: pg.Client, name: string, password: string): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [name]);
  const verb = rowCount === 0 ? 'CREATE' : 'ALTER';
  await client.query(
    `${verb} ROLE ${pg.escapeIdentifier(name)} LOGIN PASSWORD ${pg.escapeLiteral(password)}`,
  );
}

/** A role that is no superuser gives away only what it owns, and only to roles of which it is a member. */
async function joinUnlessMember(client: pg.Client, owner: string): Promise<void> {
  const { rows } = await client.query<{ member: boolean }>("SELECT pg_has_role($1, 'USAGE') AS member", [
    owner,
  ]);
  if (rows[0]?.member === true) return;
  await client.query(`GRANT ${pg.escapeIdentifier(owner)} TO CURRENT_USER`);
}

/**
 * Gives all tables, views, sequences and functions to the owner. REASSIGN OWNED would not do: it refuses the superuser
 * with which the cluster was created. A sequence of a column goes with its table, and an extension keeps what it owns.
 */
async function giveTables(client: pg.Client, owner: string): Promise<void> {
  const { rows } = await client.query<{ command: string }>(
    `SELECT format('ALTER %s OWNER TO %I', object, $1::text) AS command FROM (
       SELECT 'TABLE ' || oid::regclass AS object, 'pg_class'::regclass AS class, oid, relowner AS owner
         FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
           AND NOT (relkind = 'S' AND EXISTS (
             SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
               AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
           ))
       UNION ALL
       SELECT 'ROUTINE ' || oid::regprocedure, 'pg_proc'::regclass, oid, proowner
         FROM pg_proc WHERE pronamespace = 'public'::regnamespace
     ) AS objects
     WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = $1::text) AND NOT EXISTS (
       SELECT FROM pg_depend WHERE classid = class AND objid = objects.oid AND deptype = 'e'
     )`,
    [owner],
  );
  for (const { command } of rows) await client.query(command);
}

/** All rows, also of tables that later migrations create. */
async function grantRows(client: pg.Client, { role, owner }: Layout): Promise<void> {
  const [roleName, ownerName] = [role, owner].map(pg.escapeIdentifier);
  for (const [rights, kind] of [
    ['SELECT, INSERT, UPDATE, DELETE', 'TABLES'],
    ['USAGE, SELECT', 'SEQUENCES'],
  ]) {
    await client.query(`GRANT ${rights} ON ALL ${kind} IN SCHEMA public TO ${roleName}`);
    await client.query(
      `ALTER DEFAULT PRIVILEGES FOR ROLE ${ownerName} IN SCHEMA public GRANT ${rights} ON ${kind} TO ${roleName}`,
    );
  }
}

async function withClient(url: string, work: (client: pg.Client) => Promise<unknown>): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  // A lost connection makes the next query fail, which is reported.
  client.on('error', () => undefined);
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** The URL with another database, and with another role if one is given. */
function changed(
  text: string,
  { database, role, password }: { database: string; role?: string; password?: string },
): string {
  const url = new URL(text);
  url.pathname = `/${encodeURIComponent(database)}`;
  if (role !== undefined) url.username = role;
  if (password !== undefined) url.password = password;
  return url.href;
}
