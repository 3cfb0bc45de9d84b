/** The private PostgreSQL server: creation, start, recovery after a crashed start, stop. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import pg from 'pg';
import type { Postgres } from '../../../scripts/system/postgres.js';
import { startPostgres } from '../../../scripts/system/postgres.js';
import { isRunning, startTimeOf } from '../../../scripts/system/process-identity.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../../support/outcomes.js';
import { SOURCE_ARGUMENTS } from '../../support/programs.js';

const CRASHER = fileURLToPath(new URL('crasher.ts', import.meta.url));

describe('the private PostgreSQL server', () => {
  let folder: TemporaryFolder;
  const running = new Set<Postgres>();

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  afterEach(async () => {
    // The last one first: an earlier one may have the same data, which must not be removed under a running server.
    for (const server of [...running].reverse()) await server.destroy();
    running.clear();
  });

  after(() => folder.remove());

  async function start(name: string, port = 0): Promise<Postgres> {
    const dataDir = join(folder.path, name);
    const server = await startPostgres({ dataDir, port, ephemeral: true, portFlag: '--postgres-port' });
    running.add(server);
    return server;
  }

  it('keeps its data and its password from one start to the next', async () => {
    const first = await start('kept');
    await first.ensureDatabase('shop');
    await query(first.url('shop'), 'CREATE TABLE kept AS SELECT 42 AS answer');
    const { password } = new URL(first.url('shop'));
    await first.stop();
    const second = await start('kept');
    expect(await query(second.url('shop'), 'SELECT answer FROM kept')).to.deep.equal([{ answer: 42 }]);
    expect(new URL(second.url('shop')).password).to.equal(password);
  });

  it('rejects a client without the password, and keeps the password out of its log and readable by its owner only', async () => {
    const server = await start('guarded');
    const wrong = new URL(server.url('postgres'));
    wrong.password = 'guess';
    expect((await rejectionOf(query(wrong.href, 'SELECT 1'))).message).to.contain(
      'password authentication failed',
    );
    const { mode } = await stat(join(folder.path, 'guarded', 'postgres.json'));
    expect(mode & 0o777).to.equal(0o600);
    expect(await readFile(server.logFile, 'utf8')).not.to.contain(new URL(server.url('x')).password);
  });

  it('listens on 127.0.0.1 only', async () => {
    const server = await start('local');
    const rows = await query(
      server.url('postgres'),
      "SELECT current_setting('listen_addresses') AS tcp, current_setting('unix_socket_directories') AS files",
    );
    expect(rows).to.deep.equal([{ tcp: '127.0.0.1', files: '' }]);
  });

  it('creates a database once when several callers request it at the same time', async () => {
    const server = await start('once');
    await Promise.all(Array.from({ length: 4 }, () => server.ensureDatabase('shop')));
    await server.ensureDatabase('shop');
    const rows = await query(server.url('postgres'), "SELECT 1 FROM pg_database WHERE datname = 'shop'");
    expect(rows).to.have.length(1);
  });

  it('stops the postmaster that a killed start left running, and keeps its data', async () => {
    const dataDir = join(folder.path, 'crashed');
    const crashed = await crash(dataDir);
    expect(await isRunning(crashed)).to.equal(true);
    const server = await start('crashed');
    expect(await isRunning(crashed)).to.equal(false);
    expect(await query(server.url('shop'), 'SELECT answer FROM kept')).to.deep.equal([{ answer: 42 }]);
  });

  it('recovers its data after the postmaster was killed', async () => {
    const dataDir = join(folder.path, 'killed');
    const crashed = await crash(dataDir);
    process.kill(crashed.pid, 'SIGKILL');
    const server = await start('killed');
    expect(await query(server.url('shop'), 'SELECT answer FROM kept')).to.deep.equal([{ answer: 42 }]);
  });

  it('does not end a process that reuses the number of an old postmaster', async () => {
    const first = await start('reused');
    const file = join(first.clusterDir, 'postmaster.pid');
    const lines = (await readFile(file, 'utf8')).split('\n');
    await first.stop();
    const bystander = spawn('sleep', ['60'], { stdio: 'ignore' });
    await writeFile(file, [String(bystander.pid), ...lines.slice(1)].join('\n'));
    const server = await start('reused');
    expect(await query(server.url('postgres'), 'SELECT 1 AS one')).to.deep.equal([{ one: 1 }]);
    expect(bystander.exitCode).to.equal(null);
    bystander.kill();
    await once(bystander, 'exit');
  });

  it('names the port and the flag when the port is in use', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const address = holder.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const error = await rejectionOf(start('taken', port));
    holder.close();
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.match(new RegExp(`Port ${port}.*PostgreSQL.*--postgres-port`));
  });

  it('refuses to start when its data are gone', async () => {
    const server = await start('lost');
    await server.stop();
    await rm(join(folder.path, 'lost', 'postgres'), { recursive: true });
    const error = await rejectionOf(start('lost'));
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.match(/lost\/postgres, are not there/);
  });

  it('removes its data when it is destroyed', async () => {
    const server = await start('destroyed');
    await server.destroy();
    running.delete(server);
    await rejectionOf(stat(server.clusterDir));
    expect(server.hasEnded()).to.equal('exit code 0');
  });

  /** Runs a program that starts PostgreSQL, fills a table, and is killed together with its reaper. */
  async function crash(dataDir: string): Promise<{ pid: number; startTime: string }> {
    const child = spawn(process.execPath, [...SOURCE_ARGUMENTS, CRASHER, dataDir], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line]: unknown[] = await once(child.stdout, 'data');
    await once(child, 'exit');
    const pid = Number(String(line));
    const startTime = await startTimeOf(pid);
    if (startTime === undefined) throw new Error('the postmaster did not outlive its launcher');
    return { pid, startTime };
  }
});

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<object>(text)).rows;
  } finally {
    await client.end();
  }
}
