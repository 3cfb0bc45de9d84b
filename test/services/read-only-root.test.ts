/** A service as a container runs it: a read-only file system, and a user id that the machine does not know. */

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { findFreePort } from '../../scripts/system/ports.js';
import { programArguments } from '../../scripts/system/project.js';
import { until } from '../support/waiting.js';

const UNKNOWN_ID = '4242';
/** In a mount namespace of its own, so that nothing changes for anything else on the machine. */
const READ_ONLY = `
  awk '{ print $2 }' /proc/self/mounts | while read -r folder; do
    case "$folder" in /proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$folder" || true ;; esac
  done 2>/dev/null
  exec setpriv --reuid=${UNKNOWN_ID} --regid=${UNKNOWN_ID} --clear-groups "$@"`;
const CONTAINED = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', READ_ONLY, 'sh'];

/** Only root may do that, not in every container, and only where others may read the project. */
const MAIN = programArguments('services/inventory/main').at(-1) ?? '';
const CAN_CONTAIN = spawnSync(CONTAINED[0] ?? '', [...CONTAINED.slice(1), 'test', '-r', MAIN]).status === 0;

describe('a service in a container', function () {
  this.timeout(180_000);
  let folder: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'read-only-root-'));
    chmodSync(folder, 0o755);
    const { privateKey } = generateKeyPairSync('ed25519');
    writeFileSync(join(folder, 'key.pem'), privateKey.export({ format: 'pem', type: 'pkcs8' }), {
      mode: 0o644,
    });
  });
  after(() => rmSync(folder, { recursive: true }));

  it('starts on a read-only file system, under a user id without a name, and stops', async () => {
    const before = CAN_CONTAIN ? CONTAINED : [];
    if (CAN_CONTAIN) {
      const [command = '', ...words] = before;
      const attempt = `touch ${folder}/x 2>/dev/null && echo writable; id -un 2>/dev/null || echo unnamed`;
      expect(execFileSync(command, [...words, 'sh', '-c', attempt]).toString()).to.match(
        /^(\d+\n)?unnamed\n$/,
      );
    }
    await startAndStop(before, '/nonexistent');
  });

  it('writes nothing into the shared temporary folder, from which it would run what another user put there first', async () => {
    const temporary = await mkdtemp(join(folder, 'tmp-'));
    await startAndStop([], temporary);
    expect(await readdir(temporary)).to.deep.equal([]);
  });

  /** Starts inventory without a database, and stops it when it is alive. */
  async function startAndStop(before: readonly string[], temporary: string): Promise<void> {
    const ops = await findFreePort();
    const [command = '', ...words] = [
      ...before,
      process.execPath,
      ...programArguments('services/inventory/main'),
    ];
    const child = spawn(command, words, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        PATH: process.env['PATH'],
        HOME: '/nonexistent',
        TMPDIR: temporary,
        DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing',
        NATS_URL: 'nats://127.0.0.1:1',
        PORTCULLIS_LISTEN: '127.0.0.1:0',
        PORTCULLIS_OPS_LISTEN: `127.0.0.1:${ops}`,
        PORTCULLIS_ISSUER: 'https://auth.example',
        PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
        PORTCULLIS_CLIENT_ID: 'inventory',
        PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'key.pem'),
      },
    });
    const ended = once(child, 'exit');
    await until(async () => {
      if (child.exitCode !== null) throw new Error(`it has ended with ${child.exitCode}`);
      const response = await fetch(`http://127.0.0.1:${ops}/livez`).catch(() => undefined);
      return response?.status === 200;
    });
    child.kill('SIGTERM');
    expect(await ended).to.deep.equal([0, null]);
  }
});
