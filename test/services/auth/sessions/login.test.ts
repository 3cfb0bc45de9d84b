/** Tests of logging in, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { AuthError } from '../../../../services/auth/errors.js';
import type { Importance } from '../../../../services/auth/records/importance.js';
import { codeOf, serviceErrorOf } from '../../../support/outcomes.js';
import { until } from '../../../support/waiting.js';
import {
  addUser,
  attemptOf,
  claimsOf,
  type FreshAuth,
  logIn,
  newKeyEncryptionKey,
  openAuth,
  openFreshAuth,
} from '../instance.js';

const FAILURES_MAX = 5;

describe('login', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
  });
  after(() => auth.close());

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
    expect(
      (
        await auth.sessions.list(
          { userId: user.userId, sessionId: undefined },
          { pageSize: 0, pageToken: '' },
        )
      ).sessions,
    ).to.be.empty;
    await slow.close();
  });

  it('fails for an unknown name whatever the check of the password says', async () => {
    const lax = await openAuth(auth.url, { keyEncryptionKey });
    Object.assign(lax.passwords, { verify: () => Promise.resolve(true) });
    expect(await codeOf(lax.sessions.login(attemptOf(`nobody-${randomUUID()}`, 'any')))).to.equal(
      'LOGIN_FAILED',
    );
    await lax.close();
  });

  it('accepts a device name of a hundred characters, and repairs half of a character', async () => {
    const user = await addUser(auth);
    for (const [deviceName, stored] of [
      ['😀'.repeat(100), '😀'.repeat(100)],
      ['phone \ud83d', 'phone \ufffd'],
    ] as const) {
      expect((await logIn(auth, user, { deviceName })).session.deviceName).to.equal(stored);
    }
  });

  it('opens a session of thirty days, with refresh tokens of seven, and records it', async () => {
    const user = await addUser(auth);
    const peer = '198.51.100.44:1';
    const { session, refreshTokenExpireTime } = await logIn(auth, user, { peer, deviceName: 'phone' });
    const { createTime, expireTime, ...fields } = session;
    expect(expireTime.getTime() - createTime.getTime()).to.equal(30 * 86_400_000);
    expect(refreshTokenExpireTime.getTime() - createTime.getTime()).to.equal(7 * 86_400_000);
    expect(fields).to.deep.include({
      ...{ userId: user.userId, clientId: 'direct', generation: 1n, clientGeneration: 1n },
      ...{ deviceName: 'phone', amr: ['pwd'], certificateThumbprint: undefined, open: true },
      lastUseTime: createTime,
    });
    const stored = await auth.store.transaction((tx) => tx.sessions.lockShared(session.sessionId));
    expect(stored).to.deep.equal(session);
    const { rows } = await auth.database.query<object>(
      `SELECT actor, reason, subject, network, details FROM security_events
       WHERE type = 'session-established' AND subject->>'sessionId' = $1`,
      [session.sessionId],
    );
    const { userId, sessionId, clientId } = session;
    expect(rows).to.deep.equal([
      {
        ...{ actor: userId, reason: 'login', network: '198.51.100.44' },
        ...{ subject: { userId, sessionId, clientId }, details: { clientId } },
      },
    ]);
  });

  it('remembers the network from which the user has logged in', async () => {
    const user = await addUser(auth);
    const peer = '198.51.100.45:1';
    await logIn(auth, user, { peer });
    const { rows } = await auth.database.query<{ key: Buffer }>(
      'SELECT key FROM login_networks WHERE user_id = $1',
      [user.userId],
    );
    expect(rows).to.deep.equal([{ key: auth.throttle.networkKeyOf(user.username, peer) }]);
  });

  it('binds the session to the certificate of the connection as configured', async () => {
    const user = await addUser(auth);
    const thumbprint = 'A'.repeat(43);
    for (const [loginBinding, shown, bound] of [
      ['off', thumbprint, undefined],
      ['off', undefined, undefined],
      ['optional', thumbprint, thumbprint],
      ['optional', undefined, undefined],
      ['required', thumbprint, thumbprint],
      ['required', undefined, 'CERTIFICATE_REQUIRED'],
    ] as const) {
      const binding = await openAuth(auth.url, { keyEncryptionKey, loginBinding });
      const login = logIn(binding, user, { certificateThumbprint: shown });
      if (bound === 'CERTIFICATE_REQUIRED') expect(await codeOf(login)).to.equal(bound);
      else expect((await login).session.certificateThumbprint).to.equal(bound);
      await binding.close();
    }
  });

  it('rejects audiences of which the roles reach none', async () => {
    const user = await addUser(auth, ['security']);
    const error = await serviceErrorOf(logIn(auth, user, { audiences: ['inventory'] }));
    expect([error.code, error.violations.map(({ field }) => field)]).to.deep.equal([
      'FIELD_INVALID',
      ['audiences'],
    ]);
    expect((await logIn(auth, user, { audiences: ['auth', 'inventory'] })).session.audiences).to.deep.equal([
      'auth',
    ]);
  });

  it('asks the database about no name that cannot be one', async () => {
    const lax = await openAuth(auth.url, { keyEncryptionKey });
    const { users } = lax.store.reads;
    const { credentialsByName } = users;
    const names: string[] = [];
    Object.assign(users, {
      credentialsByName: (name: string) => {
        names.push(name);
        return credentialsByName(name);
      },
    });
    expect(await codeOf(lax.sessions.login(attemptOf('a', 'any')))).to.equal('LOGIN_FAILED');
    expect(await codeOf(lax.sessions.login(attemptOf('Abc', 'any')))).to.equal('LOGIN_FAILED');
    expect(names).to.deep.equal(['abc']);
    await lax.close();
  });

  const changes: Record<string, [change: string, undo?: string]> = {
    'the user was disabled': ['UPDATE users SET disable_time = clock_timestamp() WHERE user_id = $1'],
    'the password was changed': [
      'UPDATE users SET password_version = password_version + 1 WHERE user_id = $1',
    ],
    'the user was deleted': [
      'UPDATE users SET delete_time = clock_timestamp(), disable_time = clock_timestamp() WHERE user_id = $1',
    ],
    'the client of the logins was disabled': [
      "UPDATE clients SET disable_time = clock_timestamp() WHERE client_id = 'direct'",
      "UPDATE clients SET disable_time = NULL WHERE client_id = 'direct'",
    ],
    'the client of the logins was deleted': [
      "UPDATE clients SET delete_time = clock_timestamp() WHERE client_id = 'direct'",
      "UPDATE clients SET delete_time = NULL WHERE client_id = 'direct'",
    ],
  };
  for (const [what, [change, undo]] of Object.entries(changes)) {
    it(`fails when ${what} while the password was verified`, async () => {
      const user = await addUser(auth);
      const slow = await openAuth(auth.url, { keyEncryptionKey });
      Object.assign(slow.passwords, {
        verify: async () => {
          await auth.database.query(change, change.includes('$1') ? [user.userId] : []);
          return true;
        },
      });
      expect(await codeOf(logIn(slow, user))).to.equal('LOGIN_FAILED');
      if (undo !== undefined) {
        await auth.database.query(undo);
        await logIn(auth, user);
      }
      await slow.close();
    });
  }

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

  it('of a stranger asks the database nothing while the queue for password hashes is full of strangers', async () => {
    const full = await openAuth(auth.url, { keyEncryptionKey, queues: { atOnceMax: 1, waitingMax: 1 } });
    const user = await addUser(full);
    // The second login finds the network of the first one.
    for (let count = 0; count < 2; count += 1) await logIn(full, user);
    let finish = (): void => {};
    const running = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const stranger = { importance: 'unknown', key: '192.0.2.1' } as const;
    const hashes = [0, 1].map(() => full.passwordQueue.run(stranger, () => running));
    const reads: string[] = [];
    const { users } = full.store.reads;
    const { credentialsByName } = users;
    Object.assign(users, {
      credentialsByName: (username: string, place: { importance: Importance; caller: string }) => {
        reads.push(place.importance);
        return credentialsByName(username, place);
      },
    });
    expect(await codeOf(logIn(full, { ...user, username: randomUUID() }))).to.equal('RATE_LIMITED');
    expect(reads).to.deep.equal([]);
    const known = logIn(full, user);
    await until(() => reads.length === 1);
    // A name that has logged in lately has a line of its own, from whatever network.
    const recent = logIn(full, user, { peer: '203.0.113.99:1' });
    await until(() => reads.length === 2);
    finish();
    await Promise.all([known, recent, ...hashes]);
    expect(reads).to.deep.equal(['known', 'unknown']);
    await full.close();
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
});

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
