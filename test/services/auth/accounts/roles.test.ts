/** Tests of the scopes that roles grant. */

import { expect } from 'chai';
import { audiencesOfScopes, isRole, scopesOfRoles } from '../../../../services/auth/accounts/roles.js';

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

  it('are exactly four names, and no property name of an object', () => {
    for (const role of ['customer', 'operator', 'security', 'admin']) expect(isRole(role)).to.equal(true);
    for (const other of ['', 'Admin', 'admin ', 'toString', '__proto__', 'adm'])
      expect(isRole(other)).to.equal(false);
  });
});
