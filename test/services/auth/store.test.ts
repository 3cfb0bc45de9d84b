/** Tests of auth's transactions, and of what its database holds, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { decodeProtectedHeader } from 'jose';
import { sessionRevocation } from '../../../services/auth/revocation/log.js';
import { deleteExpired } from '../../../services/auth/store.js';
import type { AuthTransaction } from '../../../services/auth/transaction.js';
import { rejectionOf } from '../../support/outcomes.js';
import {
  type AuthInstance,
  addClient,
  addUser,
  issue,
  logIn,
  newKeyEncryptionKey,
  openFreshAuth,
  signAssertion,
} from './instance.js';

describe('the store of auth', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
  });
  after(() => auth.close());
  beforeEach(() => {
    auth.broadcast.length = 0;
  });

  const entry = () => ({ ...sessionRevocation(randomUUID()), reason: 'test', actor: 'test' });

  it('passes on entries of the log after the commit, and not before', async () => {
    const appended = await auth.store.transaction(async (tx) => {
      const result = await tx.revocations.append([entry(), entry()]);
      expect(auth.broadcast).to.be.empty;
      return result;
    });
    expect(auth.broadcast).to.deep.equal([{ epoch: appended.epoch, entries: appended.entries }]);
  });

  it('passes on nothing after a rollback', async () => {
    const failure = new Error('on purpose');
    const work = auth.store.transaction(async (tx) => {
      await tx.revocations.append([entry()]);
      throw failure;
    });
    expect(await rejectionOf(work)).to.equal(failure);
    expect(auth.broadcast).to.be.empty;
  });

  it('passes on the entries of a retried transaction once', async () => {
    let attempts = 0;
    let effects = 0;
    await auth.store.transaction(async (tx) => {
      attempts += 1;
      tx.afterCommit(() => {
        effects += 1;
      });
      await tx.revocations.append([entry()]);
      if (attempts === 1) throw Object.assign(new Error('deadlock'), { code: '40P01' });
    });
    expect([attempts, effects, auth.broadcast.length]).to.deep.equal([2, 1, 1]);
  });

  it('returns the current time, not the start time of the transaction', async () => {
    const [first, second] = await auth.store.transaction(async (tx) => {
      const before = await tx.databaseTime();
      await sleep(30);
      return [before, await tx.databaseTime()];
    });
    expect((second?.getTime() ?? 0) - (first?.getTime() ?? 0)).to.be.at.least(25);
  });

  describe('keeps what a token rests on from being revoked until the token is minted:', () => {
    const revocations: {
      readonly name: string;
      readonly lock: (tx: AuthTransaction, ids: Ids) => Promise<unknown>;
      readonly revoke: string;
      readonly id: keyof Ids;
    }[] = [
      {
        name: 'the user',
        lock: (tx, { userId }) => tx.users.lockShared(userId),
        revoke: 'UPDATE users SET generation = generation + 1 WHERE user_id = $1',
        id: 'userId',
      },
      {
        name: 'the session',
        lock: (tx, { sessionId }) => tx.sessions.lockShared(sessionId),
        revoke: "UPDATE sessions SET end_time = now(), end_reason = 'REVOKED' WHERE session_id = $1",
        id: 'sessionId',
      },
      {
        name: 'the client',
        lock: (tx, { clientId }) => tx.clients.lockShared(clientId),
        revoke: 'UPDATE clients SET generation = generation + 1 WHERE client_id = $1',
        id: 'clientId',
      },
      {
        name: 'the key that signs',
        lock: (tx) => tx.keys.lockSigning('token'),
        revoke: "UPDATE signing_keys SET state = 'verify-only' WHERE kid = $1",
        id: 'kid',
      },
      {
        name: 'the key that signed the parent',
        lock: (tx, { kid }) => tx.keys.lockLive(kid),
        revoke: 'UPDATE signing_keys SET publish_time = now() WHERE kid = $1',
        id: 'kid',
      },
    ];
    for (const { name, lock, revoke, id } of revocations) {
      it(name, async () => {
        const user = await addUser(auth);
        const { session, access } = await logIn(auth, user);
        const { clientId } = await addClient(auth);
        const { userId } = user;
        const kid = String(decodeProtectedHeader(access.token).kid);
        const ids: Ids = { userId, sessionId: session.sessionId, clientId, kid };
        const order: string[] = [];
        let revoked: Promise<unknown> = Promise.resolve();
        await auth.store.transaction(async (tx) => {
          await lock(tx, ids);
          revoked = auth.database
            .transaction((sql) => sql.query(`${revoke} RETURNING 1`, [ids[id]]))
            .then(({ rowCount }) => order.push(`revoked ${rowCount}`));
          await sleep(100);
          order.push('minted');
        });
        await revoked;
        expect(order).to.deep.equal(['minted', 'revoked 1']);
        if (id === 'kid')
          await auth.database.query("UPDATE signing_keys SET state = 'signing' WHERE kid = $1", [kid]);
      });
    }
  });

  it('holds no password, refresh token, access token, assertion or private key in any row', async () => {
    const user = await addUser(auth);
    const client = await addClient(auth);
    const assertion = await signAssertion(client);
    const first = await logIn(auth, user);
    const request = { refreshToken: first.refreshToken, requestId: randomUUID() };
    const second = await auth.sessions.refresh(request);
    const service = await issue(auth, client, assertion);
    const secrets = [
      user.password,
      first.refreshToken,
      first.refreshToken.slice(4),
      second.refreshToken,
      second.refreshToken.slice(4),
      first.access.token,
      second.access.token,
      service.token,
      assertion,
      assertion.split('.')[1] ?? '',
      keyEncryptionKey.toString('base64url'),
      'PRIVATE KEY',
      '"d"',
    ];
    const dump = await dumpOf(auth);
    expect(dump).to.contain(user.username);
    for (const secret of secrets) {
      const spellings = [
        secret,
        Buffer.from(secret).toString('hex'),
        Buffer.from(secret, 'base64url').toString('hex'),
      ];
      for (const spelling of spellings) {
        if (spelling.length >= 3) expect(dump.includes(spelling), spelling).to.equal(false);
      }
    }
    expect(dump.includes(keyEncryptionKey.toString('hex'))).to.equal(false);
  });

  it('deletes sessions that ended long ago with their tokens, and keeps the others', async () => {
    const user = await addUser(auth);
    const [old, young] = [await logIn(auth, user), await logIn(auth, user)];
    await auth.database.query(
      "UPDATE sessions SET expire_time = clock_timestamp() - interval '31 days' WHERE session_id = $1",
      [old.session.sessionId],
    );
    await deleteExpired(auth.database);
    const { rows } = await auth.database.query<{ session_id: string }>(
      'SELECT session_id FROM sessions JOIN refresh_tokens USING (session_id) WHERE user_id = $1',
      [user.userId],
    );
    expect(rows).to.deep.equal([{ session_id: young.session.sessionId }]);
  });
});

interface Ids {
  readonly userId: string;
  readonly sessionId: string;
  readonly clientId: string;
  readonly kid: string;
}

/** Every row of every table as text, bytes in hexadecimal: what an attacker with the database can read. */
async function dumpOf({ database }: AuthInstance): Promise<string> {
  const { rows: tables } = await database.query<{ name: string }>(
    "SELECT format('%I', tablename) AS name FROM pg_tables WHERE schemaname = 'public'",
  );
  const dumps = await Promise.all(
    tables.map(({ name }) => database.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t`)),
  );
  return dumps.flatMap(({ rows }) => rows.map(({ row }) => row)).join('\n');
}
