/** The database, with a real PostgreSQL. */

import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { ServiceError } from '@portcullis/guard';
import { expect } from 'chai';
import pg from 'pg';
import {
  DATABASE_LIMITS_DEFAULT,
  type Database,
  IDLE_IN_TRANSACTION_TIMEOUT_MS,
  LANE_WAIT_MS,
  LOCK_TIMEOUT_MS,
  openDatabase,
  type Sql,
  STATEMENT_TIMEOUT_MS,
  TRANSACTION_ATTEMPTS_MAX,
  violatedConstraint,
} from '../../../../services/common/database/database.js';
import { sendStatement } from '../../../../services/common/database/pg-internals.js';
import { CommonError } from '../../../../services/common/errors.js';
import { createLog } from '../../../../services/common/host/log.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { freshDatabase } from '../../../support/postgres.js';
import { startRelay } from '../../../support/tcp-relay.js';
import { until } from '../../../support/waiting.js';

const MIGRATION = `
  CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL CHECK (value >= 0));
  INSERT INTO counters VALUES ('a', 0), ('b', 0);`;

async function expectUnavailable(promise: Promise<unknown>): Promise<ServiceError> {
  const error = await rejectionOf(promise);
  expect(error).to.be.instanceOf(ServiceError).and.have.property('code', 'DEPENDENCY_UNAVAILABLE');
  return error as ServiceError;
}

async function counterValue(sql: Sql, name: string): Promise<bigint | undefined> {
  const { rows } = await sql.query<{ value: bigint }>('SELECT value FROM counters WHERE name = $1', [name]);
  return rows[0]?.value;
}

describe('database', () => {
  const never = new AbortController().signal;
  const closing: (() => Promise<void>)[] = [];
  let migrations: URL;
  let url: string;
  let database: Database;
  let lines: string[];

  function open(databaseUrl: string, connections = 10): Database {
    const log = createLog({ service: 'test', level: 'debug' }, { write: (line) => void lines.push(line) });
    const { lanes, rowQueue } = DATABASE_LIMITS_DEFAULT;
    const limits = { rowQueue, lanes: { ...lanes, known: { connections, queue: 1000 } } };
    const opened = openDatabase({ url: databaseUrl, migrations, log, limits });
    closing.push(() => opened.close());
    return opened;
  }

  before(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'portcullis-database-'));
    await writeFile(join(folder, '0001-counters.sql'), MIGRATION);
    migrations = pathToFileURL(folder);
  });
  after(() => rm(migrations, { recursive: true }));

  beforeEach(async () => {
    lines = [];
    const fresh = await freshDatabase();
    closing.push(() => fresh.drop());
    url = fresh.url;
    database = open(url);
    await database.ready(never);
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });

  describe('values', () => {
    it('come as bigint, Date, Buffer and text', async () => {
      const { rows, rowCount } = await database.query(
        `SELECT 9223372036854775807 AS big, ARRAY[1, NULL, -9223372036854775808]::int8[] AS bigs, '{}'::int8[] AS none,
                timestamptz '2026-01-02 03:04:05.678+00' AS at, '\\x00ff'::bytea AS bytes, 1.50::numeric AS exact`,
      );
      expect(rowCount).to.equal(1);
      expect(rows[0]).to.deep.equal({
        big: 9223372036854775807n,
        bigs: [1n, null, -9223372036854775808n],
        none: [],
        at: new Date('2026-01-02T03:04:05.678Z'),
        bytes: Buffer.from([0, 255]),
        exact: '1.50',
      });
    });

    it('may be given as bigint, Date and Buffer', async () => {
      const at = new Date('2026-01-02T03:04:05.678Z');
      const { rows } = await database.query(
        'SELECT $1::int8 AS big, $2::timestamptz AS at, $3::bytea AS bytes',
        [-5n, at, Buffer.from('x')],
      );
      expect(rows[0]).to.deep.equal({ big: -5n, at, bytes: Buffer.from('x') });
    });

    it('are the same for other users of pg in this process', () => {
      expect(pg.types.getTypeParser(20, 'text')('5')).to.equal('5');
    });
  });

  describe('a transaction', () => {
    it('commits what it did, and returns what the work returned', async () => {
      const result = await database.transaction(async (sql) => {
        await sql.query(`UPDATE counters SET value = 7 WHERE name = 'a'`);
        return counterValue(sql, 'a');
      });
      expect(result).to.equal(7n);
      expect(await counterValue(database, 'a')).to.equal(7n);
    });

    it('rolls back when the work throws, and throws the same error', async () => {
      const thrown = new CommonError('NOT_FOUND', 'no such thing');
      const error = await rejectionOf(
        database.transaction(async (sql) => {
          await sql.query(`UPDATE counters SET value = 7 WHERE name = 'a'`);
          throw thrown;
        }),
      );
      expect(error).to.equal(thrown);
      expect(await counterValue(database, 'a')).to.equal(0n);
    });

    it('loses no update among many that conflict', async () => {
      const one = () =>
        database.transaction(
          async (sql) => {
            const value = (await counterValue(sql, 'a')) ?? 0n;
            await sql.query(`UPDATE counters SET value = $1 WHERE name = 'a'`, [value + 1n]);
          },
          { isolation: 'serializable' },
        );
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, one));
      const done = outcomes.filter(({ status }) => status === 'fulfilled').length;
      expect(done).to.equal(8);
      expect(await counterValue(database, 'a')).to.equal(8n);
    });

    it('runs again after a deadlock', async () => {
      let attempts = 0;
      let arrived = 0;
      const move = (first: string, second: string) =>
        database.transaction(async (sql) => {
          attempts++;
          await sql.query('SET LOCAL lock_timeout = 0');
          await sql.query('SET LOCAL deadlock_timeout = 50');
          await sql.query('UPDATE counters SET value = value + 1 WHERE name = $1', [first]);
          arrived++;
          if (attempts <= 2) await until(() => arrived >= 2);
          await sql.query('UPDATE counters SET value = value + 1 WHERE name = $1', [second]);
        });
      await Promise.all([move('a', 'b'), move('b', 'a')]);
      expect(attempts).to.equal(3);
      expect(await counterValue(database, 'a')).to.equal(2n);
      expect(await counterValue(database, 'b')).to.equal(2n);
    });

    it('gives up after a bounded number of attempts', async () => {
      let attempts = 0;
      const error = await expectUnavailable(
        database.transaction(async (sql) => {
          attempts++;
          await sql.query(`DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$`);
        }),
      );
      expect(attempts).to.equal(TRANSACTION_ATTEMPTS_MAX);
      expect(error.cause).to.have.property('code', '40001');
    });

    it('fails when the work swallowed an error', async () => {
      const error = await rejectionOf(
        database.transaction(async (sql) => {
          await sql.query(`UPDATE counters SET value = 7 WHERE name = 'a'`);
          await sql.query('SELECT 1 / 0').catch(() => {});
        }),
      );
      expect(error).to.have.property('code', '25P02');
      expect(await counterValue(database, 'a')).to.equal(0n);
    });

    it('fails when the commit returned a warning', async () => {
      await database.query(`
        CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE WARNING 'canceling wait for synchronous replication'; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER warn AFTER UPDATE ON counters DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION warn()`);
      const error = await expectUnavailable(
        database.transaction((sql) => sql.query(`UPDATE counters SET value = 1 WHERE name = 'a'`)),
      );
      expect(error.cause).to.have.property('message', 'canceling wait for synchronous replication');
    });

    it('sends statements that are issued at once together, and runs them in their order', async () => {
      const relay = await startRelay(Number(new URL(url).port), 20);
      closing.push(() => relay.cut());
      const far = new URL(url);
      far.port = String(relay.port);
      const distant = open(far.href, 1);
      await distant.ready(never);
      await distant.query('SELECT 1');
      const before = relay.turns();
      const results = await distant.transaction(async (sql) => {
        const raise = () =>
          sql.query<{ value: bigint }>(
            'UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value',
            ['a'],
          );
        return await Promise.all([raise(), raise(), raise(), raise()]);
      });
      expect(results.map(({ rows }) => rows[0]?.value)).to.deep.equal([1n, 2n, 3n, 4n]);
      // Three round trips: the first statement with the beginning of the transaction, because nothing may run before
      // that has succeeded; the other three statements; the commit.
      expect(relay.turns() - before).to.equal(3);
      expect(await counterValue(distant, 'a')).to.equal(4n);
    });

    it('rolls back everything that was sent together when one statement fails, and rejects with its error', async () => {
      const raise = (sql: Sql, name: string, by: number) =>
        sql.query('UPDATE counters SET value = value + $2 WHERE name = $1', [name, by]);
      const error = await rejectionOf(
        database.transaction((sql) =>
          Promise.all([raise(sql, 'a', 1), raise(sql, 'b', -1), raise(sql, 'a', 1)]),
        ),
      );
      expect(violatedConstraint(error)).to.equal('counters_value_check');
      expect([await counterValue(database, 'a'), await counterValue(database, 'b')]).to.deep.equal([0n, 0n]);
    });

    it('rejects with the first error, at whatever depth the failed statement was sent', async () => {
      const deep = async (promise: Promise<unknown>): Promise<void> => {
        await (async () => await (async () => void (await promise))())();
      };
      const holder = new pg.Client({ connectionString: url });
      closing.push(() => holder.end());
      await holder.connect();
      const single = open(url, 1);
      await single.ready(never);
      const pid = async () =>
        (await single.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;
      const before = await pid();
      let attempts = 0;
      const raise = (sql: Sql, name: string, by: number, which: number) =>
        sql.query(`UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING ${which}`, [name, by]);
      for (let time = 0; time < 20; time += 1) {
        const error = await rejectionOf(
          single.transaction(async (sql) => {
            attempts += 1;
            await sql.query('SELECT 1');
            // The last one is not prepared on the second try, because its preparation failed on the first.
            await Promise.all([
              deep(raise(sql, 'a', -1, time)),
              raise(sql, 'b', 1, 100 + time),
              raise(sql, 'b', 1, 100 + time),
            ]);
          }),
        );
        expect(violatedConstraint(error)).to.equal('counters_value_check');
      }
      expect(attempts).to.equal(20);
      await holder.query(`BEGIN; UPDATE counters SET value = 1 WHERE name = 'a'`);
      await expectUnavailable(
        single.transaction(async (sql) => {
          await sql.query('SELECT 1');
          await Promise.all([deep(raise(sql, 'a', 1, 0)), raise(sql, 'b', 1, 0)]);
        }),
      );
      await holder.query('ROLLBACK');
      expect(await pid()).to.equal(before);
    });

    it('keeps its connection when the first statement could not be prepared', async () => {
      const single = open(url, 1);
      await single.ready(never);
      const pid = async () =>
        (await single.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;
      const before = await pid();
      const holder = new pg.Client({ connectionString: url });
      closing.push(() => holder.end());
      await holder.connect();
      const raise = () =>
        single.transaction((sql) =>
          sql.query('UPDATE counters SET value = value + $1 WHERE true RETURNING value', [1]),
        );
      await holder.query('BEGIN; LOCK TABLE counters IN ACCESS EXCLUSIVE MODE');
      await expectUnavailable(raise());
      await holder.query('ROLLBACK');
      expect((await raise()).rows).to.deep.equal([{ value: 1n }, { value: 1n }]);
      expect(await pid()).to.equal(before);
    });

    it('does nothing when it does not begin', async () => {
      const client = new pg.Client({ connectionString: url });
      closing.push(() => client.end());
      await client.connect();
      const raise = (begin: string) =>
        sendStatement(client, {
          begin,
          name: 'raise',
          text: 'UPDATE counters SET value = value + $1 WHERE true RETURNING value',
          values: [1],
          timeoutMs: 1_000,
        });
      expect(await rejectionOf(raise('BEGIN ISOLATION LEVEL unheard of'))).to.have.property('code', '42601');
      expect(await counterValue(database, 'a')).to.equal(0n);
      // The connection is still usable.
      expect((await raise('BEGIN')).rows).to.have.length(2);
      await client.query('COMMIT');
      expect(await counterValue(database, 'a')).to.equal(1n);
    });

    it('sends nothing when its work sends nothing', async () => {
      expect(await database.transaction(async () => 'nothing')).to.equal('nothing');
      expect(
        await rejectionOf(database.transaction(() => Promise.reject(new Error('early')))),
      ).to.have.property('message', 'early');
    });

    it('cannot be used after its end', async () => {
      let leaked: Sql | undefined;
      await database.transaction(async (sql) => {
        leaked = sql;
      });
      expect(await rejectionOf(leaked?.query('SELECT 1') ?? Promise.resolve())).to.be.instanceOf(TypeError);
    });

    it('rejects writes when it is read-only', async () => {
      const write = (sql: Sql) => sql.query(`UPDATE counters SET value = 7 WHERE name = 'a'`);
      await rejectionOf(database.transaction(write, { readOnly: true }));
      expect(await counterValue(database, 'a')).to.equal(0n);
    });

    it('reports which constraint was violated, and keeps its connection', async () => {
      const single = open(url, 1);
      await single.ready(never);
      const pid = async () =>
        (await single.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;
      const before = await pid();
      const error = await rejectionOf(
        single.transaction((sql) => sql.query(`UPDATE counters SET value = -1 WHERE name = 'a'`)),
      );
      expect(violatedConstraint(error)).to.equal('counters_value_check');
      expect(violatedConstraint(new Error('other'))).to.equal(undefined);
      expect(await pid()).to.equal(before);
    });
  });

  describe('a prepared statement', () => {
    const all = 'SELECT * FROM counters WHERE value >= $1 ORDER BY name';

    it('is planned once per connection, for any values', async () => {
      const single = open(url, 1);
      await single.ready(never);
      for (let value = 0; value < 3; value++) await single.query(all, [value]);
      const prepared = 'SELECT count(*) FROM pg_prepared_statements WHERE statement = $1';
      expect((await single.query(prepared, [all])).rows).to.deep.equal([{ count: 1n }]);
    });

    it('has a name that depends only on its text, not on the order in which a process prepares its statements', async () => {
      const single = open(url, 1);
      await single.ready(never);
      await single.query(all, [0]);
      const { rows } = await single.query('SELECT name FROM pg_prepared_statements WHERE statement = $1', [
        all,
      ]);
      const digest = createHash('sha256').update(all).digest('base64url');
      expect(rows).to.deep.equal([{ name: `portcullis_${digest}` }]);
    });

    it('is not kept when its text differs from call to call', async () => {
      const single = open(url, 1);
      await single.ready(never);
      const varied = 'SELECT * FROM counters WHERE value < $1 ORDER BY name';
      await single.query(varied, [5], { isOneOff: true });
      await single.transaction((sql) => sql.query(varied, [5], { isOneOff: true }));
      const prepared = 'SELECT count(*) FROM pg_prepared_statements WHERE statement = $1';
      expect((await single.query(prepared, [varied])).rows).to.deep.equal([{ count: 0n }]);
    });
    it('is prepared again when a migration has changed its result columns', async () => {
      await database.query(all, [0]);
      await database.transaction((sql) => sql.query(all, [0]));
      await database.query('ALTER TABLE counters ADD COLUMN note text');
      const { rows } = await database.query(all, [0]);
      expect(rows[0]).to.deep.equal({ name: 'a', value: 0n, note: null });
      await database.query('ALTER TABLE counters DROP COLUMN note');
      const inTransaction = await database.transaction((sql) => sql.query(all, [0]));
      expect(inTransaction.rows[0]).to.deep.equal({ name: 'a', value: 0n });
    });

    it('is prepared again when a pooler has given the session to other processes meanwhile', async () => {
      const single = open(url, 1);
      await single.ready(never);
      await single.query(all, [0]);
      await single.query('DEALLOCATE ALL');
      expect((await single.query(all, [0])).rowCount).to.equal(2);
    });
  });

  describe('limits', () => {
    it('fail with DEPENDENCY_UNAVAILABLE a statement whose lock is not free in time, and keep its connection', async () => {
      const holder = new pg.Client(url);
      await holder.connect();
      await holder.query(`BEGIN; UPDATE counters SET value = 1 WHERE name = 'a'`);
      const update = `UPDATE counters SET value = 2 WHERE name = 'a'`;
      const error = await expectUnavailable(database.transaction((sql) => sql.query(update)));
      expect(error.cause).to.have.property('code', '55P03');
      expect(error.retryAfterMs).to.be.above(0);
      await holder.end();
      await database.query(update);
      expect(database.missing()).to.equal('');
      expect(LOCK_TIMEOUT_MS).to.be.at.most(1_000);
    });

    it('end a statement that runs too long with DEPENDENCY_UNAVAILABLE, and keep its connection', async () => {
      const single = open(url, 1);
      await single.ready(never);
      const startedMs = performance.now();
      const error = await expectUnavailable(single.query('SELECT pg_sleep(30)'));
      expect(error.cause).to.have.property('code', '57014');
      expect(performance.now() - startedMs).to.be.below(STATEMENT_TIMEOUT_MS + 10_000);
      expect((await single.query('SELECT 1 AS one')).rows).to.deep.equal([{ one: 1 }]);
      expect(single.missing()).to.equal('');
    });

    it('fail with DEPENDENCY_UNAVAILABLE when all connections stay in use, and report no outage', async () => {
      const single = open(url, 1);
      await single.ready(never);
      let isFree = false;
      // Two statements, because each of them has a shorter limit than the wait for a connection.
      const half = LANE_WAIT_MS / 2_000 + 0.6;
      const slow = single
        .transaction(async (sql) => {
          await sql.query('SELECT pg_sleep($1::float)', [half]);
          await sql.query('SELECT pg_sleep($1::float)', [half]);
        })
        .finally(() => {
          isFree = true;
        });
      const startedMs = performance.now();
      const refused = await Promise.all(
        Array.from({ length: 20 }, () => expectUnavailable(single.query('SELECT 1'))),
      );
      expect(performance.now() - startedMs).to.be.at.least(LANE_WAIT_MS - 100);
      expect(isFree).to.equal(false);
      for (const error of refused) expect(error.retryAfterMs).to.be.above(0);
      await slow;
      await until(() => single.missing() === '');
      expect((await single.query('SELECT 1 AS one')).rows).to.deep.equal([{ one: 1 }]);
    });

    it('let the server end a transaction that does nothing, and release its locks', async () => {
      const idle = database.transaction(async (sql) => {
        await sql.query(`UPDATE counters SET value = 1 WHERE name = 'a'`);
        await sleep(IDLE_IN_TRANSACTION_TIMEOUT_MS + 300);
        await sql.query('SELECT 1');
      });
      await expectUnavailable(idle);
      await database.query(`UPDATE counters SET value = 2 WHERE name = 'a'`);
      await sleep(100);
      expect(database.missing()).to.equal('');
    });
  });

  describe('a database that goes away', () => {
    it('makes calls fail with DEPENDENCY_UNAVAILABLE, is reported, and is used again when it is back', async () => {
      const relay = await startRelay(Number(new URL(url).port));
      closing.push(() => relay.cut().catch(() => {}));
      const through = new URL(url);
      through.host = `127.0.0.1:${relay.port}`;
      const away = open(through.href);
      await away.ready(never);
      const changes: string[] = [];
      away.onStateChange(() => changes.push(away.missing()));

      const work = away.transaction(async (sql) => {
        await sql.query('SELECT 1');
        await relay.cut();
        await sql.query('SELECT 1');
      });
      const error = await expectUnavailable(work);
      expect(error.cause).to.be.instanceOf(Error);
      await until(() => away.missing() !== '');
      await expectUnavailable(away.query('SELECT 1'));
      expect(away.missing()).to.equal('the database does not answer (ECONNREFUSED)');

      await relay.mend();
      await until(() => away.missing() === '');
      expect((await away.query('SELECT 1 AS one')).rows).to.deep.equal([{ one: 1 }]);
      expect(changes).to.deep.equal(['the database does not answer (ECONNREFUSED)', '']);
    });

    it('is noticed even when no call is under way', async () => {
      const relay = await startRelay(Number(new URL(url).port));
      closing.push(() => relay.cut().catch(() => {}));
      const through = new URL(url);
      through.host = `127.0.0.1:${relay.port}`;
      const away = open(through.href);
      await away.ready(never);
      await away.query('SELECT 1');
      await relay.cut();
      await until(() => away.missing() !== '');
    });

    it('is not reported when only one connection is cut', async () => {
      await database.query('SELECT 1');
      const changes: string[] = [];
      database.onStateChange(() => changes.push(database.missing()));
      const other = open(url);
      await other.ready(never);
      await other.query(
        'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()',
      );
      await sleep(200);
      await database.query('SELECT 1');
      expect(changes).to.deep.equal([]);
    });
  });

  describe('getting ready', () => {
    it('rejects queries before the database is migrated', async () => {
      const early = open(url);
      await expectUnavailable(early.query('SELECT 1'));
      await expectUnavailable(early.transaction(async () => 1));
      expect(early.missing()).to.not.equal('');
    });

    it('waits for a database that is created later, and logs what is missing', async () => {
      const later = new URL(url);
      later.pathname = `${later.pathname}_later`;
      const name = later.pathname.slice(1);
      const waiting = open(later.href);
      const ready = waiting.ready(never);
      await until(() => lines.some((line) => line.includes('the database does not exist')));
      expect(waiting.missing()).to.equal('the database does not exist');
      await database.query(`CREATE DATABASE ${name}`);
      closing.splice(closing.length - 1, 0, async () => {
        await database.query(`DROP DATABASE ${name} WITH (FORCE)`);
      });
      await ready;
      expect(waiting.missing()).to.equal('');
      expect(await counterValue(waiting, 'a')).to.equal(0n);
    });

    it('waits for a server that does not listen, until its signal is aborted', async () => {
      const nowhere = new URL(url);
      nowhere.host = '127.0.0.1:1';
      nowhere.password = 'hunter2';
      const waiting = open(nowhere.href);
      const stop = new AbortController();
      const ready = waiting.ready(stop.signal);
      await until(() => lines.some((line) => line.includes('ECONNREFUSED')));
      stop.abort(new Error('enough'));
      expect(await rejectionOf(ready)).to.have.property('message', 'enough');
      expect(lines.join('')).to.not.include('hunter2');
    });

    it('ends when the database is closed', async () => {
      const nowhere = new URL(url);
      nowhere.host = '127.0.0.1:1';
      const waiting = open(nowhere.href);
      const ready = rejectionOf(waiting.ready(never));
      await waiting.close();
      expect(await ready).to.have.property('message', 'the database is closed');
    });
  });

  describe('notifications', () => {
    it('reach the listener', async () => {
      const received: string[] = [];
      const subscription = await database.listen(
        'news "of" today',
        (payload) => received.push(payload),
        () => {},
      );
      await database.query('SELECT pg_notify($1, $2)', ['news "of" today', 'one']);
      await database.query('SELECT pg_notify($1, $2)', ['other', 'two']);
      await until(() => received.length > 0);
      expect(received).to.deep.equal(['one']);
      await subscription.close();
      await database.query('SELECT pg_notify($1, $2)', ['news "of" today', 'three']);
      await sleep(50);
      expect(received).to.deep.equal(['one']);
    });

    it('reach the listener again after the connection was lost, and the gap is reported', async () => {
      const relay = await startRelay(Number(new URL(url).port));
      closing.push(() => relay.cut().catch(() => {}));
      const through = new URL(url);
      through.host = `127.0.0.1:${relay.port}`;
      const away = open(through.href);
      const received: string[] = [];
      let reconnects = 0;
      await away.listen(
        'news',
        (payload) => received.push(payload),
        () => reconnects++,
      );
      expect(reconnects).to.equal(0);
      await relay.cut();
      await sleep(300);
      await relay.mend();
      await until(() => reconnects === 1);
      await database.query(`SELECT pg_notify('news', 'again')`);
      await until(() => received.length > 0);
      expect(received).to.deep.equal(['again']);
    });
  });
});
