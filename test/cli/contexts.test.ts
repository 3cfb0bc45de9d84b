/** The file of sessions, when several commands change it. */

import { spawnSync } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type Context, type ContextStore, createContextStore } from '../../cli/src/contexts.js';
import { whileLocked } from '../../cli/src/lock-file.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../support/outcomes.js';

function contextOf(username: string): Context {
  return {
    address: 'localhost:50051',
    username,
    sessionId: '',
    accessToken: 'access',
    accessTokenExpireTime: new Date(0).toISOString(),
    refreshToken: `refresh of ${username}`,
  };
}

describe('the file of sessions', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let file: string;

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    file = join(folder.path, 'contexts.json');
  });
  afterEach(() => folder.remove());

  const open = (): ContextStore => createContextStore({ PORTCULLIS_CONFIG: file });

  it('loses no context when many commands store one at the same time', async () => {
    const names = Array.from({ length: 20 }, (_, index) => `context-${index}`);
    await Promise.all(names.map((name) => open().save(name, contextOf(name))));
    const { contexts } = JSON.parse(await readFile(file, 'utf8'));
    expect(Object.keys(contexts).sort()).to.deep.equal([...names].sort());
    await Promise.all(names.slice(1).map((name) => open().remove(name)));
    expect(Object.keys(JSON.parse(await readFile(file, 'utf8')).contexts)).to.deep.equal(['context-0']);
    expect(await readdir(folder.path)).to.deep.equal(['contexts.json']);
  });

  it('keeps the session of a command that has logged in while another one renewed the former', async () => {
    const store = open();
    await store.save('mine', contextOf('olga'));
    await store.save('mine', contextOf('alice'));
    await store.replace('mine', contextOf('olga').refreshToken, {
      ...contextOf('olga'),
      accessToken: 'renewed',
    });
    expect((await store.load('mine')).context).to.deep.equal(contextOf('alice'));
    await store.replace('mine', contextOf('alice').refreshToken, {
      ...contextOf('alice'),
      accessToken: 'renewed',
    });
    expect((await store.load('mine')).context.accessToken).to.equal('renewed');
    await store.remove('mine');
    await store.replace('mine', contextOf('alice').refreshToken, contextOf('alice'));
    expect(await rejectionOf(store.load('mine'))).to.have.property('exitCode', 3);
  });

  it('is taken over from a command that was killed', async () => {
    const { pid } = spawnSync(process.execPath, ['--version']);
    await writeFile(`${file}.lock`, `${pid}\n`);
    await open().save('mine', contextOf('olga'));
    expect((await open().load('mine')).name).to.equal('mine');
  });

  it('is taken over by one of several commands at a time', async () => {
    const { pid } = spawnSync(process.execPath, ['--version']);
    const lock = join(folder.path, 'lock');
    await writeFile(lock, `${pid}\n`);
    let working = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      working += 1;
      most = Math.max(most, working);
      await sleep(2);
      working -= 1;
    };
    await Promise.all(Array.from({ length: 40 }, () => whileLocked(lock, work)));
    expect(most).to.equal(1);
    expect(await readdir(folder.path)).to.deep.equal([]);
  });

  it('is not changed while a running command has it, and the message says which one', async function () {
    this.timeout(20_000);
    await writeFile(`${file}.lock`, `${process.pid}\n`);
    expect(String(await rejectionOf(open().save('mine', contextOf('olga'))))).to.include(
      `is held by the command with process id ${process.pid}`,
    );
  });
});
