/** Tests of the credentials of clients. */

import { generateKeyPairSync } from 'node:crypto';
import { expect } from 'chai';
import {
  clientAuthenticationFailed,
  clientKeyFault,
  clientSecretFault,
  parseClientKey,
  requireCredential,
} from '../../../../services/auth/clients/credentials.js';
import { serviceErrorOf } from '../../../support/outcomes.js';

const spkiOf = (pair: ReturnType<typeof generateKeyPairSync>): string =>
  pair.publicKey.export({ type: 'spki', format: 'pem' }).toString();

describe('a client’s credential', () => {
  const ed25519 = spkiOf(generateKeyPairSync('ed25519'));
  const secret = 'x'.repeat(32);

  it('must be given, and be a key or a secret that is valid', async () => {
    for (const [credential, field] of [
      [undefined, 'credential'],
      [{ kind: 'secret', secret: secret.slice(1) }, 'client_secret'],
      [{ kind: 'public-key', pem: 'none' }, 'public_key_pem'],
    ] as const) {
      const { code, violations } = await serviceErrorOf(requireCredential(credential));
      expect([code, violations[0]?.field]).to.deep.equal(['FIELD_INVALID', field]);
    }
    for (const credential of [
      { kind: 'secret', secret },
      { kind: 'public-key', pem: ed25519 },
    ] as const) {
      expect(await requireCredential(credential)).to.equal(credential);
    }
  });

  it('as a secret has 32 to 256 characters, all of them characters', () => {
    for (const length of [32, 256]) expect(clientSecretFault('x'.repeat(length))).to.equal(undefined);
    for (const length of [31, 257]) {
      expect(clientSecretFault('x'.repeat(length)), String(length)).to.equal(
        'must have 32 to 256 characters',
      );
    }
    expect(clientSecretFault(`${secret}\uFFFD`)).to.be.a('string');
  });

  it('as a key decides which algorithms verify, of Ed25519 under both of its names', async () => {
    for (const [pem, algorithms] of [
      [ed25519, ['EdDSA', 'Ed25519']],
      [spkiOf(generateKeyPairSync('ec', { namedCurve: 'P-256' })), ['ES256']],
    ] as const) {
      // The second time, the check is not repeated.
      for (const _ of [1, 2]) {
        const parsed = await parseClientKey(pem);
        expect(parsed).to.deep.include({ algorithms });
        expect('key' in parsed && parsed.key.export({ type: 'spki', format: 'pem' })).to.equal(pem);
      }
      expect(clientKeyFault(pem)).to.equal(undefined);
    }
  });

  it('as a key are checked once', async () => {
    const { publicKey } = generateKeyPairSync('ed25519');
    const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
    const [first, second] = [await parseClientKey(pem), await parseClientKey(pem)];
    expect('key' in first && 'key' in second && first.key === second.key).to.equal(true);
  });

  it('as a key is refused with the reason when it is too long or no public key', async () => {
    const longest = ed25519.padEnd(8192, '\n');
    expect(await parseClientKey(longest)).to.have.property('key');
    expect(clientKeyFault(longest)).to.equal(undefined);
    const long = { fault: 'must have at most 8192 characters' };
    expect(await parseClientKey(`${longest}\n`)).to.deep.equal(long);
    expect(clientKeyFault(`${longest}\n`)).to.equal(long.fault);
    for (const _ of [1, 2]) expect(await parseClientKey('none')).to.have.property('fault');
    expect(clientKeyFault('none')).to.be.a('string');
  });

  it('that is wrong is answered the same whatever is wrong, with the cause for the log', () => {
    const cause = new Error('the cause');
    const error = clientAuthenticationFailed(cause);
    expect(error).to.include({ code: 'CLIENT_AUTHENTICATION_FAILED', cause });
    expect(error.message).to.equal(clientAuthenticationFailed().message);
  });
});
