/** `portcullis gate` as a process that follows a running auth. */
import { type ChildProcess, spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { findFreePort } from '../../scripts/system/ports.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { PROJECT_FOLDER } from '../support/project-copy.js';
import { sharedSystem, type TestSystem } from '../support/system.js';
import { startUpstream, type Upstream } from './gate-support.js';

const COMMAND_LINE = join(PROJECT_FOLDER, 'cli', 'dist', 'src', 'main.js');
const RULES = `services:
  test.v1.EchoService:
    Unary: {scopes: inventory.read}
    ServerStream: {scopes: inventory.read}
`;

describe('portcullis gate', function () {
  this.timeout(120_000);
  let system: TestSystem;
  let folder: TemporaryFolder;
  let upstream: Upstream;
  const running: ChildProcess[] = [];

  before(async () => {
    system = await sharedSystem();
    folder = await makeTemporaryFolder();
    upstream = await startUpstream(folder);
    await writeFile(join(folder.path, 'rules.yaml'), RULES);
  });
  after(async () => {
    for (const child of running) child.kill('SIGKILL');
    upstream.stop();
    await folder.remove();
  });

  function start(words: readonly string[]) {
    const child = spawn(process.execPath, [COMMAND_LINE, 'gate', ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.push(child);
    const said = { output: '', errors: '' };
    child.stdout.on('data', (part: Buffer) => {
      said.output += String(part);
    });
    child.stderr.on('data', (part: Buffer) => {
      said.errors += String(part);
    });
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { child, said, exit };
  }

  async function settings(): Promise<{ port: number; ops: number; words: string[] }> {
    const [port, ops] = [await findFreePort(), await findFreePort()];
    const nats = system.nats?.url('inventory');
    const words = [
      `--issuer=${system.issuer}`,
      `--auth=${system.auth.address}`,
      '--client-id=inventory',
      `--client-key=${system.secrets.clientKeyFiles.inventory}`,
      ...(nats === undefined ? [] : [`--nats=${nats}`]),
      `--rules=${join(folder.path, 'rules.yaml')}`,
      `--listen=127.0.0.1:${port}`,
      `--upstream=${upstream.address}`,
      `--ops-listen=127.0.0.1:${ops}`,
    ];
    return { port, ops, words };
  }

  it('names every fault and opens nothing when the settings cannot be used', async () => {
    const { said, exit } = start(['--listen=0.0.0.0:1', '--token=keep']);
    expect(await exit).to.equal(2);
    for (const name of ['issuer', 'auth', 'client-id', 'upstream', 'token', 'tls-cert']) {
      expect(said.errors).to.match(new RegExp(`^ {2}${name} `, 'm'));
    }
  });

  it('fails when a rule is missing, a port is taken, or the upstream is open', async () => {
    const { words, ops } = await settings();
    const image = join(PROJECT_FOLDER, 'interceptors', 'gen');
    const missing = start([...words, `--descriptors=${image}`]);
    expect(await missing.exit).to.equal(1);
    const taken = start([
      ...words.filter((word) => !word.startsWith('--listen')),
      `--listen=${system.auth.address}`,
    ]);
    expect(await taken.exit).to.equal(1);
    expect(taken.said.errors).to.include('EADDRINUSE');
    expect(ops).to.be.above(0);
  });
});
