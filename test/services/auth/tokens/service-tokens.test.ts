/** Tests of clients' own tokens, against PostgreSQL. */

import { createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { type JWTPayload, SignJWT, UnsecuredJWT } from 'jose';
import {
  ASSERTIONS_PER_CLIENT_MAX,
  type StoredCredential,
} from '../../../../services/auth/records/clients.js';
import { deleteExpired } from '../../../../services/auth/store.js';
import type { AuthTransaction, ReadPlace, TransactionPlace } from '../../../../services/auth/transaction.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addClient,
  assertionClaims,
  claimsOf,
  type FreshAuth,
  ISSUER,
  issue,
  openFreshAuth,
  serviceToken,
  signAssertion,
  type TestClient,
} from '../instance.js';

describe('service tokens', () => {
  let auth: AuthInstance;
  let client: TestClient;

  before(async () => {
    auth = await openFreshAuth();
    client = await addClient(auth, {
      scopes: ['auth.sync', 'auth.introspect'],
      audiences: ['auth', 'inventory'],
    });
  });
  after(() => auth.close());

  const now = () => Math.floor(Date.now() / 1000);
  const tryAssertion = async (assertion: string, clientId = client.clientId) =>
    await codeOf(issue(auth, { clientId }, assertion));

  it('name the client, and contain no claim of a user', async () => {
    const { token, expireTime } = await issue(auth, client, await signAssertion(client));
    const claims = claimsOf(token);
    expect(claims).to.include({ iss: ISSUER, sub: client.clientId, client_id: client.clientId });
    expect(claims.aud).to.deep.equal(['auth', 'inventory']);
    expect(claims['scope']).to.equal('auth.sync auth.introspect');
    expect(claims['clients']).to.deep.equal([[client.clientId, 1]]);
    expect(claims['roles']).to.deep.equal([]);
    for (const claim of ['sid', 'gen', 'auth_time', 'act', 'ancestors'])
      expect(claims).to.not.have.property(claim);
    expect(expireTime.getTime()).to.equal(Number(claims.exp) * 1000);
  });

  it('do not wait for the database behind strangers, once the client has authenticated in its network', async () => {
    const places: (string | undefined)[] = [];
    const watched = await openFreshAuth();
    const { reads, transaction } = watched.store;
    const { find } = reads.clients;
    Object.assign(reads.clients, {
      find: (clientId: string, place: ReadPlace) => {
        places.push(place.importance);
        return find(clientId, place);
      },
    });
    Object.assign(watched.store, {
      transaction: <T>(work: (tx: AuthTransaction) => Promise<T>, place?: TransactionPlace) => {
        places.push(place?.importance);
        return transaction(work, place);
      },
    });
    const other = await addClient(watched);
    places.length = 0;
    await serviceToken(watched, other);
    await serviceToken(watched, other);
    expect(places).to.deep.equal(['unknown', 'known', 'known', 'known']);
    await watched.close();
  });

  it('can have less than the client’s rights, and never more', async () => {
    const narrow = { audiences: ['auth'], scopes: ['auth.sync'] };
    const { token } = await issue(auth, client, await signAssertion(client), narrow);
    expect(claimsOf(token).aud).to.deep.equal(['auth']);
    expect(claimsOf(token)['scope']).to.equal('auth.sync');
    const wide: [{ audiences?: string[]; scopes?: string[] }, string][] = [
      [{ audiences: ['payment'] }, 'AUDIENCE_NOT_ALLOWED'],
      [{ scopes: ['auth.sync', 'auth.revoke'] }, 'SCOPE_MISSING'],
      [{ scopes: ['Auth.Sync'] }, 'FIELD_INVALID'],
    ];
    // Another client may have this scope, so it is not unknown.
    await addClient(auth, { scopes: ['shipping.track'], audiences: ['shipping'] });
    wide.push([{ scopes: ['shipping.track'] }, 'SCOPE_MISSING']);
    wide.push([{ audiences: ['shipping'] }, 'AUDIENCE_NOT_ALLOWED']);
    for (const [wanted, code] of wide) {
      expect(await codeOf(issue(auth, client, await signAssertion(client), wanted))).to.equal(code);
    }
  });

  it('are refused for an unknown scope or audience, by its name', async () => {
    const message = async (wanted: { audiences?: string[]; scopes?: string[] }) => {
      const error = await serviceErrorOf(issue(auth, client, await signAssertion(client), wanted));
      return `${error.code} ${error.message}`;
    };
    expect(await message({ scopes: ['auth.sync', 'auth.snyc'] })).to.equal(
      'FIELD_INVALID scopes: there is no scope "auth.snyc"',
    );
    expect(await message({ audiences: ['auth', 'inventroy'] })).to.equal(
      'FIELD_INVALID audiences: there is no audience "inventroy"',
    );
  });

  it('come with the list of what was granted', async () => {
    const { scopes, audiences } = await issue(auth, client, await signAssertion(client));
    expect({ scopes, audiences }).to.deep.equal({
      scopes: ['auth.sync', 'auth.introspect'],
      audiences: ['auth', 'inventory'],
    });
  });

  it('are issued once per assertion, even to concurrent requests', async () => {
    const assertion = await signAssertion(client);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 10 }, () => issue(auth, client, assertion)),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(1);
    expect(await tryAssertion(assertion)).to.equal('CLIENT_AUTHENTICATION_FAILED');
  });

  it('are issued for an assertion whose first request asked for too much', async () => {
    const assertion = await signAssertion(client);
    expect(await codeOf(issue(auth, client, assertion, { scopes: ['auth.revoke'] }))).to.equal(
      'SCOPE_MISSING',
    );
    await issue(auth, client, assertion);
  });

  it('store the jti of an assertion until it has expired, and then delete it', async () => {
    await issue(auth, client, await signAssertion(client));
    const drop = () => auth.store.transaction((tx) => tx.clients.deleteExpiredAssertions(1000));
    expect(await drop()).to.equal(0);
    await auth.database.query("UPDATE client_assertions SET expire_time = expire_time - interval '10 min'");
    expect(await drop()).to.be.above(0);
  });

  const badClaims: { readonly name: string; readonly claims: () => JWTPayload }[] = [
    { name: 'of another issuer', claims: () => ({ iss: 'other' }) },
    { name: 'about another subject', claims: () => ({ sub: 'other' }) },
    { name: 'for another audience', claims: () => ({ aud: `${ISSUER}/` }) },
    { name: 'for a list of another audience', claims: () => ({ aud: ['https://other.example'] }) },
    { name: 'for this issuer and others', claims: () => ({ aud: [ISSUER, 'https://other.example'] }) },
    { name: 'that has expired', claims: () => ({ exp: now() - 10 }) },
    { name: 'with a lifetime above the maximum', claims: () => ({ exp: now() + 320 }) },
    { name: 'that practically never expires', claims: () => ({ exp: 1e300 }) },
    { name: 'from the future', claims: () => ({ iat: now() + 60 }) },
    { name: 'that is not valid yet', claims: () => ({ nbf: now() + 60 }) },
    { name: 'with an empty jti', claims: () => ({ jti: '' }) },
    { name: 'with a jti above the maximum length', claims: () => ({ jti: 'x'.repeat(129) }) },
  ];
  for (const { name, claims } of badClaims) {
    it(`are refused for an assertion ${name}`, async () => {
      expect(await tryAssertion(await signAssertion(client, claims()))).to.equal(
        'CLIENT_AUTHENTICATION_FAILED',
      );
    });
  }

  for (const claim of ['iss', 'sub', 'aud', 'exp', 'jti']) {
    it(`are refused for an assertion without ${claim}`, async () => {
      const claims = assertionClaims(client);
      delete claims[claim];
      const assertion = await new SignJWT(claims)
        .setProtectedHeader({ alg: 'EdDSA' })
        .sign(client.privateKey);
      expect(await tryAssertion(assertion)).to.equal('CLIENT_AUTHENTICATION_FAILED');
    });
  }

  it('are issued for an assertion with each spelling of its type, and refused for one of another type', async () => {
    const typed = (typ: string) => signAssertion(client, {}, { alg: 'EdDSA', typ });
    for (const typ of [
      'JWT',
      'application/jwt',
      'client-authentication+jwt',
      'Application/Client-Authentication+JWT',
    ]) {
      expect((await issue(auth, client, await typed(typ))).token, typ).to.be.a('string');
    }
    for (const typ of ['at+jwt', 'application/at+jwt', 'text/jwt', 'application/application/jwt', '']) {
      expect(await tryAssertion(await typed(typ)), typ).to.equal('CLIENT_AUTHENTICATION_FAILED');
    }
  });

  it('are refused for an assertion that is unsigned, signed by another key, or with the public key as a secret', async () => {
    const other = generateKeyPairSync('ed25519');
    const publicKeyPem = createPublicKey(client.privateKey)
      .export({ type: 'spki', format: 'pem' })
      .toString();
    const assertions = [
      new UnsecuredJWT(assertionClaims(client)).encode(),
      await signAssertion({ ...client, privateKey: other.privateKey }),
      await new SignJWT(assertionClaims(client))
        .setProtectedHeader({ alg: 'HS256' })
        .sign(new TextEncoder().encode(publicKeyPem)),
      await signAssertion(client, {}, { alg: 'EdDSA', typ: 'at+jwt' }),
      '',
      'a.b.c',
      'x'.repeat(1_000_000),
    ];
    for (const assertion of assertions) {
      expect(await tryAssertion(assertion)).to.equal('CLIENT_AUTHENTICATION_FAILED');
    }
  });

  it('are refused with the same error for unknown clients, clients without a credential, and a missing credential', async () => {
    const forger = { ...client, clientId: 'nobody' };
    const errors = [
      await serviceErrorOf(issue(auth, forger, await signAssertion(forger))),
      await serviceErrorOf(
        issue(auth, { clientId: 'direct' }, await signAssertion({ ...client, clientId: 'direct' })),
      ),
      await serviceErrorOf(issue(auth, { clientId: 'a\0b' }, await signAssertion(client))),
      await serviceErrorOf(
        auth.serviceTokens.issue({
          clientId: client.clientId,
          credential: undefined,
          audiences: [],
          scopes: [],
          peer: '',
        }),
      ),
    ];
    expect(new Set(errors.map(({ code, message }) => `${code} ${message}`)).size).to.equal(1);
    expect(errors[0]?.code).to.equal('CLIENT_AUTHENTICATION_FAILED');
  });

  it('are refused to a client that uses more assertions than are stored, and to no other', async () => {
    const greedy = await addClient(auth);
    await auth.database.query(
      `INSERT INTO client_assertions (client_id, jti_hash, expire_time)
       SELECT $1, sha256(n::text::bytea), clock_timestamp() + interval '1 min' FROM generate_series(1, $2::int) AS n`,
      [greedy.clientId, ASSERTIONS_PER_CLIENT_MAX - 1],
    );
    await serviceToken(auth, greedy);
    const { code, retryAfterMs } = await serviceErrorOf(serviceToken(auth, greedy));
    expect({ code, retryAfterMs }).to.deep.equal({ code: 'RATE_LIMITED', retryAfterMs: 30_000 });
    await serviceToken(auth, client);
    // All expired assertions are deleted, however many there are.
    await auth.database.query(
      "UPDATE client_assertions SET expire_time = expire_time - interval '10 min' WHERE client_id = $1",
      [greedy.clientId],
    );
    await deleteExpired(auth.database);
    const { rowCount } = await auth.database.query('SELECT FROM client_assertions WHERE client_id = $1', [
      greedy.clientId,
    ]);
    expect(rowCount).to.equal(0);
    await serviceToken(auth, greedy);
  });

  describe('while others fail', () => {
    const limits = { failuresPerName: 3, failuresPerPeer: 5, windowSeconds: 300 };
    let limited: FreshAuth;
    before(async () => {
      limited = await openFreshAuth({ limits });
    });
    after(() => limited.close());

    const failTimes = async (times: number, attempt: () => Promise<unknown>): Promise<string[]> => {
      const codes: string[] = [];
      for (let count = 0; count < times; count += 1) codes.push(await codeOf(attempt()));
      return codes;
    };

    it('are issued for a good assertion from the network of 300 bad ones', async function () {
      this.timeout(180_000);
      const good = await addClient(limited);
      const stranger = { ...good, privateKey: generateKeyPairSync('ed25519').privateKey };
      const forged = await signAssertion(stranger);
      const bad = ['', 'a.b.c', forged, await signAssertion({ ...good, clientId: 'nobody' })];
      for (let round = 0; round < 75; round += 1) {
        const codes = await Promise.all(bad.map((assertion) => codeOf(issue(limited, good, assertion))));
        expect(new Set(codes)).to.deep.equal(new Set(['CLIENT_AUTHENTICATION_FAILED']));
      }
      await serviceToken(limited, good);
    });

    it('are issued for a good secret whose former requests asked for too much', async () => {
      const secret = `secret-${randomUUID()}-${randomUUID()}`;
      const hash = await limited.passwords.hash(secret);
      const clientId = 'greedy';
      await limited.store.transaction((tx) =>
        tx.clients.insertWhenAbsent({
          clientId,
          credentials: [{ credentialId: 'one', kind: 'secret', createTime: new Date(), hash }],
          exchangeAudiences: [],
          exchangeScopes: undefined,
          certificateBound: false,
          audiences: ['auth'],
          scopes: ['auth.sync'],
        }),
      );
      const credential = { kind: 'secret', secret } as const;
      const ask = (audiences: string[]) =>
        limited.serviceTokens.issue({ clientId, credential, audiences, scopes: [], peer: '203.0.113.51:1' });
      const codes = await failTimes(limits.failuresPerPeer + 1, () => ask(['payment']));
      expect(new Set(codes)).to.deep.equal(new Set(['AUDIENCE_NOT_ALLOWED']));
      await ask([]);
    });

    it('are issued for a good secret after another client’s failures in its network, and not to that client', async () => {
      const secret = `secret-${randomUUID()}-${randomUUID()}`;
      const hash = await limited.passwords.hash(secret);
      const ids = ['shop', 'warehouse'] as const;
      for (const clientId of ids) {
        await limited.store.transaction((tx) =>
          tx.clients.insertWhenAbsent({
            clientId,
            credentials: [{ credentialId: 'one', kind: 'secret', createTime: new Date(), hash }],
            exchangeAudiences: [],
            exchangeScopes: undefined,
            certificateBound: false,
            audiences: ['auth'],
            scopes: ['auth.sync'],
          }),
        );
      }
      const trySecret = (clientId: string, given: string) =>
        limited.serviceTokens.issue({
          clientId,
          credential: { kind: 'secret', secret: given },
          audiences: [],
          scopes: [],
          peer: '203.0.113.50:1',
        });
      const failed = Array<string>(limits.failuresPerPeer).fill('CLIENT_AUTHENTICATION_FAILED');
      for (const guessed of ['nobody', 'shop']) {
        expect(
          await failTimes(limits.failuresPerPeer + 1, () => trySecret(guessed, 'x'.repeat(40))),
        ).to.deep.equal([...failed, 'RATE_LIMITED']);
      }
      expect(await codeOf(trySecret('shop', secret))).to.equal('RATE_LIMITED');
      await trySecret('warehouse', secret);
    });
  });

  describe('for a secret', () => {
    const secret = `secret-${randomUUID()}-${randomUUID()}`;
    const clientId = `client-${randomUUID()}`;

    before(async () => {
      const hash = await auth.passwords.hash(secret);
      const rest = {
        credentials: [{ credentialId: 'one', kind: 'secret', createTime: new Date(), hash } as const],
        exchangeAudiences: [],
        exchangeScopes: undefined,
        certificateBound: false,
        audiences: ['auth'],
        scopes: ['auth.sync'],
      };
      await auth.store.transaction((tx) => tx.clients.insertWhenAbsent({ clientId, ...rest }));
    });

    const trySecret = (id: string, given: string) =>
      auth.serviceTokens.issue({
        clientId: id,
        credential: { kind: 'secret', secret: given },
        audiences: [],
        scopes: [],
        peer: '',
      });

    it('are issued to the client that has it', async () => {
      const { token } = await trySecret(clientId, secret);
      expect(claimsOf(token).sub).to.equal(clientId);
    });

    it('are refused for a wrong secret, an empty one, and for clients without one', async () => {
      for (const [id, given] of [
        [clientId, `${secret}x`],
        [clientId, ''],
        [client.clientId, secret],
        ['direct', ''],
        ['nobody', secret],
      ] as const) {
        expect(await codeOf(trySecret(id, given))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      }
    });

    it('are refused when the secret is replaced while it is verified', async () => {
      const verify = auth.passwords.verify;
      const newHash = await auth.passwords.hash(`new-${secret}`);
      const before = await auth.store.transaction((tx) => tx.clients.find(clientId));
      const createTime = new Date();
      const replaceBy = (credentials: readonly StoredCredential[]) =>
        auth.store.transaction((tx) => tx.clients.setCredentials(clientId, credentials));
      Object.assign(auth.passwords, {
        verify: async (hash: string | undefined, given: string) => {
          const equal = await verify(hash, given);
          await replaceBy([{ credentialId: 'two', kind: 'secret', createTime, hash: newHash }]);
          return equal;
        },
      });
      try {
        expect(await codeOf(trySecret(clientId, secret))).to.equal('CLIENT_AUTHENTICATION_FAILED');
      } finally {
        Object.assign(auth.passwords, { verify });
        await replaceBy(before?.credentials ?? []);
      }
    });

    it('are refused for an assertion that is signed with it', async () => {
      const assertion = await new SignJWT(assertionClaims({ ...client, clientId }))
        .setProtectedHeader({ alg: 'HS256' })
        .sign(new TextEncoder().encode(secret));
      expect(await tryAssertion(assertion, clientId)).to.equal('CLIENT_AUTHENTICATION_FAILED');
    });
  });
});
