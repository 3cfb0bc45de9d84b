/** Tests of compact signatures. */

import { expect } from 'chai';
import { compactVerify, generateKeyPair } from 'jose';
import { createSign } from '../../../../services/auth/keys/compact-signature.js';

describe('a compact signature', () => {
  // A view of a larger buffer, as a part of a message is.
  const part = Buffer.from('before{"sub":"somebody"}after').subarray(6, 24);

  for (const [algorithm, atOnce] of [
    ['EdDSA', true],
    ['ES256', true],
    ['PS256', false],
  ] as const) {
    it(`of ${algorithm} verifies, and is made ${atOnce ? 'in the same turn' : 'in another thread'}`, async () => {
      const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
      const sign = createSign({ kid: 'one', algorithm }, privateKey);
      const signed = sign('at+jwt', part);
      expect(typeof signed === 'string').to.equal(atOnce);
      const { payload: verified, protectedHeader } = await compactVerify(await signed, publicKey);
      expect(Buffer.from(verified).toString()).to.equal('{"sub":"somebody"}');
      expect(protectedHeader).to.deep.equal({ alg: algorithm, kid: 'one', typ: 'at+jwt' });
    });
  }
});
