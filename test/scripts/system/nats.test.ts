/** The private nats-server: permissions of its users, and messages when it cannot start. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { expect } from 'chai';
import type { NatsConnection } from 'nats';
import { type Nats, startNats } from '../../../scripts/system/nats.js';
import { findNatsServer } from '../../../scripts/system/nats-binary.js';
import { isRunning, startTimeOf } from '../../../scripts/system/process-identity.js';
import { SystemError } from '../../../scripts/system/system-error.js';
import type { TemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import type { PrivateNats } from '../../support/nats.js';
import { privateNats } from '../../support/nats.js';
import { rejectionOf } from '../../support/outcomes.js';

const FETCH_TIMEOUT_MS = 120_000;

describe('the private nats-server', () => {
  let nats: PrivateNats;
  let folder: TemporaryFolder;

  before(async function () {
    // The first run on a machine downloads the program.
    this.timeout(FETCH_TIMEOUT_MS);
    nats = await privateNats();
    folder = await makeTemporaryFolder();
  });

  after(async () => {
    await nats.stop();
    await folder.remove();
  });

  it('delivers what auth publishes to the services', async () => {
    const inventory = await nats.connect('inventory');
    const received = next(inventory, 'portcullis.v1.revocations');
    await inventory.flush();
    (await nats.connect('auth')).publish('portcullis.v1.revocations', Buffer.from('entry'));
    expect(await received).to.equal('entry');
  });

  it('rejects a revocation that another service publishes, and reports the error to it', async () => {
    const auth = await nats.connect('auth');
    const received: string[] = [];
    auth.subscribe('portcullis.v1.revocations', {
      callback: (_, message) => received.push(message.string()),
    });
    await auth.flush();
    const payment = await nats.connect('payment');
    const refusal = refusalSeenBy(payment);
    payment.publish('portcullis.v1.revocations', Buffer.from('forged'));
    expect(await refusal).to.contain('portcullis.v1.revocations');
    auth.publish('portcullis.v1.revocations', Buffer.from('genuine'));
    await auth.flush();
    expect(received).to.deep.equal(['genuine']);
  });

  it('lets a service report only under its own name', async () => {
    const auth = await nats.connect('auth');
    const received: string[] = [];
    auth.subscribe('portcullis.v1.security.*', { callback: (_, message) => received.push(message.subject) });
    await auth.flush();
    const inventory = await nats.connect('inventory');
    const refusal = refusalSeenBy(inventory);
    inventory.publish('portcullis.v1.security.payment');
    inventory.publish('portcullis.v1.security.inventory');
    expect(await refusal).to.contain('portcullis.v1.security.payment');
    await auth.flush();
    expect(received).to.deep.equal(['portcullis.v1.security.inventory']);
  });

  it('rejects a client without a password', async () => {
    const { connect } = await import('nats');
    const error = await rejectionOf(connect({ servers: `127.0.0.1:${nats.port}`, reconnect: false }));
    expect(error.message).to.contain('Authorization Violation');
  });

  it('restarts on the same port with the same passwords, even after it was frozen', async () => {
    const url = nats.url('auth');
    nats.kill('SIGSTOP');
    const began = performance.now();
    await nats.restart();
    expect(performance.now() - began).to.be.below(5_000);
    expect(nats.url('auth')).to.equal(url);
    await (await nats.connect('auth')).flush();
  });

  describe('with a service that the operator has added to nats.json', () => {
    let dataDir: string;
    let server: Nats | undefined;

    beforeEach(async () => {
      dataDir = join(folder.path, randomUUID());
    });

    afterEach(async () => {
      await server?.stop();
      server = undefined;
    });

    it('keeps its user from start to start, and creates an empty password', async () => {
      await restart({});
      await restart({ greeter: '', chosen: 'p@ss/word' });
      const { greeter } = await passwords();
      expect(greeter).to.match(/^[0-9a-f]{48}$/);
      await restart({});
      expect(await passwords()).to.include({ greeter, chosen: 'p@ss/word' });
      for (const user of ['greeter', 'chosen']) await (await connectAs(user)).close();
      const { mode } = await stat(join(dataDir, 'nats.json'));
      expect(mode & 0o777).to.equal(0o600);
    });

    it('lets it receive revocations and publish its own reports only', async () => {
      await restart({ greeter: '' });
      const [auth, greeter] = [await connectAs('auth'), await connectAs('greeter')];
      const revocation = next(greeter, 'portcullis.v1.revocations');
      await greeter.flush();
      auth.publish('portcullis.v1.revocations', Buffer.from('entry'));
      expect(await revocation).to.equal('entry');

      const received: string[] = [];
      auth.subscribe('portcullis.v1.security.*', {
        callback: (_, message) => {
          received.push(message.subject);
          message.respond();
        },
      });
      await auth.flush();
      for (const subject of ['portcullis.v1.revocations', 'portcullis.v1.security.inventory']) {
        const refusal = refusalSeenBy(greeter);
        greeter.publish(subject, Buffer.from('forged'));
        expect(await refusal).to.contain(subject);
      }
      await greeter.request('portcullis.v1.security.greeter', Buffer.from('report'), { timeout: 10_000 });
      expect(received).to.deep.equal(['portcullis.v1.security.greeter']);
      for (const connection of [auth, greeter]) await connection.close();
    });

    it('rejects a name that would be several subjects, and repeats no password', async () => {
      for (const name of ['a.b', '>', '*', 'a b']) {
        const error = await rejectionOf(restart({ [name]: 'hidden' }));
        expect(error).to.be.instanceOf(SystemError);
        expect(error.message).to.contain('nats.json: expected').and.to.contain(JSON.stringify(name));
        await rm(dataDir, { recursive: true });
      }
      await mkdir(dataDir, { recursive: true });
      await writeFile(join(dataDir, 'nats.json'), '{"greeter": "hidden" "chosen"}');
      const error = await rejectionOf(startNats({ dataDir, port: 0 }));
      expect(error).to.be.instanceOf(SystemError);
      expect(inspect(error)).to.contain('nats.json: expected').and.not.to.contain('hidden');
    });

    /** Adds users to the file, as an operator does, and starts the server again. */
    async function restart(added: Record<string, string>): Promise<void> {
      await server?.stop();
      server = undefined;
      await mkdir(dataDir, { recursive: true });
      await writeFile(join(dataDir, 'nats.json'), JSON.stringify({ ...(await passwords()), ...added }));
      server = await startNats({ dataDir, port: 0 });
    }

    async function passwords(): Promise<Record<string, string>> {
      const text = await readFile(join(dataDir, 'nats.json'), 'utf8').catch(() => '{}');
      return JSON.parse(text) as Record<string, string>;
    }

    async function connectAs(user: string): Promise<NatsConnection> {
      const { connect } = await import('nats');
      const pass = (await passwords())[user] ?? '';
      return await connect({ servers: `127.0.0.1:${server?.port}`, user, pass, reconnect: false });
    }
  });

  it('has no process after stop', async () => {
    const server = await startNats({ dataDir: join(folder.path, 'stopped'), port: 0 });
    const identity = { pid: server.pid, startTime: (await startTimeOf(server.pid)) ?? '' };
    expect(await isRunning(identity)).to.equal(true);
    await server.stop();
    expect(await isRunning(identity)).to.equal(false);
  });

  it('names the port and the flag when the port is in use', async () => {
    const holder = createServer().listen(0, '127.0.0.1');
    await once(holder, 'listening');
    const address = holder.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const error = await rejectionOf(
      startNats({ dataDir: join(folder.path, 'taken'), port, portFlag: '--nats-port' }),
    );
    holder.close();
    expect(error).to.be.instanceOf(SystemError);
    expect(error.message).to.match(new RegExp(`Port ${port}.*taken.*--nats-port`));
  });

  it('shows the output of the program when it does not start', async () => {
    const program = join(folder.path, 'broken');
    await writeFile(program, '#!/bin/sh\necho "no such luck" >&2\nexit 3\n');
    await chmod(program, 0o755);
    const error = await rejectionOf(
      startNats({
        dataDir: join(folder.path, 'broken-data'),
        port: 0,
        environment: { NATS_SERVER_BIN: program },
      }),
    );
    expect(error.message).to.match(/ended at once \(exit code 3\).*no such luck/s);
  });

  it('prefers NATS_SERVER_BIN to PATH, and PATH to a downloaded copy', async () => {
    const onPath = join(folder.path, 'nats-server');
    await writeFile(onPath, '#!/bin/sh\n');
    await chmod(onPath, 0o755);
    const environment = { PATH: folder.path };
    expect(await findNatsServer({ environment })).to.equal(onPath);
    const named = { ...environment, NATS_SERVER_BIN: '/bin/sh' };
    expect(await findNatsServer({ environment: named })).to.equal('/bin/sh');
  });

  it('says what to do when NATS_SERVER_BIN is not executable', async () => {
    const error = await rejectionOf(findNatsServer({ environment: { NATS_SERVER_BIN: '/nowhere/at/all' } }));
    expect(error.message).to.contain('NATS_SERVER_BIN is /nowhere/at/all');
  });

  it('says what to do when neither nats-server nor a package manager is installed', async () => {
    const environment = { PATH: join(folder.path, 'empty'), XDG_CACHE_HOME: join(folder.path, 'cache') };
    const error = await rejectionOf(findNatsServer({ environment }));
    expect(error).to.be.instanceOf(SystemError);
    for (const way of ['package manager', 'NATS_SERVER_BIN', 'NATS_URL']) {
      expect(error.message).to.contain(way);
    }
  });
});

async function next(connection: NatsConnection, subject: string): Promise<string> {
  for await (const message of connection.subscribe(subject, { max: 1 })) return message.string();
  throw new Error('the subscription ended without a message');
}

async function refusalSeenBy(connection: NatsConnection): Promise<string> {
  for await (const status of connection.status()) {
    if (status.type === 'error') return JSON.stringify(status.permissionContext);
  }
  throw new Error('the connection ended without a refusal');
}
