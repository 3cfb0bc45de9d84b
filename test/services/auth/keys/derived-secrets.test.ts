/** Tests of the secrets that follow from the key-encryption key. */

import { expect } from 'chai';
import { createFingerprint, deriveSecret } from '../../../../services/auth/keys/derived-secrets.js';

describe('derived secrets', () => {
  const key = Buffer.alloc(32, 1);

  it('are the same every time, and differ by purpose and by key', () => {
    const secret = deriveSecret(key, 'refresh-successor');
    expect(secret).to.have.length(32);
    expect(deriveSecret(key, 'refresh-successor')).to.deep.equal(secret);
    expect(deriveSecret(key, 'request-fingerprint')).to.not.deep.equal(secret);
    expect(deriveSecret(Buffer.alloc(32, 2), 'refresh-successor')).to.not.deep.equal(secret);
    expect(secret.equals(key)).to.equal(false);
  });

  it('make fingerprints that distinguish secrets and cannot be made without the key', () => {
    const fingerprint = createFingerprint(key);
    expect(fingerprint('one')).to.equal(fingerprint('one'));
    expect(fingerprint('one')).to.not.equal(fingerprint('two'));
    expect(createFingerprint(Buffer.alloc(32, 2))('one')).to.not.equal(fingerprint('one'));
  });
});
