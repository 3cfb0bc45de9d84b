import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect } from 'node:net';
import { createServer } from 'node:tls';
import { Client, credentials, status } from '@grpc/grpc-js';
import { systemClock } from '@portcullis/guard';
import { expect } from 'chai';
import { startRelay } from '../../../gate/src/relay/relay.js';
import { createAuthority } from '../../support/certificates.js';
import { makeFolder } from '../../support/folders.js';
import { startRelayed, TestJudge, withToken } from '../support/relay-kit.js';

describe('gate: relay with TLS towards clients', () => {
  it('passes calls over TLS, and ends with its clients', async () => {
    const folder = await makeFolder();
    const authority = await createAuthority(folder.path);
    const { certFile, keyFile } = await authority.issue();
    const listener = createServer({
      cert: await readFile(certFile),
      key: await readFile(keyFile),
      ALPNProtocols: ['h2'],
    });
    const behind = await startRelayed();
    const relay = startRelay({
      server: listener,
      connectServer: () => connect(behind.serverPort, '127.0.0.1'),
      judge: new TestJudge(),
      clock: systemClock,
      callerOf: () => ({
        peer: 'tls',
        address: '127.0.0.1',
        isPrivate: true,
        certificateThumbprint: undefined,
      }),
    });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const { port } = listener.address() as AddressInfo;
    const client = new Client(`localhost:${port}`, credentials.createSsl(await readFile(authority.certFile)));
    const same = (bytes: Buffer): Buffer => bytes;
    const answer = await new Promise<string>((resolve) => {
      const big = Buffer.alloc(1_000_000, 'q');
      client.makeUnaryRequest('/test.Echo/Unary', same, same, big, withToken(), (error, response) =>
        resolve(error === null ? `${response?.length}` : `${error.code} ${error.details}`),
      );
    });
    expect(answer).to.equal('1000000');
    const refused = await new Promise<number | undefined>((resolve) => {
      client.makeUnaryRequest(
        '/test.Echo/Unary',
        same,
        same,
        Buffer.alloc(1),
        withToken('Bearer bad'),
        (error) => resolve(error?.code),
      );
    });
    expect(refused).to.equal(status.UNAUTHENTICATED);
    client.close();
    await relay.close();
    expect(relay.connections).to.equal(0);
    await behind.stop();
    await folder.remove();
  });
});
