/** Tables at several widths, and the words that shells complete. */

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { describeFailure } from '../../cli/src/failures.js';
import { describeProgram } from '../../cli/src/program.js';
import { clockWarning } from '../../cli/src/session.js';
import { tableOf } from '../../cli/src/tables.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createCliRunner } from './cli-runner.js';

const HEADER = ['SESSION', 'DEVICE', 'NETWORK'];
const ROWS = [
  ['alice/3f9a1c0b', "alice's laptop", '192.0.2.7'],
  ['alice/77aa0012', 'phone', ''],
];

describe('tables', () => {
  it('aligns columns at 120 columns', () => {
    expect(tableOf(HEADER, ROWS, { columns: 120 })).to.equal(
      [
        'SESSION         DEVICE          NETWORK',
        "alice/3f9a1c0b  alice's laptop  192.0.2.7",
        'alice/77aa0012  phone',
      ].join('\n'),
    );
  });

  it('writes a block for each row at 40 columns', () => {
    expect(tableOf(HEADER, ROWS, { columns: 40 })).to.equal(
      [
        'SESSION  alice/3f9a1c0b',
        "DEVICE   alice's laptop",
        'NETWORK  192.0.2.7',
        '',
        'SESSION  alice/77aa0012',
        'DEVICE   phone',
      ].join('\n'),
    );
  });

  it('writes whole lines without a terminal', () => {
    const long = 'x'.repeat(300);
    expect(tableOf(['A', 'B'], [[long, 'b']])).to.include(`${long}  b`);
  });

  it('shows no control character of a name, and colours only where they are wanted', () => {
    const esc = String.fromCharCode(27);
    const row = [[{ text: `evil${esc}[2Jname\nline`, tone: 'bad' as const }, 'x']];
    expect(tableOf(['A', 'B'], row)).not.to.include(esc);
    expect(tableOf(['A', 'B'], row, { hasColor: true })).to.include(`${esc}[31mevil�[2Jname line${esc}[0m`);
  });
});

describe('what is said of failures', () => {
  const tokenIssuedAt = (ms: number): string =>
    `e30.${Buffer.from(JSON.stringify({ iat: Math.floor(ms / 1000) })).toString('base64url')}.x`;

  it('says that the clock of this machine is off, by how much, and in which direction', () => {
    const now = Date.parse('2026-11-30T14:03:00Z');
    expect(clockWarning(tokenIssuedAt(now), now)).to.equal(undefined);
    expect(clockWarning(tokenIssuedAt(now - 3_600_000), now)).to.match(
      /^The clock .* is 60 min ahead of that of auth/,
    );
    expect(clockWarning(tokenIssuedAt(now + 3_600_000), now)).to.match(
      /^The clock .* is 60 min behind that of auth/,
    );
  });

  it('advises to name the CA of a self-signed certificate', () => {
    const details = 'No connection established. Last error: self-signed certificate in certificate chain.';
    const error = Object.assign(new Error(details), { code: 14, details, metadata: new Metadata() });
    const { text, exitCode } = describeFailure(error);
    expect(exitCode).to.equal(1);
    expect(text).to.include('login --ca');
  });
});

describe('the completion', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let run: ReturnType<typeof createCliRunner>;

  before(async () => {
    folder = await makeTemporaryFolder();
    run = createCliRunner(`${folder.path}/contexts.json`);
  });
  after(() => folder.remove());

  it('offers the commands, and the options of a command', async () => {
    const words = async (...typed: string[]) =>
      (await run(['complete-words', '--', ...typed])).out.trim().split('\n');
    expect(await words()).to.include.members(['sessions', 'revoke', 'receipt', '--json']);
    expect(await words('keys')).to.include.members(['list', 'rotate']);
    expect(await words('keys', 'rotate')).to.include.members(['--emergency', '--purpose', '--json']);
    expect(await words('revoke', '--user', 'alice')).to.include('--reason');
  });

  it('prints a script that bash accepts, and rejects an unknown shell', async () => {
    const { out } = await run(['completion', 'bash']);
    await promisify(execFile)('bash', ['-n', '-c', out]);
    for (const shell of ['zsh', 'fish'])
      expect((await run(['completion', shell])).out).to.include('complete-words');
    expect((await run(['completion', 'csh'])).code).to.equal(2);
  });

  it('has a description for every command', () => {
    const undescribed = describeProgram().commands.filter(
      (command) => command.description() === '' && command.name() !== 'complete-words',
    );
    expect(undescribed.map((command) => command.name())).to.deep.equal([]);
  });
});
