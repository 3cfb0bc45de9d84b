/** The command `migrate` of the services, as a job runs it: with the role that owns the tables, and nothing else. */

import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import pg from 'pg';
import { clientKey } from '../../cli/src/key-files.js';
import { makeFolder, type TestFolder } from '../support/folders.js';
import { type FreshDatabase, freshDatabase } from '../support/postgres.js';
import { killPrograms, type Program, runProgram, startProgram } from '../support/programs.js';

const SERVICES = ['auth', 'inventory', 'payment'] as const;

describe('migrate', function () {
  this.timeout(120_000);
  let fresh: FreshDatabase;
  let superuser: pg.Client;
  let folder: TestFolder;
  let owner: string;
  let service: string;

  beforeEach(async () => {
    folder = await makeFolder();
    fresh = await freshDatabase();
    superuser = new pg.Client(fresh.url);
    await superuser.connect();
    owner = await createRole('owner');
    service = await createRole('service');
    await superuser.query(`ALTER DATABASE ${fresh.name} OWNER TO ${owner}`);
    await superuser.query(
      `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${service}`,
    );
    await superuser.query(
      `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} GRANT USAGE, SELECT ON SEQUENCES TO ${service}`,
    );
  });
  afterEach(async () => {
    await killPrograms();
    await superuser.query(`DROP OWNED BY ${service}; DROP OWNED BY ${owner}`);
    await superuser.end();
    await fresh.drop();
    rmSync(folder.path, { recursive: true });
  });

  async function createRole(kind: string): Promise<string> {
    const name = `test_${kind}_${randomUUID().replaceAll('-', '')}`;
    // Payment's migrations create its role unless it exists.
    await superuser.query(
      `CREATE ROLE ${name} LOGIN PASSWORD 'secret' ${kind === 'owner' ? 'CREATEROLE' : ''}`,
    );
    return name;
  }

  function urlOf(role: string): string {
    const url = new URL(fresh.url);
    url.username = role;
    url.password = 'secret';
    return url.href;
  }

  async function startInventory(): Promise<Program> {
    const { file } = await clientKey(join(folder.path, 'inventory-key.pem'));
    const env = {
      DATABASE_URL: urlOf(service),
      NATS_URL: 'nats://127.0.0.1:1',
      PORTCULLIS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_ISSUER: 'https://auth.example',
      PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
      PORTCULLIS_CLIENT_ID: 'inventory',
      PORTCULLIS_CLIENT_KEY_FILE: file,
    };
    return startProgram(['services/inventory/main'], { env });
  }

  for (const name of SERVICES) {
    it(`brings the database of ${name} to the newest migration, and exits with code 0`, async () => {
      const env = { PORTCULLIS_MIGRATION_DATABASE_URL: urlOf(owner) };
      const { code, output } = await runProgram([`services/${name}/main`, 'migrate'], { env });
      expect(code, output).to.equal(0);
      expect(output).to.include('"msg":"the database is migrated"');
      const { rows } = await superuser.query(
        'SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = $1',
        ['public'],
      );
      expect(rows).to.deep.equal([{ tableowner: owner }]);
    });
  }

  it('takes the environment of the service, and names a variable that the service does not have', async () => {
    const variables = {
      DATABASE_URL: urlOf(owner),
      PORTCULLIS_LISTEN: 'not even an address',
      PORTCULLIS_KEY_ENCRYPTION_KEY_FILE: '/nonexistent',
    };
    const { code, output } = await runProgram(['services/auth/main', 'migrate'], { env: variables });
    expect(code, output).to.equal(0);
    const misspelt = await runProgram(['services/auth/main', 'migrate'], {
      env: { ...variables, PORTCULLIS_OOPS: '1' },
    });
    expect(misspelt).to.include({ code: 1 });
    expect(misspelt.stderr).to.include('PORTCULLIS_OOPS is not a variable of this service');
  });

  it('fails when a signal stops it before the database is migrated', async () => {
    const env = { DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing' };
    const { child, ended, logged } = startProgram(['services/payment/main', 'migrate'], { env });
    await logged('waiting for the database');
    child.kill('SIGTERM');
    const { code, stderr } = await ended;
    expect(code).to.equal(1);
    expect(stderr).to.equal('migrate was stopped by SIGTERM; run it again\n');
  });

  it('is what a service waits for whose role may not change tables', async () => {
    const { child, ended, logged, stdout } = await startInventory();
    const { missing } = await logged('waiting for the database');
    expect(missing).to.equal(
      'the database lacks 4 migrations, and this role may not change tables: run migrate as their owner',
    );
    const env = { PORTCULLIS_MIGRATION_DATABASE_URL: urlOf(owner) };
    expect((await runProgram(['services/inventory/main', 'migrate'], { env })).code).to.equal(0);
    await until(stdout, (line) => line['missing'] !== undefined && !('database' in Object(line['missing'])));
    child.kill('SIGTERM');
    expect((await ended).code).to.equal(0);
  });
});

/** Waits for a line of a log of JSON lines. */
async function until(log: () => string, isIt: (line: Record<string, unknown>) => boolean): Promise<void> {
  for (let left = 200; ; left -= 1) {
    const lines = log().split('\n').slice(0, -1);
    if (lines.some((line) => isIt(JSON.parse(line) as Record<string, unknown>))) return;
    if (left === 0) throw new Error(`the log has no such line:\n${log()}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
