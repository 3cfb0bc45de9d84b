/** A kept connection to the broker, against real nats-servers whose users change. */

import { writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { nkeys } from 'nats';
import {
  type BrokerLink,
  type BrokerState,
  keepConnected,
  reconnectDelayMs,
} from '../../../interceptors/src/revocation/broker-link.js';
import { type Nats, natsConfiguration, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
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
