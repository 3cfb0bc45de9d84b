/** Real PostgreSQL for tests: one server for a whole run, and separate databases for tests. */

import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

/** An empty database. */
export interface FreshDatabase {
  /** Its connection string. */
  readonly url: string;
  readonly name: string;
  /** Drops it, ending open connections; otherwise that happens at the end of the run. */
  drop(): Promise<void>;
}

interface Server {
  url(database: string): string;
  stop(): Promise<void>;
}

let server: Promise<Server> | undefined;
const open = new Set<FreshDatabase>();

/**
 * Creates an empty database. The server is the one that `DATABASE_URL` names, else one of our own,
 * which starts with the first call and stops after the last test.
 */
export async function freshDatabase(): Promise<FreshDatabase> {
  server ??= startServer();
  const { url } = await server;
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await administer(url('postgres'), `CREATE DATABASE ${name}`);
  const database: FreshDatabase = {
    url: url(name),
    name,
    async drop() {
      if (!open.delete(database)) return;
      await administer(url('postgres'), `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
  };
  open.add(database);
  return database;
}

/** Drops the remaining databases and stops the server; called once, after the last test. */
export async function stopPostgres(): Promise<void> {
  if (server === undefined) return;
  const running = await server.catch(() => undefined);
  server = undefined;
  if (running === undefined) return;
  // A server that this run did not start keeps none of its databases.
  if (process.env['DATABASE_URL'] !== undefined) for (const database of [...open]) await database.drop();
  await running.stop();
}

async function startServer(): Promise<Server> {
  const given = process.env['DATABASE_URL'];
  if (given !== undefined) return { url: (database) => withDatabase(given, database), stop: async () => {} };
  const folder = await makeTemporaryFolder();
  const postgres = await startPostgres({ dataDir: folder.path, port: 0, ephemeral: true });
  return {
    url: (database) => postgres.url(database),
    async stop() {
      await postgres.destroy();
      await folder.remove();
    },
  };
}

function withDatabase(given: string, database: string): string {
  const url = new URL(given);
  url.pathname = `/${database}`;
  return url.href;
}

async function administer(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
