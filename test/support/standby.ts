/** A PostgreSQL server with a synchronous standby, for tests of failover. */

import { chown, cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../scripts/system/postgres.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';

/** Two servers with the same data: every commit on the primary is on the standby, too. */
export interface ServerPair {
  readonly primary: Postgres;
  readonly standby: Postgres;
  /** Makes the standby the primary. */
  promote(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts both, with one empty database of this name, whose commits wait for the standby. */
export async function startServerPair(database: string): Promise<ServerPair> {
  const folder = await makeTemporaryFolder();
  const [first, second] = [join(folder.path, 'first'), join(folder.path, 'second')];
  const single = await startPostgres({ dataDir: first, port: 0, ephemeral: true });
  await single.ensureDatabase(database);
  await single.stop();
  // The servers of these tests come without pg_basebackup, so the standby is a copy of the stopped primary.
  const place = `${dirname(single.clusterDir)}-standby`;
  await cp(dirname(single.clusterDir), place, { recursive: true, preserveTimestamps: true });
  await copyOwners(dirname(single.clusterDir), place);
  const state = JSON.parse(await readFile(join(first, 'postgres.json'), 'utf8')) as { password: string };
  const primary = await startPostgres({ dataDir: first, port: 0, ephemeral: true });
  const cluster = join(place, 'cluster');
  const { username, password, port } = new URL(primary.url(database));
  const connection = `host=127.0.0.1 port=${port} user=${username} password=${password} application_name=standby`;
  await writeFile(join(cluster, 'standby.signal'), '');
  await writeFile(join(cluster, 'postgresql.auto.conf'), `primary_conninfo = '${connection}'\n`);
  await makeState(second, { ...state, place });
  const standby = await startPostgres({ dataDir: second, port: 0, ephemeral: true });
  await run(primary.url('postgres'), `ALTER SYSTEM SET synchronous_standby_names = 'standby'`);
  await run(primary.url('postgres'), 'SELECT pg_reload_conf()');
  await run(primary.url('postgres'), `ALTER DATABASE ${database} SET synchronous_commit = 'on'`);
  return {
    primary,
    standby,
    promote: () => run(standby.url('postgres'), 'SELECT pg_promote()'),
    stop: async () => {
      await standby.destroy();
      await primary.destroy();
      await rm(place, { recursive: true, force: true });
      await folder.remove();
    },
  };
}

async function run(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

async function makeState(dataDir: string, state: object): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o711 });
  await writeFile(join(dataDir, 'postgres.json'), JSON.stringify(state), { mode: 0o600 });
}

/** PostgreSQL must own its files. Only root creates a copy with another owner. */
async function copyOwners(from: string, to: string): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = await stat(from);
  const entries = await readdir(to, { recursive: true, withFileTypes: true });
  for (const entry of entries) await chown(join(entry.parentPath, entry.name), uid, gid);
  await chown(to, uid, gid);
}
