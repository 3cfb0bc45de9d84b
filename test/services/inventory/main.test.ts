/** Inventory as a process: its messages when something is wrong or missing, and its stop. */

import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { killPrograms, type Program, startProgram } from '../../support/programs.js';
import { PROJECT_FOLDER } from '../../support/project-copy.js';
import { until } from '../../support/waiting.js';

describe('inventory main', function () {
  this.timeout(180_000);
  let folder: string;
  let fresh: FreshDatabase;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'inventory-main-'));
    const { privateKey } = generateKeyPairSync('ed25519');
    writeFileSync(join(folder, 'key.pem'), privateKey.export({ format: 'pem', type: 'pkcs8' }));
    fresh = await freshDatabase();
  });
  afterEach(killPrograms);
  after(async () => {
    rmSync(folder, { recursive: true });
    await fresh.drop();
  });

  /** Starts the service; nothing listens at the addresses of broker and auth. */
  function start(change: Record<string, string> = {}): Program {
    const env = {
      DATABASE_URL: fresh.url,
      NATS_URL: 'nats://127.0.0.1:1',
      PORTCULLIS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_ISSUER: 'https://auth.example',
      PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
      PORTCULLIS_CLIENT_ID: 'inventory',
      PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'key.pem'),
      ...change,
    };
    return startProgram(['services/inventory/main'], { env });
  }
  async function missingAt(opsAddress: unknown): Promise<{ status: number; body: string }> {
    const response = await fetch(`http://${opsAddress}/readyz`);
    return { status: response.status, body: await response.text() };
  }

  it('reports all faults of its configuration together, and exits', async () => {
    const { ended } = start({ DATABASE_URL: '', PORTCULLIS_CLIENT_ID: '', PORTCULLIS_OOPS: '1' });
    const { code, stderr: errors } = await ended;
    expect(code).to.equal(1);
    for (const name of ['DATABASE_URL', 'PORTCULLIS_CLIENT_ID', 'PORTCULLIS_OOPS'])
      expect(errors).to.include(name);
  });

  it('names the port that is taken, and the variable that moves it', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const address = taken.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const { ended } = start({ PORTCULLIS_LISTEN: `127.0.0.1:${port}` });
    const { code, stderr: errors } = await ended;
    taken.close();
    expect(code).to.equal(1);
    expect(errors).to.include(`Port ${port} on 127.0.0.1 is taken`).and.to.include('PORTCULLIS_LISTEN');
  });

  it('listens without database and auth, and reports both as missing at /readyz', async () => {
    const { child, ended, logged } = start({ DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing' });
    const { opsAddress } = await logged('listening');
    await logged('waiting for the database');
    const { status, body } = await missingAt(opsAddress);
    expect(status).to.equal(503);
    expect(body).to.include('database').and.to.include('revocations');
    child.kill('SIGTERM');
    expect((await ended).code).to.equal(0);
  });

  it('migrates its database, and then reports only auth as missing', async () => {
    const { child, ended, logged } = start();
    const { opsAddress } = await logged('listening');
    await until(async () => !(await missingAt(opsAddress)).body.includes('database'));
    const { status, body } = await missingAt(opsAddress);
    expect(status).to.equal(503);
    expect(body).to.include('revocations');
    child.kill('SIGTERM');
    expect((await ended).code).to.equal(0);
  });

  it('leaves nothing in the temporary folder, which other users of the machine can write to', async () => {
    const temporary = join(folder, 'temporary');
    mkdirSync(temporary);
    const { child, ended, logged } = start({ TMPDIR: temporary });
    const { opsAddress } = await logged('listening');
    await until(async () => !(await missingAt(opsAddress)).body.includes('database'));
    const command = readFileSync(`/proc/${child.pid}/cmdline`, 'utf8').split('\0');
    expect(command).to.include(join(PROJECT_FOLDER, 'dist/services/inventory/main.js'));
    expect(command.join(' ')).to.not.include('tsx');
    expect(readdirSync(temporary)).to.deep.equal([]);
    child.kill('SIGTERM');
    expect((await ended).code).to.equal(0);
  });
});
