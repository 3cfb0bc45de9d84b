/** The system when a part of it is missing, broken or killed. */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:net';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { ask } from '../../scripts/system/calls.js';
import type { ServiceProcess } from '../../scripts/system/parts.js';
import { isPortFree } from '../../scripts/system/ports.js';
import type { System } from '../../scripts/system/system.js';
import { startSystem } from '../../scripts/system/system.js';
import { SystemError } from '../../scripts/system/system-error.js';
import type { TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { outcomeOf, rejectionOf } from '../support/outcomes.js';
import { runProgram } from '../support/programs.js';
import type { SystemClients, TestSystem } from '../support/system.js';
import { clientsOf, startTestSystem } from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
const TEST_TIMEOUT_MS = 180_000;
const PATIENCE_MS = 20_000;
const POLL_MS = 50;
const OBSERVED_MS = 1_500;
const PAGE = { pageSize: 10, pageToken: '', filter: '' };

describe('a system with a part missing', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let system: TestSystem;
  let clients: SystemClients;

  before(async function () {
    this.timeout(START_TIMEOUT_MS);
    system = await startTestSystem();
    clients = clientsOf(system);
  });

  after(async () => {
    clients?.close();
    await system?.remove();
  });

  it('reports a missing database, answers no call OK, and serves once the database is back', async () => {
    const [one] = clients.inventory;
    const token = (await clients.logIn('alice')).accessToken;
    const [instance] = system.inventory;
    await system.postgres?.stop();
    await instance.stop();
    await instance.launch();
    const text = await unreadyTextOf(instance);
    expect(text).to.contain('database');
    const call = (): Promise<string> => outcomeOf(ask(one.listItems.bind(one), PAGE, { token }));
    const deadline = performance.now() + OBSERVED_MS;
    while (performance.now() < deadline) {
      expect(await call()).to.match(/^UNAVAILABLE/);
      await sleep(POLL_MS);
    }
    expect(await outcomeOf(clients.logIn('bob'))).to.match(/^UNAVAILABLE/);
    expect(await readFile(instance.logFile, 'utf8')).to.match(/"msg":"[^"]*database/);

    await system.postgres?.restart();
    await instance.ready();
    await eventually(async () => expect(await call()).to.equal('OK'));
  });

  it('admits no call at an instance that has never reached auth', async () => {
    const [, two] = clients.inventory;
    const token = (await clients.logIn('alice')).accessToken;
    const [, instance] = system.inventory;
    await system.auth.stop();
    await instance.stop();
    await instance.launch();
    expect(await unreadyTextOf(instance)).to.contain('revocations');
    const deadline = performance.now() + OBSERVED_MS;
    while (performance.now() < deadline) {
      expect(await outcomeOf(ask(two.listItems.bind(two), PAGE, { token }))).to.match(/^UNAVAILABLE/);
      await sleep(POLL_MS);
    }
    await system.auth.restart();
    await instance.ready();
    await eventually(async () =>
      expect(await outcomeOf(ask(two.listItems.bind(two), PAGE, { token }))).to.equal('OK'),
    );
  });

  it('admits no call while the broker is missing from the start, reports it, and recovers by itself', async () => {
    const [one] = clients.inventory;
    const [instance] = system.inventory;
    const { accessToken: token } = await clients.logIn('alice');
    const call = (): Promise<string> => outcomeOf(ask(one.listItems.bind(one), PAGE, { token }));
    await instance.stop();
    await system.nats?.stop();
    await instance.launch();
    await eventually(async () => expect((await instance.readiness())?.text).to.contain('broker'));
    expect((await instance.readiness())?.ready).to.equal(false);
    expect(await call()).to.equal('UNAVAILABLE REVOCATION_STATE_STALE');
    expect(await readFile(instance.logFile, 'utf8')).to.contain('broker_lost');
    await system.nats?.restart();
    await instance.ready();
    await eventually(async () => expect(await call()).to.equal('OK'));
  });

  it('revokes through syncs alone while the broker is down', async () => {
    const [one] = clients.inventory;
    const { accessToken: token, session } = await clients.logIn('alice');
    const call = (): Promise<string> => outcomeOf(ask(one.listItems.bind(one), PAGE, { token }));
    await system.nats?.stop();
    await eventually(async () => expect(await call()).to.equal('OK'));
    const revoke = { sessionId: session?.sessionId ?? '' };
    await ask(clients.auth.revokeSession.bind(clients.auth), revoke, { token });
    await eventually(async () => expect(await call()).to.equal('UNAUTHENTICATED TOKEN_REVOKED'));
    await system.nats?.restart();
  });

  it('serves again after any one part was killed and started', async () => {
    const parts = [system.nats, system.postgres, system.auth, ...system.inventory, system.payment];
    for (const part of parts) {
      if (part === undefined) continue;
      part.kill('SIGKILL');
      await part.ended();
      await part.restart();
    }
    await eventually(async () => {
      const token = (await clients.logIn('alice')).accessToken;
      const { inventory, payment } = clients;
      for (const client of inventory) await ask(client.listItems.bind(client), PAGE, { token });
      await ask(payment.listPayments.bind(payment), PAGE, { token });
    });
  });

  it('finishes the calls under way when a service is stopped, and ends with code 0', async () => {
    const token = (await clients.logIn('alice')).accessToken;
    const [one] = clients.inventory;
    const [instance] = system.inventory;
    const calls = Array.from({ length: 50 }, () => outcomeOf(ask(one.listItems.bind(one), PAGE, { token })));
    const ended = instance.ended();
    instance.kill('SIGTERM');
    const outcomes = await Promise.all(calls);
    expect(await ended).to.equal('exit code 0');
    for (const outcome of outcomes) expect(outcome).to.match(/^(OK|UNAVAILABLE)/);
    await instance.restart();
  });
});

describe('a start that cannot succeed', function () {
  this.timeout(TEST_TIMEOUT_MS);
  let folder: TemporaryFolder;
  let holder: Server;
  let takenPort: number;

  before(async () => {
    folder = await makeTemporaryFolder();
    holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const address = holder.address();
    takenPort = typeof address === 'object' && address !== null ? address.port : 0;
  });

  after(async () => {
    holder.close();
    await folder.remove();
  });

  for (const service of ['auth', 'inventory', 'payment']) {
    it(`of ${service} names every invalid variable in one message, and exits`, async () => {
      const { code, output } = await runProgram([`services/${service}/main`], {
        env: {
          DATABASE_URL: 'not a url',
          PORTCULLIS_LISTEN: 'nowhere',
          PORTCULLIS_REFLECTION: 'perhaps',
          PORTCULLIS_MISSPELT: '1',
        },
      });
      expect(code).to.equal(1);
      for (const variable of [
        'DATABASE_URL',
        'PORTCULLIS_LISTEN',
        'PORTCULLIS_REFLECTION',
        'PORTCULLIS_MISSPELT',
        'PORTCULLIS_ISSUER',
      ]) {
        expect(output).to.contain(variable);
      }
      expect(output).not.to.contain('    at ');
    });
  }

  it('names a port that is taken and its flag, and leaves nothing running', async () => {
    const dataDir = join(folder.path, 'taken');
    const { code, output } = await runProgram(
      ['scripts/start', '--free-ports', '--payment-port', String(takenPort)],
      { env: { PORTCULLIS_DATA_DIR: dataDir } },
    );
    expect(code).to.equal(1);
    expect(output).to.match(new RegExp(`Port ${takenPort}, which payment needs, is taken.*--payment-port`));
    expect(await recordedIn(dataDir)).to.deep.equal([]);
  });

  it('names an unknown variable', async () => {
    const { code, output } = await runProgram(['scripts/start', '--free-ports'], {
      env: { PORTCULLIS_DATADIR: folder.path },
    });
    expect(code).to.equal(1);
    expect(output).to.match(/PORTCULLIS_DATADIR: not a variable of npm start/);
  });

  it('stops every part when one of them cannot start, and prints the output of that part', async () => {
    const dataDir = join(folder.path, 'midway');
    const error = await rejectionOf(
      startSystem({
        dataDir,
        ports: 'free',
        ephemeral: true,
        environment: { PORTCULLIS_SIGNING_ALGORITHM: 'none' },
      }),
    );
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.match(/auth has ended \(exit code 1\).*PORTCULLIS_SIGNING_ALGORITHM/s);
    expect(await recordedIn(dataDir)).to.deep.equal([]);
  });

  it('is rejected while another start uses the same data folder', async () => {
    const dataDir = join(folder.path, 'shared');
    let system: System | undefined;
    try {
      system = await startSystem({ dataDir, ports: 'free', ephemeral: true, withoutDemo: true });
      const error = await rejectionOf(startSystem({ dataDir, ports: 'free', ephemeral: true }));
      expect(error).to.be.instanceOf(SystemError);
      expect(error.message).to.contain(`in use by process ${process.pid}`);
      expect((await system.auth.readiness())?.ready).to.equal(true);
    } finally {
      await system?.stop();
    }
    for (const { address } of [system.auth, ...system.inventory, system.payment]) {
      expect(await isPortFree(Number(address.split(':')[1]))).to.equal(true);
    }
  });
});

async function unreadyTextOf(proc: ServiceProcess): Promise<string> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const answer = await proc.readiness();
    if (answer !== undefined) {
      expect(answer.ready).to.equal(false);
      return answer.text;
    }
    if (performance.now() > deadline) throw new Error(`${proc.name} does not answer on its ops port`);
    await sleep(POLL_MS);
  }
}

async function eventually(check: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      await check();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(POLL_MS);
    }
  }
}

/** The processes that a data folder still remembers as running. */
async function recordedIn(dataDir: string): Promise<unknown> {
  return JSON.parse(await readFile(join(dataDir, 'processes.json'), 'utf8').catch(() => '[]'));
}
