/** The connection to the broker over TLS, against a real nats-server. */

import { writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { type Authenticator, connect, type NatsConnection, nkeys } from 'nats';
import { type BrokerFiles, brokerConnection } from '../../../interceptors/src/revocation/broker.js';
import { BrokerCredentialsError } from '../../../interceptors/src/revocation/broker-credentials.js';
import { type Nats, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { type Authority, createAuthority } from '../../support/certificates.js';
import { seedOf } from '../../support/nats-accounts.js';
import { rejectionOf } from '../../support/outcomes.js';

const SETUP_TIMEOUT_MS = 120_000;

describe('a broker', () => {
  let folder: Awaited<ReturnType<typeof makeTemporaryFolder>>;
  let authority: Authority;
  let files: Required<Pick<BrokerFiles, 'caFile' | 'certFile' | 'keyFile'>>;
  let secure: Nats;
  let plain: Nats;

  before(async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    folder = await makeTemporaryFolder();
    authority = await createAuthority(folder.path);
    files = { caFile: authority.certFile, ...(await authority.issue()) };
    secure = await startNats({ dataDir: `${folder.path}/secure`, port: 0, tls: files });
    plain = await startNats({ dataDir: `${folder.path}/plain`, port: 0 });
  });
  after(async () => {
    await secure?.stop();
    await plain?.stop();
    await folder?.remove();
  });

  /** One attempt, where a service would retry without limit. */
  async function attempt(url: string, given: BrokerFiles): Promise<NatsConnection> {
    return await connect({ ...brokerConnection(url, 'test', given), reconnect: false });
  }

  it('is verified by its certificate, and receives the client certificate', async () => {
    const url = secure.url('inventory');
    expect(url).to.match(/^tls:/);
    const connection = await attempt(url, files);
    expect(connection.info).to.include({ tls_required: true });
    await connection.close();
  });

  it('is rejected with an untrusted certificate, and rejects clients without theirs', async function () {
    this.timeout(SETUP_TIMEOUT_MS);
    const stranger = await createAuthority(folder.path);
    const url = secure.url('inventory');
    const { caFile, certFile, keyFile } = files;
    expect(
      await rejectionOf(attempt(url, { caFile: stranger.certFile, certFile, keyFile })),
    ).to.be.instanceOf(Error);
    expect(await rejectionOf(attempt(url, { certFile, keyFile }))).to.be.instanceOf(Error);
    expect(await rejectionOf(attempt(url, { caFile }))).to.be.instanceOf(Error);
  });

  it('without TLS gets no password from a client configured for TLS', async () => {
    const url = plain.url('inventory').replace('nats:', 'tls:');
    expect(await rejectionOf(attempt(url, files))).to.have.property('code', 'SERVER_OPT_NA');
    expect(await rejectionOf(attempt(url, {}))).to.have.property('code', 'SERVER_OPT_NA');
  });

  it('is reached although another named host is dead, with the user of the first', async () => {
    const { username, password } = new URL(plain.url('inventory'));
    for (const other of [`127.0.0.1:${plain.port}`, `nats://127.0.0.1:${plain.port}`]) {
      const connection = await attempt(`nats://${username}:${password}@127.0.0.1:1,${other}`, {});
      expect(connection.info).to.include({ port: plain.port });
      await connection.close();
    }
  });
});

describe('the options of a connection to the broker', () => {
  it('name the servers of the URL and the user of the first, without percent-encoding', () => {
    const url = 'nats://us%40er:p%3Aw@one:4222, two:4223,nats://ignored:x@[::1]:4224';
    const options = brokerConnection(url, 'inventory');
    expect(options).to.include({ name: 'inventory', user: 'us@er', pass: 'p:w' });
    expect(options.servers).to.deep.equal(['one:4222', 'two:4223', '[::1]:4224']);
    expect(options).to.not.have.any.keys('token', 'authenticator', 'tls');
  });

  it('contain a user without a password as a token, and no credentials without a user', () => {
    const options = brokerConnection('nats://s%40cret@127.0.0.1:4222', 'test');
    expect(options).to.include({ token: 's@cret' }).and.not.have.any.keys('user', 'pass');
    for (const url of ['nats://127.0.0.1:4222', 'nats://:password@127.0.0.1:4222']) {
      expect(brokerConnection(url, 'test')).to.not.have.any.keys('user', 'pass', 'token');
    }
  });

  it('contain the credentials of a file in place of those in the URL', async () => {
    const folder = await makeTemporaryFolder();
    const user = nkeys.createUser();
    const nkeyFile = `${folder.path}/user.nk`;
    await writeFile(nkeyFile, seedOf(user));
    const { authenticator, ...options } = brokerConnection('nats://user:password@127.0.0.1', 'test', {
      nkeyFile,
    });
    expect(options).to.not.have.any.keys('user', 'pass', 'token', 'tls');
    expect((authenticator as Authenticator)('nonce')).to.include({ nkey: user.getPublicKey() });
    expect(() => brokerConnection('nats://127.0.0.1', 'test', { nkeyFile: folder.path })).to.throw(
      BrokerCredentialsError,
    );
    await folder.remove();
  });

  it('require TLS, with the given files, when one URL does', () => {
    const files = { caFile: 'ca.pem', certFile: 'cert.pem', keyFile: 'key.pem' };
    expect(brokerConnection('nats://one,tls://two', 'test', files).tls).to.deep.equal(files);
    expect(brokerConnection('tls://one', 'test').tls).to.deep.equal({});
    expect(brokerConnection('nats://one,two', 'test', files).tls).to.equal(undefined);
  });

  it('never give up, and detect a dead connection within three seconds', () => {
    expect(brokerConnection('nats://one', 'test')).to.include({
      maxReconnectAttempts: -1,
      ignoreAuthErrorAbort: true,
      pingInterval: 1000,
      maxPingOut: 2,
      timeout: 2000,
    });
  });
});
