/** Tests of ending sessions: all others of a user, and that of a refresh token, against PostgreSQL. */

import { randomBytes, randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import { appendSessionEnd } from '../../../../services/auth/sessions/end-session.js';
import { codeOf, codeOrOk, rejectionOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  entriesOf,
  entryKeyOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
} from '../instance.js';

const PEER = '192.0.2.1:4000';
const THUMBPRINT = 'A'.repeat(43);

/** Runs like the system's clock, from a point far from it. */
const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + 1_000_000_000 };
/** More than a receipt's bound with the default lease, in milliseconds. */
const BOUND_MS = 60_000;

describe('ending sessions', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, loginBinding: 'optional', clock });
    replica = await openAuth(auth.url, { keyEncryptionKey });
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  const isLive = async ({ access }: { access: { token: string } }): Promise<boolean> =>
    (await auth.exchange.introspect(access.token)) !== undefined;
  const refresh = ({ refreshToken }: { refreshToken: string }, certificateThumbprint?: string) =>
    auth.sessions.refresh({ refreshToken, requestId: randomUUID(), certificateThumbprint });
  const revokeToken = (token: string) => auth.sessions.revokeByRefreshToken({ token, peer: PEER });

  describe('of a user but the calling one', () => {
    it('ends each of them with an entry and an event, and no session of another user', async () => {
      const user = await addUser(auth);
      const [calling, laptop, phone] = [
        await logIn(auth, user),
        await logIn(auth, user),
        await logIn(auth, user),
      ];
      const stranger = await logIn(auth, await addUser(auth));
      const caller = { userId: user.userId, sessionId: calling.session.sessionId };
      const { endedSessions, receipt } = await auth.sessions.revokeOthers(caller);
      expect(endedSessions).to.equal(2);
      expect(receipt?.enforcedEverywhereBy.getTime()).to.be.within(Date.now(), Date.now() + BOUND_MS);
      for (const ended of [laptop, phone]) {
        expect(await isLive(ended)).to.equal(false);
        expect(await codeOf(refresh(ended))).to.equal('REFRESH_INVALID');
      }
      for (const kept of [calling, stranger]) {
        expect(await isLive(kept)).to.equal(true);
        await refresh(kept);
      }
      const ids = [laptop, phone].map(({ session }) => session.sessionId);
      const keys = (await entriesOf(auth)).filter(({ kind }) => kind === 'SESSION').map(({ key }) => key);
      expect(keys).to.include.members(ids.map(entryKeyOf));
      const { rows } = await auth.database.query<{ session: string }>(
        `SELECT subject->>'sessionId' AS session, details, network FROM security_events
         WHERE type = 'session-revoked' AND actor = $1 ORDER BY 1`,
        [user.userId],
      );
      expect(rows).to.deep.equal(
        ids.sort().map((session) => ({ session, details: { initiator: 'user' }, network: '' })),
      );
      expect(await auth.sessions.revokeOthers(caller)).to.deep.equal({
        endedSessions: 0,
        receipt: undefined,
      });
    });

    it('ends more sessions than one transaction does', async function () {
      this.timeout(180_000);
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      await auth.database.query(
        `INSERT INTO sessions SELECT (json_populate_record(s, json_build_object('session_id', gen_random_uuid()))).*
         FROM sessions s, generate_series(1, 205) WHERE session_id = $1`,
        [session.sessionId],
      );
      const caller = { userId: user.userId, sessionId: session.sessionId };
      expect((await auth.sessions.revokeOthers(caller)).endedSessions).to.equal(205);
      const { sessions } = await auth.sessions.listOf(user.userId, { pageSize: 0, pageToken: '' });
      expect(sessions.map(({ sessionId }) => sessionId)).to.deep.equal([session.sessionId]);
    });

    it('leaves one session when two end each other at the same time', async () => {
      for (let round = 0; round < 5; round += 1) {
        const user = await addUser(auth);
        const pairs = [await logIn(auth, user), await logIn(auth, user)];
        const outcomes = await Promise.all(
          pairs.map(({ session: { sessionId } }, index) =>
            codeOrOk(
              (index === 0 ? auth : replica).sessions.revokeOthers({ userId: user.userId, sessionId }),
            ),
          ),
        );
        expect(outcomes.toSorted()).to.deep.equal(['OK', 'TOKEN_REVOKED']);
        const { sessions } = await auth.sessions.listOf(user.userId, { pageSize: 0, pageToken: '' });
        expect(sessions).to.have.length(1);
      }
    });

    it('fails for an unknown user', async () => {
      const caller = { userId: randomUUID(), sessionId: randomUUID() };
      expect(await codeOf(auth.sessions.revokeOthers(caller))).to.equal('TOKEN_REVOKED');
    });

    it('fails when the calling session has ended', async () => {
      const user = await addUser(auth);
      const [calling, other] = [await logIn(auth, user), await logIn(auth, user)];
      const caller = { userId: user.userId, sessionId: calling.session.sessionId };
      await auth.sessions.logout(caller);
      expect(await codeOf(auth.sessions.revokeOthers(caller))).to.equal('TOKEN_REVOKED');
      expect(await isLive(other)).to.equal(true);
    });
  });

  it('of a caller whose session is unknown does nothing', async () => {
    const user = await addUser(auth);
    const before = await entriesOf(auth);
    await auth.sessions.logout({ userId: user.userId, sessionId: randomUUID() });
    expect(await entriesOf(auth)).to.deep.equal(before);
  });

  it('of one session states in the receipt by when it is enforced', async () => {
    const user = await addUser(auth);
    const { session } = await logIn(auth, user);
    const caller = { userId: user.userId, sessionId: undefined };
    const receipt = await auth.sessions.revoke(caller, session.sessionId);
    expect(receipt.enforcedEverywhereBy.getTime()).to.be.within(Date.now(), Date.now() + BOUND_MS);
  });

  it('by auth itself is recorded as such, and fails together with its event', async () => {
    const { session } = await logIn(auth, await addUser(auth));
    const by = { reason: 'a test', actor: 'auth' };
    const failure = new Error('the event cannot be recorded');
    const failed = auth.store.transaction((tx) =>
      appendSessionEnd(
        { ...tx, events: { ...tx.events, recordAll: () => Promise.reject(failure) } },
        session,
        by,
      ),
    );
    expect(await rejectionOf(failed)).to.equal(failure);
    await auth.store.transaction((tx) => appendSessionEnd(tx, session, by));
    const { rows } = await auth.database.query<object>(
      "SELECT details FROM security_events WHERE type = 'session-revoked' AND subject->>'sessionId' = $1",
      [session.sessionId],
    );
    expect(rows).to.deep.equal([{ details: { initiator: 'system' } }]);
  });

  describe('by a refresh token', () => {
    it('ends the session, whether the token is unused, used or expired', async () => {
      const user = await addUser(auth);
      const unused = await logIn(auth, user);
      const used = await logIn(auth, user);
      const { access } = await refresh(used);
      const expired = await logIn(auth, user);
      await auth.database.query(
        "UPDATE refresh_tokens SET expire_time = clock_timestamp() - interval '1 s' WHERE session_id = $1",
        [expired.session.sessionId],
      );
      for (const pair of [unused, used, expired]) {
        await revokeToken(pair.refreshToken);
        expect(await isLive(pair)).to.equal(false);
        expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
      }
      expect(await isLive({ access })).to.equal(false);
    });

    it('ends a session of a narrowed login, and one that is bound to a certificate, without the certificate', async () => {
      const user = await addUser(auth);
      const narrow = await logIn(auth, user, { scopes: ['inventory.read'], audiences: ['inventory'] });
      const bound = await logIn(auth, user, { certificateThumbprint: THUMBPRINT });
      for (const pair of [narrow, bound]) {
        await revokeToken(pair.refreshToken);
        expect(await isLive(pair)).to.equal(false);
      }
      expect(await codeOf(refresh(bound, THUMBPRINT))).to.equal('REFRESH_INVALID');
    });

    it('writes one entry and one event with the network, however often it is repeated', async () => {
      const user = await addUser(auth);
      const { refreshToken, session } = await logIn(auth, user);
      const { sessionId } = session;
      await Promise.all([revokeToken(refreshToken), revokeToken(refreshToken)]);
      await revokeToken(refreshToken);
      const entries = (await entriesOf(auth)).filter(({ key }) => key === entryKeyOf(sessionId));
      const reason = 'logout with a refresh token';
      expect(entries).to.deep.equal([
        { kind: 'SESSION', key: entryKeyOf(sessionId), reason, actor: user.userId },
      ]);
      const { rows } = await auth.database.query<object>(
        `SELECT reason, network FROM security_events
         WHERE type = 'session-revoked' AND subject->>'sessionId' = $1`,
        [sessionId],
      );
      expect(rows).to.deep.equal([{ reason, network: '192.0.2.1' }]);
    });

    it('returns OK for an unknown token, and rejects another kind of token', async () => {
      const { access, refreshToken } = await logIn(auth, await addUser(auth));
      const before = await entriesOf(auth);
      for (const token of [
        `pcr_${randomBytes(32).toString('base64url')}`,
        'pcr_',
        refreshToken.slice(0, -1),
        `${refreshToken}A`,
      ]) {
        await revokeToken(token);
      }
      for (const token of ['', access.token, refreshToken.slice(4), 'x'.repeat(100_000)]) {
        expect(await codeOf(revokeToken(token))).to.equal('FIELD_INVALID');
      }
      expect(await entriesOf(auth)).to.deep.equal(before);
      expect(await isLive({ access })).to.equal(true);
    });
  });

  describe('by an operator who has found a refresh token', () => {
    const revoke = (token: string) =>
      auth.revocations.revoke({
        target: { kind: 'token', token },
        reason: 'found on a web page',
        actor: 'scanner',
      });

    it('ends its session with a receipt, also when the token was used', async () => {
      const user = await addUser(auth);
      const unused = await logIn(auth, user);
      const used = await logIn(auth, user);
      await refresh(used);
      for (const pair of [unused, used]) {
        const receipt = await revoke(pair.refreshToken);
        expect(receipt.sequence > 0n).to.equal(true);
        expect(await isLive(pair)).to.equal(false);
        expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
      }
      const { rows } = await auth.database.query<object>(
        'SELECT DISTINCT end_reason FROM sessions WHERE user_id = $1',
        [user.userId],
      );
      expect(rows).to.deep.equal([{ end_reason: 'REVOKED' }]);
    });

    it('fails for an unknown one, and the token stands in neither log nor record', async () => {
      const { refreshToken } = await logIn(auth, await addUser(auth));
      for (const token of [`pcr_${randomBytes(32).toString('base64url')}`, `${refreshToken}A`, 'pcr_']) {
        expect(await codeOf(revoke(token))).to.equal('NOT_FOUND');
      }
      await revoke(refreshToken);
      const { rows } = await auth.database.query<{ text: string }>(
        `SELECT concat_ws(' ', (SELECT string_agg(e::text, ' ') FROM security_events e),
                               (SELECT string_agg(r::text, ' ') FROM revocation_entries r)) AS text`,
      );
      expect(rows[0]?.text).to.not.contain(refreshToken.slice(4));
    });
  });
});
