/** The console's calls to the service of its process, as the console closes. */

import { once } from 'node:events';
import { Server, type ServiceDefinition } from '@grpc/grpc-js';
import { expect } from 'chai';
import { CallError, type Calls, createCalls } from '../../../../services/auth/console/calls.js';
import {
  createLocalConnections,
  type LocalConnections,
} from '../../../../services/common/host/local-connections.js';

const METHOD = {
  path: '/test.Test/Wait',
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: Buffer) => value,
  requestDeserialize: (bytes: Buffer) => bytes,
  responseSerialize: (value: Buffer) => value,
  responseDeserialize: (bytes: Buffer) => bytes.toString(),
};

describe('calls of the console', () => {
  let server: Server;
  let local: LocalConnections;

  beforeEach(() => {
    server = new Server();
    local = createLocalConnections(server);
  });

  afterEach(() => {
    local.close();
    server.forceShutdown();
  });

  it('under way receive their response when the console closes, and then the connection ends', async () => {
    let answer = (): void => {};
    let arrived = (): void => {};
    const arrival = new Promise<void>((resolve) => {
      arrived = resolve;
    });
    const definition: ServiceDefinition = { wait: METHOD };
    server.addService(definition, {
      wait: (_: unknown, callback: (error: null, response: Buffer) => void) => {
        answer = () => callback(null, Buffer.from('revoked'));
        arrived();
      },
    });
    let ended: Promise<unknown> | undefined;
    const calls = createCalls({
      connect: async (peer) => {
        const socket = await local.connect(peer);
        ended = once(socket, 'close');
        return socket;
      },
    });
    const response = calls.call(METHOD, Buffer.alloc(0), { peer: '203.0.113.7' });
    await arrival;
    calls.close();
    // The close has taken effect before the service responds.
    await new Promise(setImmediate);
    answer();
    expect(await response).to.equal('revoked');
    await ended;
  });

  it('fail as calls do when their connection has closed as it opened', async () => {
    const calls: Calls = createCalls({
      connect: async (peer) => {
        const socket = await local.connect(peer);
        queueMicrotask(() => calls.close());
        return socket;
      },
    });
    const failure = await calls
      .call(METHOD, Buffer.alloc(0), { peer: '203.0.113.7' })
      .catch((error) => error);
    expect(failure).to.be.instanceOf(CallError);
  });
});
