/** Several hosts of one database, and a connection pooler in front of it. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import pg from 'pg';
import { type Database, openDatabase } from '../../../../services/common/database/database.js';
import { createLog } from '../../../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../../../support/postgres.js';
import { startRelay, type TcpRelay } from '../../../support/tcp-relay.js';

/** The parameters of a start that PgBouncer accepts; it refuses all others. */
const ACCEPTED = new Set([
  'user',
  'database',
  'application_name',
  'client_encoding',
  'DateStyle',
  'TimeZone',
  'standard_conforming_strings',
  'replication',
]);

/** The names of the parameters in a StartupMessage (PostgreSQL, "Message Formats"). */
function parametersIn(message: Buffer): string[] {
  return message
    .subarray(8)
    .toString('utf8')
    .split('\0')
    .filter((text, index) => index % 2 === 0 && text !== '');
}

function errorResponse(text: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C08P01\0M${text}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

/** Starts a proxy that treats the parameters of a start as PgBouncer does. */
async function startPooler(targetPort: number): Promise<{ port: number; server: Server }> {
  const server = createServer((near) => {
    near.on('error', () => {});
    near.once('data', (first) => {
      const refused = parametersIn(first).find((name) => !ACCEPTED.has(name));
      if (refused !== undefined) {
        near.end(errorResponse(`unsupported startup parameter: ${refused}`));
        return;
      }
      const far = connect(targetPort, '127.0.0.1');
      far.on('error', () => {});
      far.on('close', () => near.destroy());
      near.on('close', () => far.destroy());
      far.write(first);
      near.pipe(far).pipe(near);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: (server.address() as AddressInfo).port, server };
}

describe('a database', () => {
  const log = createLog({ service: 'test', level: 'silent' });
  const closing: (() => Promise<unknown>)[] = [];
  let folder: string;
  let fresh: FreshDatabase;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-hosts-'));
    await writeFile(join(folder, '0001-one.sql'), 'CREATE TABLE one (id integer)');
    fresh = await freshDatabase();
  });
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  after(async () => {
    await fresh.drop();
    await rm(folder, { recursive: true });
  });

  const portOf = (url: string): number => Number(new URL(url).port);

  async function open(hosts: readonly string[]): Promise<Database> {
    const { username, password, pathname } = new URL(fresh.url);
    const url = `postgresql://${username}:${password}@${hosts.join(',')}${pathname}`;
    const database = openDatabase({ url, migrations: pathToFileURL(folder), log });
    closing.push(database.close);
    await database.ready(AbortSignal.timeout(45_000));
    return database;
  }

  async function relayTo(port: number): Promise<TcpRelay> {
    const relay = await startRelay(port);
    closing.push(() => relay.cut().catch(() => undefined));
    return relay;
  }

  it('is used although one of its named hosts is dead', async () => {
    const database = await open(['127.0.0.1:1', `127.0.0.1:${portOf(fresh.url)}`]);
    expect((await database.query('SELECT 1 AS one')).rows).to.deep.equal([{ one: 1 }]);
  });

  it('is used through another host when the one in use dies', async () => {
    const relay = await relayTo(portOf(fresh.url));
    const database = await open([`127.0.0.1:${relay.port}`, `127.0.0.1:${portOf(fresh.url)}`]);
    await relay.cut();
    for (const importance of ['promise', 'known', 'unknown'] as const) {
      let answered = false;
      for (let attempt = 0; attempt < 20 && !answered; attempt += 1) {
        // Connections that were open fail once each.
        answered = await database
          .lane(importance)
          .query('SELECT 1')
          .then(
            () => true,
            () => false,
          );
      }
      expect(answered, importance).to.equal(true);
    }
  });

  it('is ready behind a pooler that refuses parameters of the start, with the limits of calls in force', async () => {
    const pooler = await startPooler(portOf(fresh.url));
    closing.push(() => new Promise((resolve) => pooler.server.close(resolve)));
    const database = await open([`127.0.0.1:${pooler.port}`]);
    const { rows } = await database.query(
      `SELECT current_setting('statement_timeout') AS statement, current_setting('lock_timeout') AS lock,
              current_setting('idle_in_transaction_session_timeout') AS idle`,
    );
    expect(rows).to.deep.equal([{ statement: '5s', lock: '1s', idle: '1s' }]);
    expect(database.missing()).to.equal('');
  });

  it('is missing for as long as its host has become read-only', async () => {
    const relay = await relayTo(portOf(fresh.url));
    const database = await open([`127.0.0.1:${relay.port}`]);
    // Its session began earlier, so it may write.
    const admin = new pg.Client({ connectionString: fresh.url });
    await admin.connect();
    closing.push(() => admin.end());
    const name = new URL(fresh.url).pathname.slice(1);
    const stateThat = (isWanted: (missing: string) => boolean): Promise<string> =>
      new Promise((resolve) => {
        const stop = database.onStateChange(() => {
          if (!isWanted(database.missing())) return;
          stop();
          resolve(database.missing());
        });
      });
    let writable: Promise<string> | undefined;
    await admin.query(`ALTER DATABASE "${name}" SET default_transaction_read_only = on`);
    try {
      const away = stateThat((missing) => missing !== '');
      await relay.cut();
      await away;
      const back = stateThat((missing) => missing === '' || missing === 'the database is read-only');
      await relay.mend();
      expect(await back).to.equal('the database is read-only');
      writable = stateThat((missing) => missing === '');
    } finally {
      await admin.query(`ALTER DATABASE "${name}" RESET default_transaction_read_only`);
    }
    await writable;
  });

  it('that takes no writes is not used', async () => {
    const { username, password, hostname, port, pathname } = new URL(fresh.url);
    const options = encodeURIComponent('-c default_transaction_read_only=on');
    const url = `postgresql://${username}:${password}@${hostname}:${port}${pathname}?options=${options}`;
    const database = openDatabase({ url, migrations: pathToFileURL(folder), log });
    closing.push(database.close);
    const stop = new AbortController();
    const missing = new Promise((resolve) => {
      database.onStateChange(() => resolve(database.missing()));
    });
    const ready = database.ready(stop.signal).catch(() => undefined);
    expect(await missing).to.equal('the database is read-only');
    stop.abort();
    await ready;
  });
});
