/** Every claim is present, of the right type, and within its limits. */

import { expect } from 'chai';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  ACTOR_CHAIN_LENGTH_MAX,
  CLAIM_LIST_LENGTH_MAX,
  CLAIM_TEXT_LENGTH_MAX,
  CLOCK_SKEW_SECONDS,
} from '../../../interceptors/src/limits.js';
import { type ClaimsExpected, readClaims } from '../../../interceptors/src/token/claims.js';
import { parseJsonObject } from '../../../interceptors/src/token/strict-json.js';
import {
  AUDIENCE,
  exchangedPayload,
  ISSUER,
  NOW_SECONDS,
  servicePayload,
  userPayload,
} from '../tokens-support.js';

const EXPECTED: ClaimsExpected = { issuer: ISSUER, audience: AUDIENCE, nowSeconds: NOW_SECONDS };

/** Reads a payload as it arrives. */
function read(payload: Record<string, unknown> | string, expected = EXPECTED) {
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
  const json = parseJsonObject(Buffer.from(text));
  return json === undefined ? { fault: 'payload' } : readClaims(json, 'key-1', expected);
}

/** The fault of a user's payload in which one claim is another. */
function faultWith(claim: string, value: unknown, payload = userPayload()) {
  return read({ ...payload, [claim]: value });
}

function without(claim: string, payload = userPayload()) {
  const rest = { ...payload };
  delete rest[claim];
  return read(rest);
}

/** The payload's text, in which one claim's value is written by hand. */
function written(claim: string, value: string): string {
  const marker = '"@"';
  return JSON.stringify({ ...userPayload(), [claim]: '@' }).replace(marker, value);
}

const UUID = '11111111-1111-1111-1111-111111111111';

describe('the claims of a token', () => {
  it('are read from the token of a user', () => {
    expect(read(userPayload())).to.deep.equal({
      issuer: ISSUER,
      id: 'user-1',
      subject: 'user-1',
      clientId: 'direct',
      tokenId: '11111111-1111-4111-8111-111111111111',
      sessionId: '22222222-2222-4222-8222-222222222222',
      kind: 'USER',
      scopes: new Set(['inventory.read', 'inventory.reserve']),
      roles: new Set(['customer']),
      audiences: ['inventory', 'payment'],
      actors: [],
      authTimeSeconds: NOW_SECONDS - 60,
      expiresAtSeconds: NOW_SECONDS + 290,
      generation: 3n,
      clients: [['direct', 1n]],
      ancestors: [],
      issuedAtSeconds: NOW_SECONDS - 10,
      keyId: 'key-1',
      certificateThumbprint: undefined,
      isForeign: false,
      origin: undefined,
    });
  });

  it('are read from the token of a service', () => {
    expect(read(servicePayload())).to.include({
      kind: 'SERVICE',
      subject: 'payment',
      clientId: 'payment',
      sessionId: undefined,
      generation: undefined,
      authTimeSeconds: undefined,
    });
    const { roles: _roles, ...rest } = servicePayload();
    expect(read(rest)).to.deep.include({ roles: new Set(), actors: [], ancestors: [] });
  });

  it('may have generation 0', () => {
    expect(read({ ...userPayload(), gen: 0, clients: [['direct', 0]] })).to.deep.include({
      generation: 0n,
      clients: [['direct', 0n]],
    });
  });

  it('are read from the token of a service that acts for a user, as the user', () => {
    const claims = read(exchangedPayload());
    expect(claims).to.include({ kind: 'USER', subject: 'user-1', clientId: 'payment' });
    expect(claims).to.have.deep.property('actors', ['payment']);
    expect(claims).to.have.deep.property('ancestors', ['11111111-1111-4111-8111-111111111111']);
    expect(claims).to.have.deep.property('clients', [
      ['direct', 1n],
      ['payment', 7n],
    ]);
  });

  it('name the certificate that the token is bound to', () => {
    const thumbprint = 'A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0';
    const bound = faultWith('cnf', { 'x5t#S256': thumbprint });
    expect(bound).to.have.property('certificateThumbprint', thumbprint);
    expect(read(userPayload())).to.have.property('certificateThumbprint', undefined);
  });

  it('are rejected when the token is bound in an unknown way, because it is not a bearer token', () => {
    const thumbprint = 'A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0';
    const bad = [
      null,
      [],
      thumbprint,
      {},
      { 'x5t#S256': '' },
      { 'x5t#S256': [thumbprint] },
      { 'x5t#S256': `${thumbprint}=` },
      { 'x5t#S256': `A${thumbprint}` },
      { 'x5t#S256': `${thumbprint}A` },
      { 'x5t#S256': thumbprint.slice(1) },
      // A spare bit is set: another encoding of the same bytes.
      { 'x5t#S256': `${thumbprint.slice(0, -1)}1` },
      { 'x5t#S256': thumbprint, jkt: thumbprint },
      { jkt: thumbprint },
      { jwk: { kty: 'OKP' } },
      { kid: 'key-1' },
      { x5t: thumbprint },
    ];
    for (const cnf of bad) expect(faultWith('cnf', cnf), JSON.stringify(cnf)).to.deep.equal({ fault: 'cnf' });
  });

  it('contain the chain of actors, the current one first', () => {
    const act = { sub: 'shipping', act: { sub: 'payment' } };
    expect(faultWith('act', act, exchangedPayload())).to.have.deep.property('actors', [
      'shipping',
      'payment',
    ]);
  });

  for (const claim of ['iss', 'aud', 'sub', 'client_id', 'iat', 'exp', 'jti', 'scope', 'clients']) {
    it(`are rejected without ${claim}`, () => {
      expect(without(claim)).to.deep.equal({ fault: claim });
      expect(without(claim, servicePayload())).to.deep.equal({ fault: claim });
    });
  }

  it('are rejected without the claims that every user token has', () => {
    // Without `sid` it would pass as a service's token, if the other claims were not checked.
    expect(without('sid')).to.deep.equal({ fault: 'sid' });
    expect(without('gen')).to.deep.equal({ fault: 'gen' });
    expect(without('auth_time')).to.deep.equal({ fault: 'gen' });
  });

  const wrongTypes: Record<string, unknown[]> = {
    text: [null, true, 1, [], ['x'], {}, ''],
    texts: [
      null,
      true,
      1,
      'inventory',
      {},
      [1],
      [null],
      [['inventory']],
      [''],
      { 0: 'inventory', length: 1 },
    ],
    seconds: [null, true, '1800000000', [1], {}, 1.5, 0, -1, 2 ** 53, NOW_SECONDS + 0.5],
    count: [null, true, '3', [3], {}, 1.5, -1, 2 ** 53],
    uuid: [
      null,
      1,
      '',
      'x',
      [],
      {},
      [UUID],
      UUID.toUpperCase().replace(/1/g, 'A'),
      `{${UUID}}`,
      ` ${UUID}`,
      `${UUID}0`,
      `0${UUID}`,
      `${UUID}\n`,
    ],
    scopes: [null, 1, ['inventory.read'], {}, ' ', 'a  b', ' a', 'a ', 'a\tb', 'a\nb', 'a"b', 'a\\b', 'ä'],
    pairs: [
      null,
      'direct',
      {},
      [],
      ['direct', 1],
      [['direct']],
      [['direct', 1, 2]],
      [['direct', '1']],
      [['direct', -1]],
      [[1, 'direct']],
      [['', 1]],
      [['direct', 1], null],
      [{ 0: 'direct', 1: 1 }],
    ],
    actors: [
      null,
      'payment',
      [],
      {},
      { sub: 1 },
      { sub: '' },
      { sub: 'payment', act: 'shipping' },
      { sub: 'payment', act: {} },
      { sub: 'payment', act: null },
      [{ sub: 'payment' }],
    ],
    uuids: [null, UUID, {}, [1], [UUID, 'x'], [UUID.slice(1)]],
  };
  const typeOfClaim: Record<string, string> = {
    iss: 'text',
    aud: 'texts',
    sub: 'text',
    client_id: 'text',
    iat: 'seconds',
    exp: 'seconds',
    nbf: 'seconds',
    jti: 'uuid',
    sid: 'uuid',
    gen: 'count',
    scope: 'scopes',
    roles: 'texts',
    auth_time: 'seconds',
    amr: 'texts',
    clients: 'pairs',
    act: 'actors',
    ancestors: 'uuids',
  };
  for (const [claim, type] of Object.entries(typeOfClaim)) {
    it(`are rejected when ${claim} is of another type`, () => {
      for (const value of wrongTypes[type] ?? []) {
        expect(faultWith(claim, value, exchangedPayload()), JSON.stringify(value)).to.deep.equal({
          fault: claim,
        });
      }
    });
  }

  it('are rejected when exp is infinite, in milliseconds, or years away', () => {
    for (const value of [
      '1e400',
      '1e15',
      '-1e400',
      `${NOW_SECONDS}000`,
      `${NOW_SECONDS + 10 * 365 * 86_400}`,
    ]) {
      expect(read(written('exp', value)), value).to.deep.equal({ fault: 'exp' });
    }
  });

  it('are rejected when every time is in milliseconds', () => {
    const payload = {
      ...userPayload(),
      iat: (NOW_SECONDS - 10) * 1000,
      exp: (NOW_SECONDS - 10) * 1000 + 3000,
    };
    expect(read(payload)).to.deep.equal({ fault: 'iat' });
  });

  it('are rejected when the token lives longer than revocations are kept', () => {
    const iat = NOW_SECONDS - 10;
    expect(faultWith('exp', iat + ACCESS_TOKEN_LIFETIME_MAX_SECONDS)).to.not.have.property('fault');
    expect(faultWith('exp', iat + ACCESS_TOKEN_LIFETIME_MAX_SECONDS + 1)).to.deep.equal({ fault: 'exp' });
  });

  it('are rejected when the token expires before it was issued', () => {
    expect(faultWith('exp', NOW_SECONDS - 10)).to.deep.equal({ fault: 'exp' });
    expect(faultWith('exp', NOW_SECONDS - 11)).to.deep.equal({ fault: 'exp' });
  });

  for (const claim of ['iat', 'nbf']) {
    it(`are rejected when ${claim} is in the future by more than the skew`, () => {
      expect(faultWith(claim, NOW_SECONDS + CLOCK_SKEW_SECONDS)).to.not.have.property('fault');
      expect(faultWith(claim, NOW_SECONDS + CLOCK_SKEW_SECONDS + 1)).to.deep.equal({ fault: claim });
    });
  }

  it('leave to the caller whether the token has expired', () => {
    expect(read({ ...userPayload(), iat: NOW_SECONDS - 3600, exp: NOW_SECONDS - 3000 })).to.have.property(
      'kind',
      'USER',
    );
  });

  it('are rejected from an issuer with a similar name', () => {
    for (const issuer of [
      `${ISSUER}/`,
      ISSUER.toUpperCase(),
      ` ${ISSUER}`,
      ISSUER.replace('https', 'http'),
      `${ISSUER}.evil`,
      ISSUER.slice(0, -1),
    ]) {
      expect(faultWith('iss', issuer), issuer).to.deep.equal({ fault: 'iss' });
    }
  });

  it('are rejected for an audience with a similar name', () => {
    for (const audience of [
      'Inventory',
      'inventory ',
      'inventor',
      'inventory2',
      'payment',
      '*',
      'inventory,payment',
      'inventory\0',
    ]) {
      expect(faultWith('aud', [audience]), audience).to.deep.equal({ fault: 'aud' });
    }
    expect(faultWith('aud', [])).to.deep.equal({ fault: 'aud' });
  });

  it('are accepted for any audience when none is expected', () => {
    const expected = { ...EXPECTED, audience: undefined };
    expect(read({ ...userPayload(), aud: ['elsewhere'] }, expected)).to.have.property('kind', 'USER');
  });

  it("are rejected when a service's token contains claims of users", () => {
    const cases: Record<string, unknown> = {
      gen: 1,
      act: { sub: 'payment' },
      sub: 'user-1',
      client_id: 'direct',
      auth_time: NOW_SECONDS,
    };
    for (const [claim, value] of Object.entries(cases)) {
      expect(faultWith(claim, value, servicePayload()), claim).to.deep.equal({ fault: 'sid' });
    }
  });

  it('are rejected when a user has the name of the client', () => {
    expect(faultWith('sub', 'direct')).to.deep.equal({ fault: 'sub' });
  });

  it('are rejected when one of several clients is no pair of a text and a generation', () => {
    const bad = [
      null,
      'direct',
      {},
      [],
      ['other'],
      ['other', 1, 2],
      ['other', '1'],
      ['other', -1],
      [1, 1],
      ['', 1],
    ];
    for (const pair of bad) {
      expect(faultWith('clients', [['direct', 1], pair]), JSON.stringify(pair)).to.deep.equal({
        fault: 'clients',
      });
    }
  });

  it('are rejected when the list of clients lacks the calling client', () => {
    expect(faultWith('clients', [['other', 1]])).to.deep.equal({ fault: 'clients' });
  });

  it('are rejected when a service acts for a user and no ancestor is named', () => {
    expect(without('ancestors', exchangedPayload())).to.deep.equal({ fault: 'ancestors' });
    expect(faultWith('ancestors', [], exchangedPayload())).to.deep.equal({ fault: 'ancestors' });
  });

  describe("of a token derived from another issuer's token", () => {
    const origin = (over: Record<string, unknown> = {}) => ({
      iss: 'https://other.example',
      sub: 'alice',
      sid: 'any text',
      jti: 'any other text',
      iat: NOW_SECONDS - 20,
      ...over,
    });
    /** Its user belongs to another issuer: no session, generation or ancestors here. */
    const delegated = (): Record<string, unknown> => {
      const { sid: _sid, gen: _gen, ancestors: _ancestors, ...rest } = exchangedPayload();
      return { ...rest, sub: 'https://other.example#alice', clients: [['payment', 7]] };
    };
    const withOrigin = (value: unknown) => faultWith('origin', value, delegated());

    it('contain its origin', () => {
      expect(withOrigin(origin())).to.have.deep.property('origin', {
        issuer: 'https://other.example',
        subject: 'alice',
        sessionId: 'any text',
        tokenId: 'any other text',
        issuedAtSeconds: NOW_SECONDS - 20,
        revocable: undefined,
      });
    });

    it('contain a user id that no user of this issuer can have', () => {
      expect(withOrigin(origin())).to.include({ kind: 'USER', id: 'https://other.example#alice' });
      const refused = [
        { sub: 'alice' },
        { sub: 'user-1' },
        { sub: 'https://other.example#bob' },
        { sub: 'https://third.example#alice' },
        { sid: UUID },
        { gen: 1 },
      ];
      for (const over of refused) {
        const payload = { ...delegated(), ...over };
        expect(faultWith('origin', origin(), payload), JSON.stringify(over)).to.deep.equal({
          fault: 'origin',
        });
      }
    });

    it('are rejected when no entry could revoke the origin', () => {
      for (const claim of ['iss', 'sub', 'jti', 'iat']) {
        const { [claim]: _, ...rest }: Record<string, unknown> = origin();
        expect(withOrigin(rest), claim).to.deep.equal({ fault: 'origin' });
        for (const value of [null, '', [], {}, true]) {
          expect(withOrigin(origin({ [claim]: value })), claim).to.deep.equal({ fault: 'origin' });
        }
      }
      for (const value of [null, 'alice', [origin()], [], origin({ sid: '' }), origin({ sid: 1 })]) {
        expect(withOrigin(value)).to.deep.equal({ fault: 'origin' });
      }
    });

    it('are rejected when the origin is of this issuer, or no service acts', () => {
      const ours = { ...delegated(), sub: `${ISSUER}#alice` };
      expect(faultWith('origin', origin({ iss: ISSUER }), ours)).to.deep.equal({ fault: 'origin' });
      expect(faultWith('origin', origin())).to.deep.equal({ fault: 'origin' });
    });

    it("are rejected when they outlive the origin's revocations", () => {
      const earliest = NOW_SECONDS + 290 - ACCESS_TOKEN_LIFETIME_MAX_SECONDS;
      expect(withOrigin(origin({ iat: earliest }))).to.not.have.property('fault');
      expect(withOrigin(origin({ iat: earliest - 1 }))).to.deep.equal({ fault: 'origin' });
    });
  });

  it('are rejected with the nil UUID, which no list can contain', () => {
    const nil = '00000000-0000-0000-0000-000000000000';
    expect(faultWith('jti', nil)).to.deep.equal({ fault: 'jti' });
    expect(faultWith('sid', nil)).to.deep.equal({ fault: 'sid' });
    expect(faultWith('ancestors', [nil], exchangedPayload())).to.deep.equal({ fault: 'ancestors' });
  });

  it('are rejected when a text is longer than the limit', () => {
    expect(faultWith('sub', 's'.repeat(CLAIM_TEXT_LENGTH_MAX))).to.not.have.property('fault');
    expect(faultWith('sub', 's'.repeat(CLAIM_TEXT_LENGTH_MAX + 1))).to.deep.equal({ fault: 'sub' });
  });

  it('are rejected when a text is not well-formed, because no log entry could name it', () => {
    expect(read(written('sub', '"\\ud800"'))).to.deep.equal({ fault: 'sub' });
    expect(read(written('clients', '[["direct",1],["\\udfff",1]]'))).to.deep.equal({ fault: 'clients' });
  });

  it('are rejected when a text has control characters, which services could neither store nor print', () => {
    for (const character of ['\0', '\n', '\r', '\t', '\u001b', '\u007f', '\u0085', '\ufffd']) {
      const text = `a${character}b`;
      const faults: [string, unknown][] = [
        ['sub', text],
        ['client_id', text],
        ['aud', [AUDIENCE, text]],
        ['roles', ['customer', text]],
        ['amr', [text]],
        ['clients', [[text, 1]]],
        ['act', { sub: text }],
      ];
      for (const [name, value] of faults) expect(faultWith(name, value), name).to.deep.equal({ fault: name });
    }
    expect(faultWith('roles', ['caf\u00e9', '\u6f22\u5b57', '\u{1f511}'])).to.not.have.property('fault');
  });

  it('are rejected when a list is longer than the limit', () => {
    const many = (length: number) => Array.from({ length }, (_, index) => `item${index}`);
    expect(faultWith('roles', many(CLAIM_LIST_LENGTH_MAX))).to.not.have.property('fault');
    expect(faultWith('roles', many(CLAIM_LIST_LENGTH_MAX + 1))).to.deep.equal({ fault: 'roles' });
    expect(faultWith('scope', many(CLAIM_LIST_LENGTH_MAX).join(' '))).to.not.have.property('fault');
    expect(faultWith('scope', many(CLAIM_LIST_LENGTH_MAX + 1).join(' '))).to.deep.equal({ fault: 'scope' });
    const clients = (length: number) => [['direct', 1], ...many(length - 1).map((id) => [id, 1])];
    expect(faultWith('clients', clients(ACTOR_CHAIN_LENGTH_MAX + 1))).to.not.have.property('fault');
    expect(faultWith('clients', clients(ACTOR_CHAIN_LENGTH_MAX + 2))).to.deep.equal({ fault: 'clients' });
    const ancestors = (length: number) =>
      faultWith('ancestors', Array<string>(length).fill(UUID), exchangedPayload());
    expect(ancestors(ACTOR_CHAIN_LENGTH_MAX)).to.not.have.property('fault');
    expect(ancestors(ACTOR_CHAIN_LENGTH_MAX + 1)).to.deep.equal({ fault: 'ancestors' });
  });

  it('are rejected when the chain of actors is longer than the limit', () => {
    const chain = (length: number): object => ({
      sub: 'payment',
      ...(length > 1 && { act: chain(length - 1) }),
    });
    expect(faultWith('act', chain(ACTOR_CHAIN_LENGTH_MAX), exchangedPayload())).to.not.have.property('fault');
    expect(faultWith('act', chain(ACTOR_CHAIN_LENGTH_MAX + 1), exchangedPayload())).to.deep.equal({
      fault: 'act',
    });
  });

  it('are rejected when a member is duplicated', () => {
    const text = JSON.stringify(userPayload());
    expect(read(`${text.slice(0, -1)},"sub":"user-2"}`)).to.deep.equal({ fault: 'payload' });
    expect(read(`${text.slice(0, -1)},"\\u0073cope":"auth.revoke"}`)).to.deep.equal({ fault: 'payload' });
  });

  it('accept the names of inherited properties as text', () => {
    const claims = faultWith('roles', ['__proto__', 'constructor']);
    expect(claims).to.have.deep.property('roles', new Set(['__proto__', 'constructor']));
  });

  it('are not read from inherited properties', () => {
    const inherited = Object.create({ sid: UUID, gen: 1 });
    expect(readClaims(Object.assign(inherited, servicePayload()), 'key-1', EXPECTED)).to.have.property(
      'kind',
      'SERVICE',
    );
  });

  it('compare scopes as whole texts', () => {
    const claims = faultWith('scope', 'inventory.rea inventory.READ inventory.read.all');
    expect(claims)
      .to.have.property('scopes')
      .that.satisfies((scopes: Set<string>) => !scopes.has('inventory.read'));
  });

  it('contain no scope when the scope is empty', () => {
    expect(faultWith('scope', '')).to.have.deep.property('scopes', new Set());
  });
});
