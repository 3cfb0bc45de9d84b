/** The configuration of other issuers: its limits, and how the issuers are found. */

import { expect } from 'chai';
import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  LEGACY_SECRET_BYTES_MIN,
} from '../../../interceptors/src/limits.js';
import type { SignatureAlgorithm } from '../../../interceptors/src/token/key-checks.js';
import { claimIdOf } from '../../../interceptors/src/token/revocable-claims.js';
import {
  createTrustedIssuers,
  type ForeignIssuer as Found,
  issuerNamedIn,
  type TrustedIssuer,
  type TrustedIssuers,
  type TrustedIssuersOptions,
  trustedIssuerFaults,
} from '../../../interceptors/src/token/trusted-issuers.js';
import { ForeignIssuer } from '../../support/foreign-issuer.js';
import { until } from '../../support/waiting.js';
import { AUDIENCE, hmacToken, ISSUER, NOW_SECONDS, SetClock, SetTimers } from '../tokens-support.js';

const LEGACY = 'https://legacy.example';
const SECRET = Buffer.alloc(LEGACY_SECRET_BYTES_MIN, 's');

const legacy = (over: Partial<TrustedIssuer> = {}): TrustedIssuer => ({
  issuer: LEGACY,
  keys: { legacySecret: SECRET },
  ...over,
});

const published = (keys: object, algorithms: readonly string[] = ['ES256']): TrustedIssuer =>
  legacy({ keys: { algorithms: algorithms as readonly SignatureAlgorithm[], ...keys } });

describe('the configuration of other issuers', () => {
  const problemsOf = (issuers: readonly TrustedIssuer[], plaintext?: 'loopback' | 'allow'): string[] =>
    trustedIssuerFaults(issuers, { ownIssuer: ISSUER, plaintext }).map(({ problem }) => problem);

  it('is accepted up to its limits', () => {
    const good: TrustedIssuer[] = [
      legacy(),
      legacy({ issuer: 'x' }),
      legacy({ issuer: 'x'.repeat(255) }),
      legacy({ lifetimeMaxSeconds: 1 }),
      legacy({ lifetimeMaxSeconds: ACCESS_TOKEN_LIFETIME_MAX_SECONDS }),
      published({ jwksUrl: 'https://other.example/certs' }, ['EdDSA', 'ES256', 'RS256', 'PS256']),
      published({ jwksUrl: 'http://127.0.0.1/certs' }),
      published({ jwksFile: '/keys.json' }),
      legacy({ revocable: [...'abcdefgh'] }),
      legacy({ revocable: ['x'.repeat(254), ['realm_access', 'groups'], 'realm_access/groups'] }),
    ];
    for (const issuer of good) expect(problemsOf([issuer]), JSON.stringify(issuer)).to.deep.equal([]);
    expect(problemsOf([published({ jwksUrl: 'http://other.example/certs' })], 'allow')).to.deep.equal([]);
  });

  it('is refused beyond them, with the name of the issuer and what it must be', () => {
    const length = 'must have 1 to 255 characters and no #';
    const lifetime = 'must limit lifetimes to at most 3600 seconds';
    const source = 'must have a jwksUrl or a jwksFile';
    const algorithms = 'must have algorithms among EdDSA, ES256, RS256, PS256';
    const scheme = 'must publish its keys over https, or on this machine';
    const long = 'x'.repeat(256);
    const bad: [TrustedIssuer, string][] = [
      [legacy({ issuer: '' }), `issuer  ${length}`],
      [legacy({ issuer: long }), `issuer ${long} ${length}`],
      [legacy({ issuer: 'a#b' }), `issuer a#b ${length}`],
      [legacy({ issuer: ISSUER }), `issuer ${ISSUER} is the own issuer of this service`],
      [legacy({ lifetimeMaxSeconds: 0 }), `issuer ${LEGACY} ${lifetime}`],
      [legacy({ lifetimeMaxSeconds: Number.NaN }), `issuer ${LEGACY} ${lifetime}`],
      [legacy({ lifetimeMaxSeconds: ACCESS_TOKEN_LIFETIME_MAX_SECONDS + 1 }), `issuer ${LEGACY} ${lifetime}`],
      [
        legacy({ keys: { legacySecret: SECRET.subarray(1) } }),
        `issuer ${LEGACY} must have a secret of at least 32 bytes`,
      ],
      [
        legacy({ keys: { legacySecret: Buffer.from('a-string-secret-at-least-256-bits-long') } }),
        `issuer ${LEGACY} must not have the secret that is printed on jwt.io`,
      ],
      [legacy({ revocable: [...'abcdefghi'] }), `issuer ${LEGACY} must have at most 8 revocable claims`],
      [legacy({ revocable: ['a', ['b'], ['a']] }), `issuer ${LEGACY} must not have a revocable claim twice`],
      ...['', [], 'x'.repeat(255), 'a\u0000'].map((name): [TrustedIssuer, string] => [
        legacy({ revocable: ['tenant', name] }),
        `issuer ${LEGACY} must have revocable claims whose JSON Pointers have at most 255 printable characters`,
      ]),
      [published({}), `issuer ${LEGACY} ${source}`],
      [published({ jwksUrl: 'https://a.example', jwksFile: 'b' }), `issuer ${LEGACY} ${source}`],
      [published({ jwksFile: 'b' }, []), `issuer ${LEGACY} ${algorithms}`],
      [published({ jwksFile: 'b' }, ['ES256', 'HS256']), `issuer ${LEGACY} ${algorithms}`],
      [published({ jwksUrl: 'http://other.example/certs' }), `issuer ${LEGACY} ${scheme}`],
      [published({ jwksUrl: 'file:///etc/passwd' }), `issuer ${LEGACY} ${scheme}`],
    ];
    for (const [issuer, problem] of bad) expect(problemsOf([issuer])).to.deep.equal([problem]);
  });

  it('is refused with a name twice, and all faults are listed with the places of their issuers', () => {
    const faults = trustedIssuerFaults(
      [legacy(), legacy({ issuer: '' }), legacy({ keys: { legacySecret: Buffer.alloc(1) } })],
      { ownIssuer: undefined, plaintext: undefined },
    );
    expect(faults).to.deep.equal([
      { index: 1, problem: 'issuer  must have 1 to 255 characters and no #' },
      { index: 2, problem: `issuer ${LEGACY} is configured twice` },
      { index: 2, problem: `issuer ${LEGACY} must have a secret of at least 32 bytes` },
    ]);
  });

  it('is refused with more than 32 issuers', () => {
    const issuers = (count: number): TrustedIssuer[] =>
      Array.from({ length: count }, (_, index) => legacy({ issuer: `https://${index}.example` }));
    expect(problemsOf(issuers(32))).to.deep.equal([]);
    const rules = { ownIssuer: ISSUER, plaintext: undefined };
    expect(trustedIssuerFaults(issuers(33), rules)).to.deep.equal([
      { index: 0, problem: 'expected at most 32 issuers, got 33' },
    ]);
  });
});

describe('other issuers in use', () => {
  let timers: SetTimers;
  let changed: string[];
  let trusted: TrustedIssuers | undefined;

  beforeEach(() => {
    timers = new SetTimers();
    changed = [];
  });
  afterEach(() => trusted?.close());

  function create(
    issuers: readonly TrustedIssuer[],
    over: Partial<TrustedIssuersOptions> = {},
  ): TrustedIssuers {
    trusted = createTrustedIssuers({
      issuers,
      ownIssuer: ISSUER,
      audience: AUDIENCE,
      plaintext: undefined,
      clock: new SetClock(),
      timers,
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      onKeys: ({ issuer }) => void changed.push(issuer),
      ...over,
    });
    return trusted;
  }

  const claims = (over: object = {}): object => ({
    ...{ iss: LEGACY, aud: AUDIENCE, sub: 'alice', client_id: 'web', jti: 'token', sid: 'session' },
    ...{ iat: NOW_SECONDS - 10, exp: NOW_SECONDS + 60, scope: 'call', roles: ['clerk'] },
    ...over,
  });

  /** Reads the claims of a token whose signature was verified. */
  function read(issuer: Found | undefined, payload: object, audience: 'OURS' | 'ANY' = 'OURS') {
    const token = issuer?.parse(hmacToken('key', SECRET, payload));
    if (issuer === undefined || token === undefined) throw new Error('the test made no token');
    return issuer.read(token, 'thumbprint', { nowSeconds: NOW_SECONDS, audience });
  }

  it('are found by exactly their names', () => {
    const both = create([legacy(), legacy({ issuer: 'https://second.example' })]);
    expect(both.size).to.equal(2);
    expect(both.find(LEGACY)?.issuer).to.equal(LEGACY);
    for (const name of [`${LEGACY}/`, LEGACY.toUpperCase(), '', '__proto__', ISSUER]) {
      expect(both.find(name), name).to.equal(undefined);
    }
  });

  it('have an id for each issuer and for each claim by which its tokens can be revoked', () => {
    const { claimIds } = create([
      legacy({ revocable: ['tenant', ['realm_access', 'groups']] }),
      legacy({ issuer: 'https://second.example' }),
    ]);
    expect(claimIds).to.deep.equal([
      claimIdOf(LEGACY, ''),
      claimIdOf(LEGACY, '/tenant'),
      claimIdOf(LEGACY, '/realm_access/groups'),
      claimIdOf('https://second.example', ''),
    ]);
  });

  it('are read with the values by which their tokens can be revoked', () => {
    const issuer = create([legacy({ revocable: ['tenant'] })]).find(LEGACY);
    expect(read(issuer, claims({ tenant: ['acme', 7] }))).to.deep.include({
      revocable: new Map([['/tenant', ['acme', '7']]]),
    });
    expect(read(issuer, claims({ tenant: {} }))).to.deep.equal({ fault: '/tenant' });
  });

  it('are read without any where none are configured', () => {
    const issuer = create([legacy()]).find(LEGACY);
    expect(read(issuer, claims({ tenant: ['acme'] }))).to.deep.include({ revocable: new Map() });
  });

  it('are refused as a whole with a faulty configuration', () => {
    expect(() => create([legacy({ issuer: '' }), legacy({ issuer: ISSUER })])).to.throw(
      TypeError,
      `issuer  must have 1 to 255 characters and no #; issuer ${ISSUER} is the own issuer of this service`,
    );
  });

  it('accept at+jwt and grant nothing, unless that is configured', async () => {
    const issuer = create([legacy()]).find(LEGACY);
    const token = issuer?.parse(hmacToken('key', SECRET, claims()));
    if (issuer === undefined || token === undefined) throw new Error('the test made no token');
    expect(await issuer.verify(token)).to.deep.equal({ verifiedBy: '' });
    expect(issuer.has('')).to.equal(true);
    expect(read(issuer, claims())).to.deep.include({
      kind: 'USER',
      subject: 'alice',
      scopes: new Set(),
      roles: new Set(),
      keyId: 'thumbprint',
    });
    const untyped = create([legacy({ types: ['JWT'] })]).find(LEGACY);
    expect(untyped?.parse(hmacToken('key', SECRET, claims()))).to.equal(undefined);
  });

  it('are read by their configuration', () => {
    const issuer = create([
      legacy({
        audience: 'their name for us',
        claims: { subject: 'user' },
        scopes: { call: 'echo.call' },
        roles: { clerk: 'operator' },
        services: { claim: 'kind', values: ['service'] },
        lifetimeMaxSeconds: 70,
      }),
    ]).find(LEGACY);
    const theirs = { aud: 'their name for us', user: 'bob', kind: 'service' };
    expect(read(issuer, claims(theirs))).to.deep.include({
      kind: 'SERVICE',
      subject: 'bob',
      scopes: new Set(['echo.call']),
      roles: new Set(['operator']),
    });
    expect(read(issuer, claims({ ...theirs, exp: NOW_SECONDS + 61 }))).to.deep.equal({ fault: 'exp' });
    expect(read(issuer, claims({ ...theirs, aud: AUDIENCE }))).to.deep.equal({ fault: 'aud' });
    expect(read(issuer, claims({ ...theirs, aud: 'elsewhere' }), 'ANY')).to.include({ subject: 'bob' });
  });

  it('limit lifetimes to the maximum of this issuer by default', () => {
    const issuer = create([legacy()]).find(LEGACY);
    const iat = NOW_SECONDS - 10;
    const [longest, longer] = [3600, 3601].map((seconds) =>
      read(issuer, claims({ iat, exp: iat + seconds })),
    );
    expect(longest).to.include({ subject: 'alice' });
    expect(longer).to.deep.equal({ fault: 'exp' });
  });

  it('have tokens whose payload is an object without repeated members', () => {
    const issuer = create([legacy()]).find(LEGACY);
    expect(read(issuer, [claims()])).to.deep.equal({ fault: 'payload' });
  });

  it('report their new keys by their names, and fetch no more after they were closed', async () => {
    const other = await ForeignIssuer.start({ algorithm: 'ES256' });
    const issuers = create(
      [legacy(), published({ jwksUrl: other.jwksUrl }), legacy({ issuer: 'third' })].map((issuer, index) =>
        index === 1 ? { ...issuer, issuer: other.name } : issuer,
      ),
    );
    await until(() => changed.length > 0 && timers.waiting === 1);
    expect(changed).to.deep.equal([other.name]);
    issuers.close();
    expect(timers.waiting).to.equal(0);
    await other.stop();
  });

  it('are named by unverified tokens', () => {
    expect(issuerNamedIn(hmacToken('key', SECRET, claims()))).to.equal(LEGACY);
    for (const payload of [{}, { iss: 7 }, { iss: [LEGACY] }, [LEGACY], { iss: null }]) {
      expect(issuerNamedIn(hmacToken('key', SECRET, payload)), JSON.stringify(payload)).to.equal(undefined);
    }
    for (const text of ['', 'x', 'a.b', `${hmacToken('key', SECRET, claims())}.x`]) {
      expect(issuerNamedIn(text), text).to.equal(undefined);
    }
  });
});
