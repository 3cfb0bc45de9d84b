/** Migrations, with a real PostgreSQL. */

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import pg from 'pg';
import { MigrationError, migrate } from '../../../../services/common/database/migrations.js';
import { createLog } from '../../../../services/common/host/log.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';

const FIRST = 'CREATE TABLE one (id integer);\n-- the end\n';
const SECOND = 'CREATE TABLE two (id integer); INSERT INTO two VALUES (1);';

describe('migrations', () => {
  const signal = new AbortController().signal;
  let root: string;
  let folders = 0;
  let fresh: FreshDatabase;
  let reader: pg.Client;

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'portcullis-migrations-'));
  });
  after(() => rm(root, { recursive: true }));
  beforeEach(async () => {
    fresh = await freshDatabase();
    reader = new pg.Client(fresh.url);
    await reader.connect();
  });
  afterEach(async () => {
    await reader.end();
    await fresh.drop();
  });

  async function run(files: Record<string, string>, lines: string[] = []): Promise<void> {
    const path = join(root, String(++folders));
    await mkdir(path);
    for (const [name, sql] of Object.entries(files)) await writeFile(join(path, name), sql);
    const log = createLog({ service: 'test', level: 'info' }, { write: (line) => void lines.push(line) });
    await migrate({ client: new pg.Client(fresh.url), folder: pathToFileURL(path), log, signal });
  }

  async function applied(): Promise<string[]> {
    const { rows } = await reader.query<{ name: string }>(
      'SELECT name FROM schema_migrations ORDER BY version',
    );
    return rows.map(({ name }) => name);
  }

  async function expectRefused(files: Record<string, string>, message: RegExp): Promise<void> {
    const error = await rejectionOf(run(files));
    expect(error).to.be.instanceOf(MigrationError);
    expect(error.message).to.match(message);
  }

  it('are applied in order, each once, and only the new ones later', async () => {
    await run({ '0001-one.sql': FIRST });
    await run({ '0001-one.sql': FIRST, '0002-two.sql': SECOND, 'README.md': 'not SQL' });
    await run({ '0001-one.sql': FIRST, '0002-two.sql': SECOND });
    expect(await applied()).to.deep.equal(['0001-one.sql', '0002-two.sql']);
    expect((await reader.query('SELECT id FROM two')).rows).to.deep.equal([{ id: 1 }]);
  });

  it('are applied once by many processes that start together', async () => {
    const files = { '0001-one.sql': FIRST, '0002-two.sql': SECOND };
    const lines: string[] = [];
    await Promise.all(Array.from({ length: 5 }, () => run(files, lines)));
    expect((await reader.query('SELECT id FROM two')).rows).to.deep.equal([{ id: 1 }]);
    expect(lines.filter((line) => line.includes('migrated the database'))).to.have.length(2);
  });

  it('are rejected when an applied one was changed, except in its line endings', async () => {
    await run({ '0001-one.sql': FIRST });
    await run({ '0001-one.sql': FIRST.replaceAll('\n', '\r\n') });
    await expectRefused({ '0001-one.sql': `${FIRST} ` }, /0001-one\.sql was changed after it was applied/);
  });

  it('are rejected when the database is ahead of the program', async () => {
    await run({ '0001-one.sql': FIRST, '0002-two.sql': SECOND });
    await expectRefused({ '0001-one.sql': FIRST }, /0002-two\.sql, which this program does not know/);
  });

  it('are rejected when a number is missing, duplicated or malformed', async () => {
    await expectRefused(
      { '0001-one.sql': FIRST, '0003-three.sql': '' },
      /0003-three\.sql is misnamed: 0002-name/,
    );
    await expectRefused({ '0001-one.sql': FIRST, '0001-two.sql': '' }, /0001-two\.sql is misnamed/);
    await expectRefused({ '1-one.sql': FIRST }, /1-one\.sql is misnamed/);
  });

  it('do not block later transactions: they yield to those that use a table, and retry', async () => {
    await run({ '0001-one.sql': FIRST });
    const holder = new pg.Client(fresh.url);
    await holder.connect();
    await holder.query('BEGIN; INSERT INTO one VALUES (1)');
    const lines: string[] = [];
    const migrating = run(
      { '0001-one.sql': FIRST, '0002-two.sql': 'ALTER TABLE one ADD COLUMN more text' },
      lines,
    );
    // Transactions continue meanwhile: none waits as long as the lock timeout of the services.
    let worstMs = 0;
    for (const untilMs = performance.now() + 1_500; performance.now() < untilMs; ) {
      const startedMs = performance.now();
      await reader.query('INSERT INTO one VALUES (2)');
      worstMs = Math.max(worstMs, performance.now() - startedMs);
    }
    expect(worstMs).to.be.below(1_000);
    expect(await applied()).to.deep.equal(['0001-one.sql']);
    await holder.query('COMMIT');
    await holder.end();
    await migrating;
    expect(await applied()).to.deep.equal(['0001-one.sql', '0002-two.sql']);
    expect(lines.filter((line) => line.includes('waiting for transactions'))).to.have.lengthOf(1);
  });

  it('roll back a migration that fails, and keep those before it', async () => {
    const files = { '0001-one.sql': FIRST, '0002-two.sql': `${SECOND} SELECT 1 / 0;` };
    await expectRefused(files, /0002-two\.sql failed: division by zero/);
    expect(await applied()).to.deep.equal(['0001-one.sql']);
    const { rows } = await reader.query(`SELECT to_regclass('two') AS found`);
    expect(rows).to.deep.equal([{ found: null }]);
  });
});
