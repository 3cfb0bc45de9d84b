/** Tests of the token exchange and of introspection, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { createExchange, type Exchange } from '../../../../services/auth/tokens/exchange.js';
import type { MintedToken } from '../../../../services/auth/tokens/tokens.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { freshDatabase } from '../../../support/postgres.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  ISSUER,
  logIn,
  openAuth,
  openFreshAuth,
  serviceToken,
  type TestClient,
  type TestUser,
} from '../instance.js';

describe('exchange', () => {
  let auth: AuthInstance;
  let payment: TestClient;
  let paymentToken: string;
  let user: TestUser;

  before(async () => {
    auth = await openFreshAuth();
  });
  after(() => auth.close());
  beforeEach(async () => {
    payment = await addClient(auth, { exchangeAudiences: ['inventory', 'shipping'] });
    paymentToken = await serviceToken(auth, payment);
    user = await addUser(auth);
  });

  /** A user's token with the calling client as its audience, as Login issues it for a service. */
  const userToken = async (over: { scopes?: string[]; audience?: string } = {}): Promise<string> => {
    const { session } = await logIn(auth, user, over.scopes === undefined ? {} : { scopes: over.scopes });
    const audience = over.audience ?? payment.clientId;
    await auth.database.query('UPDATE sessions SET audiences = $1 WHERE session_id = $2', [
      [audience],
      session.sessionId,
    ]);
    return await mintOf(session.sessionId);
  };
  const mintOf = (sessionId: string): Promise<string> =>
    auth.store.transaction(async (tx) => {
      const session = await tx.sessions.lockShared(sessionId);
      if (session === undefined) throw new Error('no such session');
      const { token } = await auth.tokens.mint(tx, {
        subject: session.userId,
        clientId: 'direct',
        audiences: session.audiences,
        scopes: session.scopes,
        roles: ['customer'],
        clients: [['direct', session.clientGeneration]],
        session: { ...session, authTime: session.createTime },
      });
      return token;
    });

  const exchange = (
    subjectToken: string,
    over: { audience?: string; scopes?: string[]; callerToken?: string } = {},
  ): Promise<MintedToken> =>
    auth.exchange.exchange({
      callerToken: paymentToken,
      subjectToken,
      audience: 'inventory',
      scopes: [],
      ...over,
    });

  /** The exchange at a moment that is so many seconds before or after the expiry of a token. */
  const exchangeAround = (token: string, seconds: number): Exchange => {
    const at = new Date((Number(claimsOf(token).exp) + seconds) * 1000);
    return createExchange({
      tokens: auth.tokens,
      foreignTokens: { verify: async () => undefined },
      store: {
        ...auth.store,
        transaction: (work) =>
          auth.store.transaction((tx) => work({ ...tx, databaseTime: () => Promise.resolve(at) })),
      },
    });
  };

  it('makes the requests of one client wait in turn with those of other callers', async () => {
    const callers: (string | undefined)[] = [];
    const counted = createExchange({
      tokens: auth.tokens,
      foreignTokens: { verify: async () => undefined },
      store: {
        ...auth.store,
        transaction: (work, place) => {
          callers.push(place?.caller);
          return auth.store.transaction(work, place);
        },
      },
    });
    const subjectToken = await userToken();
    const { clientId: callerId } = payment;
    const request = { callerToken: paymentToken, callerId, subjectToken, audience: 'inventory', scopes: [] };
    await counted.exchange(request);
    await counted.introspect(subjectToken, callerId);
    expect(callers).to.deep.equal([`client ${callerId}`, `client ${callerId}`]);
  });

  it('introspects as instances decide: with the actors, and until the tolerance for clocks is over', async () => {
    const subject = await userToken();
    const { token } = await exchange(subject);
    const { iat, exp, auth_time } = claimsOf(token);
    expect(await auth.exchange.introspect(token)).to.deep.include({
      ...{ issuer: ISSUER, subject: user.userId, clientId: payment.clientId, kind: 'USER' },
      ...{ actors: [payment.clientId], audiences: ['inventory'] },
      ...{ issuedAtSeconds: iat, expiresAtSeconds: exp, authTimeSeconds: auth_time },
    });
    expect(await auth.exchange.introspect(subject)).to.deep.include({ actors: [], kind: 'USER' });
    expect(await auth.exchange.introspect(paymentToken)).to.deep.include({ actors: [], kind: 'SERVICE' });
    expect(await exchangeAround(token, 4.9).introspect(token)).to.not.equal(undefined);
    expect(await exchangeAround(token, 5).introspect(token)).to.equal(undefined);
  });

  it('admits the caller for as long as instances do, and derives nothing from a token that has expired', async () => {
    const subject = await userToken();
    const request = { callerToken: paymentToken, subjectToken: subject, audience: 'inventory', scopes: [] };
    const callerExpiry = Number(claimsOf(paymentToken).exp);
    const soon = exchangeAround(subject, Math.min(-1, callerExpiry - Number(claimsOf(subject).exp) - 1));
    expect((await soon.exchange(request)).token).to.be.a('string');
    expect(await codeOf(exchangeAround(subject, 0).exchange(request))).to.equal('SUBJECT_TOKEN_INVALID');
    expect(await codeOf(exchangeAround(subject, 1).exchange(request))).to.equal('SUBJECT_TOKEN_INVALID');
    expect(await codeOf(exchangeAround(paymentToken, 5).exchange(request))).to.be.oneOf([
      'TOKEN_REVOKED',
      'SUBJECT_TOKEN_INVALID',
    ]);
  });

  it('returns a token of the user for the other service, with the calling service as its actor', async () => {
    const subjectToken = await userToken();
    const [subject, claims] = [claimsOf(subjectToken), claimsOf((await exchange(subjectToken)).token)];
    expect(claims).to.include({ sub: user.userId, client_id: payment.clientId });
    expect(claims.aud).to.deep.equal(['inventory']);
    expect(claims['scope']).to.equal('inventory.read inventory.reserve');
    expect(claims['act']).to.deep.equal({ sub: payment.clientId });
    expect(claims['ancestors']).to.deep.equal([subject.jti]);
    expect(claims['clients']).to.deep.equal([
      ['direct', 1],
      [payment.clientId, 1],
    ]);
    for (const claim of ['sid', 'gen', 'auth_time']) expect(claims[claim], claim).to.equal(subject[claim]);
    expect(claims['amr']).to.deep.equal(subject['amr']);
    expect(claims['roles']).to.deep.equal(subject['roles']);
    const one = await exchange(subjectToken, { scopes: ['inventory.read'] });
    expect(claimsOf(one.token)['roles']).to.deep.equal([]);
    expect(claims.jti).to.not.equal(subject.jti);
  });

  it('nests earlier actors, names all ancestors and clients, and fails after four actors', async () => {
    const services = await Promise.all([1, 2, 3, 4, 5].map(() => addClient(auth)));
    const names = services.map(({ clientId }) => clientId);
    await auth.database.query('UPDATE clients SET exchange_audiences = $1 WHERE client_id = ANY($1)', [
      names,
    ]);
    const { session } = await logIn(auth, user);
    await auth.database.query('UPDATE sessions SET audiences = $1 WHERE session_id = $2', [
      names.slice(0, 1),
      session.sessionId,
    ]);
    let token = await mintOf(session.sessionId);
    const ancestors: unknown[] = [];
    const pass = async (hop: number): Promise<MintedToken> => {
      const [service, next] = [services[hop], names[(hop + 1) % names.length]];
      if (service === undefined || next === undefined) throw new Error('the chain is too short');
      const callerToken = await serviceToken(auth, service);
      return await exchange(token, { callerToken, audience: next, scopes: ['inventory.read'] });
    };
    for (let hop = 0; hop < 4; hop += 1) {
      ancestors.push(claimsOf(token).jti);
      ({ token } = await pass(hop));
    }
    const [first, second, third, fourth] = names;
    const claims = claimsOf(token);
    expect(claims['act']).to.deep.equal({
      sub: fourth,
      act: { sub: third, act: { sub: second, act: { sub: first } } },
    });
    expect(claims['ancestors']).to.deep.equal(ancestors);
    expect(claims['clients']).to.deep.equal([
      ['direct', 1],
      [first, 1],
      [second, 1],
      [third, 1],
      [fourth, 1],
    ]);
    expect(await auth.exchange.introspect(token)).to.include({ clientId: fourth });
    expect(await codeOf(pass(4))).to.equal('SUBJECT_TOKEN_INVALID');
  });

  describe('narrows', () => {
    it('scopes to the requested ones of the other service that the user’s token has', async () => {
      const subjectToken = await userToken();
      const { token } = await exchange(subjectToken, { scopes: ['inventory.read'] });
      expect(claimsOf(token)['scope']).to.equal('inventory.read');
      for (const scope of ['inventory.manage', 'auth.users.read']) {
        const refused = await serviceErrorOf(exchange(subjectToken, { scopes: [scope] }));
        expect(refused).to.include({ code: 'SCOPE_MISSING' });
        expect(refused.message).to.equal(`the subject token has no scope ${scope}`);
      }
      for (const scope of ['inventory', 'inventory.read.all']) {
        expect(await codeOf(exchange(subjectToken, { scopes: [scope] })), scope).to.equal('FIELD_INVALID');
      }
      const payOnly = await userToken({ scopes: ['payment.pay'] });
      expect(await codeOf(exchange(payOnly))).to.equal('SCOPE_MISSING');
    });

    it('scopes to those that the client may have for a user, whatever the user’s token has', async () => {
      const limited = await addClient(auth, {
        exchangeAudiences: ['inventory'],
        exchangeScopes: ['inventory.read', 'inventory.manage'],
      });
      const callerToken = await serviceToken(auth, limited);
      const subjectToken = await userToken({ audience: limited.clientId });
      const { token } = await exchange(subjectToken, { callerToken });
      expect(claimsOf(token)['scope']).to.equal('inventory.read');
      for (const scope of ['inventory.reserve', 'inventory.manage']) {
        const wanted = { callerToken, scopes: ['inventory.read', scope] };
        expect(await codeOf(exchange(subjectToken, wanted)), scope).to.equal('SCOPE_MISSING');
      }
      const reserveOnly = await userToken({ audience: limited.clientId, scopes: ['inventory.reserve'] });
      expect(await codeOf(exchange(reserveOnly, { callerToken }))).to.equal('SCOPE_MISSING');
    });

    it('the audience to those at which the client may act', async () => {
      const subjectToken = await userToken();
      expect(await codeOf(exchange(subjectToken, { audience: 'auth' }))).to.equal('AUDIENCE_NOT_ALLOWED');
      expect(await codeOf(exchange(subjectToken, { audience: payment.clientId }))).to.equal(
        'AUDIENCE_NOT_ALLOWED',
      );
      expect(await codeOf(exchange(subjectToken, { audience: '' }))).to.equal('FIELD_INVALID');
      expect(await codeOf(exchange(subjectToken, { audience: 'shipping' }))).to.equal('SCOPE_MISSING');
    });

    it('nothing at auth for a client that may act for users there', async () => {
      const desk = await addClient(auth, { exchangeAudiences: ['auth'] });
      const callerToken = await serviceToken(auth, desk);
      const subjectToken = await userToken({ audience: desk.clientId });
      const { token } = await exchange(subjectToken, { callerToken, audience: 'auth' });
      expect(claimsOf(token)).to.deep.include({ aud: ['auth'], scope: 'auth.self' });
    });

    it('the lifetime to that of the user’s token', async () => {
      const { session } = await logIn(auth, user);
      const soon = await auth.store.transaction(async (tx) => {
        const row = await tx.sessions.lockShared(session.sessionId);
        const notAfter = new Date((await tx.databaseTime()).getTime() + 3000);
        return await auth.tokens.mint(tx, {
          subject: user.userId,
          clientId: 'direct',
          audiences: [payment.clientId],
          scopes: ['inventory.read'],
          roles: [],
          clients: [['direct', 1n]],
          session: {
            sessionId: session.sessionId,
            generation: 1n,
            authTime: row?.createTime ?? new Date(),
            amr: [],
          },
          notAfter,
        });
      });
      const { token } = await exchange(soon.token);
      expect(claimsOf(token).exp).to.equal(claimsOf(soon.token).exp);
    });
  });

  describe('rejects', () => {
    const invalid = async (subjectToken: string, callerToken = paymentToken) =>
      expect(await codeOf(exchange(subjectToken, { callerToken }))).to.equal('SUBJECT_TOKEN_INVALID');

    it('a token for another service, and any other text', async () => {
      await invalid((await logIn(auth, user)).access.token);
      await invalid(await userToken({ audience: 'inventory' }));
      await invalid(paymentToken);
      await invalid('');
      await invalid('a.b.c');
      const good = await userToken();
      await invalid(good.slice(0, -2));
      await invalid(`${good} `);
    });

    it('a service’s own token, even one that is for the caller', async () => {
      const other = await addClient(auth, { audiences: [payment.clientId], scopes: ['inventory.read'] });
      const own = await serviceToken(auth, other);
      expect(claimsOf(own).aud).to.deep.equal([payment.clientId]);
      await invalid(own);
    });

    it('an expired token', async () => {
      const { session } = await logIn(auth, user);
      const token = await auth.store.transaction(async (tx) => {
        const sign = await auth.keys.lockTokenSigner(tx);
        const claims = claimsOf((await logIn(auth, user)).access.token);
        const iat = Number(claims.iat) - 600;
        return await sign({
          ...claims,
          sid: session.sessionId,
          aud: [payment.clientId],
          iat,
          exp: iat + 300,
        });
      });
      await invalid(token);
    });

    it('a token whose session has ended, before any revocation list has the entry', async () => {
      const token = await userToken();
      const sid = String(claimsOf(token)['sid']);
      await auth.database.query(
        "UPDATE sessions SET end_time = clock_timestamp(), end_reason = 'LOGOUT' WHERE session_id = $1",
        [sid],
      );
      await invalid(token);
    });

    it('a token of an older generation of its user', async () => {
      const token = await userToken();
      await auth.store.transaction((tx) => tx.users.raiseGeneration(user.userId));
      await invalid(token);
    });

    it('a token of an older generation of its client', async () => {
      const token = await userToken();
      await auth.database.query("UPDATE clients SET generation = generation + 1 WHERE client_id = 'direct'");
      await invalid(token);
      await auth.database.query("UPDATE clients SET generation = generation - 1 WHERE client_id = 'direct'");
    });

    it('a revoked token', async () => {
      const token = await userToken();
      const target = { kind: 'token', token } as const;
      await auth.revocations.revoke({ target, reason: 'test', actor: 'test' });
      await invalid(token);
    });

    it('a token derived from a revoked one', async () => {
      const shop = await addClient(auth, { exchangeAudiences: [payment.clientId] });
      const { session } = await logIn(auth, user);
      await auth.database.query('UPDATE sessions SET audiences = $1, scopes = $2 WHERE session_id = $3', [
        [shop.clientId],
        ['inventory.read'],
        session.sessionId,
      ]);
      const parent = await mintOf(session.sessionId);
      const callerToken = await serviceToken(auth, shop);
      const wanted = { audience: payment.clientId, scopes: ['inventory.read'] };
      const child = await exchange(parent, { callerToken, ...wanted });
      expect(await auth.exchange.introspect(child.token)).to.not.equal(undefined);
      const tokenId = String(claimsOf(parent).jti);
      await auth.revocations.revoke({ target: { kind: 'token-id', tokenId }, reason: '', actor: 'test' });
      expect(await auth.exchange.introspect(child.token)).to.equal(undefined);
      await invalid(child.token);
    });

    it('a token whose key was retired', async () => {
      const own = await freshDatabase();
      const other = await openAuth(own.url);
      const shop = await addClient(other, { clientId: 'payment', exchangeAudiences: ['inventory'] });
      const callerToken = await serviceToken(other, shop);
      const { access } = await logIn(other, await addUser(other));
      const request = { callerToken, subjectToken: access.token, audience: 'inventory', scopes: [] };
      await other.exchange.exchange(request);
      await other.database.query(
        "UPDATE signing_keys SET state = 'retired' WHERE state = 'signing' AND purpose = 'token'",
      );
      await other.database.query(
        "UPDATE signing_keys SET state = 'signing' WHERE state = 'next' AND purpose = 'token'",
      );
      expect(await codeOf(other.exchange.exchange(request))).to.equal('TOKEN_REVOKED');
      const renewed = await serviceToken(other, shop);
      expect(await codeOf(other.exchange.exchange({ ...request, callerToken: renewed }))).to.equal(
        'SUBJECT_TOKEN_INVALID',
      );
      await other.close();
      await own.drop();
    });

    it('a token of a service that has a session, and one of a user that has none', async () => {
      const subjectToken = await userToken();
      // No signed token passes the verifier so; neither check relies on it.
      for (const odd of [{ kind: 'SERVICE' }, { sessionId: undefined }] as const) {
        const { exchange: oddly } = createExchange({
          store: auth.store,
          foreignTokens: { verify: async () => undefined },
          tokens: {
            ...auth.tokens,
            verifierIn: async (tx) => {
              const verify = await auth.tokens.verifierIn(tx);
              return async (token, audience) => {
                const verified = await verify(token, audience);
                return verified && token === subjectToken ? { ...verified, ...odd } : verified;
              };
            },
          },
        });
        const request = { callerToken: paymentToken, subjectToken, audience: 'inventory', scopes: [] };
        expect(await codeOf(oddly(request)), JSON.stringify(odd)).to.equal('SUBJECT_TOKEN_INVALID');
      }
    });

    it('a caller whose own token is revoked, although the guard admitted it', async () => {
      const subjectToken = await userToken();
      await auth.database.query('UPDATE clients SET generation = generation + 1 WHERE client_id = $1', [
        payment.clientId,
      ]);
      expect(await codeOf(exchange(subjectToken))).to.equal('TOKEN_REVOKED');
      paymentToken = await serviceToken(auth, payment);
      const { token } = await exchange(subjectToken);
      expect(claimsOf(token)['clients']).to.deep.equal([
        ['direct', 1],
        [payment.clientId, 2],
      ]);
    });
  });

  it('rejects a disabled client, whose tokens no revocation names', async () => {
    const subjectToken = await userToken();
    await auth.database.query('UPDATE clients SET disable_time = clock_timestamp() WHERE client_id = $1', [
      payment.clientId,
    ]);
    expect(await codeOf(exchange(subjectToken))).to.equal('TOKEN_REVOKED');
  });

  it('rejects unknown scopes and audiences by name, and others as not allowed', async () => {
    const subjectToken = await userToken();
    const outcome = async (over: { audience?: string; scopes?: string[] }) => {
      const { code, message } = await serviceErrorOf(exchange(subjectToken, over));
      return `${code} ${message}`;
    };
    expect(await outcome({ scopes: ['inventory.raed'] })).to.equal(
      'FIELD_INVALID scopes: there is no scope "inventory.raed"',
    );
    expect(await outcome({ audience: 'inventroy' })).to.equal(
      'FIELD_INVALID audience: there is no audience "inventroy"',
    );
    expect(await outcome({ audience: 'auth' })).to.match(/^AUDIENCE_NOT_ALLOWED/);
    expect(await outcome({ scopes: ['inventory.manage'] })).to.match(/^SCOPE_MISSING/);
  });

  it('returns the granted scopes and audience', async () => {
    const { scopes, audiences } = await exchange(await userToken());
    expect({ scopes, audiences }).to.deep.equal({
      scopes: ['inventory.read', 'inventory.reserve'],
      audiences: ['inventory'],
    });
  });

  it('mints no token that survives a concurrent revocation of the session', async function () {
    this.timeout(180_000);
    for (let round = 0; round < 25; round += 1) {
      const subjectToken = await userToken();
      const sessionId = String(claimsOf(subjectToken)['sid']);
      const [exchanged] = await Promise.allSettled([
        exchange(subjectToken),
        auth.revocations.revoke({ target: { kind: 'session', sessionId }, reason: '', actor: 'test' }),
      ]);
      if (exchanged.status === 'rejected') continue;
      expect(claimsOf(exchanged.value.token)['sid']).to.equal(sessionId);
      expect(await auth.exchange.introspect(exchanged.value.token)).to.equal(undefined);
    }
  });

  describe('introspection', () => {
    it('returns the content of a valid token, whatever its audience', async () => {
      const { access, session } = await logIn(auth, user);
      const token = await auth.exchange.introspect(access.token);
      expect(token).to.include({ subject: user.userId, clientId: 'direct', sessionId: session.sessionId });
      expect(await auth.exchange.introspect(await userToken({ audience: 'inventory' }))).to.not.equal(
        undefined,
      );
      expect(await auth.exchange.introspect(paymentToken)).to.include({ kind: 'SERVICE' });
    });

    it('returns only inactive for an invalid token', async () => {
      const { access, session, refreshToken } = await logIn(auth, user);
      for (const token of ['', 'a.b.c', refreshToken, access.token.slice(1), randomUUID()]) {
        expect(await auth.exchange.introspect(token)).to.equal(undefined);
      }
      await auth.sessions.logout({ userId: user.userId, sessionId: session.sessionId });
      expect(await auth.exchange.introspect(access.token)).to.equal(undefined);
    });

    it('does not accept a broadcast as a token', async () => {
      const message = await auth.keys.broadcastSigner().sign(Buffer.from('{}'));
      expect(await auth.exchange.introspect(message)).to.equal(undefined);
    });
  });
});
