/** The certificate that nobody has signed is one that every server can read. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { expect } from 'chai';
import { createThrowaway } from '../../gate/src/throwaway-certificate.js';

describe('createThrowaway', () => {
  it('makes a certificate that belongs to its key, is valid now, and is signed by itself', () => {
    const { cert, key } = createThrowaway();
    const read = new X509Certificate(cert);
    expect(read.checkPrivateKey(createPrivateKey(key))).to.equal(true);
    expect(read.verify(read.publicKey)).to.equal(true);
    expect(read.subject).to.equal(read.issuer);
    expect([
      new Date(read.validFrom).getUTCFullYear(),
      new Date(read.validTo).getUTCFullYear(),
    ]).to.deep.equal([2000, 9999]);
  });

  it('makes another one each time', () => {
    expect(createThrowaway().cert).to.not.equal(createThrowaway().cert);
  });
});
