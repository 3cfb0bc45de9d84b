/** The access rules of the schema: every method has one, and every reader of the schema reads the same one. */
import { expect } from 'chai';
import { protoMetadata as authMetadata } from '../../proto/gen/auth/v1/auth_service.js';
import { protoMetadata as clientMetadata } from '../../proto/gen/auth/v1/client_service.js';
import { protoMetadata as evidenceMetadata } from '../../proto/gen/auth/v1/evidence_service.js';
import { protoMetadata as keyMetadata } from '../../proto/gen/auth/v1/key_service.js';
import { protoMetadata as policyMetadata } from '../../proto/gen/auth/v1/policy_service.js';
import { protoMetadata as securityMetadata } from '../../proto/gen/auth/v1/security_service.js';
import { protoMetadata as userMetadata } from '../../proto/gen/auth/v1/user_service.js';
import { protoMetadata as inventoryMetadata } from '../../proto/gen/inventory/v1/inventory_service.js';
import { protoMetadata as paymentMetadata } from '../../proto/gen/payment/v1/payment_service.js';
import type { Rule } from '../../proto/gen/portcullis/access/v1/access.js';
import { Caller } from '../../proto/gen/portcullis/access/v1/access.js';
import { protoMetadata as revocationMetadata } from '../../proto/gen/portcullis/revocation/v1/revocation.js';
import { audienceOfScope, scopesOfRoles } from '../../services/auth/accounts/roles.js';
import { OWN_SERVICE } from '../../services/auth/policy/document.js';
import { DEMO_POLICY, DEMO_ROLES } from '../services/auth/demo-policy.js';
import type { DeclaredRule } from '../support/descriptor-image.js';
import { ownMethods, ownServices, pathOf, ruleOf } from '../support/descriptor-image.js';

const PUBLIC_METHODS = [
  '/auth.v1.AuthService/GetKeys',
  '/auth.v1.AuthService/IssueServiceToken',
  '/auth.v1.AuthService/Login',
  '/auth.v1.AuthService/Refresh',
  '/auth.v1.AuthService/RevokeToken',
  '/auth.v1.AuthService/SetPassword',
  '/auth.v1.EvidenceService/GetReceiptKeys',
];

/** Scopes that no role of users grants: only clients of services have them. */
const SERVICE_SCOPES = ['auth.sync', 'auth.exchange', 'auth.introspect', 'inventory.settle'];

const METADATA = {
  'auth.v1.AuthService': authMetadata,
  'auth.v1.ClientService': clientMetadata,
  'auth.v1.EvidenceService': evidenceMetadata,
  'auth.v1.KeyService': keyMetadata,
  'auth.v1.PolicyService': policyMetadata,
  'auth.v1.SecurityService': securityMetadata,
  'auth.v1.UserService': userMetadata,
  'inventory.v1.InventoryService': inventoryMetadata,
  'payment.v1.PaymentService': paymentMetadata,
  'portcullis.revocation.v1.RevocationService': revocationMetadata,
};

/** The audience that a method requires; auth serves the methods of the library. */
function audienceOf(serviceName: string): string {
  const [first = ''] = serviceName.split('.');
  return first === 'portcullis' ? 'auth' : first;
}

describe('access rules', () => {
  it('are declared by every method of every service', () => {
    expect(ownMethods).to.not.be.empty;
    expect(ownMethods.filter((method) => ruleOf(method) === undefined).map(pathOf)).to.be.empty;
  });

  it('are the same in the image and in the generated code', () => {
    expect(ownServices.map(({ typeName }) => typeName)).to.deep.equal(Object.keys(METADATA).sort());
    for (const [name, metadata] of Object.entries(METADATA)) {
      const service = ownServices.find(({ typeName }) => typeName === name);
      const methods = metadata.options?.services?.[service?.name ?? '']?.methods ?? {};
      expect(Object.keys(methods)).to.have.members(service?.methods.map((method) => method.name) ?? []);
      for (const method of service?.methods ?? []) {
        expect(plain(methods[method.name]?.['rule'] as Rule), pathOf(method)).to.deep.equal(ruleOf(method));
      }
    }
  });

  it('make exactly seven methods public', () => {
    const open = ownMethods.filter((method) => ruleOf(method)?.public === true).map(pathOf);
    expect(open.sort()).to.deep.equal(PUBLIC_METHODS);
  });

  it('require nothing else of a public method', () => {
    for (const method of ownMethods) {
      const rule = ruleOf(method);
      if (rule?.public !== true) continue;
      const nothing = { public: true, scopes: [], roles: [], caller: 0, maxAuthAge: undefined, onStale: 0 };
      expect(rule, pathOf(method)).to.deep.equal(nothing);
    }
  });

  it('require a scope of the called service for every other method', () => {
    for (const method of ownMethods) {
      const rule = ruleOf(method);
      if (rule?.public !== false) continue;
      const audiences = rule.scopes.map((scope) => audienceOfScope(DEMO_POLICY, scope));
      expect(audiences, pathOf(method)).to.include(audienceOf(method.parent.typeName));
    }
  });

  it('require only scopes and roles that exist', () => {
    const known = [...scopesOfRoles(DEMO_POLICY, DEMO_ROLES), ...SERVICE_SCOPES];
    for (const method of ownMethods) {
      const rule = ruleOf(method);
      expect(known, pathOf(method)).to.include.members([...(rule?.scopes ?? [])]);
      expect(DEMO_ROLES, pathOf(method)).to.include.members([...(rule?.roles ?? [])]);
    }
  });

  it('of auth require exactly the scopes of the built-in service', () => {
    const ofAuth = ownMethods.filter((method) => audienceOf(method.parent.typeName) === 'auth');
    const required = new Set(ofAuth.flatMap((method) => ruleOf(method)?.scopes ?? []));
    expect([...required].sort()).to.deep.equal(OWN_SERVICE.scopes);
  });

  it('of the demo’s services require exactly the scopes of its policy', () => {
    for (const { audience, scopes } of DEMO_POLICY.services) {
      const required = ownMethods
        .filter((method) => audienceOf(method.parent.typeName) === audience)
        .flatMap((method) => ruleOf(method)?.scopes ?? [])
        .filter((scope) => audienceOfScope(DEMO_POLICY, scope) === audience);
      expect([...new Set(required)].sort(), audience).to.deep.equal(scopes);
    }
  });

  it('allow the scopes of services only to services', () => {
    for (const method of ownMethods) {
      const rule = ruleOf(method);
      if (!rule?.scopes.some((scope) => SERVICE_SCOPES.includes(scope))) continue;
      expect(rule.caller, pathOf(method)).to.equal(Caller.CALLER_SERVICE);
    }
  });
});

function plain(rule: Rule): DeclaredRule {
  const { public: isPublic, scopes, roles, caller, maxAuthAge, onStale } = rule;
  return { public: isPublic, scopes, roles, caller, maxAuthAge, onStale };
}
