import { strict as assert } from 'node:assert';
import { createTestKit, type Persona, type TestKit } from '@portcullis/guard/testing';
import { type Client, createChannel, createClient, Metadata, type Server } from 'nice-grpc';
import { GreeterServiceDefinition } from '../gen/greeter/v1/greeter.js';
import { createGreeter } from '../src/server.js';

describe('a greeter of nice-grpc', () => {
  let kit: TestKit;
  let server: Server;
  let client: Client<GreeterServiceDefinition>;
  let channel: ReturnType<typeof createChannel>;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'greeter', callContext: true });
    server = createGreeter(kit.guard);
    const port = await server.listen('127.0.0.1:0');
    channel = createChannel(`127.0.0.1:${port}`);
    client = createClient(GreeterServiceDefinition, channel);
  });

  afterEach(async () => {
    channel.close();
    await server.forceShutdown();
    await kit.close();
  });

  const as = ({ token }: Persona) => ({ metadata: Metadata({ authorization: `Bearer ${token}` }) });

  it('greets who has the scope, and refuses others', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    assert.deepEqual(await client.sayHello({ name: 'Ada' }, as(ada)), {
      text: `Hello Ada, you are ${ada.id}.`,
    });
    await assert.rejects(client.sayHello({ name: 'Bob' }), /UNAUTHENTICATED/);
    await assert.rejects(client.sayHello({ name: 'Bob' }, as(kit.user())), /PERMISSION_DENIED/);
  });

  it('ends a stream when the session is revoked', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    const greetings = client.watchGreetings({}, as(ada))[Symbol.asyncIterator]();
    await greetings.next();
    await kit.revoke({ session: ada });
    await assert.rejects(async () => {
      while (!(await greetings.next()).done);
    }, /UNAUTHENTICATED/);
  });
});
