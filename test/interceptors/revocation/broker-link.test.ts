/** A kept connection to the broker, against real nats-servers whose users change. */

import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { nkeys } from 'nats';
import { systemClock } from '../../../interceptors/src/clock.js';
import type { BrokerFiles } from '../../../interceptors/src/revocation/broker.js';
import {
  type BrokerLink,
  type BrokerState,
  type BrokerStatus,
  keepConnected,
  reconnectDelayMs,
} from '../../../interceptors/src/revocation/broker-link.js';
import { type Nats, natsConfiguration, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { createAuthority } from '../../support/certificates.js';
import { type FakeBroker, type FakeBrokerOptions, startFakeBroker } from '../../support/fake-broker.js';
import { credentialsOf, type NatsAccount, natsAccount, seedOf } from '../../support/nats-accounts.js';
import { startRelay, type TcpRelay } from '../../support/tcp-relay.js';
import { until } from '../../support/waiting.js';

type Authentication = Readonly<Record<string, unknown>>;

const password = (value: string): Authentication => ({
  authorization: { users: [{ user: 'inventory', password: value }] },
});
const keys = (...publicKeys: string[]): Authentication => ({
  authorization: { users: publicKeys.map((nkey) => ({ nkey })) },
});

describe('a kept connection to a broker that fails', () => {
  const brokers: FakeBroker[] = [];
  let link: BrokerLink | undefined;
  let changes: BrokerStatus[];

  beforeEach(() => {
    changes = [];
  });
  afterEach(async () => {
    await link?.close();
    for (const broker of brokers.splice(0)) await broker.stop();
  });

  async function start(options: FakeBrokerOptions = {}): Promise<FakeBroker> {
    const broker = await startFakeBroker(options);
    brokers.push(broker);
    return broker;
  }
  function keep(url: string, over: Partial<Parameters<typeof keepConnected>[0]> = {}): BrokerLink {
    link = keepConnected({ url, name: 'test', onChange: (status) => changes.push(status), ...over });
    return link;
  }
  const urlOf = ({ port }: FakeBroker) => `nats://127.0.0.1:${port}`;
  const isConnected = () => changes.at(-1)?.state === 'connected';

  it('states what is behind the error of the client', async () => {
    const broker = await start();
    const url = urlOf(broker);
    await broker.stop();
    const kept = keep(url);
    await until(() => changes.length > 0);
    expect(kept.status().problem).to.match(/^[^:]+: connect ECONNREFUSED 127\.0\.0\.1:\d+$/);
  });

  it('states why there is none, by the error of the broker', async () => {
    const states: [message: string, state: BrokerState][] = [
      ['Authorization Violation', 'refused'],
      ['User Authentication Expired', 'refused'],
      ['Account Authentication Expired', 'refused'],
      ['Authentication Timeout', 'refused'],
      ['maximum connections exceeded', 'refused'],
      ['maximum account active connections exceeded', 'refused'],
      ['Stale Connection', 'unreachable'],
      ['Slow Consumer', 'unreachable'],
      ['Server Shutdown', 'unreachable'],
      ['Connection Closed', 'unreachable'],
    ];
    for (const [message, state] of states) {
      const broker = await start({
        answer: (line, socket) => {
          if (line === 'PING') socket.end(`-ERR '${message}'\r\n`);
          return '';
        },
      });
      changes = [];
      const kept = keep(urlOf(broker));
      await until(() => changes.length > 0);
      expect(
        changes.map((change) => change.state),
        message,
      ).to.deep.equal([state]);
      const { problem } = kept.status();
      expect(problem.toLowerCase(), message).to.contain(message.toLowerCase());
      // Not twice, where the error of the client is that of the broker.
      expect(problem.split(': '), message).to.deep.equal([...new Set(problem.split(': '))]);
      expect(kept.connection()).to.equal(undefined);
      await kept.close();
    }
  });

  it('states that the TLS handshake fails, whatever the reason', async () => {
    const folder = await makeTemporaryFolder();
    const [authority, stranger] = [await createAuthority(folder.path), await createAuthority(folder.path)];
    const own = { caFile: authority.certFile, ...(await authority.issue()) };
    const server = await startNats({ dataDir: `${folder.path}/nats`, port: 0, tls: own });
    const noTls = await start({
      info: { tls_required: true },
      onConnection: (socket) => {
        socket.once('data', () => socket.write('no TLS'));
        return true;
      },
    });
    const cases: [string, string, BrokerFiles][] = [
      ['an untrusted certificate', server.url('inventory'), { ...own, caFile: stranger.certFile }],
      ['a file that is missing', server.url('inventory'), { ...own, caFile: `${folder.path}/missing` }],
      ['no client certificate', server.url('inventory'), { caFile: own.caFile }],
      ['a broker that answers in plaintext', urlOf(noTls).replace('nats:', 'tls:'), own],
    ];
    for (const [name, url, files] of cases) {
      const kept = keep(url, { files });
      // The alert of a server that misses a certificate may be overtaken by the end of the connection.
      await until(() => kept.status().state === 'tls');
      expect(kept.status().problem, name).to.not.equal('');
      await kept.close();
    }
    await server.stop();
    await folder.remove();
  });

  it('distinguishes errors of TLS from those of the network by their codes', async () => {
    const broker = await start();
    const states: [code: string, state: BrokerState][] = [
      ['CERT_HAS_EXPIRED', 'tls'],
      ['DEPTH_ZERO_SELF_SIGNED_CERT', 'tls'],
      ['EPROTO', 'tls'],
      ['ERR_SSL_WRONG_VERSION_NUMBER', 'tls'],
      ['ERR_TLS_CERT_ALTNAME_INVALID', 'tls'],
      ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'tls'],
      ['ECONNRESET', 'unreachable'],
      ['EPROTOTYPE', 'unreachable'],
      ['ERR_SOCKET_CLOSED', 'unreachable'],
      ['ERR_HTTP2_INVALID_CA', 'unreachable'],
    ];
    for (const [code, state] of states) {
      changes = [];
      const error = Object.assign(new Error('no connection'), { code });
      const kept = keep(urlOf(broker), { onOpen: () => Promise.reject(error) });
      await until(() => changes.length > 0);
      expect(changes[0], code).to.deep.equal({ state, problem: 'no connection' });
      await kept.close();
    }
  });

  it('states the loss of a connection, and its cause if the broker gave one', async () => {
    const broker = await start();
    const kept = keep(urlOf(broker));
    expect(kept.status()).to.deep.equal({ state: 'connecting', problem: '' });
    await until(isConnected);
    expect(kept.status()).to.deep.equal({ state: 'connected', problem: '' });
    expect(kept.connection()?.isClosed()).to.equal(false);
    broker.sockets[0]?.destroy();
    await until(() => changes.length === 2);
    expect(changes[1]).to.deep.equal({
      state: 'unreachable',
      problem: 'the connection to the broker was lost',
    });
    expect(kept.connection()).to.equal(undefined);
    await until(() => changes.length === 3);
    broker.sockets[0]?.end("-ERR 'maximum connections exceeded'\r\n");
    await until(() => changes.length === 4);
    expect(changes[3]?.state).to.equal('refused');
    expect(changes[3]?.problem).to.contain('maximum connections exceeded');
  });

  it('does not count as connected before it is set up, and ends when that fails', async () => {
    const broker = await start();
    keep(urlOf(broker), { onOpen: () => Promise.reject(new Error('no subscription')) });
    await until(() => changes.length === 1);
    expect(changes).to.deep.equal([{ state: 'unreachable', problem: 'no subscription' }]);
    await until(() => broker.connections() === 2);
    await until(() => broker.sockets.length < 2);
    expect(changes).to.have.length(1);
  });

  it('is opened again when it is lost while it is being set up', async () => {
    const broker = await start();
    let setups = 0;
    keep(urlOf(broker), {
      onOpen: () => {
        setups += 1;
        return setups === 1 ? new Promise(() => {}) : undefined;
      },
    });
    await until(() => setups === 1);
    expect(changes).to.deep.equal([]);
    broker.sockets[0]?.destroy();
    await until(isConnected);
    expect(changes.map(({ state }) => state)).to.deep.equal(['unreachable', 'connected']);
  });

  it('states the error that says most, whatever the order of the servers', async () => {
    const refusing = await start({
      answer: (line) => (line === 'PING' ? "-ERR 'Authorization Violation'\r\n" : undefined),
    });
    const dead = '127.0.0.1:1';
    for (let attempt = 0; attempt < 8; attempt += 1) {
      changes = [];
      const kept = keep(`${urlOf(refusing)},${dead}`);
      await until(() => changes.length > 0);
      expect(changes[0]).to.include({ state: 'refused' });
      await kept.close();
    }
  });

  it('begins with any of the configured servers, so that their clients spread', async () => {
    const one = await start();
    const other = await start();
    for (let attempt = 0; attempt < 24; attempt += 1) {
      changes = [];
      const kept = keep(`${urlOf(one)},127.0.0.1:${other.port}`);
      await until(isConnected);
      await kept.close();
    }
    expect(one.connections() + other.connections()).to.equal(24);
    expect(Math.min(one.connections(), other.connections())).to.be.above(0);
  });

  it('tries each server once before it pauses, also those that the cluster has named', async () => {
    const named = await start({ onConnection: () => false });
    const connect_urls = [`127.0.0.1:${named.port}`, '127.0.0.1:1'];
    const first = await start({
      info: { connect_urls },
      onConnection: (socket, number) => {
        if (number > 1) socket.destroy();
        return number === 1;
      },
    });
    connect_urls.push(`127.0.0.1:${first.port}`);
    keep(urlOf(first));
    await until(isConnected);
    first.sockets[0]?.destroy();
    await until(() => named.connections() === 1);
    expect(first.connections()).to.equal(2);
  });

  it('tries only the configured servers over TLS, because certificates need not contain the addresses of a cluster', async () => {
    const folder = await makeTemporaryFolder();
    const authority = await createAuthority(folder.path);
    const files = { caFile: authority.certFile, ...(await authority.issue()) };
    const server = await startNats({ dataDir: `${folder.path}/nats`, port: 0, tls: files });
    const named = await start();
    const relay = await startRelay(server.port);
    const url = server.url('inventory').replace(`:${server.port}`, `:${relay.port}`);
    const kept = keep(url, {
      files,
      onOpen: (connection) => void connection.info?.connect_urls?.push(`127.0.0.1:${named.port}`),
    });
    await until(isConnected);
    expect(kept.connection()?.info).to.have.property('tls_required', true);
    await relay.cut();
    await until(() => changes.length === 2);
    await sleep(300);
    expect(named.connections()).to.equal(0);
    await kept.close();
    await server.stop();
    await folder.remove();
  });

  it('is not opened again once it is closed, nor reported', async () => {
    let greet = (): void => {};
    const broker = await start({
      onConnection: () =>
        new Promise((resolve) => {
          greet = () => resolve(true);
        }),
    });
    const kept = keep(urlOf(broker));
    await until(() => broker.connections() === 1);
    await kept.close();
    greet();
    await until(() => broker.sockets.length === 0);
    const dead = keep('nats://127.0.0.1:1');
    await until(() => changes.length === 1);
    await dead.close();
    await sleep(150);
    expect([broker.connections(), changes.length]).to.deep.equal([1, 1]);
  });

  it('sends what is pending before it is closed, and waits no longer than it may', async () => {
    let isFrozen = false;
    const broker = await start({ answer: () => (isFrozen ? '' : undefined) });
    for (const freezes of [false, true]) {
      changes = [];
      const kept = keep(urlOf(broker));
      await until(isConnected);
      isFrozen = freezes;
      kept.connection()?.publish(`subject.${freezes}`);
      const startedMs = performance.now();
      await kept.close(freezes ? 200 : 8000);
      expect(performance.now() - startedMs).to.be.within(freezes ? 195 : 0, 7900);
      expect(broker.lines.some((line) => line.startsWith(`PUB subject.${freezes} `))).to.equal(true);
      await kept.close(200);
    }
    expect(changes.map(({ state }) => state)).to.deep.equal(['connected']);
  });

  it('does not keep the process alive while it waits for the next attempt', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const kept = keep('nats://127.0.0.1:1');
    await until(() => changes.length === 1);
    await new Promise(setImmediate);
    const waiting = timers();
    await kept.close();
    await new Promise(setImmediate);
    expect(timers()).to.equal(waiting);
  });

  describe('after a connection', () => {
    const { monotonicMs } = systemClock;
    const { random } = Math;
    afterEach(() => {
      Object.assign(systemClock, { monotonicMs });
      Math.random = random;
    });

    /** How long it takes to connect again after the fifth connection in a row was lost. */
    async function pauseMs(afterMs: number): Promise<number> {
      const broker = await start({
        onConnection: (socket, number) => {
          if (number < 5) socket.destroy();
          return number >= 5;
        },
      });
      // First the shortest delays, to save time, then the longest.
      Math.random = () => 0.999;
      keep(urlOf(broker));
      await until(isConnected);
      Math.random = () => 0;
      Object.assign(systemClock, { monotonicMs: () => monotonicMs() + afterMs });
      broker.sockets[0]?.destroy();
      const startedMs = performance.now();
      await until(() => broker.connections() === 6);
      return performance.now() - startedMs;
    }

    it('that lasted two seconds, the delays begin anew', async () => {
      expect(await pauseMs(2000)).to.be.below(900);
    });

    it('that was lost sooner, they keep growing', async () => {
      expect(await pauseMs(1000)).to.be.above(900);
    });
  });
});

describe('a kept connection to the broker', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let server: Nats;
  let relay: TcpRelay;
  let link: BrokerLink | undefined;
  let states: BrokerState[];

  beforeEach(async () => {
    folder = await makeTemporaryFolder();
    states = [];
  });
  afterEach(async () => {
    await link?.close();
    await relay?.cut();
    await server?.stop();
    await folder.remove();
  });

  async function start(authentication: Authentication): Promise<void> {
    server = await startNats({ dataDir: folder.path, port: 0, authentication });
    relay = await startRelay(server.port);
  }

  /** What an operator does: another file, and the signal to read it. */
  async function reconfigure(authentication: Authentication): Promise<void> {
    const { port } = server;
    await writeFile(`${folder.path}/nats.conf`, natsConfiguration({ port, authentication }));
    server.kill('SIGHUP');
  }

  function keep(over: Partial<Parameters<typeof keepConnected>[0]> = {}): BrokerLink {
    link = keepConnected({
      url: `nats://inventory:right@127.0.0.1:${relay.port}`,
      name: 'test',
      onChange: ({ state }) => states.push(state),
      ...over,
    });
    return link;
  }

  it('states that its password is refused, tries less and less often, and connects when it is right again', async () => {
    await start(password('right'));
    const kept = keep();
    await until(() => kept.status().state === 'connected');
    await reconfigure(password('other'));
    await until(() => kept.status().state === 'refused');
    expect(kept.status().problem).to.match(/authorization violation|authentication/i);
    expect(kept.connection()).to.equal(undefined);
    const [startedMs, before] = [performance.now(), relay.connections()];
    await until(() => relay.connections() >= before + 4);
    // Whatever the jitter, four attempts take at least the halves of 200, 400 and 800 ms.
    expect(performance.now() - startedMs).to.be.above(600);
    const changes = states.length;
    await until(() => relay.connections() >= before + 5);
    expect(states).to.have.length(changes);
    await reconfigure(password('right'));
    await until(() => kept.status().state === 'connected');
    expect(states.at(-1)).to.equal('connected');
  });

  it('is restored after a loss, and set up again before it counts as connected', async () => {
    await start(password('right'));
    let setups = 0;
    const kept = keep({
      onOpen: () => {
        setups += 1;
      },
    });
    await until(() => kept.status().state === 'connected');
    await relay.cut();
    await until(() => kept.status().state === 'unreachable');
    await relay.mend();
    await until(() => kept.status().state === 'connected');
    expect(states).to.deep.equal(['connected', 'unreachable', 'connected']);
    expect(setups).to.equal(2);
  });

  it('names the server that refuses, though another one is dead', async () => {
    await start(password('other'));
    const kept = keep({ url: `nats://inventory:right@127.0.0.1:${relay.port},127.0.0.1:1` });
    await until(() => kept.status().state === 'refused');
    await until(() => relay.connections() >= 3);
    expect(states).to.deep.equal(['refused']);
  });

  it('names a missing server, and one without TLS', async () => {
    await start(password('right'));
    const dead = keep({ url: 'nats://127.0.0.1:1' });
    await until(() => dead.status().state === 'unreachable');
    await dead.close();
    const plain = keep({ url: `tls://inventory:right@127.0.0.1:${relay.port}` });
    await until(() => plain.status().state === 'tls');
  });

  it('uses an nkey, and the next one as soon as its file has it', async () => {
    const [first, second] = [nkeys.createUser(), nkeys.createUser()];
    const nkeyFile = `${folder.path}/user.nk`;
    await writeFile(nkeyFile, seedOf(first));
    await start(keys(first.getPublicKey()));
    const kept = keep({ url: `nats://127.0.0.1:${relay.port}`, files: { nkeyFile } });
    await until(() => kept.status().state === 'connected');
    await reconfigure(keys(second.getPublicKey()));
    await until(() => kept.status().state === 'refused');
    await writeFile(nkeyFile, 'half a seed');
    await until(() => kept.status().state === 'credentials');
    await writeFile(nkeyFile, seedOf(second));
    await until(() => kept.status().state === 'connected');
  });

  it('uses the JWT of a credentials file, and reads it again when it was refused', async () => {
    const account: NatsAccount = natsAccount();
    const credsFile = `${folder.path}/user.creds`;
    await start(account.authentication);
    const stranger = natsAccount();
    await writeFile(credsFile, credentialsOf(stranger));
    const kept = keep({ url: `nats://127.0.0.1:${relay.port}`, files: { credsFile } });
    await until(() => kept.status().state === 'refused');
    await writeFile(credsFile, credentialsOf(account));
    await until(() => kept.status().state === 'connected');
  });
});

describe('the delay between two attempts to connect to the broker', () => {
  it('is at most 100 ms after a loss, and grows to 1 s, or to 5 s where the broker refuses', () => {
    expect(reconnectDelayMs('unreachable', 0, 0)).to.equal(100);
    expect(reconnectDelayMs('unreachable', 0, 0.5)).to.equal(75);
    expect(reconnectDelayMs('unreachable', 100, 0)).to.equal(1000);
    for (const state of ['refused', 'tls', 'credentials'] as const) {
      expect([0, 1, 2, 5, 6, 2000].map((failures) => reconnectDelayMs(state, failures, 0))).to.deep.equal([
        100, 200, 400, 3200, 5000, 5000,
      ]);
    }
  });
});
