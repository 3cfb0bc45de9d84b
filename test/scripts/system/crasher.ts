/** A program for tests: starts PostgreSQL, fills a table, and kills its reaper and itself with SIGKILL. */

import pg from 'pg';
import { startPostgres } from '../../../scripts/system/postgres.js';
import { reaperPid } from '../../../scripts/system/reaper-client.js';

const [dataDir] = process.argv.slice(2);
if (dataDir === undefined) throw new TypeError('usage: crasher.ts <data folder>');
const server = await startPostgres({ dataDir, port: 0 });
await server.ensureDatabase('shop');
const client = new pg.Client({ connectionString: server.url('shop') });
await client.connect();
await client.query('CREATE TABLE kept AS SELECT 42 AS answer');
process.stdout.write(`${server.pid}\n`, () => {
  const reaper = reaperPid();
  if (reaper !== undefined) process.kill(reaper, 'SIGKILL');
  process.kill(process.pid, 'SIGKILL');
});
