/** A service whose log cannot be written: a full disk, a reader that stands still, a reader that is gone. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { findFreePort } from '../../scripts/system/ports.js';
import { programArguments } from '../../scripts/system/project.js';
import { until } from '../support/waiting.js';

/** What a pipe holds, and what the service keeps: a flood of lines is larger than both. */
const BUFFER_KIB = 64;
const REQUESTS = 60;
const REJECTED_HEADERS_EACH = 40;

describe('a service whose log cannot be written', function () {
  this.timeout(180_000);
  let folder: string;
  let ports: { grpc: number; ops: number };
  let child: ChildProcess;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'unwritable-log-'));
    const { privateKey } = generateKeyPairSync('ed25519');
    writeFileSync(join(folder, 'key.pem'), privateKey.export({ format: 'pem', type: 'pkcs8' }));
  });
  beforeEach(async () => {
    ports = { grpc: await findFreePort(), ops: await findFreePort() };
  });
  afterEach(() => void child.kill('SIGKILL'));
  after(() => rmSync(folder, { recursive: true }));

  /** Starts inventory; neither its database nor auth is there, and both are reported in the log. */
  async function start(stdout: number | 'pipe'): Promise<void> {
    child = spawn(process.execPath, programArguments('services/inventory/main'), {
      stdio: ['ignore', stdout, 'inherit'],
      env: {
        DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/nothing',
        NATS_URL: 'nats://127.0.0.1:1',
        PORTCULLIS_LISTEN: `127.0.0.1:${ports.grpc}`,
        PORTCULLIS_OPS_LISTEN: `127.0.0.1:${ports.ops}`,
        PORTCULLIS_ISSUER: 'https://auth.example',
        PORTCULLIS_AUTH_ADDRESS: '127.0.0.1:1',
        PORTCULLIS_CLIENT_ID: 'inventory',
        PORTCULLIS_CLIENT_KEY_FILE: join(folder, 'key.pem'),
        PORTCULLIS_LOG_LINES_PER_MINUTE: '1000000',
        PORTCULLIS_LOG_BUFFER_KIB: String(BUFFER_KIB),
      },
    });
    await until(isAlive);
  }
  async function isAlive(): Promise<boolean> {
    const response = await fetch(`http://127.0.0.1:${ports.ops}/livez`).catch(() => undefined);
    return response?.status === 200;
  }
  async function linesLost(): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${ports.ops}/metrics`);
    return Number(/^portcullis_log_lines_lost_total (\d+)$/m.exec(await response.text())?.[1]);
  }
  /** Each header that grpc-js rejects is a line. */
  async function flood(): Promise<void> {
    const session = connect(`http://127.0.0.1:${ports.grpc}`);
    session.on('error', () => {});
    const names = Array.from({ length: REJECTED_HEADERS_EACH }, (_, index) => `x-rejected-${index}`);
    const headers = {
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...Object.fromEntries(names.map((name) => [name, 'x\u0080y'])),
    };
    const answered = Array.from({ length: REQUESTS }, () => {
      const stream = session.request(headers);
      stream.on('error', () => {});
      stream.resume().end();
      return once(stream, 'close');
    });
    await Promise.all(answered);
    session.destroy();
  }
  async function stops(): Promise<void> {
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).to.deep.equal([0, null]);
  }

  it('answers, counts the lost lines, and stops on SIGTERM: the disk is full', async () => {
    const full = openSync('/dev/full', 'w');
    await start(full);
    closeSync(full);
    await until(async () => (await linesLost()) > 0);
    await flood();
    expect(await isAlive()).to.equal(true);
    await stops();
  });

  it('does the same, and says later how many lines were lost: the reader of its pipe stands still', async () => {
    const fifo = join(folder, 'log');
    execFileSync('mkfifo', [fifo]);
    // Opened for both, so that neither end waits for the other.
    const pipe = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    await start(pipe);
    await flood();
    const lost = await linesLost();
    expect(lost).to.be.greaterThan(REQUESTS);
    expect(await isAlive()).to.equal(true);

    let read = '';
    await until(async () => {
      read += readAll(pipe);
      return reportedAsLost(read) === (await linesLost());
    });
    expect(await linesLost()).to.be.at.least(lost);
    await flood();
    await stops();
    closeSync(pipe);
  });

  it('does the same: the reader of its pipe is gone', async () => {
    await start('pipe');
    child.stdout?.destroy();
    await flood();
    await until(async () => (await linesLost()) > 0);
    expect(await isAlive()).to.equal(true);
    await stops();
  });
});

/** The sum of what the complete lines of a log report as lost. */
function reportedAsLost(log: string): number {
  const lines = log.split('\n').slice(0, -1);
  return lines
    .map((line) => JSON.parse(line) as { msg: string; lines?: number })
    .filter(({ msg }) => msg.startsWith('lost lines'))
    .reduce((sum, { lines: lost = 0 }) => sum + lost, 0);
}

/** What the pipe holds. */
function readAll(pipe: number): string {
  const bytes = Buffer.alloc(1024 * 1024);
  let text = '';
  for (;;) {
    try {
      const count = readSync(pipe, bytes);
      text += bytes.toString('utf8', 0, count);
    } catch {
      return text;
    }
  }
}
