/** Tests of the reset of a password with a one-time token, against PostgreSQL. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { codeOf, codeOrOk, serviceErrorOf } from '../../../support/outcomes.js';
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

const NEW_PASSWORD = 'another long password';
const FAILURES_MAX = 3;
const HOME = '192.0.2.1:4000';
const HOTEL = '198.51.100.7:4000';

describe('the reset of a password', () => {
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;
  let replica: AuthInstance;

  before(async () => {
    auth = await openFreshAuth({ keyEncryptionKey, limits: { failuresPerName: FAILURES_MAX } });
    replica = await openAuth(auth.url, { keyEncryptionKey });
  });
  after(async () => {
    await replica.close();
    await auth.close();
  });

  const resetOf = ({ userId }: { userId: string }, requestId: string = randomUUID(), from = auth) =>
    from.accountChanges.resetPassword({ actor: 'admin', userId, reason: 'phone call', requestId });
  const setPassword = (resetToken: string, newPassword = NEW_PASSWORD, peer = HOTEL) =>
    auth.accountChanges.setPassword({ resetToken, newPassword, peer });
  const isLive = async ({ access }: { access: { token: string } }): Promise<boolean> =>
    (await auth.exchange.introspect(access.token)) !== undefined;
  const expire = async ({ userId }: TestUser): Promise<void> => {
    const sql =
      "UPDATE password_resets SET expire_time = clock_timestamp() - interval '1 s' WHERE user_id = $1";
    await auth.database.query(sql, [userId]);
  };

  it('changes nothing until the token is used, and then ends all sessions and tokens', async () => {
    const user = await addUser(auth);
    const before = await logIn(auth, user);
    const { resetToken, expireTime } = await resetOf(user);
    expect(resetToken).to.match(/^pcp_[\w-]{64}$/);
    expect(expireTime.getTime()).to.be.within(Date.now() + 3_500_000, Date.now() + 3_600_000);
    expect(await isLive(before)).to.equal(true);
    expect(await isLive(await logIn(auth, user))).to.equal(true);

    const receipt = await setPassword(resetToken);
    expect(receipt.sequence > 0n).to.equal(true);
    expect(receipt.enforcedEverywhereBy.getTime()).to.be.above(Date.now());
    expect(await isLive(before)).to.equal(false);
    const refresh = auth.sessions.refresh({ refreshToken: before.refreshToken, requestId: randomUUID() });
    expect(await codeOf(refresh)).to.equal('REFRESH_INVALID');
    expect(await codeOf(logIn(auth, user))).to.equal('LOGIN_FAILED');
    expect(await isLive(await logIn(auth, { ...user, password: NEW_PASSWORD }))).to.equal(true);
  });

  it('accepts a token once, also from concurrent calls on two replicas', async () => {
    const user = await addUser(auth);
    const { resetToken } = await resetOf(user);
    const passwords = ['the first password', 'the second password', 'the third password'];
    const outcomes = await Promise.all(
      passwords.map((newPassword, index) => {
        const at = index % 2 === 0 ? auth : replica;
        return codeOrOk(at.accountChanges.setPassword({ resetToken, newPassword, peer: HOTEL }));
      }),
    );
    expect(
      outcomes.filter((code) => code === 'OK'),
      String(outcomes),
    ).to.have.length(1);
    const refused = outcomes.filter((code) => code === 'RESET_TOKEN_INVALID' || code === 'RATE_LIMITED');
    expect(refused).to.have.length(2);
    // Within one process, calls with one token do not queue for the password hash.
    expect(outcomes[2]).to.equal('RATE_LIMITED');
    expect(await codeOf(setPassword(resetToken))).to.equal('RESET_TOKEN_INVALID');
  });

  it('rejects every other text in the same way, without asking the database', async () => {
    const user = await addUser(auth);
    const { resetToken } = await resetOf(user);
    const bytes = Buffer.from(resetToken.slice(4), 'base64url');
    const flipped = Buffer.from(bytes.map((byte, index) => (index === 0 ? byte ^ 1 : byte)));
    const { refreshToken } = await logIn(auth, user);
    const texts = [
      '',
      'pcp_',
      resetToken.slice(0, -1),
      `${resetToken}A`,
      resetToken.replace('pcp_', 'PCP_'),
      `${resetToken}=`,
      `pcp_${flipped.toString('base64url')}`,
      `pcp_${'A'.repeat(64)}`,
      refreshToken,
      'x'.repeat(100_000),
    ];
    const { find } = auth.store.reads.passwordResets;
    let lookups = 0;
    Object.assign(auth.store.reads.passwordResets, {
      find: (hash: Buffer) => {
        lookups += 1;
        return find(hash);
      },
    });
    try {
      const errors = await Promise.all(texts.map((text) => serviceErrorOf(setPassword(text))));
      for (const { code, message } of errors) {
        expect([code, message]).to.deep.equal(['RESET_TOKEN_INVALID', 'the reset token cannot be used']);
      }
      expect(lookups).to.equal(0);
    } finally {
      Object.assign(auth.store.reads.passwordResets, { find });
    }
    await setPassword(resetToken);
  });

  it('keeps the token for another attempt when the new password is invalid', async () => {
    const { resetToken } = await resetOf(await addUser(auth));
    for (const newPassword of ['short', 'x'.repeat(257), 'bad bytes \uFFFD']) {
      const { code, violations } = await serviceErrorOf(setPassword(resetToken, newPassword));
      expect([code, violations[0]?.field]).to.deep.equal(['FIELD_INVALID', 'new_password']);
    }
    await setPassword(resetToken);
  });

  it('rejects a token that has expired or was replaced, or whose user has another password or is disabled', async () => {
    const spoilers: ((user: TestUser) => Promise<unknown>)[] = [
      expire,
      (user) => resetOf(user),
      ({ userId, password }) =>
        auth.accountChanges.changePassword({
          userId,
          oldPassword: password,
          newPassword: 'my own new one',
          peer: HOME,
        }),
      async ({ userId }) => {
        const request = { actor: 'admin', userId };
        await auth.accountChanges.disable({ ...request, requestId: randomUUID() });
        await auth.accountChanges.enable({ ...request, requestId: randomUUID() });
      },
      ({ userId }) =>
        auth.accountChanges.delete({ actor: 'admin', userId, reason: '', requestId: randomUUID() }),
    ];
    for (const [index, spoil] of spoilers.entries()) {
      const user = await addUser(auth);
      const { resetToken } = await resetOf(user);
      await spoil(user);
      expect(await codeOf(setPassword(resetToken)), String(index)).to.equal('RESET_TOKEN_INVALID');
    }
  });

  it('fails when the token is voided while the new password is hashed', async () => {
    const user = await addUser(auth);
    const { resetToken } = await resetOf(user);
    const slow = await openAuth(auth.url, { keyEncryptionKey });
    const { hash } = slow.passwords;
    Object.assign(slow.passwords, {
      hash: async (password: string) => {
        const made = await hash(password);
        await expire(user);
        return made;
      },
    });
    const late = slow.accountChanges.setPassword({ resetToken, newPassword: NEW_PASSWORD, peer: HOTEL });
    expect(await codeOf(late)).to.equal('RESET_TOKEN_INVALID');
    expect(await isLive(await logIn(auth, user))).to.equal(true);
    await slow.close();
  });

  it('returns the same token to a retry, and stores neither the token nor what makes it', async () => {
    const user = await addUser(auth);
    const requestId = randomUUID();
    const first = await resetOf(user, requestId);
    expect(await resetOf(user, requestId, { ...auth, ...replica })).to.deep.equal(first);
    const other = auth.accountChanges.resetPassword({
      ...{ actor: 'admin', userId: user.userId, requestId },
      reason: 'another reason',
    });
    expect(await codeOf(other)).to.equal('REQUEST_ID_REUSED');
    expect(await codeOf(resetOf(user, ''))).to.equal('FIELD_INVALID');
    const { rows } = await auth.database.query<{ text: string }>(
      `SELECT concat_ws(' ', (SELECT string_agg(r::text, ' ') FROM requests r),
                             (SELECT string_agg(p::text, ' ') FROM password_resets p)) AS text`,
    );
    const secret = Buffer.from(first.resetToken.slice(4), 'base64url');
    for (const form of [first.resetToken.slice(4), secret.toString('hex')]) {
      expect(rows[0]?.text).to.not.contain(form);
    }
    await setPassword(first.resetToken);
  });

  it('is refused for an unknown, a disabled and a deleted user', async () => {
    const [disabled, deleted] = [await addUser(auth), await addUser(auth)];
    const request = { actor: 'admin', requestId: randomUUID() };
    await auth.accountChanges.disable({ ...request, userId: disabled.userId });
    await auth.accountChanges.delete({ ...request, userId: deleted.userId, reason: '' });
    expect(await codeOf(resetOf(disabled))).to.equal('USER_DISABLED');
    expect(await codeOf(resetOf(deleted))).to.equal('NOT_FOUND');
    expect(await codeOf(resetOf({ userId: randomUUID() }))).to.equal('NOT_FOUND');
    expect(await codeOf(resetOf({ userId: 'olga' }))).to.equal('NOT_FOUND');
  });

  it('makes the network of the user a known one, so that guesses from elsewhere do not lock it out', async () => {
    const user = await addUser(auth);
    for (let count = 0; count < FAILURES_MAX; count += 1) {
      const guess = { ...attemptOf(user.username, 'wrong password'), peer: `203.0.113.${count}:1` };
      expect(await codeOf(auth.sessions.login(guess))).to.equal('LOGIN_FAILED');
    }
    expect(await codeOf(logIn(auth, user, { peer: HOTEL }))).to.equal('RATE_LIMITED');
    const { resetToken } = await resetOf(user);
    await setPassword(resetToken);
    await logIn(auth, { ...user, password: NEW_PASSWORD }, { peer: HOTEL });
  });

  it('records who began it and that it was used', async () => {
    const user = await addUser(auth);
    const { resetToken } = await resetOf(user);
    await setPassword(resetToken);
    const { rows } = await auth.database.query<object>(
      `SELECT type, actor, reason, network FROM security_events
       WHERE $1 = ANY (subjects) AND type IN ('recovery-activated', 'credential-change') ORDER BY event_time`,
      [user.userId],
    );
    expect(rows).to.deep.equal([
      { type: 'recovery-activated', actor: 'admin', reason: 'phone call', network: '' },
      {
        ...{ type: 'credential-change', actor: user.userId, network: '198.51.100.7' },
        reason: 'password set with a reset token',
      },
    ]);
  });
});
