/** Tests of the stored secrets, against PostgreSQL. */

import { expect } from 'chai';
import {
  deriveSecret,
  SECRET_PURPOSES,
  type SecretPurpose,
} from '../../../../services/auth/keys/derived-secrets.js';
import { encrypt, type KeyEncryptionKeys, secretData } from '../../../../services/auth/keys/sealed-keys.js';
import { createStoredSecrets } from '../../../../services/auth/keys/stored-secrets.js';
import { rejectionOf } from '../../../support/outcomes.js';
import { type FreshAuth, newKeyEncryptionKey, openFreshAuth } from '../instance.js';

const PURPOSE = 'password-reset';

describe('stored secrets', () => {
  const [current, other] = [newKeyEncryptionKey(), newKeyEncryptionKey()];
  let auth: FreshAuth;

  beforeEach(async () => {
    auth = await openFreshAuth({ keyEncryptionKey: current });
  });
  afterEach(() => auth.close());

  const secretsWith = (keyEncryptionKeys: KeyEncryptionKeys) =>
    createStoredSecrets({ store: auth.store, keyEncryptionKeys });
  const opened = async (keys: KeyEncryptionKeys) => {
    const secrets = secretsWith(keys);
    await secrets.open();
    return SECRET_PURPOSES.map((purpose) => secrets.of(purpose).toString('hex'));
  };
  const derivedFrom = (key: Buffer) =>
    SECRET_PURPOSES.map((purpose) => deriveSecret(key, purpose).toString('hex'));

  it('are open once they are read, and are written into the buffers that were given out before', async () => {
    await opened({ current });
    const secrets = secretsWith({ current: other, previous: current });
    expect(secrets.isOpen()).to.equal(false);
    const buffer = secrets.of(PURPOSE);
    expect(buffer).to.deep.equal(deriveSecret(other, PURPOSE));
    await secrets.open();
    expect(secrets.isOpen()).to.equal(true);
    expect(secrets.of(PURPOSE)).to.equal(buffer);
    expect(buffer).to.deep.equal(deriveSecret(current, PURPOSE));
    expect(() => secrets.of('unknown' as SecretPurpose)).to.throw(
      TypeError,
      'there is no secret for unknown',
    );
  });

  it('are derived once from the key that encrypts the keys, whatever its part is', async () => {
    for (const keys of [
      { current },
      { current: other, previous: current },
      { current: other, next: current },
    ]) {
      await auth.database.query('DELETE FROM stored_secrets');
      expect(await opened(keys)).to.deep.equal(derivedFrom(current));
      // Later ones are read, not derived.
      expect(await opened({ current: other, previous: current, next: current })).to.deep.equal(
        derivedFrom(current),
      );
    }
  });

  it('are derived from the key that encrypts only some of the keys', async () => {
    await auth.database.query('DELETE FROM stored_secrets');
    await auth.database.query(
      "UPDATE signing_keys SET sealed_private_key = set_bit(sealed_private_key, 300, 1 - get_bit(sealed_private_key, 300)) WHERE state = 'next'",
    );
    expect(await opened({ current: other, previous: current })).to.deep.equal(derivedFrom(current));
  });

  it('that are all stored are read although no key-encryption key decrypts the keys', async () => {
    await secretsWith({ current: other }).replace();
    const replaced = await opened({ current: other });
    expect(new Set([...replaced, ...derivedFrom(current), ...derivedFrom(other)]).size).to.equal(
      3 * SECRET_PURPOSES.length,
    );
  });

  it('are derived from the current key where there is no key to tell', async () => {
    await auth.database.query('DELETE FROM signing_keys');
    expect(await opened({ current: other, previous: current })).to.deep.equal(derivedFrom(other));
  });

  it('of which one is missing keep the others', async () => {
    await secretsWith({ current }).replace();
    const before = await opened({ current });
    await auth.database.query('DELETE FROM stored_secrets WHERE purpose = $1', [PURPOSE]);
    const after = await opened({ current });
    const missing = SECRET_PURPOSES.indexOf(PURPOSE);
    expect(after[missing]).to.equal(deriveSecret(current, PURPOSE).toString('hex'));
    expect(after.toSpliced(missing, 1)).to.deep.equal(before.toSpliced(missing, 1));
  });

  it('are random after they were replaced', async () => {
    const derived = await opened({ current });
    await secretsWith({ current }).replace();
    const replaced = await opened({ current });
    expect(new Set([...derived, ...replaced]).size).to.equal(2 * SECRET_PURPOSES.length);
    expect(await opened({ current })).to.deep.equal(replaced);
  });

  it('of another length are refused', async () => {
    await opened({ current });
    const short = encrypt(secretData(PURPOSE), Buffer.alloc(31), current);
    await auth.store.transaction((tx) => tx.keys.putSecret(PURPOSE, short));
    expect((await rejectionOf(opened({ current }))).message).to.equal(
      'the secret for password-reset cannot be used: the key-encryption key is another one, or the row was changed',
    );
  });

  it('are refused with the name of a key when no key-encryption key decrypts the keys', async () => {
    const [first] = await auth.store.transaction((tx) => tx.keys.live());
    expect(await rejectionOf(opened({ current: other }))).to.include({ kid: first?.kid });
  });
});
