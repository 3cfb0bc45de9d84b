/** Tests of the changes of a user who may be logged in (password, roles, being disabled), against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { TokenPair } from '../../../../services/auth/sessions/session-tokens.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import {
  addUser,
  attemptOf,
  claimsOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
  type TestUser,
} from '../instance.js';

const NEW_PASSWORD = 'another long password';
const FAILURES_MAX = 6;

describe('changes of accounts', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
  });
  after(() => auth.close());
  beforeEach(() => {
    auth.broadcast.length = 0;
  });

  const isLive = async ({ access }: TokenPair): Promise<boolean> =>
    (await auth.exchange.introspect(access.token)) !== undefined;
  const refresh = ({ refreshToken }: TokenPair): Promise<TokenPair> =>
    auth.sessions.refresh({ refreshToken, requestId: randomUUID() });
  const changePassword = (
    user: TestUser,
    over: { oldPassword?: string; newPassword?: string; peer?: string } = {},
  ) =>
    auth.accountChanges.changePassword({
      userId: user.userId,
      oldPassword: user.password,
      newPassword: NEW_PASSWORD,
      peer: '192.0.2.1:4000',
      ...over,
    });
  const requestOf = (user: { userId: string }, over: { requestId?: string } = {}) => ({
    actor: 'admin',
    userId: user.userId,
    requestId: randomUUID(),
    ...over,
  });
  /** The log entries of a user: the minimum generation, and the reason. */
  const entriesOf = async ({ userId }: { userId: string }): Promise<unknown[]> => {
    const { rows } = await auth.database.query<{ min: bigint; reason: string; actor: string }>(
      `SELECT min_generation AS min, reason, actor FROM revocation_entries
       WHERE kind = 'USER' AND key = $1 ORDER BY seq`,
      [Buffer.from(userId)],
    );
    return rows.map(({ min, reason, actor }) => [min, reason, actor]);
  };
  const stateOf = async ({ userId }: { userId: string }) => {
    const { rows } = await auth.database.query<object>(
      `SELECT generation, password_version, password_hash, disable_time,
         ARRAY(SELECT role FROM user_roles r WHERE r.user_id = u.user_id ORDER BY 1) AS roles,
         (SELECT count(*) FROM sessions s WHERE s.user_id = u.user_id AND end_time IS NULL) AS sessions
       FROM users u WHERE user_id = $1`,
      [userId],
    );
    return rows[0];
  };
  const openSessionsOf = async (user: { userId: string }) =>
    (await auth.sessions.listOf(user.userId, { pageSize: 0, pageToken: '' })).sessions;

  describe('a changed password', () => {
    it('ends all sessions and tokens, including the calling ones, and only the new password is valid', async () => {
      const user = await addUser(auth);
      const [calling, other] = [await logIn(auth, user), await logIn(auth, user)];
      const receipt = await changePassword(user);
      expect(receipt.sequence > 0n).to.equal(true);
      expect(receipt.enforcedEverywhereBy.getTime()).to.be.above(Date.now());
      for (const pair of [calling, other]) {
        expect(await isLive(pair)).to.equal(false);
        expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
      }
      expect(await openSessionsOf(user)).to.be.empty;
      expect(await entriesOf(user)).to.deep.equal([[2n, 'password changed', user.userId]]);
      expect(auth.broadcast.flatMap(({ entries }) => entries.map(({ kind }) => kind))).to.deep.equal([
        'USER',
      ]);
      expect(await codeOf(logIn(auth, user))).to.equal('LOGIN_FAILED');
      expect(await isLive(await logIn(auth, { ...user, password: NEW_PASSWORD }))).to.equal(true);
    });

    it('requires the old password and a valid new one', async () => {
      const user = await addUser(auth);
      const pair = await logIn(auth, user);
      const before = await stateOf(user);
      for (const oldPassword of ['wrong password', '', NEW_PASSWORD, 'x'.repeat(1_000_000)]) {
        expect(await codeOf(changePassword(user, { oldPassword }))).to.equal('LOGIN_FAILED');
      }
      for (const newPassword of ['short', 'x'.repeat(257), 'bad bytes \uFFFD', '']) {
        const { code, violations } = await serviceErrorOf(changePassword(user, { newPassword }));
        expect([code, violations[0]?.field]).to.deep.equal(['FIELD_INVALID', 'new_password']);
      }
      expect(await codeOf(changePassword({ ...user, userId: randomUUID() }))).to.equal('LOGIN_FAILED');
      expect(await codeOf(changePassword({ ...user, userId: 'client-name' }))).to.equal('LOGIN_FAILED');
      expect(await stateOf(user)).to.deep.equal(before);
      expect(await isLive(pair)).to.equal(true);
      expect(auth.broadcast).to.be.empty;
    });

    it('gives an attacker with a stolen token no more guesses than a login', async () => {
      const user = await addUser(auth);
      const codes: string[] = [];
      for (let count = 0; count < FAILURES_MAX; count += 1) {
        const attempt =
          count % 2 === 0
            ? auth.sessions.login(attemptOf(user.username, 'wrong password'))
            : changePassword(user, { oldPassword: 'wrong password' });
        codes.push(await codeOf(attempt));
      }
      expect(codes).to.deep.equal(Array<string>(FAILURES_MAX).fill('LOGIN_FAILED'));
      expect(await codeOf(changePassword(user))).to.equal('RATE_LIMITED');
    });

    it('fails when the user was changed while the old password was verified', async () => {
      for (const meanwhile of [
        (user: TestUser) => auth.accountChanges.disable(requestOf(user)),
        (user: TestUser) => changePassword(user, { newPassword: 'the first of two' }),
        ({ userId }: TestUser) =>
          auth.revocations.revoke({ target: { kind: 'user', userId }, reason: '', actor: 'test' }),
      ]) {
        const user = await addUser(auth);
        const slow = await openAuth(auth.url, { keyEncryptionKey });
        const { verify } = slow.passwords;
        Object.assign(slow.passwords, {
          verify: async (hash: string | undefined, password: string) => {
            const equal = await verify(hash, password);
            await meanwhile(user);
            return equal;
          },
        });
        const { userId, password: oldPassword } = user;
        const late = slow.accountChanges.changePassword({
          userId,
          oldPassword,
          newPassword: NEW_PASSWORD,
          peer: '192.0.2.1:1',
        });
        expect(await codeOf(late)).to.equal('LOGIN_FAILED');
        await slow.close();
        expect(await codeOf(logIn(auth, { ...user, password: NEW_PASSWORD }))).to.equal('LOGIN_FAILED');
      }
    });

    it('clears the list of known networks, except for the network of the caller', async () => {
      const user = await addUser(auth);
      for (const peer of ['198.51.100.1:1', '198.51.100.2:1']) await logIn(auth, user, { peer });
      await changePassword(user, { peer: '198.51.100.3:1' });
      const guess = { ...attemptOf(user.username, 'wrong password') };
      for (let count = 0; count < FAILURES_MAX; count += 1) {
        await codeOf(auth.sessions.login({ ...guess, peer: `203.0.113.${count}:1` }));
      }
      const after = { ...user, password: NEW_PASSWORD };
      expect(await codeOf(logIn(auth, after, { peer: '198.51.100.1:1' }))).to.equal('RATE_LIMITED');
      await logIn(auth, after, { peer: '198.51.100.3:1' });
    });
  });

  describe('changed roles', () => {
    it('revoke earlier tokens, and a refresh of the same session has no lost role, nor the new one without its scopes', async () => {
      const user = await addUser(auth, ['customer', 'operator']);
      const before = await logIn(auth, user);
      const changed = await auth.accountChanges.setRoles({
        ...requestOf(user),
        roles: ['security', 'customer'],
      });
      expect(changed.user.roles).to.deep.equal(['customer', 'security']);
      expect(changed.enforcedEverywhereBy.getTime()).to.be.above(Date.now());
      expect(await isLive(before)).to.equal(false);
      expect(await entriesOf(user)).to.deep.equal([[2n, 'roles changed', 'admin']]);
      const after = await refresh(before);
      expect(await isLive(after)).to.equal(true);
      const claims = claimsOf(after.access.token);
      expect([claims['roles'], claims['gen'], claims['sid']]).to.deep.equal([
        ['customer'],
        2,
        before.session.sessionId,
      ]);
      expect(claims['scope']).to.equal('auth.self inventory.read inventory.reserve payment.pay payment.read');
    });

    it('only narrow the scopes of a session: a role that is granted again does not restore them', async () => {
      const user = await addUser(auth, ['customer', 'operator']);
      const wanted = { audiences: ['inventory'], scopes: ['inventory.read', 'inventory.manage'] };
      const before = await logIn(auth, user, wanted);
      for (const roles of [['customer'], ['customer', 'operator', 'security']]) {
        await auth.accountChanges.setRoles({ ...requestOf(user), roles });
      }
      const claims = claimsOf((await refresh(before)).access.token);
      expect([claims['scope'], claims.aud]).to.deep.equal(['inventory.read', ['inventory']]);
    });

    it('end a session that has no audience left', async () => {
      const user = await addUser(auth, ['customer']);
      const before = await logIn(auth, user, { audiences: ['inventory'] });
      const whole = await logIn(auth, user);
      await auth.accountChanges.setRoles({ ...requestOf(user), roles: ['security'] });
      expect(await codeOf(refresh(before))).to.equal('REFRESH_INVALID');
      const claims = claimsOf((await refresh(whole)).access.token);
      expect([claims['scope'], claims.aud]).to.deep.equal(['auth.self', ['auth']]);
    });

    it('do not revive a session that an earlier revocation ended', async () => {
      const user = await addUser(auth);
      const pair = await logIn(auth, user);
      await auth.store.transaction((tx) => tx.users.raiseGeneration(user.userId));
      await auth.accountChanges.setRoles({ ...requestOf(user), roles: ['operator'] });
      expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
    });

    it('are set once per request id, and a late retry changes nothing', async () => {
      const user = await addUser(auth);
      const request = { ...requestOf(user), roles: ['operator'] };
      const first = await auth.accountChanges.setRoles(request);
      await auth.accountChanges.setRoles({ ...requestOf(user), roles: ['customer'] });
      const again = await auth.accountChanges.setRoles(request);
      expect(again.user).to.deep.equal(first.user);
      expect(again.sequence).to.equal(first.sequence);
      expect(again.enforcedEverywhereBy.getTime()).to.be.at.least(first.enforcedEverywhereBy.getTime());
      expect((await auth.users.get(user.userId)).roles).to.deep.equal(['customer']);
      expect(await entriesOf(user)).to.have.length(2);
      expect(await codeOf(auth.accountChanges.setRoles({ ...request, roles: ['admin'] }))).to.equal(
        'REQUEST_ID_REUSED',
      );
    });

    it('reject a text that is not a role', async () => {
      const user = await addUser(auth);
      for (const roles of [['root'], ['customer', '__proto__'], Array<string>(33).fill('customer')]) {
        expect(await codeOf(auth.accountChanges.setRoles({ ...requestOf(user), roles }))).to.equal(
          'FIELD_INVALID',
        );
      }
      expect((await auth.accountChanges.setRoles({ ...requestOf(user), roles: [] })).user.roles).to.be.empty;
    });
  });

  describe('a disabled user', () => {
    it('has no session and no valid token, and the failed login does not reveal it', async () => {
      const user = await addUser(auth);
      const pair = await logIn(auth, user);
      const { user: disabled } = await auth.accountChanges.disable(requestOf(user));
      expect(disabled.disabled).to.equal(true);
      expect(await isLive(pair)).to.equal(false);
      expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
      expect(await openSessionsOf(user)).to.be.empty;
      expect(await entriesOf(user)).to.deep.equal([[2n, 'user disabled', 'admin']]);
      const right = await serviceErrorOf(logIn(auth, user));
      const wrong = await serviceErrorOf(auth.sessions.login(attemptOf(user.username, 'wrong password')));
      expect([right.code, right.message]).to.deep.equal([wrong.code, wrong.message]);
      expect(await codeOf(changePassword(user))).to.equal('LOGIN_FAILED');
    });

    it('gets no token, even if a session had stayed open', async () => {
      const user = await addUser(auth);
      const pair = await logIn(auth, user);
      await auth.store.transaction((tx) => tx.users.setDisabled(user.userId, true));
      expect(await isLive(pair)).to.equal(false);
      expect(await codeOf(refresh(pair))).to.equal('REFRESH_INVALID');
    });

    it('cannot log in when disabled while the password was verified', async () => {
      const user = await addUser(auth);
      const slow = await openAuth(auth.url, { keyEncryptionKey });
      const { verify } = slow.passwords;
      Object.assign(slow.passwords, {
        verify: async (hash: string | undefined, password: string) => {
          const equal = await verify(hash, password);
          await auth.accountChanges.disable(requestOf(user));
          return equal;
        },
      });
      expect(await codeOf(logIn(slow, user))).to.equal('LOGIN_FAILED');
      await slow.close();
    });

    it('can log in once enabled again, and earlier tokens and sessions stay ended', async () => {
      const user = await addUser(auth);
      const before = await logIn(auth, user);
      await auth.accountChanges.disable(requestOf(user));
      auth.broadcast.length = 0;
      const enabled = await auth.accountChanges.enable(requestOf(user));
      expect(enabled.disabled).to.equal(false);
      expect(auth.broadcast).to.be.empty;
      expect(await isLive(before)).to.equal(false);
      expect(await codeOf(refresh(before))).to.equal('REFRESH_INVALID');
      expect(await isLive(await logIn(auth, user))).to.equal(true);
    });

    it('is not enabled by a late retry of EnableUser', async () => {
      const user = await addUser(auth);
      const enabling = requestOf(user);
      await auth.accountChanges.enable(enabling);
      const disabling = requestOf(user);
      await auth.accountChanges.disable(disabling);
      await auth.accountChanges.enable(enabling);
      expect((await auth.users.get(user.userId)).disabled).to.equal(true);
      await auth.accountChanges.disable(disabling);
      expect(await entriesOf(user)).to.have.length(1);
      await auth.accountChanges.disable(requestOf(user, { requestId: '' }));
      expect(await entriesOf(user)).to.have.length(2);
    });
  });

  it('commit together with their entry in the log, or not at all', async function () {
    this.timeout(180_000);
    const user = await addUser(auth);
    const pair = await logIn(auth, user);
    const before = await stateOf(user);
    const attempts = [
      () => auth.accountChanges.disable(requestOf(user)),
      () => auth.accountChanges.setRoles({ ...requestOf(user), roles: ['admin'] }),
      () => changePassword(user),
    ];
    for (const attempt of attempts) {
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const holding = auth.database.transaction(async (sql) => {
        await sql.query("SET LOCAL idle_in_transaction_session_timeout = '20s'");
        await sql.query('SELECT FROM log_state FOR UPDATE');
        await held;
      });
      await sleep(50);
      expect(await codeOf(attempt())).to.equal('DEPENDENCY_UNAVAILABLE');
      release();
      await holding;
      expect(await stateOf(user)).to.deep.equal(before);
    }
    expect(await isLive(pair)).to.equal(true);
  });

  it('return NOT_FOUND for an unknown id and for any other text', async () => {
    for (const userId of [randomUUID(), '', "' OR true --", 'a\0b']) {
      const request = requestOf({ userId });
      for (const change of [
        () => auth.accountChanges.disable(request),
        () => auth.accountChanges.enable(request),
        () => auth.accountChanges.setRoles({ ...request, roles: [] }),
        () => auth.sessions.listOf(userId, { pageSize: 0, pageToken: '' }),
      ]) {
        expect(await codeOf(change()), userId).to.equal('NOT_FOUND');
      }
    }
    const request = requestOf(await addUser(auth), { requestId: 'a\0b' });
    expect(await codeOf(auth.accountChanges.disable(request))).to.equal('FIELD_INVALID');
    expect(await codeOf(auth.accountChanges.enable(request))).to.equal('FIELD_INVALID');
  });

  it('let operators list sessions with device, times and last use, page by page', async () => {
    const user = await addUser(auth);
    const opened: Awaited<ReturnType<typeof logIn>>[] = [];
    for (const deviceName of ['laptop', 'phone', 'watch'])
      opened.push(await logIn(auth, user, { deviceName }));
    await logIn(auth, await addUser(auth));
    const [laptop] = opened;
    if (laptop === undefined) throw new Error('no session was opened');
    await refresh(laptop);
    const first = await auth.sessions.listOf(user.userId, { pageSize: 2, pageToken: '' });
    const second = await auth.sessions.listOf(user.userId, { pageSize: 2, pageToken: first.nextPageToken });
    const sessions = [...first.sessions, ...second.sessions];
    expect(sessions.map(({ deviceName }) => deviceName)).to.deep.equal(['watch', 'phone', 'laptop']);
    expect(second.nextPageToken).to.equal('');
    const [used] = second.sessions;
    expect(used?.lastUseTime.getTime()).to.be.above(used?.createTime.getTime() ?? 0);
    expect(used?.expireTime.getTime()).to.equal(laptop.session.expireTime.getTime());
  });
});
