/** A change of the policy in real processes: what a role loses leaves tokens and open streams on every instance. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { expect } from 'chai';
import { type Policy, PolicyServiceClient } from '../../proto/gen/auth/v1/policy_service.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import { endOf, outcomeOf } from '../support/outcomes.js';
import {
  clientsOf,
  LEASE_MS,
  type SystemClients,
  startTestSystem,
  type TestSystem,
} from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
/** The enforcement bound: the lease, one percent for the drift of clocks, and 100 ms. */
const BOUND_MS = LEASE_MS * 1.01 + 100;
/** The delay that a busy machine may add, in milliseconds. */
const MARGIN_MS = 5_000;
const SKU = 'LAMP-01';
const PAGE = { pageSize: 10, pageToken: '', filter: '' };

describe('the policy, in processes', function () {
  this.timeout(START_TIMEOUT_MS);
  let system: TestSystem;
  let clients: SystemClients;
  let policies: PolicyServiceClient;

  before(async () => {
    system = await startTestSystem();
    clients = clientsOf(system);
    policies = new PolicyServiceClient(system.auth.address, system.credentials);
  });
  after(async () => {
    policies?.close();
    clients?.close();
    await system?.remove();
  });

  const withoutReading = (policy: Policy): Policy => ({
    ...policy,
    roles: policy.roles.map((role) =>
      role.role === 'customer'
        ? { ...role, scopes: role.scopes.filter((scope) => scope !== 'inventory.read') }
        : role,
    ),
  });

  it('ends the streams of users whose role has lost their scope, within the bound, and of no others', async () => {
    const [alice, olga] = [await clients.logIn('alice'), await clients.logIn('olga')];
    const watch = async (token: string) => {
      const streams = clients.inventory.map((client) =>
        client.watchStock({ skus: [SKU], resumeToken: '' }, tokenMetadata({ token })),
      );
      await Promise.all(streams.map((stream) => once(stream, 'data')));
      return { streams, ends: streams.map(endOf) };
    };
    const watched = { alice: await watch(alice.accessToken), olga: await watch(olga.accessToken) };
    let hasOlgaEnded = false;
    for (const end of watched.olga.ends) {
      void end.then(() => {
        hasOlgaEnded = true;
      });
    }
    const { policy } = await ask(policies.getPolicy.bind(policies), {}, { token: olga.accessToken });
    if (policy === undefined) throw new Error('there is no policy');
    const request = {
      policy: withoutReading(policy),
      dryRun: false,
      requestId: randomUUID(),
      reason: 'test',
    };
    const applied = await ask(policies.applyPolicy.bind(policies), request, { token: olga.accessToken });
    const returnedAt = performance.now();
    // The start of the system has logged others in.
    expect(applied.narrowedUsers >= 1n).to.equal(true);
    expect(await Promise.all(watched.alice.ends)).to.deep.equal([
      'UNAUTHENTICATED TOKEN_REVOKED',
      'UNAUTHENTICATED TOKEN_REVOKED',
    ]);
    expect(performance.now() - returnedAt).to.be.below(BOUND_MS + MARGIN_MS);
    expect(hasOlgaEnded).to.equal(false);
    for (const stream of watched.olga.streams) stream.cancel();
    await Promise.all(watched.olga.ends);

    const refreshed = await ask(clients.auth.refresh.bind(clients.auth), {
      refreshToken: alice.refreshToken,
      requestId: randomUUID(),
    });
    expect(refreshed.scopes).to.not.include('inventory.read');
    for (const client of clients.inventory) {
      const list = ask(client.listItems.bind(client), PAGE, { token: refreshed.accessToken });
      expect(await outcomeOf(list)).to.equal('PERMISSION_DENIED SCOPE_MISSING');
    }
    await ask(
      policies.applyPolicy.bind(policies),
      { ...request, policy: { ...policy, etag: '' }, requestId: randomUUID() },
      { token: olga.accessToken },
    );
    const { accessToken: token } = await clients.logIn('alice');
    for (const client of clients.inventory) {
      expect(await outcomeOf(ask(client.listItems.bind(client), PAGE, { token }))).to.equal('OK');
    }
  });

  it('tells an administrator whose own token the change revokes to repeat the request, which then has the receipt', async () => {
    const olga = await clients.logIn('olga');
    const { policy } = await ask(policies.getPolicy.bind(policies), {}, { token: olga.accessToken });
    if (policy === undefined) throw new Error('there is no policy');
    const roles = policy.roles.map((role) => ({
      ...role,
      scopes: role.scopes.filter((scope) => scope !== 'auth.keys.write'),
    }));
    const request = { policy: { ...policy, roles }, dryRun: false, requestId: randomUUID(), reason: '' };
    const first = await outcomeOf(
      ask(policies.applyPolicy.bind(policies), request, { token: olga.accessToken }),
    );
    expect(['OK', 'UNAUTHENTICATED TOKEN_REVOKED']).to.include(first);
    const refreshed = await ask(clients.auth.refresh.bind(clients.auth), {
      refreshToken: olga.refreshToken,
      requestId: randomUUID(),
    });
    const again = await ask(policies.applyPolicy.bind(policies), request, { token: refreshed.accessToken });
    expect(again.narrowedUsers >= 1n).to.equal(true);
    expect(again.enforcedEverywhereBy).to.be.instanceOf(Date);
  });
});
