/** `portcullis gate` as a process that reads its certificates again on SIGHUP. */

import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { expect } from 'chai';
import { findFreePort } from '../../scripts/system/ports.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createAuthority, type Identity } from '../support/certificates.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { until } from '../support/waiting.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');

describe('SIGHUP', function () {
  this.timeout(60_000);
  let folder: TemporaryFolder;
  let child: ChildProcess | undefined;

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  after(async () => {
    child?.kill('SIGKILL');
    await folder.remove();
  });

  it('lets a gate show its new certificate to new connections, and not to open ones', async () => {
    const path = (name: string): string => join(folder.path, name);
    const authority = await createAuthority(folder.path);
    const [first, second] = [await authority.issue(), await authority.issue()];
    const install = async ({ certFile, keyFile }: Identity): Promise<void> => {
      await copyFile(certFile, path('tls.pem'));
      await copyFile(keyFile, path('tls-key.pem'));
    };
    await install(first);
    const { privateKey } = generateKeyPairSync('ed25519');
    await writeFile(path('client.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }));
    await writeFile(path('rules.yaml'), 'services: {a.v1.A: {B: public}}\n');
    const port = await findFreePort();
    const words = [
      '--issuer=https://issuer.test',
      // Nothing answers there: no call is admitted, and certificates are shown all the same.
      '--auth=127.0.0.1:1',
      '--client-id=a',
      `--client-key=${path('client.pem')}`,
      `--rules=${path('rules.yaml')}`,
      `--listen=127.0.0.1:${port}`,
      `--tls-cert=${path('tls.pem')}`,
      `--tls-key=${path('tls-key.pem')}`,
      `--upstream=unix:${path('none.sock')}`,
      '--drain-seconds=0',
    ];
    child = spawn(process.execPath, [COMMAND_LINE, 'gate', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (part: Buffer) => {
        said += String(part);
      });
    }
    const running = child;
    await until(() => said.includes('"event":"open"') || running.exitCode !== null);
    expect(running.exitCode, said).to.equal(null);
    const opened = await shown(port);
    expect(opened.fingerprint).to.equal(await fingerprintOf(first));
    await install(second);
    child.kill('SIGHUP');
    await until(() => said.includes('"event":"certificates_changed"'));
    const later = await shown(port);
    expect(later.fingerprint).to.equal(await fingerprintOf(second));
    expect(opened.socket.destroyed, 'the connection of before stays').to.equal(false);
    for (const { socket } of [opened, later]) socket.destroy();
    const exit = new Promise((resolve) => running.once('close', resolve));
    child.kill('SIGTERM');
    expect(await exit).to.equal(0);
  });
});

async function fingerprintOf({ certFile }: Identity): Promise<string> {
  return new X509Certificate(await readFile(certFile)).fingerprint256;
}

async function shown(port: number) {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
  await new Promise((resolve, reject) => {
    socket.once('secureConnect', resolve);
    socket.once('error', reject);
  });
  socket.on('error', () => {});
  return { socket, fingerprint: socket.getPeerX509Certificate()?.fingerprint256 };
}
