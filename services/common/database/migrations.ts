/**
 * Numbered migrations: SQL files applied in order, each once, each in a transaction, by one process at a time.
 *
 * Instances of the previous version go on serving meanwhile. A change of a table waits for the transactions that use
 * it, and later transactions wait behind the change. So a migration waits for a moment only, gives up, and retries.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Log } from '../host/log.js';
import { OperatorError } from '../host/operator-error.js';
import { errorCodeOf, isAway } from './pg-errors.js';

/** The advisory lock under which a database is migrated. */
const MIGRATION_LOCK = '7305489217361';
const LOCK_POLL_MS = 100;
/** How long a migration waits for a table, and with it all later transactions. */
const TABLE_WAIT_MS = 300;
/** The pause before it retries. */
const TABLE_RETRY_MS = 500;
/** SQLSTATEs of a migration whose tables are in use. */
const IN_USE = new Set(['40P01', '55P03']);

/** A fault of the migrations that waiting does not cure; the message says what. */
export class MigrationError extends OperatorError {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'MigrationError';
  }
}

/**
 * The database lacks migrations that this role may not apply. Another process applies them with the role that owns the
 * tables, so waiting helps.
 */
export class NotMigratedError extends Error {
  constructor(names: readonly string[]) {
    const what = names.length === 1 ? `migration ${names[0]}` : `${names.length} migrations`;
    super(`the database lacks ${what}, and this role may not change tables: run migrate as their owner`);
    this.name = 'NotMigratedError';
  }
}

interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

/**
 * Brings the database to the newest migration of the folder, waiting while another process does so.
 * Takes a client that is not connected yet, and ends it.
 *
 * @throws MigrationError when a file is misnamed, when an applied one was changed or is missing, and when its SQL
 *   fails; NotMigratedError when there are new ones and the role may create no tables; the signal's reason when
 *   aborted; else what the connection throws
 */
export async function migrate(options: {
  client: pg.Client;
  folder: URL;
  log: Log;
  signal: AbortSignal;
}): Promise<void> {
  const { client, folder, log, signal } = options;
  const migrations = await readMigrations(folder);
  try {
    await client.connect();
    await takeLock(client, log, signal);
    const mayCreate = await mayCreateTables(client);
    if (mayCreate) await createTable(client);
    const pending = await pendingMigrations(client, migrations);
    if (pending.length > 0 && !mayCreate) throw new NotMigratedError(pending.map(({ name }) => name));
    for (const migration of pending) {
      signal.throwIfAborted();
      await applyWithRetry(client, migration, log, signal);
      log.info({ migration: migration.name }, 'migrated the database');
    }
  } finally {
    // Ending the session gives the lock back, whatever happened.
    await client.end().catch(() => {});
  }
}

async function readMigrations(folder: URL): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  return Promise.all(names.map((name, index) => readMigration(folder, name, index + 1)));
}

async function readMigration(folder: URL, name: string, expected: number): Promise<Migration> {
  const version = Number(/^([0-9]{4})-[a-z0-9-]+\.sql$/.exec(name)?.[1]);
  if (version !== expected) {
    const number = String(expected).padStart(4, '0');
    throw new MigrationError(`migration ${name} is misnamed: ${number}-name.sql must come here`);
  }
  // A checkout may have changed the ends of the lines, which changes nothing in the database.
  const sql = (await readFile(new URL(name, withSlash(folder)), 'utf8')).replaceAll('\r\n', '\n');
  return { version, name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
}

function withSlash(folder: URL): URL {
  return folder.href.endsWith('/') ? folder : new URL(`${folder.href}/`);
}

async function takeLock(client: pg.Client, log: Log, signal: AbortSignal): Promise<void> {
  for (let logged = false; ; logged = true) {
    const { rows } = await client.query<{ taken: boolean }>('SELECT pg_try_advisory_lock($1) AS taken', [
      MIGRATION_LOCK,
    ]);
    if (rows[0]?.taken === true) return;
    if (!logged) log.info('waiting for another process that migrates the database');
    await sleep(LOCK_POLL_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

async function mayCreateTables(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query<{ may: boolean | null }>(
    "SELECT has_schema_privilege(current_schema(), 'CREATE') AS may",
  );
  return rows[0]?.may === true;
}

async function createTable(client: pg.Client): Promise<void> {
  await client.query(`
    CREATE TABLE IF NOT EXISTS schema_migrations (
      version integer PRIMARY KEY,
      name text NOT NULL,
      checksum text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )`);
}

async function pendingMigrations(client: pg.Client, migrations: readonly Migration[]): Promise<Migration[]> {
  // A role that may create nothing may not read the table before the owner has created it.
  const readable = await client.query<{ yes: boolean | null }>(
    "SELECT has_table_privilege(to_regclass('schema_migrations'), 'SELECT') AS yes",
  );
  if (readable.rows[0]?.yes !== true) return [...migrations];
  const { rows } = await client.query<{ version: number; name: string; checksum: string }>(
    'SELECT version, name, checksum FROM schema_migrations ORDER BY version',
  );
  for (const applied of rows) {
    const known = migrations[applied.version - 1];
    if (known === undefined) {
      throw new MigrationError(
        `the database has migration ${applied.name}, which this program does not know`,
      );
    }
    if (known.checksum !== applied.checksum) {
      throw new MigrationError(`migration ${known.name} was changed after it was applied`);
    }
  }
  return migrations.slice(rows.length);
}

async function applyWithRetry(
  client: pg.Client,
  migration: Migration,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  for (let logged = false; ; logged = true) {
    try {
      await apply(client, migration);
      return;
    } catch (error) {
      if (!IN_USE.has(errorCodeOf(error) ?? '')) throw error;
      if (!logged)
        log.info({ migration: migration.name }, 'waiting for transactions that use what is to be changed');
      await sleep(TABLE_RETRY_MS, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}

async function apply(client: pg.Client, migration: Migration): Promise<void> {
  const { version, name, sql, checksum } = migration;
  try {
    await client.query(`BEGIN; SET LOCAL lock_timeout = ${TABLE_WAIT_MS}`);
    await client.query(sql);
    await client.query('INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)', [
      version,
      name,
      checksum,
    ]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw migrationFailure(name, error);
  }
}

/** A lost connection is no fault of the migration: the caller waits and tries again. */
function migrationFailure(name: string, error: unknown): unknown {
  if (isAway(error)) return error;
  return new MigrationError(
    `migration ${name} failed: ${error instanceof Error ? error.message : 'unknown error'}`,
    error,
  );
}
