/** Tests of the scopes that roles grant. */

import { expect } from 'chai';
import {
  audiencesOfScopes,
  isRole,
  rolesWithin,
  scopesOfRoles,
} from '../../../../services/auth/accounts/roles.js';

const CUSTOMER = ['auth.self', 'inventory.read', 'inventory.reserve', 'payment.pay', 'payment.read'];
const SECURITY = ['auth.revoke', 'auth.security.read', 'auth.self', 'auth.users.read'];
const ADMIN = [...SECURITY, 'auth.clients.write', 'auth.keys.write', 'auth.users.write'];

describe('roles', () => {
  it('grant exactly the documented scopes', () => {
    expect(scopesOfRoles([])).to.deep.equal([]);
    expect(scopesOfRoles(['customer'])).to.deep.equal(CUSTOMER);
    expect(scopesOfRoles(['operator'])).to.deep.equal(
      [...CUSTOMER, 'inventory.manage', 'payment.manage'].sort(),
    );
    expect(scopesOfRoles(['security'])).to.deep.equal(SECURITY);
    expect(scopesOfRoles(['admin'])).to.deep.equal(ADMIN.sort());
    expect(scopesOfRoles(['security', 'customer'])).to.deep.equal(
      [...new Set([...CUSTOMER, ...SECURITY])].sort(),
    );
  });

  it('reach the services of their scopes, and always auth', () => {
    expect(audiencesOfScopes(CUSTOMER)).to.deep.equal(['auth', 'inventory', 'payment']);
    expect(audiencesOfScopes(SECURITY)).to.deep.equal(['auth']);
    expect(audiencesOfScopes([])).to.deep.equal(['auth']);
  });

  it('stay in a token only with every scope that they grant at the token’s audiences', () => {
    const all = ['auth', 'inventory', 'payment'];
    const roles = ['customer', 'operator'] as const;
    const operator = scopesOfRoles(['operator']);
    const within = (scopes: readonly string[], audiences: readonly string[]) =>
      rolesWithin(roles, { scopes, audiences });
    expect(within(operator, all)).to.deep.equal(roles);
    expect(within(CUSTOMER, all)).to.deep.equal(['customer']);
    for (const lost of operator) {
      const left = operator.filter((scope) => scope !== lost);
      expect(within(left, all), lost).to.not.include('operator');
    }
    expect(within(['inventory.read'], ['inventory'])).to.deep.equal([]);
    const ofInventory = ['inventory.manage', 'inventory.read', 'inventory.reserve'];
    expect(within(ofInventory, ['inventory'])).to.deep.equal(roles);
    expect(within(ofInventory, ['inventory', 'payment'])).to.deep.equal([]);
  });

  it('leave a token that reaches no service of theirs, and so do names that are no roles', () => {
    expect(rolesWithin(['admin', 'security'], { scopes: ADMIN, audiences: ['inventory'] })).to.deep.equal([]);
    expect(rolesWithin(['auditor', '__proto__'], { scopes: ADMIN, audiences: ['auth'] })).to.deep.equal([]);
    expect(rolesWithin([], { scopes: ADMIN, audiences: ['auth'] })).to.deep.equal([]);
  });

  it('are exactly four names, and no property name of an object', () => {
    for (const role of ['customer', 'operator', 'security', 'admin']) expect(isRole(role)).to.equal(true);
    for (const other of ['', 'Admin', 'admin ', 'toString', '__proto__', 'adm'])
      expect(isRole(other)).to.equal(false);
  });
});
