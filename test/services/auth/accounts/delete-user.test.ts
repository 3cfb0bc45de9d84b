/** Tests of deleting and unlocking users, and of the last administrator, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { applyBootstrap } from '../../../../services/auth/accounts/bootstrap.js';
import { codeOf, codeOrOk } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  attemptOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
  type TestUser,
} from '../instance.js';

const FAILURES_MAX = 3;

describe('administering users', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;

  beforeEach(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
    replica = await openAuth(auth.url, { keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
  });
  afterEach(async () => {
    await replica.close();
    await auth.close();
  });

  const requestOf = ({ userId }: { userId: string }, requestId: string = randomUUID()) => ({
    ...{ actor: 'admin', userId, requestId },
    network: '192.0.2.9',
  });
  const remove = (user: { userId: string }, requestId?: string) =>
    auth.accountChanges.delete({ ...requestOf(user, requestId), reason: 'left the company' });
  const demote = (user: { userId: string }, at: AuthInstance = auth) =>
    at.accountChanges.setRoles({ ...requestOf(user), roles: ['customer'] });
  const disable = (user: { userId: string }, at: AuthInstance = auth) =>
    at.accountChanges.disable({ ...requestOf(user), reason: 'on leave' });
  const isLive = async ({ access }: { access: { token: string } }): Promise<boolean> =>
    (await auth.exchange.introspect(access.token)) !== undefined;

  describe('a deleted user', () => {
    it('loses every token and session, and is not found any more', async () => {
      const user = await addUser(auth);
      const pair = await logIn(auth, user);
      const receipt = await remove(user);
      expect(receipt.sequence > 0n).to.equal(true);
      expect(await isLive(pair)).to.equal(false);
      const refresh = auth.sessions.refresh({ refreshToken: pair.refreshToken, requestId: randomUUID() });
      expect(await codeOf(refresh)).to.equal('REFRESH_INVALID');
      expect(await codeOf(logIn(auth, user))).to.equal('LOGIN_FAILED');
      const { userId } = user;
      const requests: (() => Promise<unknown>)[] = [
        () => auth.users.get(userId),
        () => auth.sessions.listOf(userId, { pageSize: 0, pageToken: '' }),
        () => demote(user),
        () => disable(user),
        () => auth.accountChanges.enable(requestOf(user)),
        () => auth.accountChanges.unlock(requestOf(user)),
        () => remove(user),
        () => auth.revocations.revoke({ target: { kind: 'user', userId }, reason: '', actor: 'admin' }),
      ];
      for (const request of requests) expect(await codeOf(request())).to.equal('NOT_FOUND');
      const { users } = await auth.users.list({ pageSize: 0, pageToken: '' });
      expect(users.map((one) => one.userId)).to.not.include(userId);
    });

    it('returns the first receipt to a retry', async () => {
      const user = await addUser(auth);
      const requestId = randomUUID();
      const first = await remove(user, requestId);
      const again = await remove(user, requestId);
      expect(again.sequence).to.equal(first.sequence);
    });

    it('keeps the name taken, also for the bootstrap file, and keeps no secret', async () => {
      const user = await addUser(auth);
      await logIn(auth, user);
      await remove(user);
      for (const username of [user.username, user.username.toUpperCase(), user.username.replace('u', 'υ')]) {
        const created = auth.users.create({
          ...{ actor: 'admin', username, password: user.password, roles: ['customer'] },
          requestId: randomUUID(),
        });
        expect(await codeOf(created), username).to.be.oneOf(['ALREADY_EXISTS', 'FIELD_INVALID']);
      }
      const named = { username: user.username, password: user.password, roles: ['admin'] };
      const outcome = await applyBootstrap({ users: [named], clients: [] }, auth);
      expect(outcome).to.deep.include({ users: 0, lookAlikes: [] });
      expect(await codeOf(logIn(auth, user))).to.equal('LOGIN_FAILED');
      const { rows } = await auth.database.query<object>(
        `SELECT password_hash, (SELECT count(*)::int FROM user_roles r WHERE r.user_id = u.user_id) AS roles,
                (SELECT count(*)::int FROM login_networks n WHERE n.user_id = u.user_id) AS networks
         FROM users u WHERE user_id = $1`,
        [user.userId],
      );
      expect(rows).to.deep.equal([{ password_hash: '', roles: 0, networks: 0 }]);
    });

    it('leaves an event with the reason, the administrator and the network', async () => {
      const user = await addUser(auth);
      await remove(user);
      const { rows } = await auth.database.query<object>(
        `SELECT actor, reason, network FROM security_events
         WHERE type = 'account-purged' AND $1 = ANY (subjects)`,
        [user.userId],
      );
      expect(rows).to.deep.equal([{ actor: 'admin', reason: 'left the company', network: '192.0.2.9' }]);
    });
  });

  describe('the last administrator', () => {
    const outcomesOf = (requests: readonly Promise<unknown>[]): Promise<string[]> =>
      Promise.all(requests.map(codeOrOk));

    it('cannot be demoted, disabled or deleted, and keeps its sessions', async () => {
      const only = await addUser(auth, ['admin', 'customer']);
      const former = await addUser(auth, ['admin']);
      await disable(former);
      const pair = await logIn(auth, only);
      for (const change of [demote, disable, remove]) {
        expect(await codeOf(change(only))).to.equal('LAST_ADMIN');
      }
      expect(await isLive(pair)).to.equal(true);
      expect((await auth.users.get(only.userId)).roles).to.deep.equal(['admin', 'customer']);
      // Other roles of the administrator, and other users, can change.
      await auth.accountChanges.setRoles({ ...requestOf(only), roles: ['admin'] });
      await remove(await addUser(auth));
      await remove(former);
    });

    it('is left when two administrators take each other away at the same time', async () => {
      const changes: ((user: TestUser, at: AuthInstance) => Promise<unknown>)[] = [
        demote,
        disable,
        (user) => remove(user),
      ];
      for (const [first, second] of changes.flatMap((one) => changes.map((other) => [one, other] as const))) {
        await auth.database.query("DELETE FROM user_roles WHERE role = 'admin'");
        const [anna, bert] = [await addUser(auth, ['admin']), await addUser(auth, ['admin'])];
        const outcomes = await outcomesOf([first(anna, auth), second(bert, replica)]);
        expect(
          outcomes.filter((code) => code === 'LAST_ADMIN'),
          String(outcomes),
        ).to.have.length(1);
        const { rows } = await auth.database.query<object>(
          "SELECT FROM users JOIN user_roles USING (user_id) WHERE role = 'admin' AND disable_time IS NULL",
        );
        expect(rows).to.have.length(1);
      }
    });
  });

  describe('an unlocked user', () => {
    const guess = async (user: TestUser, peer = '203.0.113.7:1'): Promise<void> => {
      for (let count = 0; count < FAILURES_MAX; count += 1) {
        await codeOf(auth.sessions.login({ ...attemptOf(user.username, 'wrong password'), peer }));
      }
    };

    it('can log in from new and from known networks at once', async () => {
      const user = await addUser(auth);
      const home = { peer: '192.0.2.1:4000' };
      const hotel = { peer: '198.51.100.7:4000' };
      await logIn(auth, user, home);
      await guess(user);
      await guess(user, home.peer);
      for (const where of [home, hotel]) {
        expect(await codeOf(logIn(replica, user, where))).to.equal('RATE_LIMITED');
      }
      const unlocked = await auth.accountChanges.unlock(requestOf(user));
      expect(unlocked.userId).to.equal(user.userId);
      const other = await openAuth(auth.url, { keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
      await logIn(other, user, home);
      await logIn(other, user, hotel);
      await other.close();
    });

    it('is unlocked once per request id, so that a late retry does not help the guesser', async () => {
      const user = await addUser(auth);
      const request = requestOf(user);
      await auth.accountChanges.unlock(request);
      await guess(user);
      await auth.accountChanges.unlock(request);
      const other = await openAuth(auth.url, { keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
      expect(await codeOf(logIn(other, user, { peer: '198.51.100.7:4000' }))).to.equal('RATE_LIMITED');
      await other.close();
      const { rows } = await auth.database.query<object>(
        "SELECT actor, network FROM security_events WHERE type = 'account-unlocked' AND $1 = ANY (subjects)",
        [user.userId],
      );
      expect(rows).to.deep.equal([{ actor: 'admin', network: '192.0.2.9' }]);
    });
  });
});
