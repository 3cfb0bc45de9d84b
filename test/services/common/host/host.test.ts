/** The host: ports, limits, readiness and drain. */

import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { type AddressInfo, createServer, type Server as TcpServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { type Client, Metadata, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { MESSAGE_BYTES_MAX } from '../../../../services/common/host/host.js';
import { ListenError } from '../../../../services/common/host/ports.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { EchoService, type RunningHost, runHost } from './running-host.js';

const { requestSerialize, responseDeserialize } = EchoService.echo;

function echo(client: Client, request: string, metadata = new Metadata()): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, value?: string) =>
      error === null ? resolve(value ?? '') : reject(error);
    client.makeUnaryRequest(
      EchoService.echo.path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      done,
    );
  });
}

async function takePort(host = '127.0.0.1'): Promise<{ port: number; server: TcpServer }> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen({ host, port: 0 }, resolve);
  });
  return { port: (server.address() as AddressInfo).port, server };
}

async function freePort(): Promise<number> {
  const { port, server } = await takePort();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('host', () => {
  const running: RunningHost[] = [];
  const taken: TcpServer[] = [];

  async function run(...options: Parameters<typeof runHost>): Promise<RunningHost> {
    const host = await runHost(...options);
    running.push(host);
    return host;
  }
  afterEach(async () => {
    for (const host of running.splice(0)) await host.close();
    for (const server of taken.splice(0)) server.close();
  });

  async function take(host?: string): Promise<number> {
    const { port, server } = await takePort(host);
    taken.push(server);
    return port;
  }

  it('serves, returns its real addresses, and logs them as the launcher expects', async () => {
    const { host, connect, lines } = await run();
    expect(await echo(connect(), 'hello')).to.equal('hello');
    expect(host.address).to.match(/^127\.0\.0\.1:[1-9]/);
    const line = lines.map((text) => JSON.parse(text)).find(({ msg }) => msg === 'listening');
    expect(line).to.include({ address: host.address, opsAddress: host.opsAddress });
  });

  describe('a port that is taken', () => {
    it('is reported with its number and its variable, and nothing stays open', async () => {
      const port = await take();
      const other = await freePort();
      const error = await rejectionOf(run({ listen: `127.0.0.1:${port}`, opsListen: `127.0.0.1:${other}` }));
      expect(error).to.be.instanceOf(ListenError);
      expect(error.message).to.equal(
        `Port ${port} on 127.0.0.1 is taken. Stop the program that uses it, or set PORTCULLIS_LISTEN to another HOST:PORT.`,
      );
      await run({ listen: `127.0.0.1:${other}` });
    });

    it('is reported when it is the ops port, and the gRPC port is closed again', async () => {
      const port = await take();
      const other = await freePort();
      const error = await rejectionOf(run({ listen: `127.0.0.1:${other}`, opsListen: `127.0.0.1:${port}` }));
      expect(error.message).to.match(
        new RegExp(`^Port ${port} on 127\\.0\\.0\\.1 is taken\\..*PORTCULLIS_OPS_LISTEN`),
      );
      await run({ listen: `127.0.0.1:${other}` });
    });

    it('is reported when both settings name the same one', async () => {
      const port = await freePort();
      const error = await rejectionOf(run({ listen: `127.0.0.1:${port}`, opsListen: `127.0.0.1:${port}` }));
      expect(error.message).to.match(/is taken.*PORTCULLIS_OPS_LISTEN/);
    });

    it('is reported when only one address of the host has it taken', async () => {
      const port = await take();
      const error = await rejectionOf(run({ listen: `localhost:${port}` }));
      expect(error.message).to.include(`Port ${port} on localhost is taken`);
    });
  });

  it('reports an address that is not one of this machine', async () => {
    for (const listen of ['192.0.2.1:0', 'no-such-host.invalid:0']) {
      const error = await rejectionOf(run({ listen }));
      expect(error).to.be.instanceOf(ListenError);
      expect(error.message).to.equal(
        `Cannot listen on ${listen}. Set PORTCULLIS_LISTEN to an address of this machine.`,
      );
    }
  });

  it('listens on IPv6 if the machine has it, and reports that it has not otherwise', async () => {
    const hasIpv6 = Object.values(networkInterfaces()).some((all) =>
      all?.some(({ address }) => address === '::1'),
    );
    if (!hasIpv6) {
      const error = await rejectionOf(run({ listen: '[::1]:0' }));
      expect(error.message).to.match(/^Cannot listen on \[::1\]:0\./);
      return;
    }
    const { host, connect } = await run({ listen: '[::1]:0' });
    expect(host.address).to.match(/^\[::1\]:[1-9]/);
    expect(await echo(connect(), 'six')).to.equal('six');
  });

  describe('limits', () => {
    it('reject a message that is too large', async () => {
      const { connect } = await run();
      const error = await rejectionOf(echo(connect(), 'x'.repeat(MESSAGE_BYTES_MAX + 1)));
      expect(error).to.have.property('code', status.RESOURCE_EXHAUSTED);
    });

    it('reject headers that are too large, and do not stop the server', async () => {
      const { connect, echo: service } = await run();
      const metadata = new Metadata();
      metadata.set('x-long', 'x'.repeat(80 * 1024));
      let handled = 0;
      service.handle = async (request) => `${request}${++handled}`;
      await rejectionOf(echo(connect(), 'x', metadata));
      expect(await echo(connect({ 'grpc.use_local_subchannel_pool': 1 }), 'x')).to.equal('x1');
    });
  });

  it('is ready when nothing is missing, and reports what is missing otherwise', async () => {
    let missing = 'the list is not complete';
    const { host, ops, lines } = await run({ readiness: { revocations: () => missing } });
    expect((await ops('/readyz')).status).to.equal(503);
    missing = '';
    host.readinessChanged();
    expect((await ops('/readyz')).status).to.equal(200);
    const logged = lines.map((text) => JSON.parse(text)).filter(({ msg }) => /ready/.test(msg));
    expect(logged.map(({ msg }) => msg)).to.deep.equal(['not ready', 'ready']);
    expect(logged[0].missing).to.deep.equal({ revocations: 'the list is not complete' });
  });

  it('asks the peer of an old plaintext connection to reconnect', async () => {
    const { host } = await run({ connectionAgeMs: 50 });
    const session = connectHttp2(`http://${host.address}`);
    const [code] = await once(session, 'goaway');
    expect(code).to.equal(constants.NGHTTP2_NO_ERROR);
    session.destroy();
  });

  describe('stopping', () => {
    it('lets a call under way end, accepts no new one, and is not ready meanwhile', async () => {
      const { host, echo: service, connect, ops, lines } = await run({ drainMs: 5_000 });
      let finish = (_: string) => {};
      const client = connect();
      let underWay = Promise.resolve('');
      await new Promise<void>((entered) => {
        service.handle = () =>
          new Promise((resolve) => {
            finish = resolve;
            entered();
          });
        underWay = echo(client, 'x');
      });
      const stopped = host.stop();
      expect((await ops('/readyz')).status).to.equal(503);
      expect(await (await ops('/readyz')).json()).to.have.deep.property('missing', {
        process: 'shutting down',
      });
      const late = connect({ 'grpc.use_local_subchannel_pool': 1 });
      expect(await rejectionOf(echo(late, 'late'))).to.have.property('code', status.UNAVAILABLE);
      finish('done');
      expect(await underWay).to.equal('done');
      await stopped;
      expect(lines.join('')).to.not.include('cutting');
      await rejectionOf(ops('/livez'));
    });

    it('cuts a call that does not end within the drain time', async () => {
      const { host, echo: service, connect, lines } = await run({ drainMs: 100 });
      let failed: Promise<unknown> = Promise.resolve();
      await new Promise<void>((entered) => {
        service.handle = () => {
          entered();
          return new Promise(() => {});
        };
        failed = rejectionOf(echo(connect(), 'x'));
      });
      await host.stop();
      expect(await failed)
        .to.have.property('code')
        .that.is.oneOf([status.CANCELLED, status.UNAVAILABLE]);
      expect(lines.join('')).to.include('cutting the calls');
    });

    it('happens once, however often it is called', async () => {
      const { host } = await run();
      const first = host.stop();
      expect(host.stop()).to.equal(first);
      await first;
    });
  });
});
