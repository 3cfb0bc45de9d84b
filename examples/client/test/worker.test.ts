import { strict as assert } from 'node:assert';
import { principalOf } from '@portcullis/guard';
import { authenticate, createTokenSource } from '@portcullis/guard/client';
import { createTestKit, type Persona, type Served, type TestKit } from '@portcullis/guard/testing';
import { GreeterServiceClient, GreeterServiceService, protoMetadata } from '../gen/greeter/v1/greeter.js';
import { greetAll } from '../src/worker.js';

describe('the worker', () => {
  let kit: TestKit;
  let served: Served;

  beforeEach(async () => {
    kit = await createTestKit({ audience: 'greeter' });
    served = await kit.serve((server, guard) =>
      guard.addService(server, GreeterServiceService, protoMetadata, {
        sayHello: ({ name }, call) => ({ text: `Hello ${name}, from ${principalOf(call).id}.` }),
        async *watchGreetings() {},
      }),
    );
  });
  afterEach(() => kit.close());

  /** A client whose tokens come from a source, as in production; here the kit's issuer makes them. */
  const clientOf = (worker: Persona): GreeterServiceClient => {
    const source = createTokenSource(async () => {
      const token = worker.renew();
      return { token, expireTimeMs: Number(worker.payload['exp']) * 1000 };
    });
    return served.client(GreeterServiceClient, undefined, { interceptors: [authenticate(source)] });
  };

  it('greets as itself, and gets a new token when its token was revoked', async () => {
    const worker = kit.service('worker', { scopes: ['greeter.call'] });
    const greeter = clientOf(worker);
    assert.deepEqual(await greetAll(greeter, ['Ada', 'Bob']), [
      'Hello Ada, from worker.',
      'Hello Bob, from worker.',
    ]);
    await kit.revoke({ token: worker });
    assert.deepEqual(await greetAll(greeter, ['Ada', 'Bob']), [
      'refused: TOKEN_REVOKED',
      'Hello Bob, from worker.',
    ]);
  });

  it('reports a refusal by its reason', async () => {
    assert.deepEqual(await greetAll(clientOf(kit.service('worker')), ['Ada']), ['refused: SCOPE_MISSING']);
  });
});
