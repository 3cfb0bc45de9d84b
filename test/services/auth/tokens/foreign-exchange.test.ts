/** Tests of exchanging tokens of other issuers, against PostgreSQL and an issuer over HTTP. */

import { TOKEN_LENGTH_MAX } from '@portcullis/guard/limits';
import { expect } from 'chai';
import type { ForeignTarget } from '../../../../services/auth/revocation/log.js';
import { createExchange } from '../../../../services/auth/tokens/exchange.js';
import type { ForeignToken } from '../../../../services/auth/tokens/tokens.js';
import { createForeignKey, ForeignIssuer } from '../../../support/foreign-issuer.js';
import { codeOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  openFreshAuth,
  serviceToken,
  type TestClient,
} from '../instance.js';

describe('exchanging the token of another issuer', () => {
  let other: ForeignIssuer;
  let auth: AuthInstance;
  let payment: TestClient;
  let callerToken: string;

  before(async () => {
    other = await ForeignIssuer.start();
    auth = await openFreshAuth({
      trustedIssuers: [
        {
          issuer: other.name,
          keys: { jwksUrl: other.jwksUrl, algorithms: ['RS256'] },
          types: ['JWT'],
          claims: { roles: ['realm_access', 'roles'] },
          revocable: ['tenant', ['realm_access', 'groups']],
          scopes: { read: 'inventory.read', reserve: 'inventory.reserve', self: 'auth.self' },
          roles: { clerk: 'operator' },
          audiences: new Map([['payment', 'payment-api']]),
        },
      ],
    });
    payment = await addClient(auth, {
      clientId: 'payment',
      exchangeAudiences: ['inventory', 'shipping', 'auth'],
    });
    callerToken = await serviceToken(auth, payment);
  });
  after(async () => {
    await auth.close();
    await other.stop();
  });

  const claims = (over: Record<string, unknown> = {}) =>
    other.claims({ aud: ['payment-api', 'account'], scope: 'openid read reserve', ...over });
  const subject = (over: Record<string, unknown> = {}) => other.sign(claims(over));
  const exchange = async (
    subjectToken: string,
    over: { audience?: string; scopes?: string[]; callerToken?: string } = {},
  ): Promise<string> => {
    const request = { callerToken, subjectToken, audience: 'inventory', scopes: [], ...over };
    return (await auth.exchange.exchange(request)).token;
  };

  /** A token whose signature was verified. */
  const foreignToken = (over: Partial<ForeignToken>): ForeignToken => {
    const nowSeconds = Math.floor(Date.now() / 1000);
    return {
      ...{ issuer: other.name, subject: 'alice', id: `${other.name}#alice`, clientId: 'web', kind: 'USER' },
      ...{ sessionId: undefined, tokenId: 'token', issuedAtSeconds: nowSeconds },
      ...{ authTimeSeconds: undefined, certificateThumbprint: undefined, audiences: ['payment'] },
      ...{ scopes: new Set(['inventory.read']), roles: new Set(), expiresAtSeconds: nowSeconds + 60 },
      ...over,
    };
  };

  it('returns a token with the origin of the foreign one and without a session of ours', async () => {
    const user = await addUser(auth);
    const of = claims({ sub: user.userId });
    const made = claimsOf(await exchange(await other.sign(of)));
    expect(made).to.deep.include({
      sub: `${other.name}#${user.userId}`,
      client_id: 'payment',
      scope: 'inventory.read inventory.reserve',
      // The issuer grants the role without its scopes.
      roles: [],
      act: { sub: 'payment' },
      clients: [['payment', 1]],
      origin: {
        ...{ iss: other.name, sub: user.userId, sid: of['sid'], jti: of['jti'], iat: of['iat'] },
        claims: { '/tenant': [], '/realm_access/groups': [] },
      },
    });
    for (const absent of ['sid', 'gen', 'ancestors']) expect(made).to.not.have.property(absent);
    expect(made.exp).to.be.at.most(Number(of['exp']));
  });

  it('returns a token that expires no later, with a narrower audience and scopes', async () => {
    const soon = claims({ exp: Math.floor(Date.now() / 1000) + 7 });
    expect(claimsOf(await exchange(await other.sign(soon))).exp).to.equal(soon['exp']);
    const token = await subject({ scope: 'read self' });
    expect(claimsOf(await exchange(token))['scope']).to.equal('inventory.read');
    expect(await codeOf(exchange(token, { scopes: ['inventory.reserve'] }))).to.equal('SCOPE_MISSING');
    expect(await codeOf(exchange(token, { audience: 'payment' }))).to.equal('AUDIENCE_NOT_ALLOWED');
    // Users of other issuers cannot call auth, whatever the client may do there for our users.
    expect(await codeOf(exchange(token, { audience: 'auth', scopes: ['auth.self'] }))).to.equal(
      'AUDIENCE_NOT_ALLOWED',
    );
  });

  it('rejects a token that is forged, expired, for another audience, a service’s own, or not verifiable', async () => {
    const now = Math.floor(Date.now() / 1000);
    const stranger = await createForeignKey('RS256', other.key.kid);
    const bad = [
      await other.sign(claims(), {}, stranger),
      await subject({ iat: now - 100, exp: now - 1 }),
      await subject({ aud: ['payment'] }),
      await subject({ aud: ['inventory'] }),
      await subject({ sub: 'web', azp: 'web', sid: undefined }),
      await subject({ jti: undefined }),
      await subject({ iss: `${other.name}/` }),
      await other.sign(claims(), { typ: 'at+jwt' }),
    ];
    for (const [index, token] of bad.entries()) {
      expect(await codeOf(exchange(token)), String(index)).to.equal('SUBJECT_TOKEN_INVALID');
    }
    // It is not valid for calling auth either.
    expect(await codeOf(exchange(await subject(), { callerToken: await subject() }))).to.equal(
      'TOKEN_REVOKED',
    );
    const unknown = await other.sign(claims(), { kid: 'unknown' });
    expect(await codeOf(exchange(unknown))).to.be.oneOf(['SUBJECT_TOKEN_INVALID', 'DEPENDENCY_UNAVAILABLE']);
  });

  it('rejects a token in the millisecond of its expiry', async () => {
    const expiresAtSeconds = Math.floor(Date.now() / 1000) + 60;
    const token = foreignToken({ issuedAtSeconds: expiresAtSeconds - 60, expiresAtSeconds });
    const exchangeAt = (ms: number): Promise<unknown> =>
      createExchange({
        tokens: auth.tokens,
        foreignTokens: { verify: async () => token },
        store: {
          ...auth.store,
          transaction: (work) =>
            auth.store.transaction((tx) => work({ ...tx, databaseTime: async () => new Date(ms) })),
        },
      }).exchange({ callerToken, subjectToken: '', audience: 'inventory', scopes: [] });
    await exchangeAt(expiresAtSeconds * 1000 - 1);
    expect(await codeOf(exchangeAt(expiresAtSeconds * 1000))).to.equal('SUBJECT_TOKEN_INVALID');
  });

  const targets: Record<string, (of: Record<string, unknown>) => ForeignTarget> = {
    token: ({ jti }) => ({ issuer: other.name, what: 'TOKEN', id: String(jti) }),
    session: ({ sid }) => ({ issuer: other.name, what: 'SESSION', id: String(sid) }),
    user: ({ sub }) => ({ issuer: other.name, what: 'USER', id: String(sub) }),
    tenant: ({ tenant }) => ({ issuer: other.name, what: 'CLAIM', claim: '/tenant', id: String(tenant) }),
    group: () => ({ issuer: other.name, what: 'CLAIM', claim: '/realm_access/groups', id: 'staff' }),
  };
  for (const [what, target] of Object.entries(targets)) {
    it(`fails once its ${what} is revoked, and all tokens derived from it are revoked`, async () => {
      const shipping = await addClient(auth, { exchangeAudiences: ['inventory'] });
      await auth.database.query(
        'UPDATE clients SET exchange_audiences = array_append(exchange_audiences, $1) WHERE client_id = $2',
        [shipping.clientId, 'payment'],
      );
      const groups = what === 'group' ? ['other', 'staff'] : ['other'];
      const of = claims({ sub: `alice-${what}`, tenant: `tenant-${what}`, realm_access: { groups } });
      const parent = await other.sign(of);
      const child = await exchange(parent, { audience: shipping.clientId, scopes: ['inventory.read'] });
      const shippingToken = await serviceToken(auth, shipping);
      const grandchild = await exchange(child, { callerToken: shippingToken });
      expect(claimsOf(grandchild)).to.deep.include({
        origin: claimsOf(child)['origin'],
        ancestors: [claimsOf(child).jti],
        act: { sub: shipping.clientId, act: { sub: 'payment' } },
        sub: `${other.name}#alice-${what}`,
      });
      for (const token of [child, grandchild]) {
        expect(await auth.exchange.introspect(token)).to.not.equal(undefined);
      }
      await auth.revocations.revoke({
        target: { kind: 'foreign', foreign: target(of) },
        reason: 'a test',
        actor: 'test',
      });
      for (const token of [child, grandchild]) {
        expect(await auth.exchange.introspect(token)).to.equal(undefined);
      }
      expect(await codeOf(exchange(parent))).to.equal('SUBJECT_TOKEN_INVALID');
      expect(await codeOf(exchange(child, { callerToken: shippingToken }))).to.equal('SUBJECT_TOKEN_INVALID');
      await exchange(await subject({ sub: 'bob', tenant: 'another', realm_access: { groups: ['other'] } }));
    });
  }

  it('fails for a token whose claims have a form that no revocation could name', async () => {
    for (const tenant of [{ id: 'acme' }, [['acme']], true, 1.5, '']) {
      const token = await subject({ tenant });
      expect(await codeOf(exchange(token)), JSON.stringify(tenant)).to.equal('SUBJECT_TOKEN_INVALID');
    }
    await exchange(await subject({ tenant: 42 }));
  });

  it('fails for a token with so many values that every service would reject the new one', async () => {
    const exchangeWith = (valueLength: number) => {
      const values = Array.from({ length: 64 }, () => 'x'.repeat(valueLength));
      // Claims of the other one are revoked, and were not read here.
      const token = foreignToken({
        issuer: 'https://third.example',
        revocable: new Map([['/groups', values]]),
      });
      const { tokens, store } = auth;
      return createExchange({ tokens, store, foreignTokens: { verify: async () => token } }).exchange({
        ...{ callerToken, subjectToken: '', audience: 'inventory', scopes: [] },
      });
    };
    expect((await exchangeWith(75)).token.length).to.be.within(TOKEN_LENGTH_MAX - 1000, TOKEN_LENGTH_MAX);
    expect(await codeOf(exchangeWith(85))).to.equal('SUBJECT_TOKEN_INVALID');
  });

  it('is introspected as an instance decides: our names, and active where it would be admitted', async () => {
    const user = await addUser(auth);
    const of = claims({ sub: user.userId, aud: ['payment-api', 'inventory', 'shipping'] });
    expect(await auth.exchange.introspect(await other.sign(of))).to.deep.include({
      issuer: other.name,
      // A user of another issuer is never taken for ours, even with the same subject.
      subject: `${other.name}#${user.userId}`,
      clientId: 'web',
      sessionId: of['sid'],
      tokenId: of['jti'],
      kind: 'USER',
      scopes: new Set(['inventory.read', 'inventory.reserve']),
      roles: new Set(['operator']),
      audiences: ['payment', 'payment-api', 'inventory', 'shipping'],
      actors: [],
    });
    const service = await subject({ sub: 'web', azp: 'web', sid: undefined });
    expect(await auth.exchange.introspect(service)).to.include({ kind: 'SERVICE' });
    const now = Math.floor(Date.now() / 1000);
    const inactive = [
      await other.sign(of, {}, await createForeignKey('RS256', other.key.kid)),
      await subject({ iat: now - 100, exp: now - 10 }),
      // Inventory knows itself by its own name, and payment by another one.
      await subject({ aud: ['payment'] }),
      await subject({ iss: `${other.name}/` }),
    ];
    for (const [index, token] of inactive.entries()) {
      expect(await auth.exchange.introspect(token), String(index)).to.equal(undefined);
    }
    await auth.revocations.revoke({
      target: { kind: 'foreign', foreign: { issuer: other.name, what: 'TOKEN', id: String(of['jti']) } },
      reason: 'a test',
      actor: 'test',
    });
    expect(await auth.exchange.introspect(await other.sign(of))).to.equal(undefined);
  });

  it('fails beyond the maximum length of the actor chain', async () => {
    const services = await Promise.all([1, 2, 3, 4, 5].map(() => addClient(auth)));
    const names = services.map(({ clientId }) => clientId);
    await auth.database.query('UPDATE clients SET exchange_audiences = $1 WHERE client_id = ANY($1)', [
      names,
    ]);
    let token = await subject({ aud: names.slice(0, 1) });
    for (const [index, service] of services.entries()) {
      const wanted = {
        callerToken: await serviceToken(auth, service),
        audience: names[(index + 1) % names.length] ?? '',
        scopes: ['inventory.read'],
      };
      if (index === 4) expect(await codeOf(exchange(token, wanted))).to.equal('SUBJECT_TOKEN_INVALID');
      else token = await exchange(token, wanted);
    }
    expect(await auth.exchange.introspect(token)).to.not.equal(undefined);
  });
});
