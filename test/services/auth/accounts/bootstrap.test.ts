/** Tests of the bootstrap, against PostgreSQL. */

import { expect } from 'chai';
import {
  applyBootstrap,
  type Bootstrap,
  UnknownRoleError,
} from '../../../../services/auth/accounts/bootstrap.js';
import { createAuthStore } from '../../../../services/auth/store.js';
import { openDatabase } from '../../../../services/common/database/database.js';
import { createLog } from '../../../../services/common/host/log.js';
import { codeOf } from '../../../support/outcomes.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';
import {
  addUser,
  attemptOf,
  claimsOf,
  entriesOf,
  type FreshAuth,
  logIn,
  openAuth,
  openFreshAuth,
} from '../instance.js';
import { migratedDatabase } from '../migrated-database.js';
import { MIGRATIONS } from '../revocation/revocation-support.js';

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

  it('takes what its policy takes from the built-in roles from sessions, too', async () => {
    const used = await openFreshAuth();
    const user = await addUser(used);
    const { access } = await logIn(used, user);
    // As a database has it whose policy nobody has changed.
    await used.database.query('UPDATE policy SET changed = false, etag = gen_random_uuid()');
    const roles = DEMO_DOCUMENT.roles.map((role) => ({
      ...role,
      scopes: role.scopes.filter((scope) => scope !== 'payment.pay'),
    }));
    await applyBootstrap({ policy: { ...DEMO_DOCUMENT, roles }, users: [], clients: [] }, used);
    expect(await used.narrowings.resume()).to.equal(1);
    expect(await used.exchange.introspect(access.token)).to.equal(undefined);
    const [entry] = await entriesOf(used);
    expect(entry).to.include({ kind: 'USER', reason: 'policy changed', actor: 'bootstrap' });
    await used.close();
  });

  it('sets the policy of a new database once, and creates no user with a role that it lacks', async () => {
    const fresh = await migratedDatabase();
    const log = createLog({ service: 'auth', level: 'silent' });
    const database = openDatabase({ url: fresh.url, migrations: MIGRATIONS, log });
    await database.ready(AbortSignal.timeout(45_000));
    const deps = {
      store: createAuthStore({ database, onRevoked: () => undefined }),
      passwords: auth.passwords,
    };
    const guest = { username: 'gina', password: 'first password', roles: ['guest'] };
    const withRole = (role: string): Bootstrap => ({
      policy: { services: [], roles: [{ role, description: '', scopes: ['auth.self'] }] },
      users: [guest],
      clients: [],
    });
    const unknown = await applyBootstrap({ ...withRole('visitor'), policy: undefined }, deps).catch(
      (error: unknown) => error,
    );
    expect(unknown).to.be.instanceOf(UnknownRoleError);
    expect(String(unknown)).to.contain('gina has roles that are not in the policy: guest');
    const results = await Promise.all([
      applyBootstrap(withRole('guest'), deps),
      applyBootstrap(withRole('guest'), deps),
    ]);
    expect(results.map(({ policy }) => policy).sort()).to.deep.equal([false, true]);
    const recorded = await database.query<{ actor: string; details: object }>(
      "SELECT actor, details FROM security_events WHERE type = 'policy-changed'",
    );
    expect(recorded.rows).to.deep.equal([
      {
        actor: 'bootstrap',
        details: {
          changes: ['role guest added', 'role guest: scope auth.self added'],
          count: 2,
          first: 1,
        },
      },
    ]);
    expect((await applyBootstrap(withRole('other'), deps)).policy).to.equal(false);
    const policy = await deps.store.reads.policy.current();
    expect(policy.roles.map(({ role }) => role)).to.deep.equal(['admin', 'guest', 'security']);
    await database.close();
    await fresh.drop();
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
    expect(await applyBootstrap(changed, auth)).to.deep.equal({
      policy: false,
      users: 0,
      clients: 0,
      lookAlikes: [],
    });
    const twin = { ...changed, users: [{ ...user, username: '0lga' }] };
    expect(await applyBootstrap(twin, auth)).to.deep.equal({
      policy: false,
      users: 0,
      clients: 0,
      lookAlikes: ['0lga'],
    });
    await auth.sessions.login(attemptOf('olga', 'first password'));
    expect(await codeOf(auth.sessions.login(attemptOf('olga', 'second password')))).to.equal('LOGIN_FAILED');
    const found = await auth.store.transaction((tx) => tx.clients.find('legacy'));
    expect(found?.scopes).to.deep.equal(['auth.sync']);
  });
});
