import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { errorOf } from '@portcullis/guard/client';
import { createTestKit, type Served, type TestKit } from '@portcullis/guard/testing';
import { GreeterServiceClient, GreeterServiceService, protoMetadata } from '../gen/greeter/v1/greeter.js';
import { handlers } from '../src/service.js';

describe('the greeter', () => {
  let kit: TestKit;
  let served: Served;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'greeter' });
    served = await kit.serve((server, guard) =>
      guard.addService(server, GreeterServiceService, protoMetadata, handlers),
    );
  });
  afterEach(() => kit.close());

  const sayHello = (client: GreeterServiceClient): Promise<string> =>
    promisify((name: string, done: (error: Error | null, text: string) => void) =>
      client.sayHello({ name }, (error, response) => done(error, response?.text)),
    )('Ada');

  const reasonOf = (call: Promise<unknown>): Promise<string> =>
    call.then(
      () => 'ADMITTED',
      (error: unknown) => errorOf(error).reason,
    );

  it('greets who has the scope', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    const text = await sayHello(served.client(GreeterServiceClient, ada));
    assert.equal(text, `Hello Ada, you are ${ada.id}.`);
  });

  it('refuses every other caller', async () => {
    const callers = {
      ada: kit.user({ scopes: ['greeter.call'] }),
      bob: kit.user({ scopes: ['other.call'] }),
      worker: kit.service('worker', { scopes: ['greeter.call'] }),
    };
    assert.deepEqual(await kit.matrix(callers), {
      '/greeter.v1.GreeterService/SayHello': { ada: 'ADMITTED', bob: 'SCOPE_MISSING', worker: 'ADMITTED' },
      '/greeter.v1.GreeterService/WatchGreetings': {
        ada: 'ADMITTED',
        bob: 'SCOPE_MISSING',
        worker: 'ADMITTED',
      },
    });
    for (const token of Object.values(kit.badTokens(callers.ada))) {
      assert.match(await reasonOf(sayHello(served.client(GreeterServiceClient, token))), /^TOKEN_/);
    }
  });

  it('ends a stream, and refuses calls, when the session is revoked', async () => {
    const ada = kit.user({ scopes: ['greeter.call'] });
    const client = served.client(GreeterServiceClient, ada);
    const greetings = client.watchGreetings({});
    await once(greetings, 'data');
    const ended = once(greetings, 'error');
    await kit.revoke({ session: ada });
    assert.equal(errorOf((await ended)[0]).reason, 'TOKEN_REVOKED');
    assert.equal(await reasonOf(sayHello(client)), 'TOKEN_REVOKED');
  });
});
