/** Who calls, as the upstream learns it. */
import { generateKeyPairSync } from 'node:crypto';
import type { Principal } from '@portcullis/guard';
import { expect } from 'chai';
import { createLocalJWKSet, jwtVerify } from 'jose';
import {
  createIdentity,
  IDENTITY_HEADERS,
  type IdentityOptions,
  SIGNED_HEADER,
} from '../../gate/src/identity.js';
import { MovableClock } from '../support/clock.js';

const OPTIONS: IdentityOptions = {
  mode: 'headers',
  token: 'strip',
  issuer: 'portcullis-gate',
  audience: 'greeter',
};

describe('createIdentity', () => {
  it('names subject, client, session, scopes and roles in headers', () => {
    const headers = Object.fromEntries(createIdentity(OPTIONS).headersOf(principal()));
    expect(headers).to.include({
      'x-portcullis-subject': 'alice',
      'x-portcullis-issuer': 'https://issuer.test',
      'x-portcullis-client': 'direct',
      'x-portcullis-session': 'session',
      'x-portcullis-scopes': 'greeter.read greeter.write',
      'x-portcullis-roles': 'customer',
    });
    for (const name of Object.keys(headers)) expect(IDENTITY_HEADERS).to.include(name);
  });

  it('leaves out what a caller does not have, and says nothing about an anonymous one', () => {
    const identity = createIdentity(OPTIONS);
    const names = identity
      .headersOf(principal({ sessionId: undefined, roles: new Set(), scopes: new Set() }))
      .map(([name]) => name);
    expect(names).to.not.include.members(['x-portcullis-session']);
    expect(names).to.not.include('x-portcullis-roles');
    expect(identity.headersOf(undefined)).to.be.empty;
  });

  it('encodes what no header can have, so that a subject cannot begin another header', () => {
    const headers = Object.fromEntries(
      createIdentity(OPTIONS).headersOf(principal({ subject: 'zoë\r\nx-portcullis-roles: admin 100%' })),
    );
    expect(headers['x-portcullis-subject']).to.equal('zo%C3%AB%0D%0Ax-portcullis-roles: admin 100%25');
    expect(headers['x-portcullis-roles']).to.equal('customer');
  });

  it('encodes spaces at either end, which servers would drop, and so take one subject for another', () => {
    const identity = createIdentity(OPTIONS);
    for (const [subject, sent] of [
      [' alice', '%20alice'],
      ['alice  ', 'alice%20%20'],
      ['  ', '%20%20'],
      ['alice of sales', 'alice of sales'],
    ] as const) {
      const headers = Object.fromEntries(identity.headersOf(principal({ subject })));
      expect(headers['x-portcullis-subject'], JSON.stringify(subject)).to.equal(sent);
    }
  });

  it('returns the same headers for the same caller', () => {
    const identity = createIdentity(OPTIONS);
    const caller = principal();
    expect(identity.headersOf(caller)).to.equal(identity.headersOf(caller));
  });

  it('signs an identity that the published key verifies, for one audience and at most a minute', async () => {
    const clock = new MovableClock();
    const identity = createIdentity({ ...OPTIONS, mode: 'signed', clock });
    const [header] = identity.headersOf(principal({ expiresAtSeconds: clock.wallMs() / 1000 + 300 }));
    expect(header?.[0]).to.equal(SIGNED_HEADER);
    const { payload } = await jwtVerify(header?.[1] ?? '', keySetOf(identity), {
      issuer: 'portcullis-gate',
      audience: 'greeter',
      typ: 'portcullis-identity+jwt',
      algorithms: ['EdDSA'],
      currentDate: new Date(clock.wallMs()),
    });
    expect(payload).to.include({
      sub: 'alice',
      client_id: 'direct',
      sid: 'session',
      scope: 'greeter.read greeter.write',
    });
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).to.equal(60);
  });

  it('signs again before an identity expires, and never beyond the token', async () => {
    const clock = new MovableClock();
    const identity = createIdentity({ ...OPTIONS, mode: 'signed', clock });
    const caller = principal({ expiresAtSeconds: Math.floor(clock.wallMs() / 1000) + 40 });
    const first = identity.headersOf(caller);
    expect(identity.headersOf(caller)).to.equal(first);
    clock.pass(31_000);
    const [second] = identity.headersOf(caller);
    expect(second?.[1]).to.not.equal(first[0]?.[1]);
    const { payload } = await jwtVerify(second?.[1] ?? '', keySetOf(identity), {
      currentDate: new Date(clock.wallMs()),
    });
    expect(payload.exp).to.equal(caller.expiresAtSeconds);
  });

  it('sends nothing when it is off, and refuses another kind of key', () => {
    expect(createIdentity({ ...OPTIONS, mode: 'off' }).headersOf(principal())).to.be.empty;
    const { privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    expect(() => createIdentity({ ...OPTIONS, mode: 'signed', key })).to.throw(TypeError, 'Ed25519');
  });
});

function keySetOf({ keys }: ReturnType<typeof createIdentity>) {
  return createLocalJWKSet(JSON.parse(JSON.stringify(keys)));
}

function principal(differences: Partial<Principal> = {}): Principal {
  return {
    issuer: 'https://issuer.test',
    id: 'alice',
    subject: 'alice',
    clientId: 'direct',
    tokenId: 'token',
    sessionId: 'session',
    kind: 'USER',
    scopes: new Set(['greeter.read', 'greeter.write']),
    roles: new Set(['customer']),
    audiences: ['greeter'],
    actors: [],
    authTimeSeconds: 0,
    expiresAtSeconds: 4_000_000_000,
    ...differences,
  };
}
