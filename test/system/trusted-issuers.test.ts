/** The tokens of a second issuer in real processes: inventory accepts them until they are revoked by that issuer. */

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServiceTokenSource } from '@portcullis/guard/client';
import { expect } from 'chai';
import { type RevokeRequest, RevokeWait } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { ask, tokenMetadata } from '../../scripts/system/calls.js';
import { ForeignIssuer } from '../support/foreign-issuer.js';
import { endOf, outcomeOf } from '../support/outcomes.js';
import {
  clientsOf,
  LEASE_MS,
  type SystemClients,
  startTestSystem,
  type TestSystem,
} from '../support/system.js';

const START_TIMEOUT_MS = 120_000;
const BOUND_MS = LEASE_MS * 1.01 + 100;
const MARGIN_MS = 5_000;
const SKU = 'LAMP-01';
const PAGE = { pageSize: 10, pageToken: '', filter: '' };
const REVOKED = 'UNAUTHENTICATED TOKEN_REVOKED';

describe('a second issuer, in processes', function () {
  this.timeout(START_TIMEOUT_MS);
  let other: ForeignIssuer;
  let system: TestSystem;
  let clients: SystemClients;

  before(async () => {
    other = await ForeignIssuer.start();
    const trusted = [
      {
        issuer: other.name,
        jwks_url: other.jwksUrl,
        algorithms: ['RS256'],
        types: ['JWT'],
        audiences: { inventory: 'inventory-api', payment: 'payment-api' },
        claims: { roles: ['realm_access', 'roles'] },
        revocable: ['tenant', ['realm_access', 'groups']],
        scopes: {
          read: 'inventory.read',
          reserve: 'inventory.reserve',
          pay: 'payment.pay',
          account: 'payment.read',
        },
      },
    ];
    system = await startTestSystem({ environment: { PORTCULLIS_TRUSTED_ISSUERS: JSON.stringify(trusted) } });
    clients = clientsOf(system);
  });
  after(async () => {
    clients?.close();
    await system?.remove();
    await other?.stop();
  });

  const claims = (over: Record<string, unknown> = {}) =>
    other.claims({ aud: ['inventory-api', 'payment-api'], scope: 'read reserve pay', ...over });
  const inventoriesOf = (token: string): Promise<string[]> =>
    Promise.all(
      clients.inventory.map((client) => outcomeOf(ask(client.listItems.bind(client), PAGE, { token }))),
    );
  const exchanged = async (subjectToken: string, scopes = ['inventory.read']): Promise<string> => {
    const payment = createServiceTokenSource({
      address: system.auth.address,
      credentials: system.credentials,
      clientId: 'payment',
      clientKey: await readFile(system.secrets.clientKeyFiles.payment, 'utf8'),
      issuer: system.issuer,
    });
    const request = { subjectToken, audience: 'inventory', scopes };
    const { auth } = clients;
    const token = await payment.get().finally(() => payment.close());
    return (await ask(auth.exchangeToken.bind(auth), request, { token })).accessToken;
  };
  const watch = async (token: string): Promise<Promise<string>[]> => {
    const streams = clients.inventory.map((client) =>
      client.watchStock({ skus: [SKU], resumeToken: '' }, tokenMetadata({ token })),
    );
    await Promise.all(streams.map((stream) => once(stream, 'data')));
    return streams.map(endOf);
  };

  it('is trusted by inventory and payment, and not by auth', async () => {
    const token = await other.sign(claims());
    expect(await inventoriesOf(token)).to.deep.equal(['OK', 'OK']);
    const { auth, payment } = clients;
    expect(await outcomeOf(ask(payment.listPayments.bind(payment), PAGE, { token }))).to.equal(
      'PERMISSION_DENIED SCOPE_MISSING',
    );
    expect(await outcomeOf(ask(auth.listSessions.bind(auth), PAGE, { token }))).to.equal(
      'UNAUTHENTICATED TOKEN_INVALID',
    );
    const forged = await other.sign({ ...claims(), iss: system.issuer }, { typ: 'at+jwt' });
    expect(await inventoriesOf(forged)).to.deep.equal(Array(2).fill('UNAUTHENTICATED TOKEN_INVALID'));
  });

  it('has users of its own: what alice owns is not theirs, even with her own identifier', async () => {
    const { accessToken } = await clients.logIn('alice');
    const [one] = clients.inventory;
    const { sub } = JSON.parse(Buffer.from(accessToken.split('.')[1] ?? '', 'base64url').toString()) as {
      sub: string;
    };
    const lines = [{ sku: SKU, quantity: 1n }];
    const request = { lines, timeToLive: undefined, requestId: randomUUID() };
    const { reservation } = await ask(one.reserveStock.bind(one), request, { token: accessToken });
    const theirs = await other.sign(claims({ sub }));
    const reservationId = reservation?.reservationId ?? '';
    expect(await outcomeOf(ask(one.getReservation.bind(one), { reservationId }, { token: theirs }))).to.equal(
      'NOT_FOUND NOT_FOUND',
    );
    const acting = await exchanged(theirs, ['inventory.read', 'inventory.reserve']);
    expect(await outcomeOf(ask(one.getReservation.bind(one), { reservationId }, { token: acting }))).to.equal(
      'NOT_FOUND NOT_FOUND',
    );
    // They have reservations of their own, with either token.
    const own = await ask(
      one.reserveStock.bind(one),
      { ...request, requestId: randomUUID() },
      { token: theirs },
    );
    const ownId = { reservationId: own.reservation?.reservationId ?? '' };
    expect(await outcomeOf(ask(one.getReservation.bind(one), ownId, { token: acting }))).to.equal('OK');
    expect(await outcomeOf(ask(one.getReservation.bind(one), ownId, { token: accessToken }))).to.equal(
      'NOT_FOUND NOT_FOUND',
    );
  });

  for (const [named, names] of Object.entries({
    'the usual identifiers': {},
    'identifiers that are no UUIDs, no client and no session': {
      jti: 'onrtac:5f-1',
      sid: undefined,
      azp: undefined,
    },
  })) {
    it(`has users who can complete a purchase, with ${named}`, async () => {
      const { payment, logIn } = clients;
      const scope = 'read reserve pay account';
      const token = await other.sign(claims({ sub: `buyer with ${named}`, scope, ...names }));
      const opening = { currencyCode: 'EUR', requestId: randomUUID() };
      const { account } = await ask(payment.openAccount.bind(payment), opening, { token });
      const accountId = account?.accountId ?? '';
      const { accessToken: olga } = await logIn('olga');
      const amount = { minorUnits: 1_000_000n, currencyCode: 'EUR' };
      const deposit = { accountId, amount, requestId: randomUUID() };
      await ask(payment.deposit.bind(payment), deposit, { token: olga });
      const order = { accountId, lines: [{ sku: SKU, quantity: 1n }], requestId: randomUUID() };
      expect(await outcomeOf(ask(payment.checkout.bind(payment), order, { token }))).to.equal('OK');
      const { account: after } = await ask(payment.getAccount.bind(payment), { accountId }, { token });
      expect(after?.held?.minorUnits).to.equal(0n);
    });
  }

  type What = Extract<RevokeRequest['target'], { $case: 'foreign' }>['value']['what'];
  const ways: Record<string, (of: Record<string, unknown>) => What> = {
    'its token': ({ jti }) => ({ $case: 'tokenId', value: String(jti) }),
    'its session': ({ sid }) => ({ $case: 'sessionId', value: String(sid) }),
    'its user': ({ sub }) => ({ $case: 'subject', value: String(sub) }),
    'its tenant': ({ tenant }) => ({ $case: 'claim', value: { claim: '/tenant', value: String(tenant) } }),
    'its group': () => ({ $case: 'claim', value: { claim: '/realm_access/groups', value: 'staff' } }),
  };
  for (const [way, what] of Object.entries(ways)) {
    it(`is rejected everywhere once revoked ${way}, and so are the tokens exchanged for it`, async () => {
      const groups = way === 'its group' ? ['other', 'staff'] : ['other'];
      const of = claims({ sub: `alice ${way}`, tenant: `tenant ${way}`, realm_access: { groups } });
      const token = await other.sign(of);
      const acting = await exchanged(token);
      expect(await inventoriesOf(acting)).to.deep.equal(['OK', 'OK']);
      const ends = [...(await watch(token)), ...(await watch(acting))];
      const { accessToken: olga } = await clients.logIn('olga');
      const target = { $case: 'foreign', value: { issuer: other.name, what: what(of) } } as const;
      const request = {
        target,
        reason: 'test',
        wait: RevokeWait.REVOKE_WAIT_NONE,
        targets: [],
        dryRun: false,
        fences: [],
      };
      await ask(clients.revocation.revoke.bind(clients.revocation), request, { token: olga });
      const startedMs = performance.now();
      expect(new Set(await Promise.all(ends))).to.deep.equal(new Set([REVOKED]));
      expect(performance.now() - startedMs).to.be.below(BOUND_MS + MARGIN_MS);
      for (const dead of [token, acting]) expect(await inventoriesOf(dead)).to.deep.equal([REVOKED, REVOKED]);
      expect(await outcomeOf(exchanged(token))).to.equal('INVALID_ARGUMENT SUBJECT_TOKEN_INVALID');
      const bob = claims({ sub: 'bob', tenant: 'another', realm_access: { groups: ['other'] } });
      expect(await inventoriesOf(await other.sign(bob))).to.deep.equal(['OK', 'OK']);
    });
  }
});
