/** The system with given database and broker, and the choice of its ports. */

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import pg from 'pg';
import { SERVICES } from '../../../scripts/system/forwarded-variables.js';
import type { Postgres } from '../../../scripts/system/postgres.js';
import { startPostgres } from '../../../scripts/system/postgres.js';
import { startSystem } from '../../../scripts/system/system.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import { choosePorts } from '../../../scripts/system/system-ports.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { migrate } from '../../../services/common/database/migrations.js';
import { createLog } from '../../../services/common/host/log.js';
import { privateNats } from '../../support/nats.js';
import { rejectionOf } from '../../support/outcomes.js';

const START_TIMEOUT_MS = 120_000;

describe('the data folder', () => {
  it('must be a folder that can be written, and the error names the variable', async () => {
    const folder = await makeTemporaryFolder();
    try {
      const file = join(folder.path, 'file');
      await writeFile(file, '');
      // Where /proc is, nothing can be created in it, and its answer is that the parent is missing.
      const special = process.platform === 'linux' ? ['/proc/nothing', '/proc/nothing/below'] : [];
      for (const dataDir of [file, join(file, 'below'), ...special]) {
        const error = await rejectionOf(startSystem({ dataDir, ports: 'free' }));
        expect(error).to.be.instanceOf(SystemError);
        expect(error).to.have.property('message').that.includes(dataDir).and.includes('PORTCULLIS_DATA_DIR');
      }
    } finally {
      await folder.remove();
    }
  });
});

describe('the system with given servers', function () {
  this.timeout(START_TIMEOUT_MS);
  let folder: TemporaryFolder;
  let given: Postgres;

  before(async () => {
    folder = await makeTemporaryFolder();
    given = await startPostgres({ dataDir: join(folder.path, 'given'), port: 0, ephemeral: true });
  });

  after(async () => {
    await given?.destroy();
    await folder.remove();
  });

  it('uses the servers of DATABASE_URL and NATS_URL, starts none itself, and leaves both running', async () => {
    const nats = await privateNats();
    const environment = { DATABASE_URL: given.url('postgres'), NATS_URL: nats.url('test') };
    const system = await startSystem({ dataDir: join(folder.path, 'data'), ports: 'free', environment });
    try {
      expect(system.postgres).to.equal(undefined);
      expect(system.nats).to.equal(undefined);
      expect(system.accounts?.alice).to.match(/^[0-9a-f-]{36}$/);
    } finally {
      await system.stop();
    }
    expect(given.hasEnded()).to.equal(undefined);
    const client = new pg.Client({ connectionString: given.url('postgres') });
    await client.connect();
    const { rows } = await client.query<{ datname: string }>(
      "SELECT datname FROM pg_database WHERE datname LIKE 'portcullis%' ORDER BY datname",
    );
    await client.end();
    expect(rows.map(({ datname }) => datname)).to.deep.equal([
      'portcullis_auth',
      'portcullis_inventory',
      'portcullis_payment',
    ]);
    await (await nats.connect()).flush();
    await nats.stop();
  });

  it('fails with a clear message when the server of DATABASE_URL cannot be used', async () => {
    const wrong = new URL(given.url('postgres'));
    wrong.password = 'wrong';
    for (const [url, said] of [
      [wrong.href, /server that DATABASE_URL names cannot be used: .*password/],
      ['here', /DATABASE_URL is not a URL/],
    ] as const) {
      const environment = { DATABASE_URL: url };
      const error = await rejectionOf(
        startSystem({ dataDir: join(folder.path, 'refused'), ports: 'free', environment }),
      );
      expect(error).to.be.instanceOf(SystemError);
      expect(error.message).to.match(said).and.not.to.contain('wrong');
    }
  });
});

describe('the data folder of an earlier version, which migrated as a superuser', function () {
  this.timeout(START_TIMEOUT_MS);
  let folder: TemporaryFolder;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  after(() => folder.remove());

  it('starts, and its tables belong to the owner roles', async () => {
    const dataDir = join(folder.path, 'data');
    const earlier = await startPostgres({ dataDir: join(dataDir, 'postgresql'), port: 0, ephemeral: true });
    for (const service of SERVICES) {
      const database = `portcullis_${service}`;
      await earlier.ensureDatabase(database);
      await migrate({
        client: new pg.Client({ connectionString: earlier.url(database) }),
        folder: new URL(`../../../services/${service}/migrations/`, import.meta.url),
        log: createLog({ service, level: 'silent' }),
        signal: AbortSignal.timeout(START_TIMEOUT_MS),
      });
      expect(await ownersIn(earlier.url(database))).to.deep.equal(['portcullis']);
    }
    await earlier.stop();
    const system = await startSystem({ dataDir, ports: 'free', ephemeral: true });
    try {
      expect(system.accounts?.alice).to.match(/^[0-9a-f-]{36}$/);
      for (const service of SERVICES) {
        const owners = await ownersIn(system.postgres?.url(`portcullis_${service}`) ?? '');
        expect(owners).to.deep.equal([`portcullis_${service}_owner`]);
      }
    } finally {
      await system.stop();
    }
  });
});

/** The owners of the tables, views and functions that migrations create. */
async function ownersIn(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ owner: string }>(
      `SELECT DISTINCT owner::regrole::text FROM (
         SELECT relowner AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
         UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace
       ) AS objects`,
    );
    return rows.map(({ owner }) => owner);
  } finally {
    await client.end();
  }
}

describe('the ports of the system', () => {
  const nothing = { without: [] };

  it('are rejected when two parts have the same one', async () => {
    const error = await rejectionOf(choosePorts('free', { auth: 20_001, payment: 20_001 }, nothing));
    expect(error.message).to.match(/Port 20001 is wanted by auth and by payment.*--payment-port/);
    const ops = await rejectionOf(choosePorts('free', { auth: 20_001, nats: 21_001 }, nothing));
    expect(ops.message).to.match(/Port 21001 is wanted by auth and by nats-server.*--nats-port/);
  });

  it('are rejected when the ops port would not exist', async () => {
    const error = await rejectionOf(choosePorts('free', { auth: 65_000 }, nothing));
    expect(error.message).to.match(/Port 66000 for auth \(--auth-port\) does not exist/);
  });

  it('are rejected when the ops port is in use, with the flag that sets it', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const address = holder.address();
    const taken = typeof address === 'object' && address !== null ? address.port : 0;
    const error = await rejectionOf(choosePorts('free', { inventory2: taken - 1_000 }, nothing));
    holder.close();
    expect(error.message).to.match(
      new RegExp(`Port ${taken}, which inventory-2's ops HTTP.*--inventory-2-port`),
    );
  });
});
