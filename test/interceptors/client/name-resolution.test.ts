/** A peer whose name leads to other addresses than before, with real servers and connections. */

import dns from 'node:dns';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { unary } from '@portcullis/guard';
import { channelOptionsFor } from '@portcullis/guard/client';
import { expect } from 'chai';
import { parseEnvironment, serverTarget } from '../../../services/common/config/env.js';
import { until } from '../../support/waiting.js';

const NAME = 'auth.portcullis.test';
const PATH = '/test.v1.WhereService/Where';
const text = {
  requestSerialize: (value: string) => Buffer.from(value),
  requestDeserialize: (bytes: Buffer) => bytes.toString(),
  responseSerialize: (value: string) => Buffer.from(value),
  responseDeserialize: (bytes: Buffer) => bytes.toString(),
};
const WhereService = { where: { path: PATH, requestStream: false, responseStream: false, ...text } };

describe('a channel to a name', function () {
  this.timeout(180_000);
  const { lookup } = dns.promises;
  const servers = new Map<string, Server>();
  let addresses: string[] = [];
  let port = 0;
  let client: Client | undefined;

  // This machine has no name server that a test could change; grpc-js asks through this function.
  before(() => {
    const resolve = async (name: string): Promise<dns.LookupAddress[]> => {
      if (name !== NAME) throw new Error(`unexpected name ${name}`);
      return addresses.map((address) => ({ address, family: 4 }));
    };
    Object.assign(dns.promises, { lookup: resolve });
  });
  after(() => void Object.assign(dns.promises, { lookup }));
  afterEach(() => {
    client?.close();
    for (const server of servers.values()) server.forceShutdown();
    servers.clear();
    port = 0;
  });

  /** A server that answers with its own address. */
  async function serve(address: string): Promise<void> {
    const server = new Server();
    server.addService(WhereService, { where: unary(() => address) });
    port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${address}:${port}`, ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    servers.set(address, server);
  }
  function connect(address = `dns:///${NAME}:${port}`): void {
    const insecure = credentials.createInsecure();
    client = new Client(
      address,
      insecure,
      channelOptionsFor({ address, credentials: insecure, plaintext: 'allow' }),
    );
  }
  function ask(): Promise<string | undefined> {
    const { where } = WhereService;
    return new Promise((resolve) => {
      const deadline = Date.now() + 5_000;
      client?.makeUnaryRequest(
        PATH,
        where.requestSerialize,
        where.responseDeserialize,
        'where',
        { deadline },
        (_, answer) => resolve(answer),
      );
    });
  }

  it('reaches the new address of a peer that has moved, long before grpc-js would ask DNS again', async () => {
    await serve('127.0.0.1');
    addresses = ['127.0.0.1'];
    connect();
    expect(await ask()).to.equal('127.0.0.1');
    await serve('127.0.0.2');
    addresses = ['127.0.0.2'];
    servers.get('127.0.0.1')?.forceShutdown();
    await until(async () => (await ask()) === '127.0.0.2');
  });

  it('uses all addresses of a list in a service configuration, and goes on with the others when one is gone', async () => {
    await serve('127.0.0.1');
    await serve('127.0.0.2');
    const shape = { PORTCULLIS_AUTH_ADDRESS: serverTarget() };
    const given = { PORTCULLIS_AUTH_ADDRESS: `127.0.0.1:${port}, 127.0.0.2:${port}` };
    connect(parseEnvironment(shape, given).PORTCULLIS_AUTH_ADDRESS.target);
    const seen = new Set<string | undefined>();
    await until(async () => {
      seen.add(await ask());
      return seen.has('127.0.0.1') && seen.has('127.0.0.2');
    });
    servers.get('127.0.0.1')?.forceShutdown();
    await until(async () => (await ask()) === '127.0.0.2' && (await ask()) === '127.0.0.2');
  });

  it('uses all addresses of the name, and goes on with the others when one is gone', async () => {
    await serve('127.0.0.1');
    await serve('127.0.0.2');
    addresses = ['127.0.0.1', '127.0.0.2'];
    connect();
    const seen = new Set<string | undefined>();
    await until(async () => {
      seen.add(await ask());
      return seen.has('127.0.0.1') && seen.has('127.0.0.2');
    });
    servers.get('127.0.0.1')?.forceShutdown();
    await until(async () => (await ask()) === '127.0.0.2' && (await ask()) === '127.0.0.2');
  });
});
