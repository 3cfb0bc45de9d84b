/** Handlers as plain functions, and methods whose server belongs to a framework. */

import { createRequire } from 'node:module';
import type * as grpc from '@grpc/grpc-js';
import { Client, credentials, type Metadata, Server, ServerCredentials, status } from '@grpc/grpc-js';
import {
  codeRules,
  createGuard,
  currentCall,
  declareErrors,
  type Guard,
  type GuardOptions,
  principalOf,
  type ServiceHandlers,
  unary,
} from '@portcullis/guard';
import { errorOf } from '@portcullis/guard/client';
import { expect } from 'chai';
import { encodeField } from '../../../proofs/shared/hpack.js';
import { createPeer, EMPTY_MESSAGE, headersOf } from '../../../proofs/shared/wire.js';
import { bearer, callEcho, identity } from '../../support/echo.js';
import { AUDIENCE, ISSUER, TestIssuer } from '../../support/issuer.js';

function method<RequestStream extends boolean, ResponseStream extends boolean>(
  name: string,
  requestStream: RequestStream,
  responseStream: ResponseStream,
) {
  return {
    path: `/test.v1.EchoService/${name}`,
    requestStream,
    responseStream,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** As ts-proto generates it. */
const SERVICE = {
  Unary: method('Unary', false, false),
  ServerStream: method('ServerStream', false, true),
  ClientStream: method('ClientStream', true, false),
  Bidi: method('Bidi', true, true),
};

const RULES = codeRules(SERVICE, {
  Unary: { scopes: 'echo.call' },
  ServerStream: { scopes: 'echo.call' },
  ClientStream: { scopes: 'echo.call' },
  Bidi: { scopes: 'echo.call' },
});

/** The service's own reasons. */
const EchoError = declareErrors({ NOTHING_TO_ECHO: 'NOT_FOUND' });

/** Methods of an object may use its other members. */
const HANDLERS: ServiceHandlers<typeof SERVICE> & { prefix: string } = {
  prefix: 'echo ',
  async Unary(this: { prefix: string } | undefined, request) {
    if (request.equals(Buffer.from('refuse'))) throw new EchoError('NOTHING_TO_ECHO', 'no such thing');
    return Buffer.concat([Buffer.from(this?.prefix ?? ''), request]);
  },
  async *ServerStream(request) {
    yield request;
    yield request;
  },
  async ClientStream(requests) {
    const parts: Buffer[] = [];
    for await (const request of requests) parts.push(request);
    return Buffer.concat(parts);
  },
  async *Bidi(requests) {
    for await (const request of requests) yield request;
  },
};

async function listen(server: Server): Promise<Client> {
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return new Client(`127.0.0.1:${port}`, credentials.createInsecure());
}

describe('a service', () => {
  let issuer: TestIssuer;
  let guard: Guard;
  let server: Server;
  let client: Client;
  let metadata: Metadata;

  async function start(
    options: Partial<GuardOptions>,
    add: (server: Server) => void = (to) => guard.addService(to, SERVICE, RULES, HANDLERS),
  ): Promise<void> {
    guard = await createGuard({
      issuer: ISSUER,
      audience: AUDIENCE,
      auth: { source: issuer.source },
      log: 'silent',
      ...options,
    });
    server = new Server({ interceptors: [guard.interceptor] });
    add(server);
    client = await listen(server);
    await guard.ready;
  }

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    metadata = bearer(await issuer.token());
  });

  afterEach(async () => {
    client.close();
    server.forceShutdown();
    await guard.close();
  });

  describe('with handlers as plain functions', () => {
    beforeEach(() => start({}));

    it('answers one request, with an error of its own where the handler throws', async () => {
      expect(String(await callEcho(client, metadata))).to.equal('echo hello');
      const refused = callEcho(client, metadata, { request: Buffer.from('refuse') });
      expect(errorOf(await refused.then(undefined, (error: unknown) => error))).to.include({
        code: status.NOT_FOUND,
        reason: 'NOTHING_TO_ECHO',
      });
    });

    it('answers streams in all directions', async () => {
      const request = Buffer.from('part');
      const path = (name: string): string => `/test.v1.EchoService/${name}`;
      const down = client.makeServerStreamRequest(
        path('ServerStream'),
        identity,
        identity,
        request,
        metadata,
      );
      expect(await partsOf(down)).to.deep.equal(['part', 'part']);
      const up = await new Promise((resolve, reject) => {
        const call = client.makeClientStreamRequest(
          path('ClientStream'),
          identity,
          identity,
          metadata,
          (error, response) => (error === null ? resolve(String(response)) : reject(error)),
        );
        call.write(request);
        call.write(request);
        call.end();
      });
      expect(up).to.equal('partpart');
      const both = client.makeBidiStreamRequest(path('Bidi'), identity, identity, metadata);
      both.write(request);
      both.end();
      expect(await partsOf(both)).to.deep.equal(['part']);
    });

    it('does not compile with a misspelt method, request or response', () => {
      // @ts-expect-error: there is no method of this name.
      const misspelt: ServiceHandlers<typeof SERVICE> = { ...HANDLERS, Unray: HANDLERS.Unary };
      // @ts-expect-error: the response is no text.
      const wrong: ServiceHandlers<typeof SERVICE> = { ...HANDLERS, Unary: async () => 'text' };
      // @ts-expect-error: a stream of responses is an async iterable.
      const single: ServiceHandlers<typeof SERVICE> = { ...HANDLERS, ServerStream: async (one) => one };
      expect([misspelt, wrong, single]).to.have.lengthOf(3);
    });
  });

  describe('of a framework', () => {
    const own = (name: string) => ({
      Unary: unary<Buffer, Buffer>(() => Buffer.from(`${name} ${principalOf(currentCall()).clientId}`)),
    });
    const definition = { Unary: SERVICE.Unary };

    it('is protected by rules alone, and its handlers find their call', async () => {
      await start({ callContext: true }, (to) => {
        guard.protect(RULES);
        to.addService(definition, own('for'));
      });
      expect(String(await callEcho(client, metadata))).to.equal('for direct');
      const refused = await callEcho(client).then(undefined, (error: unknown) => error);
      expect(errorOf(refused).reason).to.equal('TOKEN_MISSING');
    });

    it('sees every authorization header, from the first call on', async () => {
      await start({}, (to) => {
        guard.protect(RULES);
        to.addService(definition, {
          Unary: unary<Buffer, Buffer>((_request, call) => Buffer.from(principalOf(call).clientId)),
        });
      });
      const good = String(metadata.get('authorization')[0]);
      const peer = createPeer(client.getChannel().getTarget().replace('dns:', ''));
      const answerTo = (...values: readonly string[]) =>
        peer.send({
          block: Buffer.concat([
            headersOf(SERVICE.Unary.path),
            ...values.map((value) => encodeField('authorization', value)),
          ]),
          body: EMPTY_MESSAGE,
        });
      try {
        expect((await answerTo(good, 'Bearer x')).status).to.equal(status.UNAUTHENTICATED);
        expect((await answerTo(good)).status).to.equal(status.OK);
        expect((await answerTo('Bearer x', good)).status).to.equal(status.UNAUTHENTICATED);
      } finally {
        peer.close();
      }
    });

    it('stays closed where a method has no rule', async () => {
      await start({}, (to) => to.addService(definition, own('for')));
      const refused = await callEcho(client, metadata).then(undefined, (error: unknown) => error);
      expect(errorOf(refused).reason).to.equal('NOT_FOUND');
    });

    it('cannot have two rules for one method', async () => {
      await start({}, (to) => {
        guard.protect(RULES);
        guard.protect(RULES);
        const open = codeRules(definition, { Unary: 'public' });
        const sentence = `${SERVICE.Unary.path} was added to this guard before, with another rule`;
        expect(() => guard.protect(open)).to.throw(TypeError, sentence);
        to.addService(definition, own('for'));
      });
      const refused = await callEcho(client).then(undefined, (error: unknown) => error);
      expect(errorOf(refused).reason).to.equal('TOKEN_MISSING');
    });

    it('has no call at hand when the guard keeps no context', async () => {
      await start({}, (to) => {
        guard.protect(RULES, [SERVICE.Unary.path]);
        to.addService(definition, own('for'));
      });
      const failed = await callEcho(client, metadata).then(undefined, (error: unknown) => error);
      expect(errorOf(failed).code).to.equal(status.INTERNAL);
      expect(() => currentCall()).to.throw(TypeError, 'callContext: true');
    });
  });

  describe('of another copy of grpc-js', () => {
    it('is refused with a sentence, and so are its credentials', async () => {
      await start({});
      const require = createRequire(import.meta.url);
      const loaded = Object.keys(require.cache).filter((file) => file.includes('@grpc/grpc-js'));
      for (const file of loaded) delete require.cache[file];
      const other = require('@grpc/grpc-js') as typeof grpc;
      expect(other.Server).not.to.equal(Server);
      expect(() => guard.addService(new other.Server() as Server, SERVICE, RULES, HANDLERS)).to.throw(
        TypeError,
        'the server comes from another copy of @grpc/grpc-js',
      );
      const remote = createGuard({
        log: 'silent',
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: {
          address: 'localhost:1',
          credentials: other.credentials.createInsecure() as ReturnType<typeof credentials.createInsecure>,
          clientId: AUDIENCE,
          clientKey: '',
        },
      });
      const error = await remote.then(undefined, (failure: unknown) => failure);
      expect(error).to.be.an.instanceOf(TypeError);
      expect(String(error)).to.include('the channel credentials come from another copy of @grpc/grpc-js');
    });
  });
});

async function partsOf(responses: AsyncIterable<unknown>): Promise<string[]> {
  const parts: string[] = [];
  for await (const response of responses) parts.push(String(response));
  return parts;
}
