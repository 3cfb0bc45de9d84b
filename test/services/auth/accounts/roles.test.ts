/** Tests of the scopes that roles grant. */

import { expect } from 'chai';
import {
  audiencesOfScopes,
  isServedBy,
  requireKnownRoles,
  rolesWithin,
  scopesOfRoles,
} from '../../../../services/auth/accounts/roles.js';
import { policyOf } from '../../../../services/auth/policy/policy.js';
import { DEMO_POLICY } from '../demo-policy.js';

const CUSTOMER = ['auth.self', 'inventory.read', 'inventory.reserve', 'payment.pay', 'payment.read'];
const SECURITY = ['auth.revoke', 'auth.security.read', 'auth.self', 'auth.users.read'];
const ADMIN = [
  ...SECURITY,
  'auth.clients.write',
  'auth.keys.write',
  'auth.policy.read',
  'auth.policy.write',
  'auth.users.write',
];

describe('roles', () => {
  it('grant exactly the documented scopes', () => {
    expect(scopesOfRoles(DEMO_POLICY, [])).to.deep.equal([]);
    expect(scopesOfRoles(DEMO_POLICY, ['customer'])).to.deep.equal(CUSTOMER);
    expect(scopesOfRoles(DEMO_POLICY, ['operator'])).to.deep.equal(
      [...CUSTOMER, 'inventory.manage', 'payment.manage'].sort(),
    );
    expect(scopesOfRoles(DEMO_POLICY, ['security'])).to.deep.equal(SECURITY);
    expect(scopesOfRoles(DEMO_POLICY, ['admin'])).to.deep.equal(ADMIN.sort());
    expect(scopesOfRoles(DEMO_POLICY, ['security', 'customer'])).to.deep.equal(
      [...new Set([...CUSTOMER, ...SECURITY])].sort(),
    );
  });

  it('reach the services of their scopes, and always auth', () => {
    expect(audiencesOfScopes(DEMO_POLICY, CUSTOMER)).to.deep.equal(['auth', 'inventory', 'payment']);
    expect(audiencesOfScopes(DEMO_POLICY, SECURITY)).to.deep.equal(['auth']);
    expect(audiencesOfScopes(DEMO_POLICY, [])).to.deep.equal(['auth']);
  });

  it('stay in a token only with every scope that they grant at the token’s audiences', () => {
    const all = ['auth', 'inventory', 'payment'];
    const roles = ['customer', 'operator'] as const;
    const operator = scopesOfRoles(DEMO_POLICY, ['operator']);
    const within = (scopes: readonly string[], audiences: readonly string[]) =>
      rolesWithin(DEMO_POLICY, roles, { scopes, audiences });
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
    expect(
      rolesWithin(DEMO_POLICY, ['admin', 'security'], { scopes: ADMIN, audiences: ['inventory'] }),
    ).to.deep.equal([]);
    expect(
      rolesWithin(DEMO_POLICY, ['auditor', '__proto__'], { scopes: ADMIN, audiences: ['auth'] }),
    ).to.deep.equal([]);
    expect(rolesWithin(DEMO_POLICY, [], { scopes: ADMIN, audiences: ['auth'] })).to.deep.equal([]);
  });

  it('are those of the policy, and no property name of an object', () => {
    requireKnownRoles(DEMO_POLICY, ['customer', 'operator', 'security', 'admin']);
    for (const other of ['Admin', 'admin ', 'toString', '__proto__', 'adm']) {
      expect(() => requireKnownRoles(DEMO_POLICY, [other]), other).to.throw('must be one of admin, customer');
    }
  });

  it('follow a scope to the service that registered it, and else to its first segment', () => {
    const greeter = { audience: 'greeter', description: '', clientIds: [], scopes: ['hello.say'] };
    const services = [...DEMO_POLICY.services, greeter];
    const policy = policyOf({ ...DEMO_POLICY, services }, DEMO_POLICY);
    expect(audiencesOfScopes(policy, ['hello.say', 'other.read'])).to.deep.equal([
      'auth',
      'greeter',
      'other',
    ]);
  });
});

describe('a service', () => {
  const withClients = (clientIds: readonly string[]) =>
    policyOf(
      {
        ...DEMO_POLICY,
        services: DEMO_POLICY.services.map((service) =>
          service.audience === 'payment' ? { ...service, clientIds } : service,
        ),
      },
      DEMO_POLICY,
    );

  it('is served by the client of its name unless the policy names others', () => {
    expect(isServedBy(DEMO_POLICY, 'payment', 'payment')).to.equal(true);
    expect(isServedBy(DEMO_POLICY, 'payment', 'inventory')).to.equal(false);
    expect(isServedBy(DEMO_POLICY, 'unregistered', 'unregistered')).to.equal(true);
    const policy = withClients(['payment-eu', 'payment-us']);
    expect(isServedBy(policy, 'payment', 'payment-eu')).to.equal(true);
    expect(isServedBy(policy, 'payment', 'payment')).to.equal(false);
  });
});
