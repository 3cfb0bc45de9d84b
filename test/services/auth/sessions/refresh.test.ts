/** Tests of refreshing, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { SESSION_SECONDS_MAX } from '../../../../services/auth/sessions/login.js';
import {
  type RefreshDeps,
  type RefreshOutcome,
  refresh as refreshWith,
} from '../../../../services/auth/sessions/refresh.js';
import { createRefreshPlaces } from '../../../../services/auth/sessions/refresh-places.js';
import {
  deriveSuccessor,
  formatRefreshToken,
  hashRefreshToken,
  newRefreshSecret,
  parseRefreshToken,
  REFRESH_IDLE_SECONDS_MAX,
} from '../../../../services/auth/sessions/refresh-tokens.js';
import type { TokenPair } from '../../../../services/auth/sessions/session-tokens.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  claimsOf,
  entriesOf,
  entryKeyOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
} from '../instance.js';

const ROUNDS_OF_REFRESH = 20;

describe('refresh', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
    replica = await openAuth(auth.url, { keyEncryptionKey });
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  const refresh = (
    refreshToken: string,
    requestId: string = randomUUID(),
    at: AuthInstance = auth,
  ): Promise<TokenPair> => at.sessions.refresh({ refreshToken, requestId });

  const isOpen = async (sessionId: string): Promise<boolean> =>
    (await auth.store.transaction((tx) => tx.sessions.lockShared(sessionId)))?.open === true;

  it('returns new tokens of the same session for a refresh token', async () => {
    const first = await logIn(auth, await addUser(auth));
    const second = await refresh(first.refreshToken);
    expect(second.refreshToken).to.not.equal(first.refreshToken);
    const [before, after] = [claimsOf(first.access.token), claimsOf(second.access.token)];
    for (const claim of ['sub', 'sid', 'gen', 'scope', 'auth_time', 'client_id']) {
      expect(after[claim], claim).to.equal(before[claim]);
    }
    expect(after.jti).to.not.equal(before.jti);
    await refresh(second.refreshToken);
  });

  it('refuses more than a few with one token at the same time before they reach the database', async () => {
    const few = await openAuth(auth.url, { keyEncryptionKey, refreshesPerToken: 2 });
    const { refreshToken } = await logIn(few, await addUser(few));
    const { refreshToken: other } = await logIn(few, await addUser(few));
    const requestId = randomUUID();
    const first = [refresh(refreshToken, requestId, few), refresh(refreshToken, requestId, few)];
    const errors = await Promise.all(
      Array.from({ length: 500 }, () => serviceErrorOf(refresh(refreshToken, requestId, few))),
    );
    // One error for all of them: a flood must not cost a stack trace for each call.
    expect(new Set(errors).size).to.equal(1);
    expect(errors[0]).to.include({ code: 'RATE_LIMITED' });
    expect(errors[0]?.message).to.include('PORTCULLIS_REFRESHES_PER_TOKEN');
    expect(errors[0]?.retryAfterMs).to.be.greaterThan(0);
    await refresh(other, requestId, few);
    const pairs = await Promise.all(first);
    expect(new Set(pairs.map((pair) => pair.refreshToken)).size).to.equal(1);
    // The places are free again.
    await refresh(refreshToken, requestId, few);
    await few.close();
  });

  it('succeeds once among 20 concurrent refreshes on two replicas, and the session ends', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const outcomes = await Promise.allSettled(
      Array.from({ length: ROUNDS_OF_REFRESH }, (_, index) =>
        refresh(refreshToken, randomUUID(), index % 2 === 0 ? auth : replica),
      ),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).to.have.length(1);
    expect(await isOpen(session.sessionId)).to.equal(false);
    const entries = (await entriesOf(auth)).filter(({ key }) => key === entryKeyOf(session.sessionId));
    expect(entries).to.have.length(1);
    expect(entries[0]).to.include({ kind: 'SESSION', reason: 'refresh token reused', actor: 'auth' });
  });

  it('ends the session when a used token is presented again, with a log entry, and its successor fails', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const next = await refresh(refreshToken);
    auth.broadcast.length = 0;
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    expect(await codeOf(refresh(next.refreshToken))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(false);
    expect(auth.broadcast.map(({ entries }) => entries.map(({ kind }) => kind))).to.deep.equal([['SESSION']]);
  });

  it('returns the same successor to a retried request, also on another replica and after a restart', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID();
    const first = await refresh(refreshToken, requestId);
    const again = await refresh(refreshToken, requestId, replica);
    const restarted = await openAuth(auth.url, { keyEncryptionKey });
    const later = await refresh(refreshToken, requestId, restarted);
    await restarted.close();
    expect(again.refreshToken).to.equal(first.refreshToken);
    expect(later.refreshToken).to.equal(first.refreshToken);
    expect(again.refreshTokenExpireTime).to.deep.equal(first.refreshTokenExpireTime);
    expect(claimsOf(again.access.token)['sid']).to.equal(session.sessionId);
    expect(await isOpen(session.sessionId)).to.equal(true);
    await refresh(first.refreshToken);
  });

  it('returns the same successor to 20 concurrent copies of one request', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID();
    const pairs = await Promise.all(
      Array.from({ length: ROUNDS_OF_REFRESH }, () => refresh(refreshToken, requestId)),
    );
    expect(new Set(pairs.map((pair) => pair.refreshToken)).size).to.equal(1);
    expect(await isOpen(session.sessionId)).to.equal(true);
  });

  it('recognizes a retry whose UUID is in the other case, and stores the UUID as it was sent', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID().toUpperCase();
    const first = await refresh(refreshToken, requestId);
    expect((await refresh(refreshToken, requestId.toLowerCase())).refreshToken).to.equal(first.refreshToken);
    expect((await refresh(refreshToken, requestId)).refreshToken).to.equal(first.refreshToken);
    expect(await isOpen(session.sessionId)).to.equal(true);
    // Instances of the previous version compare it letter by letter during an upgrade.
    const stored = 'SELECT FROM refresh_tokens WHERE request_id = $1';
    expect((await auth.database.query(stored, [requestId])).rowCount).to.equal(1);
  });

  it('ends the session when a request is retried after its successor was used', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID();
    const next = await refresh(refreshToken, requestId);
    await refresh(next.refreshToken);
    expect(await codeOf(refresh(refreshToken, requestId))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(false);
  });

  it('treats a second use without a request id as reuse', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    await refresh(refreshToken, '');
    expect(await codeOf(refresh(refreshToken, ''))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(false);
  });

  it('rejects an open session of an older generation of its user', async () => {
    const user = await addUser(auth);
    const { refreshToken, session } = await logIn(auth, user);
    await auth.store.transaction((tx) => tx.users.raiseGeneration(user.userId));
    expect(await isOpen(session.sessionId)).to.equal(true);
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    const claims = claimsOf((await logIn(auth, user)).access.token);
    expect(claims['gen']).to.equal(2);
  });

  it('rejects a session of an older generation of its client', async () => {
    const { refreshToken } = await logIn(auth, await addUser(auth));
    const raise = (by: number) =>
      auth.database.query("UPDATE clients SET generation = generation + $1 WHERE client_id = 'direct'", [by]);
    await raise(1);
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    await raise(-1);
  });

  it('rejects the sessions of a revoked user', async () => {
    const user = await addUser(auth);
    const { refreshToken, session } = await logIn(auth, user);
    const target = { kind: 'user', userId: user.userId } as const;
    await auth.revocations.revoke({ target, reason: 'test', actor: 'test' });
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(false);
  });

  it('mints no token that survives a concurrent revocation of the user', async function () {
    this.timeout(180_000);
    for (let round = 0; round < 25; round += 1) {
      const user = await addUser(auth);
      const { refreshToken } = await logIn(auth, user);
      const target = { kind: 'user', userId: user.userId } as const;
      const [refreshed, opened] = await Promise.allSettled([
        refresh(refreshToken, randomUUID(), replica),
        logIn(auth, user),
        auth.revocations.revoke({ target, reason: '', actor: 'test' }),
      ]);
      for (const outcome of [refreshed, opened]) {
        if (outcome.status === 'rejected') continue;
        // Valid only in the new generation: a login after the revocation is not affected by it.
        const isNew = Number(claimsOf(outcome.value.access.token)['gen']) > 1;
        const isLive = (await auth.exchange.introspect(outcome.value.access.token)) !== undefined;
        expect(isLive, 'lives').to.equal(isNew);
      }
      if (refreshed.status === 'fulfilled') {
        expect(await codeOf(refresh(refreshed.value.refreshToken))).to.equal('REFRESH_INVALID');
      }
    }
  });

  it('rejects a token beyond the idle time, and a session beyond its maximum lifetime', async () => {
    const idle = await logIn(auth, await addUser(auth));
    await auth.database.query(
      "UPDATE refresh_tokens SET expire_time = expire_time - make_interval(secs => $1) - interval '1 s' WHERE session_id = $2",
      [REFRESH_IDLE_SECONDS_MAX, idle.session.sessionId],
    );
    expect(await codeOf(refresh(idle.refreshToken))).to.equal('REFRESH_INVALID');

    const old = await logIn(auth, await addUser(auth));
    await auth.database.query(
      "UPDATE sessions SET expire_time = expire_time - make_interval(secs => $1) - interval '1 s' WHERE session_id = $2",
      [SESSION_SECONDS_MAX, old.session.sessionId],
    );
    expect(await codeOf(refresh(old.refreshToken))).to.equal('REFRESH_INVALID');
  });

  it('issues no token that outlives the session', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    await auth.database.query(
      "UPDATE sessions SET expire_time = clock_timestamp() + interval '30 s' WHERE session_id = $1",
      [session.sessionId],
    );
    const next = await refresh(refreshToken);
    expect(next.access.expireTime.getTime() - Date.now()).to.be.below(31_000);
    expect(next.refreshTokenExpireTime.getTime() - Date.now()).to.be.below(31_000);
  });

  it('rejects every non-canonical form of a token, and any other text', async () => {
    const { refreshToken, session, access } = await logIn(auth, await addUser(auth));
    const others = [
      '',
      'pcr_',
      `${refreshToken}=`,
      `${refreshToken} `,
      refreshToken.replace('pcr_', ''),
      refreshToken.slice(0, -1),
      refreshToken.replace(/.$/, (last) => String.fromCharCode(last.charCodeAt(0) + 1)),
      access.token,
      'x'.repeat(1_000_000),
    ];
    for (const other of others) expect(await codeOf(refresh(other))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(true);
    await refresh(refreshToken);
  });

  it('rejects a request id that could be guessed, and uses up nothing', async () => {
    const { refreshToken } = await logIn(auth, await addUser(auth));
    const weak = [
      '1',
      'a\0b',
      'x'.repeat(256),
      '00000000-0000-0000-0000-000000000000',
      '6ba7b810-9dad-11d1-80b4-00c04fd430c8',
      '01932c07-209c-7a2e-9a34-3f9a4b7a5c11',
      `${randomUUID()} `,
    ];
    for (const requestId of weak) {
      expect(await codeOf(refresh(refreshToken, requestId)), requestId).to.equal('FIELD_INVALID');
    }
    await refresh(refreshToken);
  });

  it('treats a retry after the time for retries as reuse', async () => {
    const hasty = await openAuth(auth.url, { keyEncryptionKey, refreshRetrySeconds: 60 });
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID();
    const first = await refresh(refreshToken, requestId, hasty);
    const usedBefore = (seconds: number) =>
      auth.database.query(
        `UPDATE refresh_tokens SET use_time = use_time - make_interval(secs => $1)
         WHERE session_id = $2 AND use_time IS NOT NULL`,
        [seconds, session.sessionId],
      );
    await usedBefore(20);
    expect((await refresh(refreshToken, requestId, hasty)).refreshToken).to.equal(first.refreshToken);
    await usedBefore(41);
    expect(await codeOf(refresh(refreshToken, requestId, hasty))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(false);
    expect(await codeOf(refresh(first.refreshToken))).to.equal('REFRESH_INVALID');
    await hasty.close();
  });

  it('returns no expired successor to a retry, and keeps the session', async () => {
    const { refreshToken, session } = await logIn(auth, await addUser(auth));
    const requestId = randomUUID();
    await refresh(refreshToken, requestId);
    await auth.database.query(
      'UPDATE refresh_tokens SET expire_time = clock_timestamp() WHERE session_id = $1 AND use_time IS NULL',
      [session.sessionId],
    );
    expect(await codeOf(refresh(refreshToken, requestId))).to.equal('REFRESH_INVALID');
    expect(await isOpen(session.sessionId)).to.equal(true);
  });

  describe('at a moment that the test sets', () => {
    const refreshKey = Buffer.alloc(32, 1);
    const outcomes: RefreshOutcome[] = [];
    beforeEach(() => {
      outcomes.length = 0;
    });
    const depsAt = (time: Date | undefined, over: Partial<RefreshDeps> = {}): RefreshDeps => ({
      tokens: auth.tokens,
      places: createRefreshPlaces(1),
      refreshKey,
      refreshRetrySeconds: 60,
      onRefresh: (outcome) => outcomes.push(outcome),
      store: {
        ...auth.store,
        transaction: (work, place) =>
          auth.store.transaction(
            (tx) => work(time === undefined ? tx : { ...tx, databaseTime: () => Promise.resolve(time) }),
            place,
          ),
      },
      ...over,
    });
    const refreshAt = (ms: number, refreshToken: string, requestId: string): Promise<TokenPair> =>
      refreshWith(depsAt(new Date(ms)), { refreshToken, requestId });

    it('rejects a token from the millisecond of its expiry on', async () => {
      const { refreshToken, refreshTokenExpireTime } = await logIn(auth, await addUser(auth));
      const expiryMs = refreshTokenExpireTime.getTime();
      expect(await codeOf(refreshAt(expiryMs, refreshToken, ''))).to.equal('REFRESH_INVALID');
      await refreshAt(expiryMs - 1, refreshToken, '');
      expect(outcomes).to.deep.equal(['refused', 'refreshed']);
    });

    it('retries until the time for retries is over, or the successor has expired', async () => {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      const requestId = randomUUID();
      const usedMs = Date.now();
      const first = await refreshAt(usedMs, refreshToken, requestId);
      const again = await refreshAt(usedMs + 60_000, refreshToken, requestId);
      expect(again.refreshToken).to.equal(first.refreshToken);
      await auth.database.query(
        'UPDATE refresh_tokens SET expire_time = $1 WHERE session_id = $2 AND use_time IS NULL',
        [new Date(usedMs + 30_000), session.sessionId],
      );
      await refreshAt(usedMs + 29_999, refreshToken, requestId);
      expect(await codeOf(refreshAt(usedMs + 30_000, refreshToken, requestId))).to.equal('REFRESH_INVALID');
      expect(await isOpen(session.sessionId)).to.equal(true);
      expect(await codeOf(refreshAt(usedMs + 60_001, refreshToken, requestId))).to.equal('REFRESH_INVALID');
      expect(await isOpen(session.sessionId)).to.equal(false);
      expect(outcomes).to.deep.equal(['refreshed', 'refreshed', 'refreshed', 'refused', 'reused']);
    });

    it('treats a retry of a refresh without a request id as reuse', async () => {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      await refreshAt(Date.now(), refreshToken, '');
      const { rows } = await auth.database.query<object>(
        'SELECT DISTINCT request_id FROM refresh_tokens WHERE session_id = $1',
        [session.sessionId],
      );
      expect(rows).to.deep.equal([{ request_id: null }]);
      expect(await codeOf(refreshAt(Date.now(), refreshToken, randomUUID()))).to.equal('REFRESH_INVALID');
      expect(outcomes).to.deep.equal(['refreshed', 'reused']);
    });

    it('makes a random successor without a request id', async () => {
      const { refreshToken } = await logIn(auth, await addUser(auth));
      const secret = parseRefreshToken(refreshToken);
      if (secret === undefined) throw new Error('the token is not canonical');
      const next = await refreshAt(Date.now(), refreshToken, '');
      expect(next.refreshToken).to.not.equal(formatRefreshToken(deriveSuccessor(refreshKey, secret, '')));
    });

    it('keeps the session of a retry whose successor it cannot derive any more', async () => {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      const requestId = randomUUID();
      await refreshAt(Date.now(), refreshToken, requestId);
      const otherKey = depsAt(undefined, { refreshKey: Buffer.alloc(32, 2) });
      expect(await codeOf(refreshWith(otherKey, { refreshToken, requestId }))).to.equal('REFRESH_INVALID');
      const forget = 'UPDATE refresh_tokens SET successor_hash = NULL WHERE session_id = $1';
      await auth.database.query(forget, [session.sessionId]);
      expect(await codeOf(refreshAt(Date.now(), refreshToken, requestId))).to.equal('REFRESH_INVALID');
      expect(await isOpen(session.sessionId)).to.equal(true);
      expect(outcomes).to.deep.equal(['refreshed', 'refused', 'refused']);
    });

    it('ends the session of a retry whose successor is gone', async () => {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      const requestId = randomUUID();
      await refreshAt(Date.now(), refreshToken, requestId);
      const remove = 'DELETE FROM refresh_tokens WHERE session_id = $1 AND use_time IS NULL';
      await auth.database.query(remove, [session.sessionId]);
      expect(await codeOf(refreshAt(Date.now(), refreshToken, requestId))).to.equal('REFRESH_INVALID');
      expect(await isOpen(session.sessionId)).to.equal(false);
    });

    it('accepts a certificate that the session is not bound to', async () => {
      const { refreshToken } = await logIn(auth, await addUser(auth));
      const certificateThumbprint = 'A'.repeat(43);
      await refreshWith(depsAt(undefined), { refreshToken, requestId: '', certificateThumbprint });
    });

    it('reports a refusal for want of a place once, and one of text that is no token', async () => {
      const { refreshToken } = await logIn(auth, await addUser(auth));
      const full = depsAt(undefined, { places: createRefreshPlaces(0) });
      expect(await codeOf(refreshWith(full, { refreshToken, requestId: '' }))).to.equal('RATE_LIMITED');
      expect(await codeOf(refreshWith(full, { refreshToken: 'pcr_', requestId: '' }))).to.equal(
        'REFRESH_INVALID',
      );
      expect(outcomes).to.deep.equal(['limited', 'refused']);
    });

    it('rejects a token whose user, session or row is gone when the rows are locked', async () => {
      const { refreshToken, session } = await logIn(auth, await addUser(auth));
      const { userId, sessionId } = session;
      const unknown = formatRefreshToken(newRefreshSecret());
      for (const [token, found] of [
        [refreshToken, { userId: randomUUID(), sessionId }],
        [refreshToken, { userId, sessionId: randomUUID() }],
        [unknown, { userId, sessionId }],
      ] as const) {
        const { store, ...deps } = depsAt(undefined);
        const row = await auth.store.reads.sessions.findRefreshToken(hashRefreshToken(refreshToken));
        if (row === undefined) throw new Error('there is no such token');
        const sessions = { findRefreshToken: async () => ({ ...row, ...found }) };
        const stale = { ...deps, store: { ...store, reads: { ...store.reads, sessions } } };
        expect(await codeOf(refreshWith(stale, { refreshToken: token, requestId: '' }))).to.equal(
          'REFRESH_INVALID',
        );
      }
      expect(outcomes).to.deep.equal(['refused', 'refused', 'refused']);
      await refresh(refreshToken);
    });
  });

  it('rejects an open session of a disabled user, and one of a deleted client', async () => {
    const user = await addUser(auth);
    const { refreshToken } = await logIn(auth, user);
    const setUser = (time: string) =>
      auth.database.query(`UPDATE users SET disable_time = ${time} WHERE user_id = $1`, [user.userId]);
    await setUser('clock_timestamp()');
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    await setUser('NULL');
    const setClient = (time: string) =>
      auth.database.query(`UPDATE clients SET delete_time = ${time} WHERE client_id = 'direct'`);
    await setClient('clock_timestamp()');
    expect(await codeOf(refresh(refreshToken))).to.equal('REFRESH_INVALID');
    await setClient('NULL');
    await refresh(refreshToken);
  });
});
