/** Tests of what clients may ask for as part of the policy, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import type { ApplyPolicyRequest } from '../../../../services/auth/policy/policy-administration.js';
import type { PolicyClient } from '../../../../services/auth/records/policy.js';
import { codeOf, serviceErrorOf, violatedFieldsOf } from '../../../support/outcomes.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';
import {
  addClient,
  addUser,
  entriesOf,
  type FreshAuth,
  logIn,
  openFreshAuth,
  serviceToken,
} from '../instance.js';

const SHOP: PolicyClient = {
  clientId: 'inventory',
  audiences: ['auth'],
  scopes: ['auth.exchange', 'auth.sync'],
  exchangeAudiences: ['payment'],
  exchangeScopes: [],
};

describe('the rights of clients in the policy', () => {
  let auth: FreshAuth;
  let client: Awaited<ReturnType<typeof addClient>>;

  beforeEach(async () => {
    auth = await openFreshAuth();
    client = await addClient(auth, { clientId: 'inventory', exchangeAudiences: ['payment'] });
  });
  afterEach(() => auth.close());

  const apply = (clients: readonly PolicyClient[], over: Partial<ApplyPolicyRequest> = {}) =>
    auth.policy.apply({
      actor: 'olga',
      etag: '',
      dryRun: false,
      requestId: randomUUID(),
      reason: '',
      network: '192.0.2.7',
      document: DEMO_DOCUMENT,
      clients,
      mayChangeClients: true,
      ...over,
    });
  const isActive = async (token: string) => (await auth.exchange.introspect(token)) !== undefined;
  const exchanged = async () => {
    const { access } = await logIn(auth, await addUser(auth));
    const { token } = await auth.exchange.exchange({
      callerToken: await serviceToken(auth, client),
      subjectToken: access.token,
      audience: 'payment',
      scopes: ['payment.pay'],
    });
    return { token, user: access.token };
  };

  it('are shown, without the client of the logins, and change nothing when they are applied as they are', async () => {
    const before = await auth.policy.get();
    expect(before.clients).to.deep.equal([SHOP]);
    const { policy, changes, clients } = await apply(before.clients);
    expect([policy, changes, clients]).to.deep.equal([before, [], 0n]);
    expect(await entriesOf(auth)).to.deep.equal([]);
  });

  it('stay as they are for clients that the document does not name', async () => {
    await addClient(auth, { clientId: 'other' });
    const before = await auth.policy.get();
    await apply([{ ...SHOP, exchangeScopes: ['payment.pay'] }]);
    const after = await auth.policy.get();
    expect(after.clients.find(({ clientId }) => clientId === 'other')).to.deep.equal(
      before.clients.find(({ clientId }) => clientId === 'other'),
    );
    await apply([]);
    expect(await auth.policy.get()).to.deep.equal(after);
  });

  it('that a client gains revoke nothing, and can be used at once', async () => {
    const token = await serviceToken(auth, client);
    const { changes, clients, sequence } = await apply([
      { ...SHOP, exchangeAudiences: ['inventory', 'payment'], scopes: [...SHOP.scopes, 'auth.introspect'] },
    ]);
    expect(changes).to.deep.equal([
      { kind: 'ADDED', clientId: 'inventory', right: 'SCOPE', scope: 'auth.introspect' },
      { kind: 'ADDED', clientId: 'inventory', right: 'EXCHANGE_AUDIENCE', audience: 'inventory' },
    ]);
    expect([clients, sequence]).to.deep.equal([0n, 0n]);
    expect(await isActive(token)).to.equal(true);
  });

  it('that a client loses are taken from its tokens, and from those with which it acts, in the same commit', async () => {
    const own = await serviceToken(auth, client);
    const { token, user } = await exchanged();
    const { changes, clients, sequence, enforcedEverywhereBy } = await apply([
      { ...SHOP, exchangeScopes: ['payment.read'] },
    ]);
    expect(changes).to.deep.equal([
      { kind: 'ADDED', clientId: 'inventory', right: 'EXCHANGE_SCOPE', scope: 'payment.read' },
      { kind: 'REMOVED', clientId: 'inventory', right: 'EXCHANGE_SCOPE' },
    ]);
    expect([clients, sequence]).to.deep.equal([1n, 1n]);
    expect(enforcedEverywhereBy?.getTime()).to.be.greaterThan(Date.now());
    const entries = await entriesOf(auth);
    expect(entries.map(({ kind, reason, actor }) => [kind, reason, actor])).to.deep.equal([
      ['CLIENT', 'policy changed', 'olga'],
    ]);
    expect([await isActive(own), await isActive(token), await isActive(user)]).to.deep.equal([
      false,
      false,
      true,
    ]);
    expect(await codeOf(exchanged())).to.equal('SCOPE_MISSING');
  });

  it('are lost together with the service or scope that leaves the policy', async () => {
    const document = {
      services: DEMO_DOCUMENT.services.filter(({ audience }) => audience !== 'payment'),
      roles: DEMO_DOCUMENT.roles.map((role) => ({
        ...role,
        scopes: role.scopes.filter((scope) => !scope.startsWith('payment.')),
      })),
    };
    expect(await codeOf(apply([], { document }))).to.equal('POLICY_IN_USE');
    expect(await codeOf(apply([SHOP], { document }))).to.equal('POLICY_IN_USE');
    const { policy } = await apply([{ ...SHOP, exchangeAudiences: [] }], { document });
    expect(policy.services.map(({ audience }) => audience)).to.deep.equal(['auth', 'inventory']);
    expect(policy.clients).to.deep.equal([{ ...SHOP, exchangeAudiences: [] }]);
  });

  it('are returned by a dry run as they would be, and stay as they are', async () => {
    const before = await auth.policy.get();
    const dry = await apply([{ ...SHOP, exchangeAudiences: [] }], { dryRun: true, requestId: '' });
    expect(dry.policy).to.deep.include({ clients: [{ ...SHOP, exchangeAudiences: [] }], etag: before.etag });
    expect(await auth.policy.get()).to.deep.equal(before);
  });

  it('change the etag, also when UpdateClient changes them', async () => {
    const { etag } = await auth.policy.get();
    await auth.clients.update({
      actor: 'olga',
      clientId: 'inventory',
      requestId: randomUUID(),
      reason: '',
      rights: { ...SHOP, exchangeScopes: ['payment.read'], certificateBound: false },
      updateMask: ['exchange_scopes'],
      etag: '',
    });
    for (const dryRun of [true, false]) {
      expect(await codeOf(apply([], { etag, dryRun }))).to.equal('ETAG_MISMATCH');
    }
    const { etag: present } = await auth.policy.get();
    const { policy } = await apply([SHOP], { etag: present });
    expect(policy.etag).to.not.equal(present);
    expect(await auth.policy.get()).to.deep.equal(policy);
  });

  it('are not changed by a caller who may not change clients, and may be repeated by one', async () => {
    const { code, message } = await serviceErrorOf(
      apply([{ ...SHOP, exchangeAudiences: [] }], { mayChangeClients: false }),
    );
    expect([code, message]).to.deep.equal([
      'SCOPE_MISSING',
      'changing the rights of clients requires the scope auth.clients.write',
    ]);
    expect((await apply([SHOP], { mayChangeClients: false })).changes).to.deep.equal([]);
  });

  it('are rejected with all faults', async () => {
    const invalid = [
      { ...SHOP, scopes: ['Bad', 'auth.sync', 'auth.sync'] },
      { ...SHOP, clientId: 'direct' },
      { ...SHOP },
    ];
    expect(await violatedFieldsOf(apply(invalid))).to.have.members([
      'policy.clients[0].scopes[0]',
      'policy.clients[0].scopes[2]',
      'policy.clients[1].client_id',
      'policy.clients[2].client_id',
    ]);
    const unknown = [
      { ...SHOP, audiences: ['auth', 'nowhere'], exchangeScopes: ['payment.pey'] },
      { ...SHOP, clientId: 'nobody' },
    ];
    expect(await violatedFieldsOf(apply(unknown))).to.have.members([
      'policy.clients[0].audiences[1]',
      'policy.clients[0].exchange_scopes[0]',
      'policy.clients[1].client_id',
    ]);
  });

  it('keep what no service has any more, and do not gain it again', async () => {
    await addClient(auth, { clientId: 'old', audiences: ['gone'], scopes: ['gone.read'] });
    const { clients } = await auth.policy.get();
    expect((await apply(clients)).changes).to.deep.equal([]);
    const gaining = clients.map((one) => (one.clientId === 'old' ? one : { ...one, scopes: ['gone.read'] }));
    expect(await codeOf(apply(gaining))).to.equal('FIELD_INVALID');
  });

  it('are recorded for each client, and in the event of the change', async () => {
    await apply([{ ...SHOP, exchangeAudiences: [] }], { reason: 'no more exchange' });
    const { events } = await auth.securityStore.list(
      { types: ['policy-changed', 'client-updated'] },
      { pageSize: 10, pageToken: '' },
    );
    const seen = events.map(({ type, details: all, actor, reason }) => {
      const { requestId, ...details } = all as Readonly<Record<string, unknown>>;
      if (type === 'policy-changed') expect(requestId).to.be.a('string').with.length(36);
      return { type, details, actor, reason };
    });
    expect(seen).to.have.deep.members([
      {
        type: 'policy-changed',
        details: {
          changes: ['client inventory: exchange audience payment removed'],
          count: 1,
          first: 1,
        },
        actor: 'olga',
        reason: 'no more exchange',
      },
      {
        type: 'client-updated',
        details: { fields: ['exchange_audiences'], revoked: true },
        actor: 'olga',
        reason: 'no more exchange',
      },
    ]);
  });
});
