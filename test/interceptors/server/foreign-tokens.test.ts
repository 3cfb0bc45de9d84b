/** Other issuers at a running guard: their tokens and claims, and that no issuer's keys verify another's tokens. */

import { createHmac, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { exportSPKI, importJWK } from 'jose';
import { createGuard, type GuardOptions, type TrustedIssuer } from '../../../interceptors/src/index.js';
import { readForeignClaims } from '../../../interceptors/src/token/foreign-claims.js';
import { KEYS_PAUSE_MS } from '../../../interceptors/src/token/issuer-keys.js';
import { claimIdOf } from '../../../interceptors/src/token/revocable-claims.js';
import type { JsonObject } from '../../../interceptors/src/token/strict-json.js';
import { type Entry, EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { MovableClock } from '../../support/clock.js';
import { bearer, callEcho, type Echo, openEchoStream, startEcho } from '../../support/echo.js';
import { createForeignKey, ForeignIssuer } from '../../support/foreign-issuer.js';
import { AUDIENCE, ISSUER, idOf, TestIssuer } from '../../support/issuer.js';
import { endOf, outcomeOf, rejectionOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';

const LEGACY = 'https://legacy.example';
const SECRET = Buffer.alloc(32, 's');
const INVALID = 'UNAUTHENTICATED TOKEN_INVALID';
const SILENT = { info: () => {}, warn: () => {}, error: () => {} };

describe('another issuer', () => {
  let issuer: TestIssuer;
  let other: ForeignIssuer;
  let third: ForeignIssuer;
  let echo: Echo;
  let faults: string[];

  before(async () => {
    other = await ForeignIssuer.start();
    third = await ForeignIssuer.start({ name: 'https://third.example', algorithm: 'ES256' });
  });
  after(async () => {
    await other.stop();
    await third.stop();
  });
  beforeEach(async () => {
    other.behaviour = 'good';
    other.asked = 0;
    issuer = await TestIssuer.create();
    faults = [];
    echo = await start();
  });
  afterEach(() => echo.stop());

  const keycloak = (over: Partial<TrustedIssuer> = {}): TrustedIssuer => ({
    issuer: other.name,
    keys: { jwksUrl: other.jwksUrl, algorithms: ['RS256'] },
    types: ['JWT'],
    claims: { roles: ['realm_access', 'roles'] },
    scopes: { call: 'echo.call' },
    roles: { clerk: 'operator' },
    revocable: ['tenant', ['realm_access', 'groups']],
    ...over,
  });

  async function start(
    over: Partial<TrustedIssuer> = {},
    options: Pick<GuardOptions, 'clock' | 'log'> = {},
  ): Promise<Echo> {
    const started = await startEcho(issuer, {
      trustedIssuers: [
        keycloak(over),
        {
          issuer: third.name,
          keys: { jwksUrl: third.jwksUrl, algorithms: ['ES256'] },
          types: ['JWT'],
          scopes: { call: 'echo.call' },
        },
        { issuer: LEGACY, keys: { legacySecret: SECRET }, types: ['', 'JWT'], scopes: { call: 'echo.call' } },
      ],
      observer: { tokenInvalid: (fault) => void faults.push(fault) },
      ...options,
    });
    await started.guard.ready;
    return started;
  }

  function call(token: string, method = 'Unary', at: Echo = echo): Promise<string> {
    return outcomeOf(callEcho(at.client, bearer(token), { method }));
  }

  function watch(token: string): { opened: Promise<unknown>; ended: Promise<string> } {
    const stream = openEchoStream(echo.client, bearer(token));
    const opened = new Promise((resolve) => stream.on('data', resolve));
    const ended = endOf(stream);
    return { opened: Promise.race([opened, ended]), ended };
  }

  /** An HMAC under a secret of one's choice. */
  function hmac(
    claims: object,
    secret: string | Uint8Array,
    header: object = { alg: 'HS256', typ: 'JWT' },
  ): string {
    const head = [header, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`;
  }

  it('is named with the claims that are read in every sync, for auth to compare', () => {
    expect(issuer.request?.kinds).to.include(EntryKind.ENTRY_KIND_CLAIM);
    const names = [
      [other.name, ''],
      [other.name, '/tenant'],
      [other.name, '/realm_access/groups'],
      [third.name, ''],
      [LEGACY, ''],
    ] as const;
    expect(issuer.request?.claimIds).to.deep.equal(names.map(([name, claim]) => claimIdOf(name, claim)));
  });

  it('grants only the scopes and roles that it may grant, by its own names', async () => {
    expect(await call(await other.token())).to.equal('OK');
    expect(await call(await third.token())).to.equal('OK');
    expect(await call(await issuer.token())).to.equal('OK');
    expect(await call(await other.token(), 'Operators')).to.equal('OK');
    const claims = { scope: 'echo.call echo.more', realm_access: { roles: ['operator', 'admin'] } };
    expect(await call(await other.token(claims))).to.equal('PERMISSION_DENIED SCOPE_MISSING');
    expect(await call(await other.token(claims), 'Operators')).to.equal('PERMISSION_DENIED ROLE_MISSING');
    expect(await call(await other.token({ scope: ['call'] }))).to.equal('OK');
    expect(await call(await other.token({ sub: 'web', azp: 'web', sid: undefined }), 'Users')).to.equal(
      'PERMISSION_DENIED CALLER_KIND',
    );
  });

  it('identifies callers by issuer and subject', async () => {
    const subject = randomUUID();
    expect(await echo.guard.authenticateToken(await issuer.token({ sub: subject }))).to.include({
      id: subject,
      subject,
    });
    const claims = JSON.parse(JSON.stringify(other.claims({ sub: subject }))) as JsonObject;
    const rules = {
      issuer: other.name,
      names: {},
      scopes: new Map(),
      roles: new Map(),
      revocable: new Map(),
      services: undefined,
      lifetimeMaxSeconds: 3600,
    };
    const expected = { ...rules, audience: 'echo', nowSeconds: Date.now() / 1000 };
    expect(readForeignClaims(claims, 'key', expected)).to.include({
      id: `${other.name}#${subject}`,
      subject,
      issuer: other.name,
      kind: 'USER',
    });
  });

  it('has keys that verify only its own tokens, whatever kid and iss they name', async () => {
    const ownKid = issuer.key.kid;
    const forged = [
      // Its keys for tokens in the name of this issuer, and of the third one.
      await other.sign(issuer.claims(), { typ: 'at+jwt' }),
      await other.sign(issuer.claims(), { typ: 'at+jwt', kid: ownKid }),
      await other.sign(third.claims()),
      await other.sign(third.claims(), { kid: third.key.kid }),
      // This issuer's keys for a token in its name.
      await issuer.sign(other.claims(), { typ: 'JWT' }),
      await issuer.sign(other.claims(), { typ: 'JWT', kid: other.key.kid }),
      await third.sign(other.claims()),
      await third.sign(other.claims(), { kid: other.key.kid }),
      // Similar names, and no name.
      await other.token({ iss: `${other.name}/` }),
      await other.token({ iss: other.name.toUpperCase() }),
      await other.token({ iss: [other.name] }),
      await other.token({ iss: undefined }),
      await other.token({ iss: '__proto__' }),
      await third.token({ iss: 'https://nobody.example' }),
    ];
    for (const [index, token] of forged.entries()) expect(await call(token), String(index)).to.equal(INVALID);
    expect(echo.trace.started).to.equal(0);
  });

  it('shares no key with another issuer that uses the same kid', async () => {
    await echo.stop();
    const kid = 'the same';
    const [one, two] = [
      await ForeignIssuer.start({ name: 'https://one.example', algorithm: 'ES256', kid }),
      await ForeignIssuer.start({ name: 'https://two.example', algorithm: 'ES256', kid }),
    ];
    const describe = ({ name, jwksUrl }: ForeignIssuer): TrustedIssuer => ({
      issuer: name,
      keys: { jwksUrl, algorithms: ['ES256'] },
      types: ['JWT'],
      scopes: { call: 'echo.call' },
    });
    echo = await startEcho(issuer, { trustedIssuers: [describe(one), describe(two)] });
    await echo.guard.ready;
    for (const [mine, theirs] of [
      [one, two],
      [two, one],
    ] as const) {
      expect(await call(await mine.token())).to.equal('OK');
      expect(await call(await mine.sign(theirs.claims()))).to.equal(INVALID);
    }
    await one.stop();
    await two.stop();
  });

  it('is rejected with other claims, types and lifetimes than configured', async () => {
    // Each token is made relative to the moment at which it is sent, because the whole list may take a while.
    const nowSeconds = (): number => Math.floor(Date.now() / 1000);
    const bad: ((now: number) => Record<string, unknown>)[] = [
      () => ({ aud: ['somebody else'] }),
      () => ({ aud: undefined }),
      () => ({ aud: [] }),
      () => ({ aud: 'ECHO' }),
      () => ({ sub: undefined }),
      () => ({ sub: '' }),
      () => ({ sub: 7 }),
      () => ({ sub: 'x'.repeat(250) }),
      // A database rejects the first, and the others may be replaced on the way.
      () => ({ sub: 'a\0b' }),
      () => ({ sub: 'a\uFFFDb' }),
      () => ({ jti: 'a\nb' }),
      () => ({ jti: undefined }),
      () => ({ jti: ['a'] }),
      () => ({ sid: 7 }),
      () => ({ azp: {} }),
      () => ({ exp: undefined }),
      () => ({ exp: 'never' }),
      (now) => ({ exp: now - 10, iat: now }),
      (now) => ({ exp: now + 3601, iat: now }),
      () => ({ exp: 1e15 }),
      () => ({ iat: undefined }),
      (now) => ({ iat: now + 60, exp: now + 120 }),
      (now) => ({ nbf: now + 60 }),
      () => ({ scope: 7 }),
      () => ({ realm_access: { roles: 7 } }),
      () => ({ realm_access: { roles: { clerk: true } } }),
      () => ({ aud: ['echo', ''] }),
      () => ({ aud: ['echo', 7] }),
      () => ({ cnf: { jkt: 'x' } }),
      () => ({ auth_time: 'now' }),
    ];
    for (const claimsAt of bad) {
      const over = claimsAt(nowSeconds());
      expect(await call(await other.token(over)), JSON.stringify(over)).to.equal(INVALID);
    }
    const headers = [
      { typ: 'at+jwt' },
      { typ: 'application/at+jwt' },
      { typ: 'text/jwt' },
      { typ: 'application/application/jwt' },
      { typ: 'ID' },
      { typ: undefined },
      { jku: other.jwksUrl },
      { jwk: other.key.jwk },
      { x5u: other.jwksUrl },
      { x5c: ['AAAA'] },
      { crit: ['exp'] },
      { cty: 'JWT' },
      { crit: ['b64'], b64: true },
      { b64: true },
      { zip: 'DEF' },
      { kid: 'another' },
      { kid: 7 },
    ];
    for (const header of headers) {
      const token = other.sign(other.claims(), header).catch(() => 'cannot be made');
      expect(await call(await token), JSON.stringify(header)).to.equal(INVALID);
    }
    const expired = await other.token({ iat: nowSeconds() - 120, exp: nowSeconds() - 60 });
    expect(await call(expired)).to.equal('UNAUTHENTICATED TOKEN_EXPIRED');
    await echo.stop();
    echo = await start({ lifetimeMaxSeconds: 60, audience: 'the echo' });
    expect(await call(await other.token({ aud: 'the echo' }))).to.equal(INVALID);
    expect(await call(await other.token({ aud: 'the echo', exp: nowSeconds() + 55 }))).to.equal('OK');
    expect(await call(await other.token({ exp: nowSeconds() + 55 }))).to.equal(INVALID);
  });

  it('is accepted with parameters in its header that mean nothing here, and with each spelling of its type', async () => {
    const headers = [
      { x5t: 'AAAA', 'x5t#S256': 'AAAA' },
      { nonce: 'n', ver: 2, 'https://other.example/extra': { deep: [true] } },
      { typ: 'jwt' },
      { typ: 'application/jwt' },
      { typ: 'Application/JWT' },
      { kid: undefined },
    ];
    for (const header of headers) {
      expect(await call(await other.sign(other.claims(), header)), JSON.stringify(header)).to.equal('OK');
    }
    await echo.stop();
    echo = await start({ types: undefined });
    for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt']) {
      expect(await call(await other.sign(other.claims(), { typ })), typ).to.equal('OK');
    }
    expect(await call(await other.sign(other.claims(), { typ: 'JWT' }))).to.equal(INVALID);
    expect(await call(await issuer.sign(issuer.claims(), { typ: 'application/at+jwt' }))).to.equal(INVALID);
    expect(await call(await issuer.sign(issuer.claims(), { nonce: 'n' }))).to.equal(INVALID);
  });

  it('may list any number of roles and scopes, of which only the configured ones count', async () => {
    const many = Array.from({ length: 200 }, (_, index) => `r${index}`);
    const lists = [
      [...many, '', 'clerk'],
      ['', 'clerk', '', 7, null, {}, 'a\0b'],
      ['clerk', 'clerk'],
      'other  clerk ',
    ];
    for (const roles of lists) {
      const token = await other.token({ realm_access: { roles } });
      expect(await call(token, 'Operators'), JSON.stringify(roles)).to.equal('OK');
    }
    for (const scope of [['', ...many, 'call'], ' call ', `${many.join(' ')} call`]) {
      expect(await call(await other.token({ scope })), String(scope)).to.equal('OK');
    }
    for (const roles of [many, [['clerk']], ['clerk '], ['Clerk'], '', []]) {
      const token = await other.token({ realm_access: { roles } });
      expect(await call(token, 'Operators'), JSON.stringify(roles)).to.equal(
        'PERMISSION_DENIED ROLE_MISSING',
      );
    }
  });

  it('grants no more scopes and roles than a token of this issuer may have', async () => {
    await echo.stop();
    const names = Array.from({ length: 65 }, (_, index) => `s${index}`);
    echo = await start({
      scopes: { call: 'echo.call', ...Object.fromEntries(names.map((name) => [name, name])) },
    });
    expect(await call(await other.token({ scope: ['call', ...names.slice(0, 63)] }))).to.equal('OK');
    expect(await call(await other.token({ scope: ['call', ...names] }))).to.equal(INVALID);
    expect(faults).to.include('scope');
  });

  it('says by a configured claim which of its tokens are for services', async () => {
    await echo.stop();
    echo = await start({ services: { claim: ['ext', 'kind'], values: ['service', 'batch'] } });
    const account = { sub: randomUUID(), client_id: 'batch-job', azp: undefined, sid: undefined };
    const user = 'PERMISSION_DENIED CALLER_KIND';
    const tokens: [Record<string, unknown>, string, string][] = [
      [{ ...account, ext: { kind: 'service' } }, user, 'OK'],
      [{ ...account, ext: { kind: ['x', 'batch'] } }, user, 'OK'],
      [account, 'OK', user],
      [{ ...account, ext: { kind: 'Service' } }, 'OK', user],
      [{ ...account, ext: { kind: [['service']] } }, 'OK', user],
      [{ ...account, ext: 'service' }, 'OK', user],
      // The default rule no longer applies.
      [{ sub: 'web', azp: 'web', sid: undefined }, 'OK', user],
    ];
    for (const [over, asUser, asService] of tokens) {
      const token = await other.token(over);
      expect([await call(token, 'Users'), await call(token, 'Services')], JSON.stringify(over)).to.deep.equal(
        [asUser, asService],
      );
    }
  });

  it('may use a secret only where that is configured, and then nothing else', async () => {
    const claims = (over: object = {}) => ({ ...other.claims(), iss: LEGACY, ...over });
    expect(await call(hmac(claims(), SECRET))).to.equal('OK');
    expect(await call(hmac(claims(), SECRET, { alg: 'HS256' }))).to.equal('OK');
    const key = other.key;
    const publicKey = await importJWK(key.jwk, key.algorithm);
    const pem = publicKey instanceof Uint8Array ? '' : await exportSPKI(publicKey);
    const bad = [
      hmac(claims(), Buffer.alloc(32, 'x')),
      hmac(claims(), SECRET, { alg: 'none', typ: 'JWT' }),
      hmac(claims(), SECRET, { alg: 'HS384', typ: 'JWT' }),
      await other.sign(claims()),
      // The secret of the legacy issuer, and public keys as secrets, in the name of the others.
      hmac(other.claims(), SECRET, { alg: 'HS256', typ: 'JWT', kid: key.kid }),
      hmac(other.claims(), pem, { alg: 'HS256', typ: 'JWT', kid: key.kid }),
      hmac(other.claims(), JSON.stringify(key.jwk), { alg: 'HS256', typ: 'JWT', kid: key.kid }),
      hmac(issuer.claims(), SECRET, { alg: 'HS256', typ: 'at+jwt', kid: issuer.key.kid }),
    ];
    for (const [index, token] of bad.entries()) expect(await call(token), String(index)).to.equal(INVALID);
  });

  it('is rejected with a faulty configuration', async () => {
    const { jwksUrl } = other;
    const careless: [Partial<TrustedIssuer>, string][] = [
      [{ issuer: ISSUER }, 'own issuer'],
      [{ issuer: third.name }, 'twice'],
      [{ issuer: '' }, 'characters'],
      [{ issuer: 'https://a.example#b' }, 'characters'],
      [{ keys: { legacySecret: Buffer.alloc(31) } }, '32 bytes'],
      [{ keys: { legacySecret: Buffer.from('a-string-secret-at-least-256-bits-long') } }, 'jwt.io'],
      [{ keys: { jwksUrl, algorithms: [] } }, 'algorithms'],
      [{ keys: { jwksUrl, algorithms: ['HS256' as 'RS256'] } }, 'algorithms'],
      [{ keys: { algorithms: ['RS256'] } }, 'jwksUrl'],
      [{ keys: { jwksUrl, jwksFile: 'x', algorithms: ['RS256'] } }, 'jwksUrl'],
      [{ keys: { jwksUrl: 'http://keycloak.example/certs', algorithms: ['RS256'] } }, 'https'],
      [{ keys: { jwksUrl: 'file:///etc/passwd', algorithms: ['RS256'] } }, 'https'],
      [{ lifetimeMaxSeconds: 3601 }, 'lifetimes'],
      [{ lifetimeMaxSeconds: 0 }, 'lifetimes'],
    ];
    for (const [over, words] of careless) {
      const guard = createGuard({
        log: 'silent',
        issuer: ISSUER,
        audience: AUDIENCE,
        auth: { source: issuer.source },
        trustedIssuers: [
          { issuer: third.name, keys: { jwksUrl: third.jwksUrl, algorithms: ['ES256'] } },
          keycloak(over),
        ],
      });
      const error = await rejectionOf(guard);
      expect(error, words).to.be.instanceOf(TypeError);
      expect(String(error)).to.contain(words);
    }
  });

  it('delays only its own callers, and not for long, when it is unreachable or slow', async () => {
    // The earlier guard has the keys already, and does not fetch them.
    expect(await call(await other.token())).to.equal('OK');
    await echo.stop();
    // Signed before the fetch begins, which has three seconds.
    const ours = await issuer.token();
    const theirs = [await other.token()];
    for (let index = 0; index < 100; index += 1)
      theirs.push(await other.sign(other.claims(), { kid: `kid-${index}` }));
    other.behaviour = 'slow';
    other.asked = 0;
    const warnings: string[] = [];
    const log = { ...SILENT, warn: (_: object, text: string) => void warnings.push(text) };
    echo = await start({}, { log });
    const ended: string[] = [];
    const waiting = Promise.all(theirs.map((one) => call(one))).finally(() => ended.push('theirs'));
    expect(await call(ours).finally(() => ended.push('ours'))).to.equal('OK');
    expect(new Set(await waiting)).to.deep.equal(new Set(['UNAVAILABLE DEPENDENCY_UNAVAILABLE']));
    // The fetch is still open: no call waited for its end.
    expect(ended).to.deep.equal(['ours', 'theirs']);
    expect(warnings).to.deep.equal([]);
    expect(other.asked).to.equal(1);
  });

  it('is accepted after the first sync by calls that came before it, and in a new epoch', async () => {
    await echo.stop();
    issuer.answers = false;
    echo = await startEcho(issuer, { trustedIssuers: [keycloak()] });
    const [early, revoked] = [await other.token(), await other.token({ sub: 'mallory' })];
    for (const token of [early, revoked]) {
      expect(await call(token)).to.equal('UNAVAILABLE REVOCATION_STATE_STALE');
    }
    issuer.answers = true;
    const { ready } = echo.guard;
    const cutOffTime = new Date(Date.now() + 1000);
    const entry = issuer.revoke(EntryKind.ENTRY_KIND_USER, 'mallory');
    Object.assign(entry, { issuer: other.name, cutOffTime });
    echo.guard.syncNow();
    await ready;
    expect(await call(early)).to.equal('OK');
    expect(await call(revoked)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    const ours = await issuer.token();
    expect(await call(ours)).to.equal('OK');
    const { guard } = echo;
    const stale = new Promise<void>((resolve) => {
      guard.onStateChange(() => void (!guard.state().current && resolve()));
    });
    issuer.epoch = Buffer.alloc(16, 9);
    guard.syncNow();
    await stale;
    await until(async () => (await call(early)) !== 'UNAVAILABLE REVOCATION_STATE_STALE');
    expect(await call(early)).to.equal('OK');
    expect(await call(revoked)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
    // The issuer of this test keeps its keys, so its own token is verified again and accepted.
    expect(await call(ours)).to.equal('OK');
  });

  describe('is revoked', () => {
    const foreign = (kind: EntryKind, text: string, over: Partial<Entry> = {}): Entry => {
      const entry = issuer.revoke(kind, text);
      Object.assign(entry, { issuer: other.name, ...over });
      return entry;
    };
    const kinds: Record<string, (claims: Record<string, unknown>) => Entry> = {
      'by its token': ({ jti }) => foreign(EntryKind.ENTRY_KIND_TOKEN, String(jti)),
      'by its session': ({ sid }) => foreign(EntryKind.ENTRY_KIND_SESSION, String(sid)),
      'by its user, up to a time': ({ sub, iat }) =>
        foreign(EntryKind.ENTRY_KIND_USER, String(sub), { cutOffTime: new Date(Number(iat) * 1000) }),
      'by its tenant, up to a time': ({ iat, tenant }) =>
        foreign(EntryKind.ENTRY_KIND_CLAIM, String(tenant), {
          claim: '/tenant',
          cutOffTime: new Date(Number(iat) * 1000),
        }),
      'by one of its groups, up to a time': ({ iat }) =>
        foreign(EntryKind.ENTRY_KIND_CLAIM, 'staff', {
          claim: '/realm_access/groups',
          cutOffTime: new Date(Number(iat) * 1000),
        }),
      'by a claim that the service does not read, up to a time': ({ iat }) =>
        foreign(EntryKind.ENTRY_KIND_CLAIM, 'any', {
          issuer: third.name,
          claim: '/tenant',
          cutOffTime: new Date(Number(iat) * 1000),
        }),
    };
    for (const [way, entryFor] of Object.entries(kinds)) {
      it(`${way}: its calls are rejected and its streams cut, those of others continue`, async () => {
        const from = way.includes('does not read') ? third : other;
        const claims = from.claims({
          tenant: 'acme',
          realm_access: { roles: ['clerk'], groups: ['all', 'staff'] },
        });
        const token = await from.sign(claims);
        const bystander = await other.token({ sub: 'bob' });
        const ours = await issuer.token({ sub: 'alice' });
        const { opened, ended } = watch(token);
        await opened;
        expect(await call(token)).to.equal('OK');
        entryFor(claims);
        echo.guard.syncNow();
        expect(await ended).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
        expect(await call(token)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
        // A token that is verified only now is checked against the list.
        const late = await from.sign({ ...claims, nbf: claims['iat'] });
        expect(await call(late)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
        for (const alive of [bystander, ours]) expect(await call(alive)).to.equal('OK');
        const anew = await from.sign({ ...claims, jti: 'anew', sid: 'anew', iat: Number(claims['iat']) + 1 });
        expect(await call(anew)).to.equal('OK');
      });
    }

    it("not by entries for this issuer's identifiers, even if the texts are equal", async () => {
      const [jti, sid, sub] = [randomUUID(), randomUUID(), randomUUID()];
      const token = await other.token({ jti, sid, sub });
      issuer.revoke(EntryKind.ENTRY_KIND_TOKEN, idOf(jti));
      issuer.revoke(EntryKind.ENTRY_KIND_SESSION, idOf(sid));
      issuer.revoke(EntryKind.ENTRY_KIND_USER, sub, 1000n);
      issuer.revoke(EntryKind.ENTRY_KIND_CLIENT, 'web', 1000n);
      issuer.revoke(EntryKind.ENTRY_KIND_KEY, other.key.kid);
      echo.guard.syncNow();
      await until(() => echo.guard.state().applied === 5n);
      expect(await call(token)).to.equal('OK');
    });

    it('with its key, when it is no longer published', async () => {
      await echo.stop();
      const clock = new MovableClock();
      // Longer than the time that passes below, in which the list must stay current.
      issuer.leaseMs = 120_000;
      echo = await start({}, { clock });
      const withdrawn = other.key;
      const token = await other.token();
      const { opened, ended } = watch(token);
      await opened;
      other.keys = [await createForeignKey('RS256')];
      // Fetched again because of an unknown kid, after the minimum interval.
      clock.pass(KEYS_PAUSE_MS);
      expect(await call(await other.token())).to.equal('OK');
      expect(await ended).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
      expect(await call(token)).to.equal('UNAUTHENTICATED TOKEN_REVOKED');
      expect(await call(await other.sign(other.claims(), {}, withdrawn))).to.equal(INVALID);
    });
  });
});
