/** Tests of the rules of a policy document, and of the differences between two. */

import { expect } from 'chai';
import { changeText, differencesBetween, lostRights } from '../../../../services/auth/policy/differences.js';
import {
  CLIENTS_PER_SERVICE_MAX,
  DESCRIPTION_CHARACTERS_MAX,
  faultsOf,
  OWN_ROLES,
  OWN_SERVICE,
  ROLES_MAX,
  SCOPES_MAX,
  SERVICES_MAX,
  withBuiltIns,
} from '../../../../services/auth/policy/document.js';
import type { PolicyDocument, PolicyRole, PolicyService } from '../../../../services/auth/records/policy.js';
import { DEMO_DOCUMENT } from '../demo-policy.js';

const GREETER: PolicyService = {
  audience: 'greeter',
  description: 'Greets',
  clientIds: [],
  scopes: ['greeter.hello', 'greeter.shout'],
};
const GUEST: PolicyRole = { role: 'guest', description: '', scopes: ['auth.self', 'greeter.hello'] };

function documentWith(services: readonly PolicyService[], roles: readonly PolicyRole[] = []): PolicyDocument {
  return withBuiltIns({ services, roles });
}

function placesOf(document: PolicyDocument): string[] {
  return faultsOf(document).map(({ field }) => field);
}

describe('a policy document', () => {
  it('has the built-in service and roles, whether it names them or not', () => {
    const built = documentWith([GREETER], [GUEST]);
    expect(built.services).to.deep.equal([GREETER, OWN_SERVICE]);
    expect(built.roles).to.deep.equal([GUEST, ...OWN_ROLES]);
    expect(withBuiltIns(built)).to.deep.equal(built);
    expect(faultsOf(built)).to.deep.equal([]);
    expect(faultsOf(DEMO_DOCUMENT)).to.deep.equal([]);
  });

  it('reports all of its faults together, each with its place', () => {
    const document = documentWith(
      [
        { ...GREETER, scopes: ['greeter.hello', 'Greeter!', 'greeter.hello'], clientIds: ['UPPER', 'auth'] },
        { ...GREETER, scopes: [], description: 'x'.repeat(DESCRIPTION_CHARACTERS_MAX + 1) },
        { ...GREETER, audience: '', scopes: [], description: 'a\u0000b' },
      ],
      [GUEST, { ...GUEST, scopes: ['greeter.none', '__proto__', 'auth.self', 'auth.self'] }],
    );
    expect(placesOf(document).sort()).to.deep.equal([
      'roles[1].role',
      'roles[1].scopes[0]',
      'roles[1].scopes[1]',
      'roles[1].scopes[3]',
      'services[0].client_ids[0]',
      'services[0].client_ids[1]',
      'services[0].scopes[1]',
      'services[0].scopes[2]',
      'services[1].audience',
      'services[1].description',
      'services[2].audience',
      'services[2].description',
    ]);
  });

  it('cannot take a reserved name, nor change the built-in service', () => {
    const named = (over: Partial<PolicyService>) => placesOf(documentWith([{ ...GREETER, ...over }]));
    expect(named({ audience: 'auth.more', scopes: [] })).to.deep.equal(['services[0].audience']);
    for (const scope of ['auth', 'auth.self', 'auth.new']) {
      expect(named({ scopes: [scope] }), scope).to.deep.equal(['services[0].scopes[0]']);
    }
    expect(named({ scopes: ['authority.read'] })).to.deep.equal([]);
    const own = (over: Partial<PolicyService>) => placesOf(documentWith([{ ...OWN_SERVICE, ...over }]));
    expect(own({})).to.deep.equal([]);
    expect(own({ scopes: OWN_SERVICE.scopes.slice(1) })).to.include('services[0].scopes');
    expect(own({ scopes: [...OWN_SERVICE.scopes, 'auth.more'] })).to.deep.equal(['services[0].scopes']);
    expect(own({ clientIds: ['greeter'] })).to.deep.equal(['services[0].client_ids']);
  });

  it('cannot give one scope to two services, nor one service a scope that is named like another’s', () => {
    const other = { ...GREETER, audience: 'other', scopes: ['greeter.hello'] };
    expect(placesOf(documentWith([GREETER, other]))).to.deep.equal([
      'services[1].scopes[0]',
      'services[1].scopes[0]',
    ]);
    expect(placesOf(documentWith([GREETER, { ...other, scopes: ['greeter.other'] }]))).to.deep.equal([
      'services[1].scopes[0]',
    ]);
    expect(placesOf(documentWith([GREETER, { ...other, scopes: ['anything.else'] }]))).to.deep.equal([]);
  });

  it('leaves administrators the scopes with which they can undo it', () => {
    const [admin] = OWN_ROLES;
    if (admin === undefined) throw new Error('there is no role of administrators');
    const without = (lost: string) =>
      documentWith([GREETER], [{ ...admin, scopes: admin.scopes.filter((scope) => scope !== lost) }]);
    for (const scope of ['auth.policy.read', 'auth.policy.write', 'auth.users.read', 'auth.users.write']) {
      expect(placesOf(without(scope)), scope).to.deep.equal(['roles[0].scopes']);
    }
    expect(placesOf(without('auth.revoke'))).to.deep.equal([]);
    const more = [...admin.scopes, 'greeter.hello'];
    expect(placesOf(documentWith([GREETER], [{ ...admin, scopes: more }]))).to.deep.equal([]);
  });

  it('has limits of services, scopes, roles, clients of a service, and scopes of a role', () => {
    const services = (count: number, scopes: number) =>
      Array.from({ length: count }, (_, at) => ({
        ...GREETER,
        audience: `s${at}`,
        scopes: Array.from({ length: scopes }, (_scope, index) => `s${at}.x${index}`),
      }));
    expect(placesOf({ services: services(SERVICES_MAX, 1), roles: OWN_ROLES }).slice(0, 1)).to.deep.equal([
      // The own service is missing, so the built-in roles have scopes of none.
      'roles[0].scopes[0]',
    ]);
    expect(placesOf(documentWith(services(SERVICES_MAX - 1, 0)))).to.deep.equal([]);
    expect(placesOf(documentWith(services(SERVICES_MAX, 0)))).to.deep.equal(['services']);
    const left = SCOPES_MAX - OWN_SERVICE.scopes.length;
    expect(placesOf(documentWith(services(1, left)))).to.deep.equal([]);
    expect(placesOf(documentWith(services(1, left + 1)))).to.deep.equal(['services']);
    const roles = (count: number) => Array.from({ length: count }, (_, at) => ({ ...GUEST, role: `r${at}` }));
    expect(placesOf(documentWith([GREETER], roles(ROLES_MAX - 2)))).to.deep.equal([]);
    expect(placesOf(documentWith([GREETER], roles(ROLES_MAX - 1)))).to.deep.equal(['roles']);
    const clients = (count: number) => Array.from({ length: count }, (_, at) => `c${at}`);
    expect(placesOf(documentWith([{ ...GREETER, clientIds: clients(CLIENTS_PER_SERVICE_MAX) }]))).to.be.empty;
    expect(
      placesOf(documentWith([{ ...GREETER, clientIds: clients(CLIENTS_PER_SERVICE_MAX + 1) }])),
    ).to.deep.equal(['services[0].client_ids']);
    const wide = (count: number) => {
      const [service] = services(1, 65);
      if (service === undefined) throw new Error('there is no service');
      return documentWith([service], [{ ...GUEST, scopes: service.scopes.slice(0, count) }]);
    };
    expect(placesOf(wide(64))).to.deep.equal([]);
    expect(placesOf(wide(65))).to.deep.equal(['roles[0].scopes']);
  });
});

describe('the differences between two policies', () => {
  const before = documentWith([GREETER], [GUEST, { ...GUEST, role: 'gone' }]);

  it('are none between equal ones, in whichever order', () => {
    const reversed = {
      services: before.services.map((one) => ({ ...one, scopes: one.scopes.toReversed() })).toReversed(),
      roles: before.roles.map((one) => ({ ...one, scopes: one.scopes.toReversed() })).toReversed(),
    };
    expect(differencesBetween(before, reversed)).to.deep.equal([]);
  });

  it('name each service, role, scope and client, and what roles lose', () => {
    const after = documentWith(
      [
        { ...GREETER, scopes: ['greeter.hello', 'greeter.wave'], clientIds: ['greeter-eu'] },
        { ...GREETER, audience: 'new', scopes: ['new.read'] },
      ],
      [{ ...GUEST, description: 'A guest', scopes: ['auth.self', 'new.read'] }],
    );
    const changes = differencesBetween(before, after);
    expect(changes.map(changeText)).to.deep.equal([
      'service greeter: scope greeter.wave added',
      'service greeter: client greeter-eu added',
      'service greeter: scope greeter.shout removed',
      'service new added',
      'service new: scope new.read added',
      'role gone removed',
      'role gone: scope auth.self removed',
      'role gone: scope greeter.hello removed',
      'role guest described',
      'role guest: scope new.read added',
      'role guest: scope greeter.hello removed',
    ]);
    expect(lostRights(changes, before)).to.deep.equal({
      scopes: ['auth.self', 'greeter.hello'],
      audiences: ['greeter'],
    });
  });
});
