/** Ways to call the upstream around the gate, tried on real sockets. */
import { chmod, readFile } from 'node:fs/promises';
import { createServer as createTcpServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { expect } from 'chai';
import { waysAround } from '../../gate/src/exposure.js';
import { makeTemporaryFolder, type TemporaryFolder } from '../../scripts/system/temporary-folder.js';
import { createAuthority } from '../support/certificates.js';

describe('waysAround', () => {
  let folder: TemporaryFolder;
  const servers: Server[] = [];

  before(async () => {
    folder = await makeTemporaryFolder();
  });
  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
  });
  after(() => folder.remove());

  async function listen(server: Server, at: string | { host: string; port: number }): Promise<number> {
    servers.push(server);
    await new Promise<void>((resolve) => {
      if (typeof at === 'string') server.listen(at, resolve);
      else server.listen(at, resolve);
    });
    const bound = server.address();
    return typeof bound === 'object' && bound !== null ? bound.port : 0;
  }

  const tcp = (host: string, port: number) => ({
    address: { kind: 'tcp' as const, host, port },
    tls: undefined,
    serverName: 'localhost',
  });

  it('finds none to a socket that only its owner may use, and one to a socket of everybody', async () => {
    const path = join(folder.path, 'up.sock');
    await listen(createTcpServer(), path);
    const upstream = { address: { kind: 'unix' as const, path }, tls: undefined, serverName: 'localhost' };
    await chmod(path, 0o700);
    expect(await waysAround(upstream)).to.be.empty;
    await chmod(path, 0o777);
    expect((await waysAround(upstream)).join()).to.include('every user of this machine');
    await chmod(folder.path, 0o700);
    expect(await waysAround(upstream)).to.be.empty;
    await chmod(folder.path, 0o711);
  });

  it('finds none to a socket that does not exist yet', async () => {
    const address = { kind: 'unix' as const, path: join(folder.path, 'none.sock') };
    expect(await waysAround({ address, tls: undefined, serverName: 'x' })).to.be.empty;
  });

  it('finds the other addresses of this machine at which the port of a loopback upstream is open', async () => {
    const closed = await listen(createTcpServer(), { host: '127.0.0.1', port: 0 });
    expect(await waysAround(tcp('127.0.0.1', closed))).to.be.empty;
    const open = await listen(createTcpServer(), { host: '0.0.0.0', port: 0 });
    const own = Object.values(networkInterfaces())
      .flatMap((addresses) => addresses ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv4');
    expect(await waysAround(tcp('127.0.0.1', open))).to.have.length(own.length);
  });

  it('calls a plaintext upstream on the network open', async () => {
    expect((await waysAround(tcp('192.0.2.1', 1))).join()).to.include('shows it no certificate');
  });

  it('asks a TLS upstream for an answer without a certificate, and with one that nobody has signed', async () => {
    const authority = await createAuthority(folder.path);
    const { certFile, keyFile } = await authority.issue();
    const [cert, key, ca] = await Promise.all(
      [certFile, keyFile, authority.certFile].map((file) => readFile(file)),
    );
    const files = { cert: certFile, key: keyFile, ca: authority.certFile };
    const presented: boolean[] = [];
    const demandsAny = (socket: TLSSocket): boolean => {
      const isPresented = socket.getPeerX509Certificate() !== undefined;
      presented.push(isPresented);
      return isPresented;
    };
    for (const [rejectUnauthorized, isServed, way] of [
      [true, () => true, undefined],
      [false, () => false, undefined],
      [false, () => true, 'without a certificate'],
      [false, demandsAny, 'that nobody has signed'],
    ] as const) {
      const server = createTlsServer(
        { cert, key, ca, requestCert: true, rejectUnauthorized, ALPNProtocols: ['h2'] },
        (socket) => {
          socket.on('error', () => {});
          if (!isServed(socket)) {
            socket.destroy();
            return;
          }
          socket.once('data', () => socket.end(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])));
        },
      );
      server.on('tlsClientError', () => {});
      const port = await listen(server, { host: '127.0.0.1', port: 0 });
      const upstream = {
        address: { kind: 'tcp' as const, host: '127.0.0.1', port },
        tls: files,
        serverName: 'localhost',
      };
      const ways = await waysAround(upstream);
      expect(ways.length, ways.join()).to.equal(way === undefined ? 0 : 1);
      if (way !== undefined) expect(ways[0]).to.include(way);
    }
    expect(presented).to.deep.equal([false, true]);
  });
});
