/** The databases and roles of the services, on servers that the operator names. */

import { join } from 'node:path';
import { expect } from 'chai';
import pg from 'pg';
import { prepareGivenDatabases } from '../../../scripts/system/databases.js';
import { type Postgres, startPostgres } from '../../../scripts/system/postgres.js';
import { type DatabasePasswords, loadSecrets } from '../../../scripts/system/secrets.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../../support/outcomes.js';

const START_TIMEOUT_MS = 60_000;

describe('the databases on a given server', function () {
  this.timeout(START_TIMEOUT_MS);
  let folder: TemporaryFolder;
  let given: Postgres;
  let passwords: DatabasePasswords;
  let limited: string;

  before(async () => {
    folder = await makeTemporaryFolder();
    given = await startPostgres({ dataDir: join(folder.path, 'given'), port: 0, ephemeral: true });
    ({ databasePasswords: passwords } = await loadSecrets(join(folder.path, 'data')));
    await query(given.url('postgres'), "CREATE ROLE shop LOGIN PASSWORD 'shop'");
    const url = new URL(given.url('postgres'));
    url.username = 'shop';
    url.password = 'shop';
    limited = url.href;
  });

  after(async () => {
    await given?.destroy();
    await folder.remove();
  });

  it('need a role that may create roles: the message says what to run, and no password', async () => {
    const error = await rejectionOf(prepareGivenDatabases(limited, passwords));
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.contain('permission denied to create role');
    expect(error.message).to.contain('ALTER ROLE "shop" CREATEROLE CREATEDB');
    expect(error.message).to.contain('PORTCULLIS_MIGRATION_DATABASE_URL');
    expect(error.message).not.to.contain(passwords.auth.owner);
  });

  it('need no superuser, and are the same after a second start and two at once', async () => {
    await query(given.url('postgres'), 'ALTER ROLE shop CREATEROLE CREATEDB');
    const { inventory } = await prepareGivenDatabases(limited, passwords);
    await query(inventory.ownerUrl, 'CREATE TABLE goods (id serial PRIMARY KEY, name text)');
    await Promise.all([1, 2].map(() => prepareGivenDatabases(limited, passwords)));
    await query(inventory.url, "INSERT INTO goods (name) VALUES ('lamp')");
    expect(await query(inventory.url, 'SELECT id, name FROM goods')).to.deep.equal([{ id: 1, name: 'lamp' }]);
  });

  it('give their owner what a superuser has created, with its rows', async () => {
    const superuser = given.url('portcullis_auth');
    await query(
      superuser,
      `CREATE TABLE parents (id bigint GENERATED ALWAYS AS IDENTITY, at date) PARTITION BY RANGE (at);
       CREATE TABLE children PARTITION OF parents DEFAULT;
       INSERT INTO parents (at) VALUES ('2026-01-01');
       CREATE SEQUENCE numbers;
       CREATE VIEW seen AS SELECT * FROM parents;
       CREATE FUNCTION answer(given integer) RETURNS integer LANGUAGE sql AS 'SELECT 42'`,
    );
    const { auth } = await prepareGivenDatabases(given.url('postgres'), passwords);
    expect(await query(superuser, OWNERS)).to.deep.equal([{ owner: 'portcullis_auth_owner' }]);
    expect(
      await query(auth.url, "SELECT count(*)::integer AS rows, nextval('numbers')::integer FROM seen"),
    ).to.deep.equal([{ rows: 1, nextval: 1 }]);
    await query(
      auth.ownerUrl,
      'DROP TABLE parents CASCADE; DROP SEQUENCE numbers; DROP FUNCTION answer(integer)',
    );
  });
});

/** The owners of everything in a database that migrations create. */
const OWNERS = `SELECT DISTINCT owner::regrole::text FROM (
  SELECT relowner AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
  UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace
) AS objects`;

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query<object>(text)).rows;
  } finally {
    await client.end();
  }
}
