/** The claims of another issuer's token: their names, their limits, and what they may grant. */

import { expect } from 'chai';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  CLAIM_LIST_LENGTH_MAX,
  CLAIM_TEXT_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
} from '../../../interceptors/src/limits.js';
import { type ForeignRules, readForeignClaims } from '../../../interceptors/src/token/foreign-claims.js';
import { parseJsonObject } from '../../../interceptors/src/token/strict-json.js';
import { NOW_SECONDS } from '../tokens-support.js';

const ISSUER = 'https://other.example';
const THUMBPRINT = 'A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0';

const RULES: ForeignRules & { readonly audience: string | undefined; readonly nowSeconds: number } = {
  issuer: ISSUER,
  names: {},
  scopes: new Map([
    ['read', 'orders.read'],
    ['write', 'orders.write'],
  ]),
  roles: new Map([['clerk', 'operator']]),
  revocable: new Map(),
  services: undefined,
  lifetimeMaxSeconds: ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  audience: 'shop',
  nowSeconds: NOW_SECONDS,
};

const payload = (over: Record<string, unknown> = {}): Record<string, unknown> => ({
  iss: ISSUER,
  aud: ['shop', 'other'],
  sub: 'alice',
  client_id: 'web',
  jti: 'token 1',
  sid: 'session 1',
  iat: NOW_SECONDS - 10,
  exp: NOW_SECONDS + 290,
  scope: 'openid read',
  roles: ['clerk', 'root'],
  auth_time: NOW_SECONDS - 60,
  ...over,
});

/** Reads a payload as it arrives. */
function read(over: Record<string, unknown> = {}, rules: Partial<typeof RULES> = {}) {
  const json = parseJsonObject(Buffer.from(JSON.stringify(payload(over))));
  if (json === undefined) throw new Error('the test made no payload');
  return readForeignClaims(json, 'thumbprint', { ...RULES, ...rules });
}

const list = (length: number): string[] => Array.from({ length }, (_, index) => `item${index}`);

describe('the claims by which tokens of another issuer can be revoked', () => {
  const revocable = new Map<string, string | readonly string[]>([
    ['/tenant', 'tenant'],
    ['/realm_access/groups', ['realm_access', 'groups']],
  ]);
  const values = (over: Record<string, unknown>) => {
    const result = read(over, { revocable });
    return 'fault' in result ? result.fault : Object.fromEntries(result.revocable ?? []);
  };

  it('are read as texts and as lists of texts, each value whole and in its case', () => {
    const given = { tenant: 'Acme Corp', realm_access: { groups: ['a', 'b'] } };
    expect(values(given)).to.deep.equal({ '/tenant': ['Acme Corp'], '/realm_access/groups': ['a', 'b'] });
  });

  it('have no value when they are missing or null', () => {
    for (const over of [{}, { tenant: null }, { realm_access: {} }, { realm_access: null }, { tenant: [] }]) {
      expect(values(over), JSON.stringify(over)).to.deep.equal({ '/tenant': [], '/realm_access/groups': [] });
    }
  });

  it('have the decimal digits of a whole number', () => {
    expect(values({ tenant: 42 })).to.deep.include({ '/tenant': ['42'] });
    expect(values({ tenant: [7, '42'] })).to.deep.include({ '/tenant': ['7', '42'] });
  });

  it('make a token invalid when they have a form that no entry can name', () => {
    const bad = [
      true,
      '',
      'a\u0007',
      1.5,
      2 ** 53,
      {},
      { id: 'acme' },
      [['acme']],
      ['acme', null],
      [{}],
      list(65),
    ];
    for (const tenant of bad) expect(values({ tenant }), JSON.stringify(tenant)).to.equal('/tenant');
    for (const realm_access of ['acme', ['acme'], 1, { groups: { a: 1 } }]) {
      expect(values({ realm_access }), JSON.stringify(realm_access)).to.equal('/realm_access/groups');
    }
  });

  it('have at most 64 values in all', () => {
    expect(values({ tenant: 'acme', realm_access: { groups: list(63) } })).to.be.an('object');
    expect(values({ tenant: 'acme', realm_access: { groups: list(64) } })).to.equal('/realm_access/groups');
  });

  it('are not looked for when none is configured', () => {
    expect(read({ tenant: {} })).to.deep.include({ revocable: new Map() });
  });
});

describe("the claims of another issuer's token", () => {
  it('are mapped to claims without clients, generations and ancestors of this issuer', () => {
    expect(read()).to.deep.equal({
      issuer: ISSUER,
      id: `${ISSUER}#alice`,
      subject: 'alice',
      clientId: 'web',
      tokenId: 'token 1',
      sessionId: 'session 1',
      kind: 'USER',
      scopes: new Set(['orders.read']),
      roles: new Set(['operator']),
      audiences: ['shop', 'other'],
      actors: [],
      authTimeSeconds: NOW_SECONDS - 60,
      expiresAtSeconds: NOW_SECONDS + 290,
      generation: undefined,
      clients: [],
      ancestors: [],
      origin: undefined,
      issuedAtSeconds: NOW_SECONDS - 10,
      keyId: 'thumbprint',
      isForeign: true,
      revocable: new Map(),
      certificateThumbprint: undefined,
    });
  });

  it('may lack session, client, scopes, roles and the time of authentication', () => {
    const absent = { sid: undefined, client_id: undefined, scope: undefined, roles: undefined };
    expect(read({ ...absent, auth_time: undefined })).to.deep.include({
      kind: 'USER',
      sessionId: undefined,
      clientId: '',
      scopes: new Set(),
      roles: new Set(),
      authTimeSeconds: undefined,
    });
  });

  it('are read under the configured names, at the top or within objects, and not under the default ones', () => {
    const names = {
      subject: 'oid',
      tokenId: ['ids', 'token'],
      sessionId: ['ids', 'session'],
      clientId: 'app',
      scopes: 'scp',
      roles: ['realm', 'access', 'roles'],
      authTime: 'at',
    };
    const renamed = {
      oid: 'bob',
      ids: { token: 'token 2', session: 'session 2' },
      app: 'mobile',
      scp: ['write'],
      realm: { access: { roles: ['clerk'] } },
      at: NOW_SECONDS - 5,
    };
    expect(read({ ...renamed, scope: 'read' }, { names })).to.deep.include({
      subject: 'bob',
      tokenId: 'token 2',
      sessionId: 'session 2',
      clientId: 'mobile',
      scopes: new Set(['orders.write']),
      roles: new Set(['operator']),
      authTimeSeconds: NOW_SECONDS - 5,
    });
    expect(read({ ...renamed, oid: undefined }, { names })).to.deep.equal({ fault: 'sub' });
    expect(read({ ...renamed, ids: undefined }, { names })).to.deep.equal({ fault: 'jti' });
    expect(read({ ...renamed, app: undefined, azp: 'web' }, { names })).to.include({ clientId: '' });
  });

  it('are not found within lists, texts, null and inherited properties', () => {
    const names = { roles: ['realm', 'roles'], sessionId: ['session', 'length'] };
    for (const realm of [
      [['clerk']],
      'clerk',
      null,
      7,
      { other: ['clerk'] },
      Object.assign([], { roles: [] }),
    ]) {
      expect(read({ realm }, { names }), JSON.stringify(realm)).to.deep.include({ roles: new Set() });
    }
    for (const session of ['text', ['text']]) {
      expect(read({ session }, { names }), JSON.stringify(session)).to.include({ sessionId: undefined });
    }
    expect(read({}, { names: { sessionId: 'toString' } })).to.include({ sessionId: undefined });
    expect(read({}, { names: { sessionId: ['constructor', 'name'] } })).to.include({ sessionId: undefined });
  });

  it('name the client as azp when there is no client_id', () => {
    expect(read({ client_id: undefined, azp: 'mobile' })).to.include({ clientId: 'mobile' });
    expect(read({ azp: 'mobile' })).to.include({ clientId: 'web' });
  });

  it('may have one audience as a text', () => {
    expect(read({ aud: 'shop' })).to.deep.include({ audiences: ['shop'] });
    expect(read({ aud: ['elsewhere'] }, { audience: undefined })).to.deep.include({
      audiences: ['elsewhere'],
    });
    expect(read({ aud: [] }, { audience: undefined })).to.deep.equal({ fault: 'aud' });
  });

  const faults: [fault: string, claim: string, ...values: unknown[]][] = [
    ['iss', 'iss', undefined, null, [ISSUER], `${ISSUER}/`, ISSUER.toUpperCase(), ''],
    ['aud', 'aud', undefined, null, 7, {}, [], '', 'SHOP', ['other'], ['shop', ''], ['shop', 7], [['shop']]],
    ['sub', 'sub', undefined, null, 7, '', ['alice'], 'a\nb'],
    ['jti', 'jti', undefined, null, 7, '', ['token'], 'a\0b'],
    ['sid', 'sid', null, 7, '', ['session'], {}],
    ['client_id', 'client_id', 7, '', ['web'], {}],
    ['scope', 'scope', null, 7, true, {}, { read: true }],
    ['roles', 'roles', null, 7, true, {}, { clerk: true }],
    ['iat', 'iat', undefined, null, String(NOW_SECONDS), 0, -1, [NOW_SECONDS], NOW_SECONDS * 1000, 2 ** 53],
    ['nbf', 'nbf', null, String(NOW_SECONDS), 0, -1, NOW_SECONDS * 1000],
    ['exp', 'exp', undefined, null, String(NOW_SECONDS), 0, -1, NOW_SECONDS * 1000, 2 ** 53],
    ['auth_time', 'auth_time', null, 'now', 0, -1, [NOW_SECONDS], 2 ** 53],
    ['cnf', 'cnf', null, {}, [], THUMBPRINT, { jkt: 'x' }, { 'x5t#S256': THUMBPRINT, jkt: 'x' }],
  ];
  for (const [fault, claim, ...values] of faults) {
    it(`are rejected with another ${claim} than is allowed`, () => {
      for (const value of values) {
        expect(read({ [claim]: value }), JSON.stringify(value)).to.deep.equal({ fault });
      }
    });
  }

  it('are rejected with a client that is not a text under either of its names', () => {
    expect(read({ client_id: undefined, azp: 7 })).to.deep.equal({ fault: 'client_id' });
    expect(read({ app: 7 }, { names: { clientId: 'app' } })).to.deep.equal({ fault: 'client_id' });
  });

  it('are rejected when issuer and subject together exceed the limit of a text', () => {
    const room = CLAIM_TEXT_LENGTH_MAX - ISSUER.length - 1;
    expect(read({ sub: 's'.repeat(room) })).to.include({ kind: 'USER' });
    expect(read({ sub: 's'.repeat(room + 1) })).to.deep.equal({ fault: 'sub' });
  });

  it('are rejected when they name more audiences than the limit', () => {
    const audiences = (length: number): string[] => ['shop', ...list(length - 1)];
    expect(read({ aud: audiences(CLAIM_LIST_LENGTH_MAX) })).to.include({ kind: 'USER' });
    expect(read({ aud: audiences(CLAIM_LIST_LENGTH_MAX + 1) })).to.deep.equal({ fault: 'aud' });
  });

  it('are rejected when iat or nbf is in the future by more than the skew', () => {
    const latest = NOW_SECONDS + CLOCK_SKEW_SECONDS;
    for (const claim of ['iat', 'nbf']) {
      expect(read({ [claim]: latest }), claim).to.include({ kind: 'USER' });
      expect(read({ [claim]: latest + 1 }), claim).to.deep.equal({ fault: claim });
    }
  });

  it('are rejected when the token does not expire after it was issued, or lives longer than allowed', () => {
    const iat = NOW_SECONDS - 10;
    const rules = { lifetimeMaxSeconds: 60 };
    expect(read({ iat, exp: iat }, rules)).to.deep.equal({ fault: 'exp' });
    expect(read({ iat, exp: iat + 1 }, rules)).to.include({ expiresAtSeconds: iat + 1 });
    expect(read({ iat, exp: iat + 60 }, rules)).to.include({ expiresAtSeconds: iat + 60 });
    expect(read({ iat, exp: iat + 61 }, rules)).to.deep.equal({ fault: 'exp' });
  });

  it('have fractions of seconds rounded down', () => {
    const times = { iat: NOW_SECONDS - 9.5, exp: NOW_SECONDS + 60.9, auth_time: NOW_SECONDS - 59.1 };
    expect(read(times)).to.include({
      issuedAtSeconds: NOW_SECONDS - 10,
      expiresAtSeconds: NOW_SECONDS + 60,
      authTimeSeconds: NOW_SECONDS - 60,
    });
  });

  it('have times that are exact numbers', () => {
    expect(read({ auth_time: 2 ** 53 - 1 })).to.include({ authTimeSeconds: Number.MAX_SAFE_INTEGER });
    expect(read({ auth_time: 2 ** 53 })).to.deep.equal({ fault: 'auth_time' });
  });

  it('name the certificate that the token is bound to', () => {
    const bound = read({ cnf: { 'x5t#S256': THUMBPRINT } });
    expect(bound).to.include({ certificateThumbprint: THUMBPRINT });
  });

  it('grant the configured scopes and roles, whether they are a list or a text', () => {
    for (const given of [
      'read write other',
      ['read', 'write', 'other', 7, null, ['read']],
      ' write  read ',
    ]) {
      expect(read({ scope: given }), JSON.stringify(given)).to.deep.include({
        scopes: new Set(['orders.read', 'orders.write']),
      });
    }
    expect(read({ roles: 'root clerk' })).to.deep.include({ roles: new Set(['operator']) });
    for (const none of ['', [], 'orders.read', ['Read'], ['read write'], [['read']]]) {
      expect(read({ scope: none }), JSON.stringify(none)).to.deep.include({ scopes: new Set() });
    }
  });

  it('are rejected when they grant more scopes than one token may have', () => {
    const given = list(CLAIM_LIST_LENGTH_MAX + 1);
    const rules = { scopes: new Map(given.map((name) => [name, name])) };
    expect(read({ scope: given.slice(1) }, rules)).to.deep.include({ scopes: new Set(given.slice(1)) });
    expect(read({ scope: given }, rules)).to.deep.equal({ fault: 'scope' });
  });

  it("are a service's when the subject is the client and there is no session", () => {
    const cases: [Record<string, unknown>, string][] = [
      [{ sub: 'web', sid: undefined }, 'SERVICE'],
      [{ sub: 'web', sid: undefined, client_id: undefined, azp: 'web' }, 'SERVICE'],
      [{ sub: 'web' }, 'USER'],
      [{ sid: undefined }, 'USER'],
      [{ sid: undefined, client_id: undefined }, 'USER'],
    ];
    for (const [over, kind] of cases) expect(read(over), JSON.stringify(over)).to.include({ kind });
  });

  it("are a service's only with the configured mark, when there is one", () => {
    const services = { claim: ['ext', 'kind'], values: ['service', 'batch'] };
    const cases: [Record<string, unknown>, string][] = [
      [{ ext: { kind: 'service' } }, 'SERVICE'],
      [{ ext: { kind: 'batch' } }, 'SERVICE'],
      [{ ext: { kind: ['x', 'batch'] } }, 'SERVICE'],
      [{ ext: { kind: 'Service' } }, 'USER'],
      [{ ext: { kind: [['service']] } }, 'USER'],
      [{ ext: { kind: [] } }, 'USER'],
      [{ ext: 'service' }, 'USER'],
      [{ sub: 'web', sid: undefined }, 'USER'],
    ];
    for (const [over, kind] of cases) {
      expect(read(over, { services }), JSON.stringify(over)).to.include({ kind });
    }
  });
});
