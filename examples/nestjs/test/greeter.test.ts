import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { createServer } from 'node:net';
import {
  credentials,
  type GrpcObject,
  loadPackageDefinition,
  Metadata,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { INestMicroservice } from '@nestjs/common';
import { errorOf } from '@portcullis/guard/client';
import { createTestKit, type TestKit } from '@portcullis/guard/testing';
import { createApp, SCHEMA } from '../src/app.js';

describe('a greeter of NestJS', () => {
  let kit: TestKit;
  let app: INestMicroservice;
  let client: InstanceType<ServiceClientConstructor>;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'greeter' });
    const url = `127.0.0.1:${await freePort()}`;
    app = await createApp(kit.guard, url);
    await app.listen();
    const loaded = loadPackageDefinition(loadSync(SCHEMA.protoPath, SCHEMA.loader));
    const { GreeterService } = (loaded['greeter'] as GrpcObject)['v1'] as GrpcObject;
    client = new (GreeterService as ServiceClientConstructor)(url, credentials.createInsecure());
  });

  afterEach(async () => {
    client.close();
    await app.close();
    await kit.close();
  });

  const sayHello = (name: string, metadata: Metadata = new Metadata()): Promise<unknown> =>
    new Promise((resolve, reject) => {
      client['sayHello']?.({ name }, metadata, (error: Error | null, response: unknown) =>
        error === null ? resolve(response) : reject(error),
      );
    });

  const reasonOf = (call: Promise<unknown>): Promise<string> =>
    call.then(
      () => 'ADMITTED',
      (error: unknown) => errorOf(error).reason,
    );

  it('greets who has the scope, and refuses others', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    assert.deepEqual(await sayHello('Ada', ada.metadata()), { text: `Hello Ada, you are ${ada.id}.` });
    assert.equal(await reasonOf(sayHello('Bob')), 'TOKEN_MISSING');
    assert.equal(await reasonOf(sayHello('Bob', kit.user().metadata())), 'SCOPE_MISSING');
  });

  it('ends a stream when the session is revoked', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    const greetings = client['watchGreetings']?.({}, ada.metadata());
    await once(greetings, 'data');
    const ended = once(greetings, 'error');
    await kit.revoke({ session: ada });
    assert.equal(errorOf((await ended)[0]).reason, 'TOKEN_REVOKED');
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  assert.ok(typeof address === 'object' && address !== null);
  return address.port;
}
