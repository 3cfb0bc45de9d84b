/** Tests of the bootstrap, against PostgreSQL. */

import { expect } from 'chai';
import { applyBootstrap, type Bootstrap } from '../../../../services/auth/accounts/bootstrap.js';
import { codeOf } from '../../../support/outcomes.js';
import { attemptOf, claimsOf, type FreshAuth, openAuth, openFreshAuth } from '../instance.js';

const BOOTSTRAP: Bootstrap = {
  users: [{ username: 'olga', password: 'first password', roles: ['admin', 'security'] }],
  clients: [
    {
      clientId: 'legacy',
      publicKeyPem: undefined,
      secret: 'the first secret of the client, long',
      audiences: ['auth'],
      scopes: ['auth.sync'],
      exchangeAudiences: [],
      exchangeScopes: undefined,
      certificateBound: false,
    },
  ],
};

describe('bootstrap', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  it('creates absent users and clients once, even when several replicas run it at the same time', async () => {
    const replicas = await Promise.all([
      openAuth(auth.url, { openKeys: false }),
      openAuth(auth.url, { openKeys: false }),
    ]);
    const created = await Promise.all(
      [auth, ...replicas].map((replica) => applyBootstrap(BOOTSTRAP, replica)),
    );
    expect(created.reduce((sum, { users, clients }) => sum + users + clients, 0)).to.equal(2);
    const { access } = await auth.sessions.login(attemptOf('olga', 'first password'));
    expect(claimsOf(access.token)['roles']).to.deep.equal(['admin', 'security']);
    await Promise.all(replicas.map((replica) => replica.close()));
  });

  it('never changes existing users and clients', async () => {
    await applyBootstrap(BOOTSTRAP, auth);
    const [user] = BOOTSTRAP.users;
    const [client] = BOOTSTRAP.clients;
    if (user === undefined || client === undefined) throw new Error('the bootstrap is empty');
    const changed: Bootstrap = {
      users: [{ ...user, password: 'second password', roles: ['operator'] }],
      clients: [{ ...client, scopes: ['auth.introspect'] }],
    };
    expect(await applyBootstrap(changed, auth)).to.deep.equal({ users: 0, clients: 0, lookAlikes: [] });
    const twin = { ...changed, users: [{ ...user, username: '0lga' }] };
    expect(await applyBootstrap(twin, auth)).to.deep.equal({ users: 0, clients: 0, lookAlikes: ['0lga'] });
    await auth.sessions.login(attemptOf('olga', 'first password'));
    expect(await codeOf(auth.sessions.login(attemptOf('olga', 'second password')))).to.equal('LOGIN_FAILED');
    const found = await auth.store.transaction((tx) => tx.clients.find('legacy'));
    expect(found?.scopes).to.deep.equal(['auth.sync']);
  });
});
