/** Tests of another key-encryption key, which takes the place of the former one while auth runs. */

import { expect } from 'chai';
import { deriveSecret, SECRET_PURPOSES } from '../../../../services/auth/keys/derived-secrets.js';
import { createKeys } from '../../../../services/auth/keys/keys.js';
import { createReEncryption } from '../../../../services/auth/keys/re-encryption.js';
import { type KeyEncryptionKeys, UnusableKeyError } from '../../../../services/auth/keys/sealed-keys.js';
import { createStoredSecrets } from '../../../../services/auth/keys/stored-secrets.js';
import type { AuthStore } from '../../../../services/auth/transaction.js';
import { codeOf, rejectionOf } from '../../../support/outcomes.js';
import { type FreshAuth, newKeyEncryptionKey, openFreshAuth } from '../instance.js';

/** Of each of two purposes, one key that signs and one that is next. */
const KEYS = 6;

/** The steps of an administrator: both keys are known, the new one encrypts, the former one is gone. */
const [former, fresh] = [newKeyEncryptionKey(), newKeyEncryptionKey()];
const STEPS = {
  before: { current: former },
  known: { current: former, next: fresh },
  replaced: { current: fresh, previous: former },
  after: { current: fresh },
} satisfies Record<string, KeyEncryptionKeys>;

describe('another key-encryption key', () => {
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth({ keyEncryptionKey: former });
    await secretsOf('before').open();
  });
  afterEach(() => auth.close());

  const secretsOf = (step: keyof typeof STEPS, store: AuthStore = auth.store) =>
    createStoredSecrets({ store, keyEncryptionKeys: STEPS[step] });
  const reEncryptionOf = (step: keyof typeof STEPS, store: AuthStore = auth.store) =>
    createReEncryption({ store, keyEncryptionKeys: STEPS[step] });
  /** A replica at this step of the replacement, with nothing decrypted yet. */
  const keysOf = (step: keyof typeof STEPS, canSign = () => true) => {
    const { current, ...others } = STEPS[step];
    const otherKeyEncryptionKeys = Object.values<Buffer>(others);
    return createKeys({
      store: auth.store,
      keyEncryptionKey: current,
      otherKeyEncryptionKeys,
      algorithm: 'EdDSA',
      canSign,
    });
  };
  const sign = (keys: ReturnType<typeof keysOf>) =>
    auth.store.transaction(async (tx) => (await keys.lockTokenSigner(tx))({ sub: 'somebody' }));
  const opens = async (step: keyof typeof STEPS): Promise<boolean> => {
    const outcomes = await Promise.allSettled([keysOf(step).open(), secretsOf(step).open()]);
    return outcomes.every(({ status }) => status === 'fulfilled');
  };
  const textsOf = async (step: keyof typeof STEPS) => {
    const secrets = secretsOf(step);
    await secrets.open();
    return SECRET_PURPOSES.map((purpose) => secrets.of(purpose).toString('hex'));
  };

  it('takes over in three steps, at each of which every replica signs', async () => {
    const running = keysOf('before');
    await sign(running);
    expect(await reEncryptionOf('known').run()).to.deep.equal({ replaced: 0, left: 0 });
    for (const step of ['before', 'known'] as const) await sign(keysOf(step));

    const total = KEYS + SECRET_PURPOSES.length;
    expect(await reEncryptionOf('replaced').run()).to.deep.equal({ replaced: total, left: 0 });
    for (const step of ['known', 'replaced', 'after'] as const) {
      await sign(keysOf(step));
      expect(await opens(step), step).to.equal(true);
    }
    // What a process has decrypted stays in use.
    await sign(running);
    expect(await opens('before')).to.equal(false);
    const { rows } = await auth.database.query<{ details: object }>(
      "SELECT details FROM security_events WHERE type = 'key-encryption-key-replaced'",
    );
    expect(rows.map(({ details }) => details)).to.deep.equal([{ keys: total }]);
  });

  it('does not go back while replicas of two steps run', async () => {
    await reEncryptionOf('replaced').run();
    const earlier = reEncryptionOf('known');
    expect(await earlier.run()).to.deep.equal({ replaced: 0, left: KEYS + SECRET_PURPOSES.length });
    expect(earlier.left()).to.equal(KEYS + SECRET_PURPOSES.length);
    expect(await opens('after')).to.equal(true);
    // A replica of the earlier step still encrypts under the former key; the next run of a later one finds it.
    const [next] = (await auth.store.transaction((tx) => tx.keys.live())).filter(
      ({ purpose, state }) => purpose === 'token' && state === 'next',
    );
    await auth.store.transaction((tx) => tx.keys.retire(next?.kid ?? ''));
    await keysOf('known').replenish();
    expect(await opens('after')).to.equal(false);
    expect(await reEncryptionOf('replaced').run()).to.deep.equal({ replaced: 1, left: 0 });
    expect(await opens('after')).to.equal(true);
  });

  it('continues after a process was killed at any place', async () => {
    const secrets = await textsOf('before');
    for (let rounds = 0; ; rounds += 1) {
      let changes = 0;
      // One row is written, then the process dies.
      const dying: AuthStore = {
        ...auth.store,
        transaction: (work) =>
          auth.store.transaction((tx) =>
            work({
              ...tx,
              keys: {
                ...tx.keys,
                reseal: async (row, to) => {
                  changes += 1;
                  if (changes > 1) throw new Error('killed');
                  return await tx.keys.reseal(row, to);
                },
              },
            }),
          ),
      };
      const isWhole = await reEncryptionOf('replaced', dying)
        .run()
        .then(
          () => true,
          () => false,
        );
      await sign(keysOf('known'));
      expect(await textsOf('replaced')).to.deep.equal(secrets);
      if (!isWhole) continue;
      expect(rounds).to.equal(KEYS + SECRET_PURPOSES.length - 1);
      break;
    }
    expect(await opens('after')).to.equal(true);
  });

  it('leaves the secrets as they are, which were derived from the first one', async () => {
    const secrets = SECRET_PURPOSES.map((purpose) => deriveSecret(former, purpose).toString('hex'));
    expect(await textsOf('before')).to.deep.equal(secrets);
    await reEncryptionOf('replaced').run();
    expect(await textsOf('after')).to.deep.equal(secrets);
  });

  it('that comes together with this version leaves the secrets of the version before', async () => {
    await auth.database.query('DELETE FROM stored_secrets');
    const secrets = SECRET_PURPOSES.map((purpose) => deriveSecret(former, purpose).toString('hex'));
    expect(await textsOf('replaced')).to.deep.equal(secrets);
  });

  it('is refused, and nothing is changed, when the former one is not configured', async () => {
    const stored = async () => {
      const keys = await auth.database.query('SELECT * FROM signing_keys ORDER BY kid');
      const secrets = await auth.database.query('SELECT * FROM stored_secrets ORDER BY purpose');
      return [...keys.rows, ...secrets.rows];
    };
    const before = await stored();
    for (const open of [() => secretsOf('after').open(), () => keysOf('after').open()]) {
      expect(await rejectionOf(open())).to.be.instanceOf(UnusableKeyError);
    }
    expect(await stored()).to.deep.equal(before);
    await auth.database.query('DELETE FROM stored_secrets');
    expect(await rejectionOf(secretsOf('after').open())).to.be.instanceOf(UnusableKeyError);
    expect(await stored()).to.have.length(KEYS);
  });

  it('signs nothing before the secrets are read', async () => {
    const secrets = secretsOf('replaced');
    const keys = keysOf('replaced', secrets.isOpen);
    expect(await codeOf(sign(keys))).to.equal('DEPENDENCY_UNAVAILABLE');
    await secrets.open();
    await sign(keys);
  });

  it('does not decrypt a secret that was moved to another purpose', async () => {
    await auth.database.query(
      `UPDATE stored_secrets SET sealed_secret = (
         SELECT sealed_secret FROM stored_secrets WHERE purpose = 'event-names') WHERE purpose = 'password-reset'`,
    );
    const error = await rejectionOf(secretsOf('before').open());
    expect(String(error)).to.contain('the secret for password-reset cannot be used');
  });

  it('counts nothing that another replica was faster to encrypt, and records nothing', async () => {
    const slow: AuthStore = {
      ...auth.store,
      transaction: (work) =>
        auth.store.transaction((tx) => work({ ...tx, keys: { ...tx.keys, reseal: async () => false } })),
    };
    expect(await reEncryptionOf('replaced', slow).run()).to.deep.equal({ replaced: 0, left: 0 });
    const { rows } = await auth.database.query(
      "SELECT FROM security_events WHERE type = 'key-encryption-key-replaced'",
    );
    expect(rows).to.deep.equal([]);
  });

  it('has left nothing before its first run', () => {
    expect(reEncryptionOf('replaced').left()).to.equal(0);
  });
});
