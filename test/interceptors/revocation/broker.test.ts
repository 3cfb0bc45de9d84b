/** The connection to the broker over TLS, against a real nats-server. */

import { expect } from 'chai';
import { connect, type NatsConnection } from 'nats';
import { type BrokerFiles, brokerConnection } from '../../../interceptors/src/revocation/broker.js';
import { type Nats, startNats } from '../../../scripts/system/nats.js';
import { makeTemporaryFolder } from '../../../scripts/system/temporary-folder.js';
import { type Authority, createAuthority } from '../../support/certificates.js';
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

  it('gets a user without a password as a token', () => {
    const { token, user } = brokerConnection('nats://s%40cret@127.0.0.1:4222', 'test');
    expect({ token, user }).to.deep.equal({ token: 's@cret', user: undefined });
  });
});
