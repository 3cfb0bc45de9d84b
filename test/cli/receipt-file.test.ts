/** What a verifier of receipts accepts, beside the signature: docs/spec/receipt-v1.md. */

import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { expect } from 'chai';
import { verifyReceipt } from '../../cli/src/receipt-file.js';
import { rejectionOf } from '../support/outcomes.js';

const ED25519 = generateKeyPairSync('ed25519');
const P256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });

const JWKS = JSON.stringify({
  keys: [
    { ...ED25519.publicKey.export({ format: 'jwk' }), kid: 'receipts', alg: 'EdDSA', use: 'sig' },
    { ...P256.publicKey.export({ format: 'jwk' }), kid: 'tokens', alg: 'ES256', use: 'sig' },
  ],
});

const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A receipt with one instance, signed. */
function receipt(
  {
    alg = 'EdDSA',
    kid = 'receipts',
    key = ED25519.privateKey,
  }: { alg?: string; kid?: string; key?: KeyObject },
  { final = true, state = 'ENFORCED' } = {},
): string {
  const time = '2026-11-30T14:03:00.000Z';
  const revocation = {
    ...{ epoch: 'AAAA', sequence: '7', kind: 'USER', target: 'u', revoke_time: time },
    ...{ enforced_everywhere_by: time, actor: 'olga', network: '', reason: '' },
  };
  const text = [
    { alg, kid, typ: 'portcullis-receipt+jws' },
    {
      ...{ v: 1, iss: 'https://auth.test', iat: 1, final, as_of: time, revocation },
      instances: [{ service: 'inventory', instance: '01', state }],
    },
  ]
    .map(encoded)
    .join('.');
  const digest = alg === 'EdDSA' ? null : 'sha256';
  const signature = sign(digest, Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' });
  return `${text}.${signature.toString('base64url')}`;
}

describe('verifyReceipt', () => {
  it('accepts what the key of receipts has signed', async () => {
    for (const state of ['ENFORCED', 'SILENT']) {
      expect((await verifyReceipt(receipt({}, { state }), JWKS)).instances[0]?.state).to.equal(state);
    }
    expect((await verifyReceipt(receipt({}, { final: false, state: 'PENDING' }), JWKS)).final).to.equal(
      false,
    );
  });

  it('refuses a good signature of another algorithm, whatever keys the set has', async () => {
    const other = receipt({ alg: 'ES256', kid: 'tokens', key: P256.privateKey });
    expect(String(await rejectionOf(verifyReceipt(other, JWKS)))).to.include('is not one for EdDSA');
  });

  it('refuses a final receipt with a pending instance', async () => {
    const early = receipt({}, { state: 'PENDING' });
    expect(String(await rejectionOf(verifyReceipt(early, JWKS)))).to.include('has a pending instance');
  });
});
