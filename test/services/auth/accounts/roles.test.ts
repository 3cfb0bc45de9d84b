/** Tests of what each role may do. */

import { expect } from 'chai';
import { audiencesOfScopes, isRole, scopesOfRoles } from '../../../../services/auth/accounts/roles.js';

const CUSTOMER = ['auth.self', 'inventory.read', 'inventory.reserve', 'payment.pay', 'payment.read'];
const SECURITY = ['auth.revoke', 'auth.security.read', 'auth.self', 'auth.users.read'];
const ADMIN = [...SECURITY, 'auth.clients.write', 'auth.keys.write', 'auth.users.write'];

describe('roles', () => {
  it('give the scopes that are written down for them, and no others', () => {
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

  it('reach the services of their scopes, and auth always', () => {
    expect(audiencesOfScopes(CUSTOMER)).to.deep.equal(['auth', 'inventory', 'payment']);
    expect(audiencesOfScopes(SECURITY)).to.deep.equal(['auth']);
    expect(audiencesOfScopes([])).to.deep.equal(['auth']);
  });

  it('are four words, and nothing that an object happens to have', () => {
    for (const role of ['customer', 'operator', 'security', 'admin']) expect(isRole(role)).to.equal(true);
    for (const other of ['', 'Admin', 'admin ', 'toString', '__proto__', 'adm'])
      expect(isRole(other)).to.equal(false);
  });
});
