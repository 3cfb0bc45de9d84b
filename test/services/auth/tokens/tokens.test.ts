/** Tests of minting access tokens, and of checking them against the database (PostgreSQL). */

import { randomUUID } from 'node:crypto';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS, CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { expect } from 'chai';
import type { Grant } from '../../../../services/auth/tokens/grant.js';
import { isLive } from '../../../../services/auth/tokens/live-tokens.js';
import { createTokenRows } from '../../../../services/auth/tokens/store.js';
import type { AuthTransaction } from '../../../../services/auth/transaction.js';
import type { Sql } from '../../../../services/common/database/database.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  claimsOf,
  logIn,
  openFreshAuth,
  serviceToken,
} from '../instance.js';

const GRANT: Grant = {
  subject: 'service',
  clientId: 'service',
  audiences: ['auth'],
  scopes: ['auth.sync', 'auth.exchange'],
  roles: [],
  clients: [['service', 3n]],
};

describe('tokens', () => {
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ accessTokenSeconds: 120 });
  });
  after(() => auth.close());

  const mint = (grant: Grant) => auth.store.transaction((tx) => auth.tokens.mint(tx, grant));

  it('contain the grant, with times of the database', async () => {
    const { token, expireTime, before, after } = await auth.store.transaction(async (tx) => {
      const before = await tx.databaseTime();
      return { ...(await auth.tokens.mint(tx, GRANT)), before, after: await tx.databaseTime() };
    });
    const claims = claimsOf(token);
    expect(claims).to.deep.include({ sub: 'service', aud: ['auth'], scope: 'auth.sync auth.exchange' });
    expect(claims['clients']).to.deep.equal([['service', 3]]);
    expect(claims.iat).to.be.within(Math.floor(before.getTime() / 1000), Math.floor(after.getTime() / 1000));
    expect(Number(claims.exp) - Number(claims.iat)).to.equal(120);
    expect(expireTime.getTime()).to.equal(Number(claims.exp) * 1000);
  });

  it('nest the current actor and the earlier ones', async () => {
    const { token } = await mint({ ...GRANT, actors: ['c', 'b', 'a'], ancestors: [randomUUID()] });
    expect(claimsOf(token)['act']).to.deep.equal({ sub: 'c', act: { sub: 'b', act: { sub: 'a' } } });
  });

  it('expire no later than the grant allows', async () => {
    const notAfter = new Date(Date.now() + 30_500);
    const { expireTime } = await mint({ ...GRANT, notAfter });
    expect(expireTime.getTime()).to.equal(Math.floor(notAfter.getTime() / 1000) * 1000);
    const late = await mint({
      ...GRANT,
      notAfter: new Date(Date.now() + 2 * ACCESS_TOKEN_LIFETIME_MAX_SECONDS * 1000),
    });
    expect(late.expireTime.getTime()).to.be.below(Date.now() + 121_000);
  });

  it('live as long as the state of the log says, whatever the replica was configured with', async () => {
    const lifetime = async () => {
      const claims = claimsOf((await mint(GRANT)).token);
      return Number(claims.exp) - Number(claims.iat);
    };
    await auth.database.query('UPDATE log_state SET token_seconds = 45');
    expect(await lifetime()).to.equal(45);
    await auth.database.query('UPDATE log_state SET token_seconds = 120');
    expect(await lifetime()).to.equal(120);
  });

  it('begin at a time that was read before their lifetime', async () => {
    const statements: string[] = [];
    await auth.database.transaction(async (sql) => {
      const recording: Sql = {
        query: (text, parameters) => {
          statements.push(text);
          return sql.query(text, parameters);
        },
      };
      await createTokenRows(recording).mintingTimes();
    });
    const [clock = '', lifetime = ''] = statements;
    expect(statements).to.have.length(2);
    expect(clock).to.include('clock_timestamp()').and.not.include('token_seconds');
    expect(lifetime).to.include('token_seconds');
  });

  describe('are checked against the database:', () => {
    const livenessAround = async (
      token: string,
      change: (tx: AuthTransaction, claims: Record<string, unknown>) => Promise<unknown>,
    ): Promise<[before: boolean, after: boolean]> => {
      const undo = new Error('undo');
      let verdict: [boolean, boolean] = [false, false];
      await auth.store
        .transaction(async (tx) => {
          const verified = await (await auth.tokens.verifierIn(tx))(token, undefined);
          if (verified === undefined) throw new Error('the token is not good');
          const before = await isLive(tx, verified);
          await change(tx, claimsOf(token));
          verdict = [before, await isLive(tx, verified)];
          throw undo;
        })
        .catch((error: unknown) => {
          if (error !== undo) throw error;
        });
      return verdict;
    };

    it("a user's token is not live once its session ended or its user has a newer generation", async () => {
      const user = await addUser(auth);
      const { access, session } = await logIn(auth, user);
      expect(await livenessAround(access.token, async () => {})).to.deep.equal([true, true]);
      const end = (tx: AuthTransaction) => tx.sessions.end(session.sessionId, 'REVOKED');
      expect(await livenessAround(access.token, end)).to.deep.equal([true, false]);
      const raise = (tx: AuthTransaction) => tx.users.raiseGeneration(user.userId);
      expect(await livenessAround(access.token, raise)).to.deep.equal([true, false]);
    });

    it('a token is live for as long as an instance admits it, and no longer', async () => {
      const token = await serviceToken(auth, await addClient(auth));
      await auth.store.transaction(async (tx) => {
        const verified = await (await auth.tokens.verifierIn(tx))(token, 'auth');
        if (verified === undefined) throw new Error('the token is not good');
        const expiryMs = verified.expiresAtSeconds * 1000;
        const livesAt = (ms: number, options?: { toleranceSeconds: number }) =>
          isLive({ ...tx, databaseTime: async () => new Date(ms) }, verified, options);
        const lastMs = expiryMs + CLOCK_SKEW_SECONDS * 1000;
        expect([
          await livesAt(expiryMs - 1),
          await livesAt(expiryMs),
          await livesAt(lastMs - 1),
        ]).to.deep.equal([true, true, true]);
        expect(await livesAt(lastMs)).to.equal(false);
        const strict = { toleranceSeconds: 0 };
        expect([await livesAt(expiryMs - 1, strict), await livesAt(expiryMs, strict)]).to.deep.equal([
          true,
          false,
        ]);
      });
    });

    it("a service's token is not live once its client has a newer generation or its key is retired", async () => {
      const client = await addClient(auth);
      const token = await serviceToken(auth, client);
      const verified = await auth.store.transaction(async (tx) =>
        (await auth.tokens.verifierIn(tx))(token, 'auth'),
      );
      if (verified === undefined) throw new Error('the token is not good');
      const lives = () => auth.store.transaction((tx) => isLive(tx, verified));
      expect(await lives()).to.equal(true);
      const update = (sql: string, id: string) => auth.database.query(sql, [id]);
      await update("UPDATE signing_keys SET state = 'retired' WHERE kid = $1", verified.keyId);
      expect(await lives()).to.equal(false);
      await update("UPDATE signing_keys SET state = 'signing' WHERE kid = $1", verified.keyId);
      expect(await lives()).to.equal(true);
      await update('UPDATE clients SET generation = generation + 1 WHERE client_id = $1', client.clientId);
      expect(await lives()).to.equal(false);
    });
  });
});
