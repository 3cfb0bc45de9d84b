/** Processes and their identity, the reaper, the process record of a data folder, and its lock. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { lockFolder } from '../../../scripts/system/folder-lock.js';
import { endProcess, isRunning, ownIdentity, startTimeOf } from '../../../scripts/system/process-identity.js';
import { endRecordedProcesses, recordProcesses } from '../../../scripts/system/process-record.js';
import { type LaunchedProcess, launch } from '../../../scripts/system/processes.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { rejectionOf } from '../../support/outcomes.js';
import { SOURCE_ARGUMENTS } from '../../support/programs.js';
import { until } from '../../support/waiting.js';

const ORPHANER = fileURLToPath(new URL('orphaner.ts', import.meta.url));
const ROUNDS = 20;
const CONTENDERS = 10;
const SHORT_ENDING = [
  { signal: 'SIGTERM', graceMs: 300 },
  { signal: 'SIGKILL', graceMs: 2_000 },
] as const;

describe('launched processes', () => {
  let folder: TemporaryFolder;
  const running = new Set<LaunchedProcess>();

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  afterEach(async () => {
    for (const started of running) await started.stop();
    running.clear();
  });

  after(() => folder.remove());

  async function run(script: string, ending = SHORT_ENDING as readonly (typeof SHORT_ENDING)[number][]) {
    const started = await launch({
      name: 'sleeper',
      command: '/bin/sh',
      arguments: ['-c', script],
      cwd: folder.path,
      environment: { PATH: process.env['PATH'] },
      logFile: join(folder.path, 'logs', 'sleeper.log'),
      ending,
    });
    running.add(started);
    return started;
  }

  it('report how they ended, and the end of their output', async () => {
    const first = await run('echo earlier; exit 0');
    await first.ended;
    const second = await run('echo later >&2; exit 7');
    expect(await second.ended).to.equal('exit code 7');
    expect(second.hasEnded()).to.equal('exit code 7');
    expect(await second.logTail()).to.equal('later');
  });

  it('are killed when they ignore the first signal', async () => {
    const stubborn = await run('trap "" TERM; echo ready; while :; do sleep 0.05; done');
    await until(async () => (await stubborn.logTail()) === 'ready');
    await stubborn.stop();
    expect(await stubborn.ended).to.equal('signal SIGKILL');
  });

  it('end even when they are frozen', async () => {
    const frozen = await run('exec sleep 60');
    frozen.kill('SIGSTOP');
    await frozen.stop();
    expect(await frozen.ended).to.equal('signal SIGTERM');
  });

  it('fail with a clear message when the program does not exist', async () => {
    const error = await rejectionOf(
      launch({
        name: 'ghost',
        command: '/nowhere/ghost',
        arguments: [],
        cwd: folder.path,
        environment: {},
        logFile: join(folder.path, 'ghost.log'),
      }),
    );
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.contain('ghost could not be started');
  });

  it('are identified by number and start time', async () => {
    const started = await run('exec sleep 60');
    expect(await isRunning(started)).to.equal(true);
    const namesake = { pid: started.pid, startTime: 'another boot/1' };
    expect(await isRunning(namesake)).to.equal(false);
    await endProcess(namesake);
    expect(await isRunning(started)).to.equal(true);
    await endProcess(started, SHORT_ENDING);
    expect(await isRunning(started)).to.equal(false);
  });

  it('are ended by the next start through the record, and no other process is', async () => {
    const file = join(folder.path, 'processes.json');
    const left = await run('exec sleep 60');
    const bystander = await run('exec sleep 60');
    const record = recordProcesses(file);
    await Promise.all([
      record.started(left, SHORT_ENDING),
      record.started({ pid: bystander.pid, startTime: 'another boot/1' }, SHORT_ENDING),
    ]);
    expect(await endRecordedProcesses(file)).to.equal(1);
    expect(await isRunning(left)).to.equal(false);
    expect(await isRunning(bystander)).to.equal(true);
    expect(await endRecordedProcesses(file)).to.equal(0);
  });

  it('are ended by the reaper when their launcher is killed, and temporary folders are removed', async () => {
    const launcher = spawn(process.execPath, [...SOURCE_ARGUMENTS, ORPHANER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line]: unknown[] = await once(launcher.stdout, 'data');
    const { pid, temporary } = JSON.parse(String(line)) as { pid: number; temporary: string };
    const startTime = (await startTimeOf(pid)) ?? '';
    expect(await isRunning({ pid, startTime })).to.equal(true);
    launcher.kill('SIGKILL');
    await until(async () => !(await isRunning({ pid, startTime })) && !(await exists(temporary)));
  });
});

describe('the lock of a folder', () => {
  let folder: TemporaryFolder;
  let path: string;
  let count = 0;

  before(async () => {
    folder = await makeTemporaryFolder();
  });

  beforeEach(async () => {
    count += 1;
    path = join(folder.path, String(count));
    await mkdir(path);
  });

  after(() => folder.remove());

  it('is held by one process at a time, and names the holder to others', async () => {
    const lock = await lockFolder(path, 'The data');
    const error = await rejectionOf(lockFolder(path, 'The data'));
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message)
      .to.contain(`in use by process ${process.pid}`)
      .and.to.contain('PORTCULLIS_DATA_DIR');
    await lock.release();
    await (await lockFolder(path, 'The data')).release();
    expect(await readdir(path)).to.have.length(1);
  });

  it('can be acquired after a dead process, and when its file is malformed', async () => {
    const { startTime } = await ownIdentity();
    for (const stale of [
      JSON.stringify({ pid: process.pid, startTime: `${startTime}0` }),
      '',
      '{"pid": "one"}',
    ]) {
      await writeFile(join(path, 'lock.1000'), stale);
      await (await lockFolder(path, 'The data')).release();
    }
  });

  it('is acquired by exactly one of many processes that find a stale lock', async () => {
    for (let round = 1; round <= ROUNDS; round += 1) {
      const contested = join(path, String(round));
      await mkdir(contested);
      await writeFile(join(contested, 'lock.1'), '{"pid": 1, "startTime": "another boot/1"}');
      const outcomes = await Promise.allSettled(
        Array.from({ length: CONTENDERS }, () => lockFolder(contested, 'The data')),
      );
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(1);
      expect(await readdir(contested)).to.deep.equal(['lock.2']);
      const holder: unknown = JSON.parse(await readFile(join(contested, 'lock.2'), 'utf8'));
      expect(holder).to.include({ pid: process.pid });
    }
  });
});

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
