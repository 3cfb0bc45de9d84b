/** Connections of a process to its own gRPC server on behalf of others. */

import diagnostics from 'node:diagnostics_channel';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect, createServer, Server as NetServer, Socket } from 'node:net';
import { Server, type ServiceDefinition } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  createLocalConnections,
  type LocalConnections,
} from '../../../../services/common/host/local-connections.js';

const METHOD = {
  path: '/test.Test/WhoAmI',
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: Buffer) => value,
  requestDeserialize: (bytes: Buffer) => bytes,
  responseSerialize: (value: Buffer) => value,
  responseDeserialize: (bytes: Buffer) => bytes,
};

describe('local connections', () => {
  let server: Server;
  let local: LocalConnections;

  beforeEach(() => {
    server = new Server();
    const definition: ServiceDefinition = { whoAmI: METHOD };
    server.addService(definition, {
      whoAmI: (call: { getPeer(): string }, callback: (error: null, response: Buffer) => void) =>
        callback(null, Buffer.from(call.getPeer())),
    });
    local = createLocalConnections(server);
  });

  afterEach(() => {
    local.close();
    server.forceShutdown();
  });

  const peerOf = async (peerAddress: string): Promise<string> => {
    const socket = await local.connect(peerAddress);
    const session = connectHttp2('http://test.invalid', { createConnection: () => socket });
    try {
      return await new Promise((resolve, reject) => {
        const stream = session.request({
          ':method': 'POST',
          ':path': METHOD.path,
          'content-type': 'application/grpc',
          te: 'trailers',
        });
        let text = '';
        stream.on('data', (chunk: Buffer) => {
          text += chunk.toString();
        });
        stream.once('end', () => resolve(text.slice(5)));
        stream.once('error', reject);
        stream.end(Buffer.alloc(5));
      });
    } finally {
      session.destroy();
    }
  };

  it('show the server the address on whose behalf they were opened', async () => {
    expect(await peerOf('203.0.113.7')).to.match(/^203\.0\.113\.7:\d+$/);
    expect(await Promise.all(['203.0.113.8', '2001:db8::1'].map(peerOf))).to.satisfy(
      ([one = '', two = '']: string[]) => one.startsWith('203.0.113.8:') && two.startsWith('2001:db8::1:'),
    );
  });

  it('serve no connection of another program from another loopback address and the same port', async () => {
    for (let trial = 0; trial < TRIALS; trial += 1) {
      let stranger: Socket | undefined;
      const received: Buffer[] = [];
      const stop = onNextClient(async (client, listenerPort) => {
        const localPort = await freePort();
        stranger = connect({ host: '127.0.0.1', port: listenerPort, localAddress: '127.0.0.2', localPort });
        stranger.on('data', (chunk) => received.push(chunk)).on('error', () => {});
        await once(stranger, 'connect');
        stranger.write(`PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${'\0'.repeat(32)}`);
        Reflect.apply(Socket.prototype.connect, client, [
          { host: '127.0.0.1', port: listenerPort, localPort },
        ]);
      });
      try {
        expect(await peerOf('203.0.113.7')).to.match(/^203\.0\.113\.7:\d+$/);
      } finally {
        stop();
      }
      if (stranger?.closed === false) await once(stranger, 'close');
      expect(Buffer.concat(received).toString('hex')).to.equal('');
    }
  });

  it('leave no port open', async () => {
    const socket = await local.connect('203.0.113.7');
    const { remotePort = 0 } = socket;
    const stranger = connect({ host: '127.0.0.1', port: remotePort });
    const [error] = await once(stranger, 'error');
    expect(error).to.have.property('code', 'ECONNREFUSED');
    socket.destroy();
  });

  it('can be opened again after a port could not be opened', async () => {
    const { listen } = NetServer.prototype;
    NetServer.prototype.listen = function refuse(this: NetServer): NetServer {
      process.nextTick(() => this.emit('error', new Error('EMFILE')));
      return this;
    };
    try {
      expect(await errorOf(local.connect('203.0.113.7'))).to.equal('EMFILE');
    } finally {
      NetServer.prototype.listen = listen;
    }
    expect(await peerOf('203.0.113.7')).to.match(/^203\.0\.113\.7:\d+$/);
  });

  it('close their own end when the server does not accept the other one', async () => {
    let own: Socket | undefined;
    const stop = onNextClient((client, port) => {
      own = client;
      Reflect.apply(Socket.prototype.connect, client, [{ host: '127.0.0.1', port }]);
      // Connecting would restore the method.
      client.write = () => true;
    });
    try {
      expect(await errorOf(local.connect('203.0.113.7'))).to.match(/not accepted in time/);
    } finally {
      stop();
    }
    expect(own?.destroyed).to.equal(true);
  });

  it('cannot be opened once they are closed', async () => {
    const open = await local.connect('203.0.113.7');
    const opening = errorOf(local.connect('203.0.113.7'));
    local.close();
    expect(open.destroyed).to.equal(true);
    expect(await opening).to.match(/is closed/);
  });
});

/** How often the attempt of another program is made. */
const TRIALS = 10;

async function errorOf(opening: Promise<Socket>): Promise<string> {
  return await opening.then(
    () => '',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

/** Passes the next client socket of this process to `take`, which connects it. @returns what ends the wait */
function onNextClient(take: (client: Socket, port: number) => void | Promise<void>): () => void {
  const stop = (): void => void diagnostics.unsubscribe('net.client.socket', onSocket);
  const onSocket = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    stop();
    Reflect.set(socket, 'connect', ([options]: readonly [{ readonly port: number }]) => {
      void take(socket, options.port);
      return socket;
    });
  };
  diagnostics.subscribe('net.client.socket', onSocket);
  return stop;
}

/** A port that no socket of this machine uses. */
async function freePort(): Promise<number> {
  const server = createServer().listen({ host: '0.0.0.0', port: 0 });
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}
