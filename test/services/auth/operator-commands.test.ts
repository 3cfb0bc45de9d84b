/** Tests of the commands of operators who have no valid token: open-epoch and recover-admin. */

import { expect } from 'chai';
import { deriveSecret } from '../../../services/auth/keys/derived-secrets.js';
import { createStoredSecrets } from '../../../services/auth/keys/stored-secrets.js';
import { runProgram } from '../../support/programs.js';
import { addUser, type FreshAuth, logIn, newKeyEncryptionKey, openAuth, openFreshAuth } from './instance.js';

describe('the commands of operators', function () {
  this.timeout(180_000);
  const keyEncryptionKey = newKeyEncryptionKey();
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth({ keyEncryptionKey });
  });
  afterEach(() => auth.close());

  async function run(words: readonly string[], key = keyEncryptionKey) {
    const env = {
      DATABASE_URL: auth.url,
      PORTCULLIS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_OPS_LISTEN: '127.0.0.1:0',
      PORTCULLIS_ISSUER: 'https://auth.example',
      PORTCULLIS_KEY_ENCRYPTION_KEY: key.toString('base64url'),
    };
    return await runProgram(['services/auth/main', ...words], { env });
  }

  it('open an epoch: every session ends, keys are new, and the exit code is 0', async () => {
    const user = await addUser(auth);
    await logIn(auth, user);
    const before = await auth.publicKeys.read();
    const { code, output } = await run(['open-epoch', 'restored', 'from', 'backup']);
    expect(code, output).to.equal(0);
    const after = await auth.publicKeys.read();
    expect(after.epoch).to.not.deep.equal(before.epoch);
    expect(after.keySet.version).to.not.deep.equal(before.keySet.version);
    expect(output)
      .to.contain(`"epoch":"${after.epoch.toString('hex')}"`)
      .and.contain('"endedSessions":1');
    const { rows } = await auth.database.query<{ reason: string; actor: string }>(
      "SELECT reason, actor FROM epochs WHERE actor <> ''",
    );
    expect(rows).to.deep.equal([{ reason: 'restored from backup', actor: 'operator' }]);
    // The running replica signs with the new keys.
    expect((await logIn(auth, user)).access.token).to.be.a('string');
  });

  it('open an epoch under another key-encryption key when the former one is lost, if told so', async () => {
    const user = await addUser(auth);
    const login = await logIn(auth, user);
    const another = newKeyEncryptionKey();
    const { code, output } = await run(['open-epoch', '--key-encryption-key-lost', 'lost'], another);
    expect(code, output).to.equal(0);
    const { rows } = await auth.database.query<{ reason: string }>(
      "SELECT reason FROM epochs WHERE actor = 'operator'",
    );
    expect(rows).to.deep.equal([{ reason: 'lost' }]);
    expect(await auth.exchange.introspect(login.access.token)).to.equal(undefined);
    const { rows: sealed } = await auth.database.query<{ sealed: bigint }>(
      `SELECT count(*) AS sealed FROM signing_keys
       WHERE state = 'retired' AND sealed_private_key IS NOT NULL`,
    );
    expect(sealed[0]?.sealed).to.equal(0n);
    // Everything can be used under the new key, and nothing under the lost one.
    const secrets = createStoredSecrets({ store: auth.store, keyEncryptionKeys: { current: another } });
    await secrets.open();
    expect(secrets.of('refresh-successor')).to.not.deep.equal(deriveSecret(another, 'refresh-successor'));
    const replica = await openAuth(auth.url, { keyEncryptionKey: another });
    expect((await logIn(replica, user)).access.token).to.be.a('string');
    await replica.close();
    const lost = await run(['open-epoch', 'again']);
    expect(lost.output).to.contain('PORTCULLIS_KEY_ENCRYPTION_KEY does not fit the database');
  });

  it('change nothing with another key-encryption key, or if the command is unknown', async () => {
    const before = await auth.publicKeys.read();
    const wrongKey = await run(['open-epoch'], newKeyEncryptionKey());
    expect(wrongKey.code).to.equal(1);
    expect(wrongKey.output).to.contain('PORTCULLIS_KEY_ENCRYPTION_KEY');
    const wrongWord = await run(['open-epock']);
    expect(wrongWord.code).to.equal(1);
    expect(wrongWord.output).to.contain('unknown command open-epock');
    expect(await auth.publicKeys.read()).to.deep.equal(before);
  });

  it('recover an administrator: a disabled user is one again, and sets a new password', async () => {
    const user = await addUser(auth, ['customer']);
    const request = { actor: 'admin', userId: user.userId, requestId: '' };
    await auth.accountChanges.disable(request);
    const { code, output } = await run(['recover-admin', user.username.toUpperCase()]);
    expect(code, output).to.equal(0);
    expect(await auth.users.get(user.userId)).to.deep.include({
      disabled: false,
      roles: ['admin', 'customer'],
    });
    const [resetToken = ''] = /pcp_[\w-]{64}$/m.exec(output) ?? [];
    const newPassword = 'a password of the new admin';
    await auth.accountChanges.setPassword({ resetToken, newPassword, peer: '192.0.2.1:4000' });
    const { access } = await logIn(auth, { ...user, password: newPassword });
    expect((await auth.exchange.introspect(access.token))?.roles.has('admin')).to.equal(true);
    const { rows } = await auth.database.query<{ type: string }>(
      "SELECT type FROM security_events WHERE actor = 'operator' ORDER BY type",
    );
    expect(rows.map(({ type }) => type)).to.deep.equal([
      'account-enabled',
      'recovery-activated',
      'token-claims-change',
    ]);
  });

  it('recover nobody without the name of a user, or under another key', async () => {
    const user = await addUser(auth, ['customer']);
    for (const words of [[], ['unknown.user'], ['x']]) {
      const { code, output } = await run(['recover-admin', ...words]);
      expect(code, output).to.equal(1);
      expect(output).to.contain('recover-admin: expected the name of a user');
    }
    expect((await run(['recover-admin', user.username], newKeyEncryptionKey())).code).to.equal(1);
    expect((await auth.users.get(user.userId)).roles).to.deep.equal(['customer']);
  });
});
