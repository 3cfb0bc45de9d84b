/** Tests of the access tokens of a session, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { scopesOfRoles } from '../../../../services/auth/accounts/roles.js';
import type { TokenPair } from '../../../../services/auth/sessions/session-tokens.js';
import { DEMO_POLICY } from '../demo-policy.js';
import { addUser, claimsOf, type FreshAuth, logIn, openFreshAuth } from '../instance.js';

describe('the access token of a session', () => {
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());

  const refresh = (refreshToken: string): Promise<TokenPair> =>
    auth.sessions.refresh({ refreshToken, requestId: randomUUID() });

  it('only narrows scopes: it drops those of lost roles and adds none of new roles', async () => {
    const user = await addUser(auth, ['customer', 'operator']);
    const wanted = { scopes: ['inventory.read', 'inventory.manage'] };
    const { refreshToken } = await logIn(auth, user, wanted);
    await auth.database.query("DELETE FROM user_roles WHERE user_id = $1 AND role = 'operator'", [
      user.userId,
    ]);
    await auth.database.query("INSERT INTO user_roles VALUES ($1, 'security')", [user.userId]);
    const claims = claimsOf((await refresh(refreshToken)).access.token);
    expect(claims['scope']).to.equal('inventory.read');
  });

  it('returns no role whose scopes the session does not have, nor one that was added later', async () => {
    const user = await addUser(auth, ['customer', 'operator']);
    const rolesOf = ({ access }: { access: { token: string } }) => claimsOf(access.token)['roles'];
    const wide = await logIn(auth, user);
    const narrow = await logIn(auth, user, { scopes: ['inventory.read'] });
    const withoutOne = await logIn(auth, user, { scopes: scopesOfRoles(DEMO_POLICY, ['customer']) });
    const elsewhere = await logIn(auth, user, { audiences: ['inventory'], scopes: ['inventory.read'] });
    expect([wide, narrow, withoutOne, elsewhere].map(rolesOf)).to.deep.equal([
      ['customer', 'operator'],
      [],
      ['customer'],
      [],
    ]);
    await auth.database.query("INSERT INTO user_roles VALUES ($1, 'security')", [user.userId]);
    expect(rolesOf(await refresh(wide.refreshToken))).to.deep.equal(['customer', 'operator']);
    expect(rolesOf(await refresh(narrow.refreshToken))).to.deep.equal([]);
  });

  it('drops audiences that the roles no longer reach', async () => {
    const user = await addUser(auth, ['customer', 'security']);
    const { refreshToken } = await logIn(auth, user);
    await auth.database.query("DELETE FROM user_roles WHERE user_id = $1 AND role = 'customer'", [
      user.userId,
    ]);
    expect(claimsOf((await refresh(refreshToken)).access.token).aud).to.deep.equal(['auth']);
  });
});
