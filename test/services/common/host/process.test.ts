/** The life of a service's process, with real processes. */

import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { killPrograms, type Program, startProgram } from '../../../support/programs.js';

const PROGRAM = fileURLToPath(new URL('process-under-test.ts', import.meta.url));

describe('the process of a service', function () {
  this.timeout(180_000);
  const run = (...args: string[]): Program => startProgram([PROGRAM, ...args]);
  afterEach(killPrograms);

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`exits on ${signal} with code 0, after logging its steps as JSON`, async () => {
      const { child, said, ended, stdout, stderr } = run('127.0.0.1:0', '127.0.0.1:0');
      await said('"listening"');
      child.kill(signal);
      expect(await ended).to.include({ code: 0, signal: null });
      const messages = stdout()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).msg);
      expect(messages).to.deep.equal(['ready', 'listening', 'stopping', 'not ready', 'stopped']);
      expect(stderr()).to.equal('');
    });
  }

  it('exits at once with code 1 on a second signal', async () => {
    const { child, said, ended } = run('127.0.0.1:0', '127.0.0.1:0', 'slow-stop');
    await said('"listening"');
    child.kill('SIGTERM');
    await said('"stopping"');
    child.kill('SIGTERM');
    expect(await ended).to.include({ code: 1, signal: null });
  });

  it('stops with code 1 on an uncaught error, and logs it', async () => {
    const { ended, stdout } = run('127.0.0.1:0', '127.0.0.1:0', 'uncaught');
    expect(await ended).to.include({ code: 1, signal: null });
    expect(stdout()).to.include('a rejection without a handler').and.include('"stopped"');
  });

  it('exits with code 1 and one message that lists all faults of the configuration', async () => {
    const { ended, stdout, stderr } = run('nonsense', '');
    expect(await ended).to.include({ code: 1, signal: null });
    expect(stderr()).to.equal(
      [
        'The configuration is not valid:',
        '  PORTCULLIS_LISTEN must be HOST:PORT, such as 127.0.0.1:50051',
        '  PORTCULLIS_OPS_LISTEN is required',
        '',
      ].join('\n'),
    );
    expect(stdout()).to.equal('');
  });

  it('exits with code 1 and a sentence when a port is taken', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => {
      taken.listen(0, '127.0.0.1', resolve);
    });
    const { port } = taken.address() as AddressInfo;
    const { ended, stderr } = run('127.0.0.1:0', `127.0.0.1:${port}`);
    expect(await ended).to.include({ code: 1, signal: null });
    expect(stderr()).to.equal(
      `Port ${port} on 127.0.0.1 is taken. Stop the program that uses it, or set PORTCULLIS_OPS_LISTEN to another HOST:PORT.\n`,
    );
    taken.close();
  });

  it('exits with code 1 and the stack of the error when the start fails otherwise, even with open handles', async () => {
    const { ended, stderr } = run('127.0.0.1:0', '127.0.0.1:0', 'after-start');
    expect(await ended).to.include({ code: 1, signal: null });
    expect(stderr()).to.match(/^Error: something else\n {4}at .*process-under-test/);
  });
});
