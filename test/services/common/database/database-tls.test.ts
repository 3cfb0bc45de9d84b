/** The database over TLS: with the settings of the manual, no other server is accepted in its place. */

import { chown, copyFile, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect } from 'chai';
import pg from 'pg';
import { type Postgres, startPostgres } from '../../../../scripts/system/postgres.js';
import { openDatabase } from '../../../../services/common/database/database.js';
import { createLog } from '../../../../services/common/host/log.js';
import { type Authority, createAuthority, type Identity } from '../../../support/certificates.js';

const log = createLog({ service: 'test', level: 'fatal' });
/** Far longer than a failed connection takes. */
const REFUSAL_PATIENCE_MS = 1500;

describe('the database over TLS', function () {
  this.timeout(180_000);
  let folder: string;
  let server: Postgres;
  let authority: Authority;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-database-tls-'));
    await writeFile(join(folder, '0001-nothing.sql'), 'SELECT 1;');
    server = await startPostgres({ dataDir: join(folder, 'server'), port: 0, ephemeral: true });
    authority = await createAuthority(folder);
    await serveWith(await authority.issue(), '');
  });
  after(async () => {
    await server?.destroy();
    await rm(folder, { recursive: true, force: true });
  });

  /** Makes the server present a certificate and reject plaintext. */
  async function serveWith({ certFile, keyFile }: Identity, connected: string): Promise<void> {
    const { uid, gid } = await stat(server.clusterDir);
    for (const [from, to] of [
      [certFile, 'server.crt'],
      [keyFile, 'server.key'],
    ] as const) {
      await copyFile(from, join(server.clusterDir, to));
      await chown(join(server.clusterDir, to), uid, gid);
    }
    await writeFile(join(server.clusterDir, 'pg_hba.conf'), 'hostssl all all 127.0.0.1/32 scram-sha-256\n');
    const client = new pg.Client({ connectionString: `${server.url('postgres')}${connected}` });
    await client.connect();
    await client.query('ALTER SYSTEM SET ssl = on');
    await client.query('SELECT pg_reload_conf()');
    await client.end();
  }

  /** What a service reports as missing; '' with the TLS version when it is connected. */
  async function outcomeOf(parameters: string): Promise<{ missing: string; version?: string | undefined }> {
    const url = `${server.url('postgres')}${parameters}`;
    const database = openDatabase({ url, migrations: pathToFileURL(folder), log });
    try {
      await database.ready(AbortSignal.timeout(REFUSAL_PATIENCE_MS)).catch(() => undefined);
      const missing = database.missing();
      if (missing !== '') return { missing };
      const { rows } = await database.query<{ version: string }>(
        'SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
      );
      return { missing, version: rows[0]?.version };
    } finally {
      await database.close();
    }
  }

  const verified = (caFile: string): string =>
    `?sslmode=verify-full&sslrootcert=${encodeURIComponent(caFile)}`;

  it('is used when its certificate comes from the configured authority', async () => {
    expect(await outcomeOf(verified(authority.certFile))).to.deep.equal({ missing: '', version: 'TLSv1.3' });
  });

  it('is not used when its certificate comes from another authority', async () => {
    const other = await createAuthority(folder);
    const { missing } = await outcomeOf(verified(other.certFile));
    expect(missing).to.match(/^the database's certificate is not trusted \((SELF_SIGNED|UNABLE)/);
  });

  it('is not used in plaintext when it requires TLS', async () => {
    expect((await outcomeOf('')).missing).to.equal('the database refuses our user or password');
  });

  it('is not used when its certificate is for another machine', async () => {
    await serveWith(await authority.issue({ names: ['DNS:elsewhere.example'] }), '?sslmode=no-verify');
    expect((await outcomeOf(verified(authority.certFile))).missing).to.equal(
      "the database's certificate is not trusted (ERR_TLS_CERT_ALTNAME_INVALID)",
    );
  });
});
