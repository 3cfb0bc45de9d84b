/** `npm run credentials`: the files of a deployment. */

import { execFileSync, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { expect } from 'chai';
import { makeCredentials } from '../../scripts/credentials/make.js';
import { findNatsServer } from '../../scripts/system/nats-binary.js';
import { findFreePort } from '../../scripts/system/ports.js';
import { parseBootstrap } from '../../services/auth/config.js';
import { parseDatabaseUrl } from '../../services/common/database/database-url.js';
import { makeFolder, type TestFolder } from '../support/folders.js';
import { until } from '../support/waiting.js';

describe('npm run credentials', function () {
  this.timeout(60_000);
  let parent: TestFolder;
  let folder: string;
  const database = 'postgres:5432';
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
  const all = (): Record<string, string> =>
    Object.fromEntries(readdirSync(folder).map((name) => [name, read(name)]));

  before(async () => {
    parent = await makeFolder();
    folder = join(parent.path, 'secrets');
    await makeCredentials({ folder, database, names: { auth: ['auth.example'] } });
  });
  after(() => parent.remove());

  it('admits only the owner to the folder', () => {
    expect(statSync(folder).mode & 0o777).to.equal(0o700);
  });

  it('changes nothing when it is repeated', async () => {
    const before = all();
    const { made, kept } = await makeCredentials({ folder, database });
    expect(made).to.deep.equal([]);
    expect(kept).to.equal(Object.keys(before).length);
    expect(all()).to.deep.equal(before);
  });

  it('makes certificates for the names of each part, which the authority has issued', () => {
    const authority = new X509Certificate(read('ca.crt'));
    expect(authority.ca).to.equal(true);
    for (const [part, name] of [
      ['auth', 'auth.example'],
      ['inventory', 'inventory'],
      ['nats', 'nats-3'],
      ['postgres', 'postgres'],
    ] as const) {
      const certificate = new X509Certificate(read(`${part}.crt`));
      expect(certificate.checkIssued(authority), part).to.equal(true);
      expect(certificate.verify(authority.publicKey), part).to.equal(true);
      expect(certificate.checkHost(name), part).to.equal(name);
      expect(certificate.ca, part).to.equal(false);
    }
  });

  it('makes another key and certificate when the certificate was removed, and keeps the authority', async () => {
    const before = all();
    rmSync(join(folder, 'gate.crt'));
    const { made } = await makeCredentials({ folder, database });
    expect([...made].sort()).to.deep.equal(['gate.crt', 'gate.key']);
    expect(read('ca.crt')).to.equal(before['ca.crt']);
    expect(read('gate.key')).to.not.equal(before['gate.key']);
  });

  it('makes the certificate of the authority again from its key', async () => {
    const key = read('ca.key');
    rmSync(join(folder, 'ca.crt'));
    const { made } = await makeCredentials({ folder, database });
    expect(made).to.deep.equal(['ca.crt']);
    expect(read('ca.key')).to.equal(key);
    const authority = new X509Certificate(read('ca.crt'));
    expect(new X509Certificate(read('auth.crt')).verify(authority.publicKey)).to.equal(true);
  });

  it('overwrites nothing that it cannot read', async () => {
    const other = join(parent.path, 'other');
    mkdirSync(other);
    // A link that leads to itself can be replaced, and cannot be read.
    symlinkSync('admin-password', join(other, 'admin-password'));
    const error = await makeCredentials({ folder: other, database }).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).to.have.property('code', 'ELOOP');
    expect(readlinkSync(join(other, 'admin-password'))).to.equal('admin-password');
  });

  it('makes a bootstrap file that auth accepts', () => {
    const bootstrap = parseBootstrap(read('bootstrap.json'));
    expect(bootstrap).to.not.have.property('faults');
    if ('faults' in bootstrap) return;
    expect(bootstrap.clients.map(({ clientId }) => clientId)).to.deep.equal([
      'inventory',
      'payment',
      'greeter',
    ]);
    expect(bootstrap.users.map(({ username }) => username)).to.deep.equal(['admin']);
    expect(bootstrap.users[0]?.password).to.equal(read('admin-password'));
  });

  it('makes database URLs that verify the server', () => {
    for (const role of ['auth', 'auth-migration', 'payment']) {
      const url = read(`${role}-database-url`).trim();
      expect(parseDatabaseUrl(url)).to.have.property('urls');
      expect(new URL(url).searchParams.get('sslmode')).to.equal('verify-full');
    }
  });

  it('makes a configuration that nats-server accepts, and in which no service may publish revocations', async () => {
    const settings = JSON.parse(read('nats.conf').replaceAll('/run/secrets', folder)) as {
      authorization: { users: { nkey: string; permissions: { publish: string[] } }[] };
    };
    const program = await findNatsServer({ environment: process.env });
    const file = join(parent.path, 'nats.conf');
    const { writeFile } = await import('node:fs/promises');
    await writeFile(file, JSON.stringify(settings));
    execFileSync(program, ['-t', '--config', file], { stdio: 'pipe' });
    const publishers = settings.authorization.users.filter(({ permissions }) =>
      permissions.publish.includes('portcullis.v1.revocations'),
    );
    expect(publishers).to.have.lengthOf(1);
    expect(read('nats.conf')).to.not.match(/SU[A-Z2-7]{50}/);
  });

  it('admits to the cluster of brokers only a broker, whatever other certificates the authority has issued', async () => {
    const settings = JSON.parse(read('nats.conf').replaceAll('/run/secrets', folder));
    const [port, http, cluster] = [await findFreePort(), await findFreePort(), await findFreePort()];
    const file = join(parent.path, 'cluster.conf');
    const own = { host: '127.0.0.1', port: cluster };
    writeFileSync(
      file,
      JSON.stringify({
        ...settings,
        ...{ host: '127.0.0.1', port, http: `127.0.0.1:${http}` },
        cluster: { ...settings.cluster, ...own },
      }),
    );
    const broker = spawn(await findNatsServer({ environment: process.env }), ['--config', file], {
      stdio: 'ignore',
    });
    const certificate = (party: string) => ({
      ca: read('ca.crt'),
      cert: read(`${party}.crt`),
      key: read(`${party}.key`),
    });
    try {
      await until(async () => (await routeAs(cluster, certificate('nats'))) === 'admitted');
      for (const party of ['payment', 'gate', 'auth']) {
        expect(await routeAs(cluster, certificate(party)), party).to.equal('refused');
      }
    } finally {
      broker.kill();
      await new Promise((resolve) => broker.once('exit', resolve));
    }
  });
});

/** Connects to the port of a cluster as another broker would, and says whether it may speak. */
async function routeAs(
  port: number,
  certificate: { ca: string; cert: string; key: string },
): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', servername: 'nats-1', ...certificate });
  try {
    return await new Promise((resolve) => {
      let said = '';
      socket.once('error', () => resolve('unreachable'));
      socket.once('close', () => resolve('refused'));
      socket.on('data', (part) => {
        said += String(part);
        if (said.includes('PONG')) resolve('admitted');
        if (said.includes('-ERR')) resolve('refused');
      });
      socket.once('secureConnect', () => {
        const connect = {
          verbose: false,
          pedantic: false,
          tls_required: true,
          name: 'test',
          cluster: 'portcullis',
        };
        socket.write(`CONNECT ${JSON.stringify(connect)}\r\nPING\r\n`);
      });
    });
  } finally {
    socket.destroy();
  }
}
