/** Connections of a process to its own gRPC server on behalf of others. */

import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
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

  afterEach(async () => {
    await local.close();
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

  it('end a connection that another program has opened to the port', async () => {
    const socket = await local.connect('203.0.113.7');
    const { remotePort = 0 } = socket;
    const stranger = connect({ host: '127.0.0.1', port: remotePort });
    const received: Buffer[] = [];
    stranger.on('data', (chunk) => received.push(chunk));
    stranger.on('error', () => {});
    stranger.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    await new Promise((resolve) => stranger.once('close', resolve));
    expect(received).to.be.empty;
    socket.destroy();
  });
});
