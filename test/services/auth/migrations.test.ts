/** Tests of migrating a database of auth that contains accounts. */

import { randomUUID } from 'node:crypto';
import { cp, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import { makeTemporaryFolder, type TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { skeletonOf } from '../../../services/auth/accounts/usernames.js';
import { createClientRows } from '../../../services/auth/clients/store.js';
import { OWN_ROLES, OWN_SERVICE } from '../../../services/auth/policy/document.js';
import { readPolicy } from '../../../services/auth/policy/store.js';
import type { StoredCredential } from '../../../services/auth/records/clients.js';
import { createSecurityStore } from '../../../services/auth/security/store.js';
import { type Database, openDatabase } from '../../../services/common/database/database.js';
import { createLog } from '../../../services/common/host/log.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { DEMO_POLICY } from './demo-policy.js';

const MIGRATIONS = fileURLToPath(new URL('../../../services/auth/migrations', import.meta.url));

describe('migrating auth', () => {
  let folder: TemporaryFolder;
  let fresh: FreshDatabase;

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    fresh = await freshDatabase();
  });
  afterEach(async () => {
    await fresh.drop();
    await folder.remove();
  });

  /** The database after the migrations up to this number. */
  const openAt = async (last: string): Promise<Database> => {
    const path = join(folder.path, last);
    await mkdir(path);
    await cp(MIGRATIONS, path, { recursive: true });
    for (const name of await readdir(path)) if (name.slice(0, 4) > last) await rm(join(path, name));
    const log = createLog({ service: 'auth', level: 'silent' });
    const database = openDatabase({ url: fresh.url, migrations: pathToFileURL(`${path}/`), log });
    await database.ready(AbortSignal.timeout(45_000));
    return database;
  };

  it('gives existing names the skeletons that new names get, and keeps look-alikes apart', async () => {
    const names = ['alice', 'm.w-1_0', 'www.mm', 'paypal', 'paypa1', 'modern', 'rnodern'];
    const before = await openAt('0004');
    for (const name of names) {
      await before.query('INSERT INTO users (user_id, username, password_hash) VALUES ($1, $2, $3)', [
        randomUUID(),
        name,
        'x',
      ]);
    }
    await before.close();
    const after = await openAt('9999');
    const { rows } = await after.query<{ username: string; name_skeleton: string }>(
      'SELECT username, name_skeleton FROM users',
    );
    await after.close();
    const twins = ['paypa1', 'rnodern'];
    for (const { username, name_skeleton: skeleton } of rows) {
      const expected = skeletonOf(username);
      if (twins.includes(username)) expect(skeleton).to.match(new RegExp(`^${expected} [0-9a-f-]{36}$`));
      else expect(skeleton).to.equal(expected);
    }
    expect(rows).to.have.length(names.length);
  });

  it('keeps the key or the secret that a client had, as the first of its credentials', async () => {
    const before = await openAt('0012');
    await before.query(
      `INSERT INTO clients (client_id, public_key_pem, secret_hash, create_time)
       VALUES ('a', 'a key', NULL, '2026-01-02T03:04:05.678Z'), ('b', NULL, 'a hash', now()), ('c', NULL, NULL, now())`,
    );
    await before.close();
    const after = await openAt('9999');
    // An instance of the version before still runs.
    await after.query("INSERT INTO clients (client_id, public_key_pem) VALUES ('d', 'late key')");
    const rows = createClientRows(after);
    const credentials: (readonly StoredCredential[])[] = [];
    for (const clientId of ['a', 'b', 'c', 'd'])
      credentials.push((await rows.find(clientId))?.credentials ?? []);
    await after.close();
    const [[first], [second], none, [late]] = credentials as [
      StoredCredential[],
      StoredCredential[],
      StoredCredential[],
      StoredCredential[],
    ];
    const createTime = new Date('2026-01-02T03:04:05.678Z');
    expect(first).to.deep.include({ kind: 'public-key', pem: 'a key', createTime });
    expect(first?.credentialId).to.match(/^[0-9a-f-]{36}$/);
    expect(second).to.include({ kind: 'secret', hash: 'a hash' });
    expect(none).to.deep.equal([]);
    expect(late).to.include({ kind: 'public-key', pem: 'late key' });
  });

  it('adds the first epoch to a database in which later ones were opened', async () => {
    const before = await openAt('0010');
    const epochOf = async (database: Database) => {
      const { rows } = await database.query<{ epoch: Buffer }>('SELECT epoch FROM log_state');
      return rows[0]?.epoch.toString('hex');
    };
    const first = await epochOf(before);
    await before.query(
      `INSERT INTO signing_keys (kid, purpose, algorithm, epoch, state, public_jwk, sealed_private_key)
       SELECT 'a key', 'token', 'EdDSA', epoch, 'next', '{}', '' FROM log_state`,
    );
    await before.query(
      `INSERT INTO epochs (epoch, open_time, reason, actor) VALUES (decode(repeat('ab', 16), 'hex'), now(), 'restored', 'olga')`,
    );
    await before.query(`UPDATE log_state SET epoch = decode(repeat('ab', 16), 'hex')`);
    await before.close();
    const after = await openAt('9999');
    const { rows } = await after.query<{ epoch: Buffer; actor: string }>(
      'SELECT epoch, actor FROM epochs ORDER BY actor',
    );
    await after.close();
    expect(rows.map(({ epoch, actor }) => [epoch.toString('hex'), actor])).to.deep.equal([
      [first, ''],
      ['ab'.repeat(16), 'olga'],
    ]);
  });

  it('moves security events into partitions in their order, and loses none', async () => {
    const before = await openAt('0018');
    await before.query(
      `INSERT INTO security_events (event_id, position, type, event_time, subject, subjects, actor, reason, network,
                                    source, details, keep_until)
       SELECT gen_random_uuid(), CASE WHEN n <= 90 THEN n END,
              CASE n % 3 WHEN 0 THEN 'session-revoked' WHEN 1 THEN 'token-refreshed' ELSE 'service-report' END,
              -- Placed in another order than they happened, and some expired.
              at, '{}', ARRAY[n::text], 'a', '', '', 'auth', '{}',
              at + CASE n % 3 WHEN 0 THEN interval '365 days' WHEN 1 THEN interval '30 days' ELSE interval '2 hours' END
       FROM (SELECT n, now() - interval '1 day' * (100 - n) + interval '36 hours' * (n % 2) AS at
             FROM generate_series(1, 100) AS n) AS numbers`,
    );
    await before.query('UPDATE security_stream SET position = 90, judged = 60');
    await before.close();
    const after = await openAt('9999');
    const { rows } = await after.query<{ n: number; placed: boolean }>(
      `SELECT subjects[1]::int AS n, position IS NOT NULL AS placed FROM security_events
       ORDER BY position, subjects[1]::int`,
    );
    const numbers = Array.from({ length: 100 }, (_, index) => index + 1);
    const isKept = (n: number) => n % 3 === 0 || (n % 3 === 1 ? n > 70 : n > 99);
    expect(rows.filter(({ placed }) => placed).map(({ n }) => n)).to.deep.equal(
      numbers.filter((n) => n <= 90 && isKept(n)),
    );
    expect(rows.filter(({ placed }) => !placed).map(({ n }) => n)).to.deep.equal(
      numbers.filter((n) => n > 90),
    );
    const { rows: ends } = await after.query<{ judged: boolean }>(
      `SELECT judged = (SELECT position FROM security_events WHERE subjects = ARRAY['60']) AS judged
       FROM security_stream`,
    );
    expect(ends).to.deep.equal([{ judged: true }]);
    const store = createSecurityStore(after);
    const since = new Date(Date.now() - 40 * 86_400_000);
    const { events } = await store.list({ beginTime: since }, { pageSize: 200, pageToken: '' });
    const { rows: expected } = await after.query<{ count: bigint }>(
      "SELECT count(*) FROM security_events WHERE event_time >= $1 AND type <> 'service-report' AND keep_until > now()",
      [since],
    );
    expect(BigInt(events.length)).to.equal(expected[0]?.count);
    await after.close();
  });

  it('keeps the services and roles of a database in use, which were in the source', async () => {
    const before = await openAt('0021');
    const userId = randomUUID();
    await before.query(
      "INSERT INTO users (user_id, username, name_skeleton, password_hash) VALUES ($1, 'olga', 'olga', 'x')",
      [userId],
    );
    await before.query("INSERT INTO user_roles VALUES ($1, 'operator'), ($1, 'admin')", [userId]);
    await before.close();
    const after = await openAt('9999');
    const { services, roles, changed } = await readPolicy(after, { policy: undefined });
    await after.close();
    expect({ services, roles, changed }).to.deep.equal({
      services: DEMO_POLICY.services,
      roles: DEMO_POLICY.roles,
      changed: true,
    });
  });

  it('gives a new database the built-in policy, and lets no user have a role that it lacks', async () => {
    const database = await openAt('9999');
    const { services, roles, changed } = await readPolicy(database, { policy: undefined });
    expect(services).to.deep.equal([OWN_SERVICE]);
    expect(roles).to.deep.equal(OWN_ROLES);
    expect(changed).to.equal(false);
    const userId = randomUUID();
    await database.query(
      "INSERT INTO users (user_id, username, name_skeleton, password_hash) VALUES ($1, 'olga', 'olga', 'x')",
      [userId],
    );
    const failed = await database
      .query("INSERT INTO user_roles VALUES ($1, 'customer')", [userId])
      .catch((error: unknown) => error);
    expect(failed).to.have.property('code', '23503');
    await database.close();
  });
});
