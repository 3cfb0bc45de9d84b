/** Tests of private keys and secrets at rest. */

import { expect } from 'chai';
import { exportJWK, exportPKCS8, generateKeyPair } from 'jose';
import {
  encrypt,
  type KeyIdentity,
  publicMembers,
  seal,
  secretData,
  tryDecrypt,
  UnusableKeyError,
  unseal,
} from '../../../../services/auth/keys/sealed-keys.js';
import type { KeyRow } from '../../../../services/auth/records/keys.js';
import { rejectionOf } from '../../../support/outcomes.js';

const [key, other] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];

describe('a sealed secret', () => {
  const associated = secretData('password-reset');
  const plaintext = Buffer.from('a secret');

  it('is decrypted only with its key, for its purpose, and unchanged', () => {
    const sealed = encrypt(associated, plaintext, key);
    expect(tryDecrypt(associated, sealed, key)).to.deep.equal(plaintext);
    expect(tryDecrypt(associated, sealed, other)).to.equal(undefined);
    expect(tryDecrypt(associated, sealed, undefined)).to.equal(undefined);
    expect(tryDecrypt(secretData('event-names'), sealed, key)).to.equal(undefined);
    for (const index of sealed.keys()) {
      const changed = Buffer.from(sealed);
      changed.writeUInt8(changed.readUInt8(index) ^ 1, index);
      expect(tryDecrypt(associated, changed, key), String(index)).to.equal(undefined);
    }
    for (const length of [0, 11, 12, 16, 27, sealed.length - 1]) {
      expect(tryDecrypt(associated, sealed.subarray(0, length), key), String(length)).to.equal(undefined);
    }
  });

  it('is not decrypted with a shorter tag, which would be easier to guess', () => {
    const sealed = encrypt(associated, Buffer.alloc(0), key);
    expect(tryDecrypt(associated, sealed, key)).to.deep.equal(Buffer.alloc(0));
    for (const tagBytes of [4, 8, 12, 13, 14, 15]) {
      expect(tryDecrypt(associated, sealed.subarray(0, 12 + tagBytes), key), `${tagBytes}`).to.equal(
        undefined,
      );
    }
  });

  it('has a new nonce of twelve bytes each time, then a tag of sixteen', () => {
    const sealed = [encrypt(associated, plaintext, key), encrypt(associated, plaintext, key)];
    expect(new Set(sealed.map((one) => one.subarray(0, 12).toString('hex'))).size).to.equal(2);
    for (const one of sealed) expect(one).to.have.length(12 + 16 + plaintext.length);
  });
});

describe('a sealed private key', () => {
  const identity: KeyIdentity = { kid: 'one', purpose: 'token', algorithm: 'EdDSA' };
  let row: KeyRow;

  before(async () => {
    const pair = await generateKeyPair('EdDSA', { extractable: true });
    const sealedPrivateKey = seal(identity, await exportPKCS8(pair.privateKey), key);
    const jwk = JSON.stringify(publicMembers(await exportJWK(pair.publicKey)));
    row = { ...identity, state: 'signing', jwk, sealedPrivateKey };
  });

  it('is decrypted with the first key-encryption key that fits', async () => {
    for (const keys of [[key], [key, other], [other, key]]) {
      expect((await exportJWK(await unseal(row, keys))).x).to.equal(JSON.parse(row.jwk).x);
    }
  });

  it('names the key that cannot be used, and why', async () => {
    const error = await rejectionOf(unseal(row, [other]));
    expect(error).to.be.instanceOf(UnusableKeyError);
    expect(error).to.include({
      name: 'UnusableKeyError',
      kid: 'one',
      message:
        'signing key one cannot be used: the key-encryption key is another one, or the row was changed',
    });
    expect(error.cause).to.have.property('message', 'no key-encryption key decrypts it');
    const secret = new UnusableKeyError('event-names', 'it was changed', { what: 'the secret for' });
    expect(secret.message).to.equal('the secret for event-names cannot be used: it was changed');
    expect(secret.cause).to.equal(undefined);
  });

  it('is not used with the public half of another key, or one that is no key', async () => {
    const stranger = await generateKeyPair('EdDSA', { extractable: true });
    for (const jwk of [JSON.stringify(await exportJWK(stranger.publicKey)), '{}', 'none']) {
      expect((await rejectionOf(unseal({ ...row, jwk }, [key]))).message).to.equal(
        'signing key one cannot be used: its public half belongs to another private key',
      );
    }
  });

  it('publishes the members that verification needs, and none that is private', async () => {
    for (const [algorithm, members] of [
      ['EdDSA', ['kty', 'crv', 'x']],
      ['ES256', ['kty', 'crv', 'x', 'y']],
      ['RS256', ['kty', 'n', 'e']],
    ] as const) {
      const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
      const jwk = { ...(await exportJWK(privateKey)), alg: algorithm, use: 'sig' };
      expect(publicMembers(jwk)).to.have.all.keys(...members);
    }
  });
});
