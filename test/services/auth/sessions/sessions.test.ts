/** Tests of logging in, refreshing, listing and ending sessions, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { scopesOfRoles } from '../../../../services/auth/accounts/roles.js';
import { AuthError } from '../../../../services/auth/errors.js';
import { SESSION_SECONDS_MAX } from '../../../../services/auth/sessions/login.js';
import { REFRESH_IDLE_SECONDS_MAX } from '../../../../services/auth/sessions/refresh-tokens.js';
import type { TokenPair } from '../../../../services/auth/sessions/session-tokens.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import {
  type AuthInstance,
  addUser,
  attemptOf,
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
const FAILURES_MAX = 5;

describe('sessions', () => {
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

  describe('login', () => {
    it('grants everything that the roles grant when nothing is requested', async () => {
      const user = await addUser(auth);
      const { access, session } = await logIn(auth, user);
      const claims = claimsOf(access.token);
      expect(claims).to.include({
        iss: 'https://auth.example',
        sub: user.userId,
        client_id: 'direct',
        gen: 1,
      });
      expect(claims.aud).to.deep.equal(['auth', 'inventory', 'payment']);
      expect(claims['scope']).to.equal('auth.self inventory.read inventory.reserve payment.pay payment.read');
      expect(claims['roles']).to.deep.equal(['customer']);
      expect(claims['clients']).to.deep.equal([['direct', 1]]);
      expect(claims['sid']).to.equal(session.sessionId);
      expect(claims['amr']).to.deep.equal(['pwd']);
      expect(claims['auth_time']).to.equal(Math.floor(session.createTime.getTime() / 1000));
      expect(Number(claims.exp) - Number(claims.iat)).to.equal(300);
      expect(access.expireTime.getTime()).to.equal(Number(claims.exp) * 1000);
    });

    it('grants no more than requested, and never more than the roles grant', async () => {
      const user = await addUser(auth);
      const wanted = { audiences: ['inventory'], scopes: ['inventory.read', 'inventory.manage'] };
      const claims = claimsOf((await logIn(auth, user, wanted)).access.token);
      expect(claims.aud).to.deep.equal(['inventory']);
      expect(claims['scope']).to.equal('inventory.read');
    });

    it('rejects scopes and audiences that no role grants, by name, before the password is checked', async () => {
      const user = await addUser(auth);
      const unknown: readonly [{ scopes?: string[]; audiences?: string[] }, readonly [string, string][]][] = [
        [{ scopes: ['nope'] }, [['scopes', 'there is no scope of users "nope"']]],
        [
          { scopes: ['inventory.raed', 'inventory.read', 'auth.sync'] },
          [
            ['scopes', 'there is no scope of users "inventory.raed"'],
            ['scopes', 'there is no scope of users "auth.sync"'],
          ],
        ],
        [
          { audiences: ['inventory', 'elsewhere'] },
          [['audiences', 'there is no audience of users "elsewhere"']],
        ],
      ];
      for (const [wanted, expected] of unknown) {
        for (const password of [user.password, 'wrong password']) {
          const error = await serviceErrorOf(logIn(auth, { ...user, password }, wanted));
          expect(error.code).to.equal('FIELD_INVALID');
          expect(error.violations?.map(({ field, description }) => [field, description])).to.deep.equal(
            expected,
          );
        }
      }
    });

    it('rejects a request for scopes of which the roles grant none', async () => {
      const user = await addUser(auth);
      expect(await codeOf(logIn(auth, user, { scopes: ['auth.users.write'] }))).to.equal('FIELD_INVALID');
      expect(
        await codeOf(logIn(auth, { ...user, password: 'wrong' }, { scopes: ['auth.users.write'] })),
      ).to.equal('LOGIN_FAILED');
    });

    it('returns the same error for an unknown name, a wrong password and an invalid name', async () => {
      const user = await addUser(auth);
      const errors = await Promise.all([
        serviceErrorOf(auth.sessions.login(attemptOf(user.username, 'wrong password'))),
        serviceErrorOf(auth.sessions.login(attemptOf(`nobody-${randomUUID()}`, user.password))),
        serviceErrorOf(auth.sessions.login(attemptOf('', user.password))),
        serviceErrorOf(auth.sessions.login(attemptOf('a\0b', user.password))),
        serviceErrorOf(auth.sessions.login(attemptOf('x'.repeat(1_000_000), user.password))),
        serviceErrorOf(
          auth.sessions.login(attemptOf(user.username, `${user.password}${'x'.repeat(1_000_000)}`)),
        ),
        serviceErrorOf(auth.sessions.login(attemptOf(user.username, ''))),
      ]);
      for (const { code, message } of errors) {
        expect([code, message]).to.deep.equal(['LOGIN_FAILED', 'username or password is wrong']);
      }
    });

    it('takes as long for an unknown name as for a known one', async function () {
      this.timeout(180_000);
      const user = await addUser(auth);
      const millisecondsOf = async (username: string): Promise<number> => {
        const startedMs = performance.now();
        await codeOf(auth.sessions.login(attemptOf(username, 'wrong password')));
        return performance.now() - startedMs;
      };
      const known: number[] = [];
      const unknown: number[] = [];
      for (let round = 0; round < 12; round += 1) {
        known.push(await millisecondsOf(user.username));
        unknown.push(await millisecondsOf(`nobody-${randomUUID()}`));
      }
      expect(medianOf(unknown) / medianOf(known)).to.be.within(0.6, 1.6);
    });

    it('ignores the case of a name', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, { ...user, username: user.username.toUpperCase() });
      expect(session.userId).to.equal(user.userId);
    });

    it('folds the case of a name: sigma in any place, and the sharp s', async () => {
      const unique = String(Date.now());
      for (const [username, typed] of [
        [`νικος.α${unique}`, `ΝΙΚΟΣ.Α${unique}`],
        [`weiß${unique}`, `WEISS${unique}`],
      ] as const) {
        const password = `password-${randomUUID()}`;
        const request = { actor: 'test', username, password, roles: ['customer'], requestId: randomUUID() };
        const user = await auth.users.create(request);
        expect(user.username).to.equal(username);
        for (const spelling of [username, typed, username.toUpperCase()]) {
          const { session } = await auth.sessions.login(attemptOf(spelling, password));
          expect(session.userId, spelling).to.equal(user.userId);
        }
        const again = { ...request, username: typed, requestId: randomUUID() };
        expect(await codeOf(auth.users.create(again))).to.equal('ALREADY_EXISTS');
      }
    });

    it('fails when the user was revoked while the password was verified', async () => {
      const user = await addUser(auth);
      const slow = await openAuth(auth.url, { keyEncryptionKey });
      const verify = slow.passwords.verify;
      Object.assign(slow.passwords, {
        verify: async (hash: string | undefined, password: string) => {
          const equal = await verify(hash, password);
          await auth.revocations.revoke({
            target: { kind: 'user', userId: user.userId },
            reason: '',
            actor: 'test',
          });
          return equal;
        },
      });
      expect(await codeOf(logIn(slow, user))).to.equal('LOGIN_FAILED');
      expect((await auth.sessions.list({ userId: user.userId, sessionId: undefined }, page())).sessions).to.be
        .empty;
      await slow.close();
    });

    it('is rate-limited after too many failures for one name, with the time to wait', async function () {
      this.timeout(180_000);
      const limits = { failuresPerName: FAILURES_MAX };
      const limited = await openAuth(auth.url, { keyEncryptionKey, limits });
      const user = await addUser(limited);
      const attempts = Array.from({ length: FAILURES_MAX + 5 }, () =>
        serviceErrorOf(limited.sessions.login(attemptOf(user.username, 'wrong password'))),
      );
      const errors = await Promise.all(attempts);
      expect(errors.filter(({ code }) => code === 'LOGIN_FAILED')).to.have.length(FAILURES_MAX);
      const refused = errors.filter(({ code }) => code === 'RATE_LIMITED');
      expect(refused).to.have.length(5);
      expect(refused[0]?.retryAfterMs).to.be.within(1, 300_000);
      expect(await codeOf(logIn(limited, user))).to.equal('RATE_LIMITED');
      await limited.close();
    });

    it('from a known network, or with a recent name, is served within a crowd of strangers', async function () {
      this.timeout(180_000);
      const crowded = await openAuth(auth.url, {
        keyEncryptionKey,
        queues: { atOnceMax: 1, waitingMax: 40 },
      });
      const [home, guest] = [await addUser(crowded), await addUser(crowded)];
      for (const user of [home, guest]) await logIn(crowded, user, { peer: '198.51.100.20:1' });
      const ended: string[] = [];
      const strangers = Array.from({ length: 60 }, (_, index) =>
        codeOf(
          crowded.sessions.login({
            ...attemptOf(`nobody-${randomUUID()}`, 'wrong password'),
            peer: `203.0.113.${index}:1`,
          }),
        ).finally(() => ended.push('stranger')),
      );
      // Strangers whose place is not in the queue any more are answered before the queue moves on.
      await Promise.race(strangers);
      const known = logIn(crowded, home, { peer: '198.51.100.20:2' }).then(() => ended.push('known'));
      const recent = logIn(crowded, guest, { peer: '198.51.100.99:2' }).then(() => ended.push('recent'));
      await Promise.all([known, recent]);
      const codes = await Promise.all(strangers);
      const checked = codes.filter((code) => code === 'LOGIN_FAILED').length;
      expect(codes.filter((code) => code === 'RATE_LIMITED')).to.have.length(60 - checked);
      const lastServed = Math.max(ended.indexOf('known'), ended.indexOf('recent'));
      expect(ended.slice(lastServed).length).to.be.above(20);
      await crowded.close();
    });

    it('is no guess when it was not its turn: refused by the queue, it is not counted', async () => {
      const limits = { failuresPerName: 2 };
      const full = await openAuth(auth.url, { keyEncryptionKey, limits, queues: { waitingMax: 1 } });
      const user = await addUser(full);
      const verify = full.passwords.verify;
      const refuse = () =>
        Promise.reject(new AuthError('RATE_LIMITED', 'too many passwords wait', { retryAfterMs: 1 }));
      Object.assign(full.passwords, { verify: refuse });
      for (let count = 0; count < 5; count += 1) {
        expect(await codeOf(logIn(full, user))).to.equal('RATE_LIMITED');
      }
      Object.assign(full.passwords, { verify });
      await logIn(full, user);
      await full.close();
    });

    it('is no guess when the database fails, or the right password gets no session', async () => {
      const limited = await openAuth(auth.url, { keyEncryptionKey, limits: { failuresPerName: 2 } });
      const user = await addUser(limited);
      const unreachable = { scopes: ['inventory.manage'] };
      for (let count = 0; count < 3; count += 1) {
        expect(await codeOf(logIn(limited, user, unreachable))).to.equal('FIELD_INVALID');
      }
      const { users } = limited.store.reads;
      const { credentialsByName } = users;
      const fail = () => Promise.reject(new AuthError('RATE_LIMITED', 'too much waits', { retryAfterMs: 1 }));
      Object.assign(users, { credentialsByName: fail });
      for (let count = 0; count < 3; count += 1) {
        expect(await codeOf(logIn(limited, user))).to.equal('RATE_LIMITED');
      }
      Object.assign(users, { credentialsByName });
      await logIn(limited, user);
      await limited.close();
    });

    it('is not rate-limited by successful logins', async function () {
      this.timeout(180_000);
      const limits = { failuresPerName: FAILURES_MAX, failuresPerPeer: FAILURES_MAX };
      const limited = await openAuth(auth.url, { keyEncryptionKey, limits });
      const user = await addUser(limited);
      for (let round = 0; round < FAILURES_MAX + 5; round += 1) {
        await logIn(limited, user, { peer: '198.51.100.7:1' });
      }
      await limited.close();
    });

    it('rejects malformed scopes, long lists and invalid device names', async () => {
      const user = await addUser(auth);
      expect(await codeOf(logIn(auth, user, { scopes: ['Not A Scope'] }))).to.equal('FIELD_INVALID');
      expect(await codeOf(logIn(auth, user, { scopes: Array<string>(33).fill('a.b') }))).to.equal(
        'FIELD_INVALID',
      );
      expect(await codeOf(logIn(auth, user, { deviceName: 'x'.repeat(101) }))).to.equal('FIELD_INVALID');
      expect(await codeOf(logIn(auth, user, { deviceName: 'a\0b' }))).to.equal('FIELD_INVALID');
    });
  });

  it('does not begin the login of a caller that has left', async () => {
    const user = await addUser(auth);
    const left = new Error('left');
    const login = auth.sessions.login({
      ...attemptOf(user.username, user.password),
      signal: AbortSignal.abort(left),
    });
    expect(await login.catch((error: unknown) => error)).to.equal(left);
    await logIn(auth, user);
  });

  describe('refresh', () => {
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
      expect(auth.broadcast.map(({ entries }) => entries.map(({ kind }) => kind))).to.deep.equal([
        ['SESSION'],
      ]);
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
      expect((await refresh(refreshToken, requestId.toLowerCase())).refreshToken).to.equal(
        first.refreshToken,
      );
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
        auth.database.query("UPDATE clients SET generation = generation + $1 WHERE client_id = 'direct'", [
          by,
        ]);
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

    it('only narrows scopes: it drops those of lost roles and adds none of new roles', async () => {
      const user = await addUser(auth, ['customer', 'operator']);
      const wanted = { scopes: ['inventory.read', 'inventory.manage'] };
      const { refreshToken } = await logIn(auth, user, wanted);
      await auth.database.query("DELETE FROM user_roles WHERE user_id = $1 AND role = 'operator'", [
        user.userId,
      ]);
      await auth.database.query("INSERT INTO user_roles VALUES ($1, 'security')", [user.userId]);
      const claims = claimsOf((await refresh(refreshToken)).access.token);
      expect(claims['scope']).to.equal('inventory.read');
    });

    it('returns no role whose scopes the session does not have, nor one that was added later', async () => {
      const user = await addUser(auth, ['customer', 'operator']);
      const rolesOf = ({ access }: { access: { token: string } }) => claimsOf(access.token)['roles'];
      const wide = await logIn(auth, user);
      const narrow = await logIn(auth, user, { scopes: ['inventory.read'] });
      const withoutOne = await logIn(auth, user, { scopes: scopesOfRoles(['customer']) });
      const elsewhere = await logIn(auth, user, { audiences: ['inventory'], scopes: ['inventory.read'] });
      expect([wide, narrow, withoutOne, elsewhere].map(rolesOf)).to.deep.equal([
        ['customer', 'operator'],
        [],
        ['customer'],
        [],
      ]);
      await auth.database.query("INSERT INTO user_roles VALUES ($1, 'security')", [user.userId]);
      expect(rolesOf(await refresh(wide.refreshToken))).to.deep.equal(['customer', 'operator']);
      expect(rolesOf(await refresh(narrow.refreshToken))).to.deep.equal([]);
    });

    it('drops audiences that the roles no longer reach', async () => {
      const user = await addUser(auth, ['customer', 'security']);
      const { refreshToken } = await logIn(auth, user);
      await auth.database.query("DELETE FROM user_roles WHERE user_id = $1 AND role = 'customer'", [
        user.userId,
      ]);
      expect(claimsOf((await refresh(refreshToken)).access.token).aud).to.deep.equal(['auth']);
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
  });

  describe('ending', () => {
    it('ends the session and appends to the log in one transaction, and broadcasts the entry', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      auth.broadcast.length = 0;
      await auth.sessions.logout({ userId: user.userId, sessionId: session.sessionId });
      expect(await isOpen(session.sessionId)).to.equal(false);
      expect((await entriesOf(auth)).at(-1)).to.deep.equal({
        kind: 'SESSION',
        key: entryKeyOf(session.sessionId),
        reason: 'logout',
        actor: user.userId,
      });
      expect(auth.broadcast).to.have.length(1);
    });

    it('appends one entry for two logouts', async () => {
      const user = await addUser(auth);
      const { session } = await logIn(auth, user);
      const caller = { userId: user.userId, sessionId: session.sessionId };
      await auth.sessions.logout(caller);
      auth.broadcast.length = 0;
      await auth.sessions.logout(caller);
      expect(auth.broadcast).to.be.empty;
    });

    it('lets the owner end one session and keeps the others', async () => {
      const user = await addUser(auth);
      const first = await logIn(auth, user);
      const second = await logIn(auth, user);
      const caller = { userId: user.userId, sessionId: first.session.sessionId };
      const receipt = await auth.sessions.revoke(caller, second.session.sessionId);
      expect(receipt.sequence > 0n).to.equal(true);
      expect(receipt.enforcedEverywhereBy.getTime()).to.be.above(Date.now());
      expect(await isOpen(first.session.sessionId)).to.equal(true);
      expect(await codeOf(refresh(second.refreshToken))).to.equal('REFRESH_INVALID');
      expect(await codeOf(auth.sessions.revoke(caller, second.session.sessionId))).to.equal('NOT_FOUND');
    });

    it("returns the same error for another user's session and for an unknown one", async () => {
      const [owner, other] = [await addUser(auth), await addUser(auth)];
      const { session } = await logIn(auth, owner);
      const caller = { userId: other.userId, sessionId: undefined };
      const errors = [
        await serviceErrorOf(auth.sessions.revoke(caller, session.sessionId)),
        await serviceErrorOf(auth.sessions.revoke(caller, randomUUID())),
      ];
      expect(errors.map(({ code, message }) => [code, message])).to.deep.equal([
        ['NOT_FOUND', 'there is no such session'],
        ['NOT_FOUND', 'there is no such session'],
      ]);
      expect(await isOpen(session.sessionId)).to.equal(true);
      expect(await codeOf(auth.sessions.revoke(caller, 'not a uuid'))).to.equal('FIELD_INVALID');
    });
  });

  describe('list', () => {
    it('returns only the open sessions of the caller, newest first, page by page', async () => {
      const user = await addUser(auth);
      const opened: string[] = [];
      for (let count = 0; count < 5; count += 1) opened.push((await logIn(auth, user)).session.sessionId);
      await logIn(auth, await addUser(auth));
      const caller = { userId: user.userId, sessionId: opened[0] };
      await auth.sessions.revoke(caller, opened[2] ?? '');
      const seen: string[] = [];
      let pageToken = '';
      do {
        const result = await auth.sessions.list(caller, page(2, pageToken));
        expect(result.sessions.length).to.be.at.most(2);
        seen.push(...result.sessions.map(({ sessionId }) => sessionId));
        pageToken = result.nextPageToken;
      } while (pageToken !== '');
      expect(seen).to.deep.equal([opened[4], opened[3], opened[1], opened[0]]);
    });

    it('rejects a page token that no response contained', async () => {
      const caller = { userId: randomUUID(), sessionId: undefined };
      expect(await codeOf(auth.sessions.list(caller, page(0, 'WyJ4Il0')))).to.equal('FIELD_INVALID');
      expect(await codeOf(auth.sessions.list(caller, page(-1)))).to.equal('FIELD_INVALID');
    });
  });
});

function page(pageSize = 0, pageToken = ''): { pageSize: number; pageToken: string } {
  return { pageSize, pageToken };
}

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
