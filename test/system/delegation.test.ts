/** The chain alice → payment → inventory in real processes: actors, narrowed rights, and revocation of each link. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServiceTokenSource, type ServiceTokenSource } from '@portcullis/guard/client';
import { expect } from 'chai';
import { decodeJwt } from 'jose';
import type { LoginResponse } from '../../proto/gen/auth/v1/auth_service.js';
import { PaymentState } from '../../proto/gen/payment/v1/payment_service.js';
import { type RevokeRequest, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
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
const REVOKED = 'UNAUTHENTICATED TOKEN_REVOKED';

describe('acting for a user, in processes', function () {
  this.timeout(START_TIMEOUT_MS);
  let system: TestSystem;
  let clients: SystemClients;
  let payment: ServiceTokenSource;

  before(async () => {
    system = await startTestSystem();
    clients = clientsOf(system);
    payment = createServiceTokenSource({
      address: system.auth.address,
      credentials: system.credentials,
      clientId: 'payment',
      clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
      issuer: system.issuer,
    });
  });
  after(async () => {
    payment?.close();
    clients?.close();
    await system?.remove();
  });

  const exchange = async (
    subjectToken: string,
    { audience = 'inventory', scopes = ['inventory.read'] }: { audience?: string; scopes?: string[] } = {},
  ): Promise<string> => {
    const request = { subjectToken, audience, scopes };
    const token = await payment.get();
    const exchangeToken = clients.auth.exchangeToken.bind(clients.auth);
    return (await ask(exchangeToken, request, { token })).accessToken;
  };

  const inventoriesOf = (token: string): Promise<string[]> =>
    Promise.all(
      clients.inventory.map((client) => outcomeOf(ask(client.listItems.bind(client), PAGE, { token }))),
    );

  const watch = async (token: string): Promise<Promise<string>[]> => {
    const streams = clients.inventory.map((client) =>
      client.watchStock({ skus: [SKU], resumeToken: '' }, tokenMetadata({ token })),
    );
    await Promise.all(streams.map((stream) => once(stream, 'data')));
    return streams.map(endOf);
  };

  it('names the actor and every token and client of the chain, and expires no later than its parent', async () => {
    const alice = await clients.logIn('alice');
    const parent = decodeJwt(alice.accessToken);
    const claims = decodeJwt(await exchange(alice.accessToken));
    expect(claims).to.deep.include({
      sub: parent.sub,
      sid: parent['sid'],
      client_id: 'payment',
      act: { sub: 'payment' },
      ancestors: [parent.jti],
      aud: ['inventory'],
      scope: 'inventory.read',
    });
    expect((claims['clients'] as [string, number][]).map(([id]) => id)).to.deep.equal(['direct', 'payment']);
    expect(claims.exp).to.be.at.most(parent.exp ?? 0);
  });

  it('is rejected for a wider audience or wider scopes, for a token of another caller and for a service token', async () => {
    const { accessToken: alice } = await clients.logIn('alice');
    const { accessToken: olga } = await clients.logIn('olga');
    const acted = await exchange(alice);
    const own = await payment.get();
    const refusals: [string, () => Promise<string>][] = [
      ['PERMISSION_DENIED AUDIENCE_NOT_ALLOWED', () => exchange(alice, { audience: 'auth' })],
      ['PERMISSION_DENIED AUDIENCE_NOT_ALLOWED', () => exchange(alice, { audience: 'payment' })],
      ['PERMISSION_DENIED SCOPE_MISSING', () => exchange(alice, { scopes: ['inventory.manage'] })],
      [
        'PERMISSION_DENIED SCOPE_MISSING',
        () => exchange(alice, { scopes: ['inventory.read', 'auth.revoke'] }),
      ],
      // Olga has the scope, but payment may not obtain it for any user.
      ['PERMISSION_DENIED SCOPE_MISSING', () => exchange(olga, { scopes: ['inventory.manage'] })],
      ['INVALID_ARGUMENT SUBJECT_TOKEN_INVALID', () => exchange(own)],
      ['INVALID_ARGUMENT SUBJECT_TOKEN_INVALID', () => exchange(acted)],
      ['INVALID_ARGUMENT SUBJECT_TOKEN_INVALID', () => exchange(`${alice.slice(0, -6)}AAAAAA`)],
      ['INVALID_ARGUMENT SUBJECT_TOKEN_INVALID', () => exchange('not.a.token')],
    ];
    for (const [expected, attempt] of refusals) expect(await outcomeOf(attempt())).to.equal(expected);
    const [one] = clients.inventory;
    const reserve = { lines: [{ sku: SKU, quantity: 1n }], timeToLive: undefined, requestId: randomUUID() };
    expect(await outcomeOf(ask(one.reserveStock.bind(one), reserve, { token: acted }))).to.equal(
      'PERMISSION_DENIED SCOPE_MISSING',
    );
    // Its only audience is inventory.
    const { auth, payment: payments } = clients;
    for (const answer of [
      ask(auth.listSessions.bind(auth), PAGE, { token: acted }),
      ask(payments.listPayments.bind(payments), PAGE, { token: acted }),
    ]) {
      expect(await outcomeOf(answer)).to.equal('UNAUTHENTICATED TOKEN_INVALID');
    }
  });

  it('has no role whose scopes it lost: a narrowed operator reads no reservation of another user', async () => {
    const { username, password } = system.users.olga;
    const wanted = { username, password, audiences: [], deviceName: 'test' };
    const logIn = (scopes: string[]) => ask(clients.auth.login.bind(clients.auth), { ...wanted, scopes });
    const [{ accessToken: whole }, { accessToken: narrow }] = [
      await logIn([]),
      await logIn(['inventory.reserve']),
    ];
    const acting = await exchange(whole, { scopes: ['inventory.reserve'] });
    const [one] = clients.inventory;
    const { accessToken: alice } = await clients.logIn('alice');
    const { reservation } = await ask(
      one.reserveStock.bind(one),
      { lines: [{ sku: SKU, quantity: 1n }], timeToLive: undefined, requestId: randomUUID() },
      { token: alice },
    );
    const read = (token: string) => {
      const request = { reservationId: reservation?.reservationId ?? '' };
      return outcomeOf(ask(one.getReservation.bind(one), request, { token }));
    };
    expect(decodeJwt(whole)['roles']).to.include('operator');
    expect(await read(whole)).to.equal('OK');
    for (const token of [narrow, acting]) {
      expect(decodeJwt(token)['roles']).to.deep.equal([]);
      expect(await read(token)).to.equal('NOT_FOUND NOT_FOUND');
    }
  });

  const links: Record<string, (alice: LoginResponse) => RevokeRequest['target']> = {
    'alice’s session': ({ session }) => ({ $case: 'sessionId', value: session?.sessionId ?? '' }),
    alice: ({ accessToken }) => ({ $case: 'userId', value: decodeJwt(accessToken).sub ?? '' }),
    'the client of payment': () => ({ $case: 'clientId', value: 'payment' }),
    'the client with which alice logged in': () => ({ $case: 'clientId', value: 'direct' }),
    'the parent token': ({ accessToken }) => ({ $case: 'token', value: accessToken }),
  };

  async function kill(target: RevokeRequest['target']): Promise<void> {
    const { accessToken: olga } = await clients.logIn('olga');
    const request = {
      target,
      reason: 'test',
      wait: RevokeWait.REVOKE_WAIT_NONE,
      targets: [],
      dryRun: false,
      fences: [],
    };
    const { revocation } = clients;
    // Revoking the client of the logins revokes the token of this call as well, perhaps before its response.
    await ask(revocation.revoke.bind(revocation), request, { token: olga }).catch(() => undefined);
  }

  for (const [link, targetOf] of Object.entries(links)) {
    it(`ends the exchanged token and its streams on every instance when ${link} is revoked`, async () => {
      const alice = await clients.logIn('alice');
      const acting = await exchange(alice.accessToken);
      const bob = await clients.logIn('bob');
      expect(await inventoriesOf(acting)).to.deep.equal(['OK', 'OK']);
      const ends = await watch(acting);

      await kill(targetOf(alice));
      const startedMs = performance.now();
      expect(await Promise.all(ends)).to.deep.equal([REVOKED, REVOKED]);
      expect(performance.now() - startedMs).to.be.below(BOUND_MS + MARGIN_MS);
      expect(await inventoriesOf(acting)).to.deep.equal([REVOKED, REVOKED]);
      if (link === 'the client of payment') {
        // Payment's own token is revoked, too. With a new one, payment can exchange alice's token again.
        expect(await outcomeOf(exchange(alice.accessToken))).to.equal(REVOKED);
        payment.reject(await payment.get());
        await exchange(alice.accessToken);
      } else {
        expect(await outcomeOf(exchange(alice.accessToken))).to.equal(
          'INVALID_ARGUMENT SUBJECT_TOKEN_INVALID',
        );
      }
      if (!link.includes('client')) {
        expect(await inventoriesOf(bob.accessToken)).to.deep.equal(['OK', 'OK']);
      }
    });
  }

  it('continues once payment’s client has authenticated again', async () => {
    const { accessToken: token } = await clients.logIn('alice');
    const request = {
      accountId: system.accounts?.alice ?? '',
      lines: [{ sku: SKU, quantity: 1n }],
      requestId: randomUUID(),
    };
    const checkout = clients.payment.checkout.bind(clients.payment);
    const answer = await ask(checkout, request, { token });
    expect(answer.payment?.state).to.equal(PaymentState.PAYMENT_STATE_CAPTURED);
  });

  it('ends within the bound when the broker is frozen, too', async () => {
    const alice = await clients.logIn('alice');
    const acting = await exchange(alice.accessToken);
    const ends = await watch(acting);
    system.nats?.kill('SIGSTOP');
    try {
      await kill({ $case: 'sessionId', value: alice.session?.sessionId ?? '' });
      const startedMs = performance.now();
      expect(await Promise.all(ends)).to.deep.equal([REVOKED, REVOKED]);
      expect(performance.now() - startedMs).to.be.below(BOUND_MS + MARGIN_MS);
      expect(await inventoriesOf(acting)).to.deep.equal([REVOKED, REVOKED]);
    } finally {
      system.nats?.kill('SIGCONT');
      await sleep(LEASE_MS);
    }
  });
});
