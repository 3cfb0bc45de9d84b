/** The checks of public keys, with real keys: honest ones pass, and every kind of weak one is refused with its reason. */

import { createHash, createPublicKey, generateKeyPairSync, type KeyObject, verify } from 'node:crypto';
import { expect } from 'chai';
import {
  checkPublicKey,
  checkPublicKeySync,
  type KeyFault,
  type PublicKeySource,
} from '../../../interceptors/src/token/key-checks.js';
import { infinityPem, pemOf, type WeakKey, weakKeys } from '../../../proofs/attack/weak-keys.js';

const jwkOf = (key: KeyObject) => ({ ...key.export({ format: 'jwk' }) }) as Record<string, string>;
const pemTextOf = (key: KeyObject) => key.export({ type: 'spki', format: 'pem' }).toString();

/** The fault that both variants of the check find. */
async function faultOf(source: PublicKeySource): Promise<KeyFault | undefined> {
  const [checked, now] = [await checkPublicKey(source), checkPublicKeySync(source)];
  expect('fault' in now).to.equal('fault' in checked);
  if (!('fault' in checked)) return undefined;
  expect(now).to.deep.equal(checked);
  return checked;
}

describe('the check of public keys', () => {
  let weak: readonly WeakKey[];

  before(function () {
    this.timeout(180_000);
    weak = weakKeys();
  });

  it('accepts Ed25519, P-256 and RSA keys, as PEM and as JWK, and names their algorithms', async () => {
    const pairs = [
      { key: generateKeyPairSync('ed25519').publicKey, algorithms: ['EdDSA'], rsaBits: undefined },
      {
        key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey,
        algorithms: ['ES256'],
        rsaBits: undefined,
      },
      ...[2048, 3072].map((rsaBits) => ({
        key: generateKeyPairSync('rsa', { modulusLength: rsaBits }).publicKey,
        algorithms: ['RS256', 'PS256'],
        rsaBits,
      })),
    ];
    for (const { key, algorithms, rsaBits } of pairs) {
      for (const source of [{ pem: pemTextOf(key) }, { jwk: jwkOf(key) }]) {
        const checked = await checkPublicKey(source);
        expect(checked).to.deep.include({ algorithms, rsaBits });
        expect(checkPublicKeySync(source)).to.deep.include({ algorithms, rsaBits });
        expect('key' in checked && checked.key.equals(key)).to.equal(true);
      }
    }
  });

  it('accepts every honest Ed25519 and P-256 key', async () => {
    for (let round = 0; round < 200; round += 1) {
      const { publicKey } =
        round % 2 === 0 ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: 'P-256' });
      expect(await faultOf({ jwk: jwkOf(publicKey) })).to.equal(undefined);
    }
  });

  it('refuses every weak key, as PEM and as JWK, and says which weakness it has', async () => {
    const reasons: [RegExp, RegExp][] = [
      [/exponent 1$/, /an odd RSA exponent from 65537 to 4294967295, and has 1$/],
      [/exponent 2$/, /and has 2$/],
      [/exponent 3$/, /and has 3$/],
      [/even exponent/, /and has 65538$/],
      [/33 bits/, /and has a greater one$/],
      [/prime modulus/, /modulus is a prime$/],
      [/by 3$/, /divisible by 3$/],
      [/even modulus/, /divisible by 2$/],
      [/close primes|equal primes/, /so close that they can be computed$/],
      [/ROCA/, /CVE-2017-15361/],
      [/1024 bits/, /RSA of 2048 to 8192 bits, and has 1024 bits$/],
      [/small order/, /signatures of this one need no private key$/],
    ];
    for (const { name, jwk } of weak) {
      const reason = reasons.find(([kind]) => kind.test(name))?.[1];
      for (const source of [{ jwk }, { pem: pemOf(jwk) }]) {
        const found = await faultOf(source);
        expect(found?.kind, name).to.equal('WEAK');
        expect(found?.fault, name).to.match(reason ?? /^$/);
        expect(found?.fault, name).to.match(/^must .+[^.]$/);
      }
    }
  });

  it('is needed: OpenSSL verifies signatures of these keys that were made without a private key', () => {
    const message = Buffer.from('a message that nobody signed');
    const forged = weak.filter(({ name, jwk, sign }) => {
      if (sign === undefined || /small order [1-7]/.test(name)) return false;
      const key = createPublicKey({ key: jwk, format: 'jwk' });
      return verify(name.startsWith('RSA') ? 'sha256' : null, message, key, sign(message));
    });
    expect(forged.map(({ name }) => name)).to.include.members([
      'RSA, exponent 1',
      'RSA, prime modulus',
      'RSA, divisible by 3',
      'RSA, close primes',
      'RSA, equal primes',
      'RSA, ROCA',
      'Ed25519, point of small order 0',
    ]);
  });

  it('refuses the point at infinity of P-256, which aborts the process when Node describes it', async () => {
    const found = await faultOf({ pem: infinityPem() });
    expect(found?.fault).to.match(/other than infinity|in PEM/);
  });

  it('refuses other types, curves and sizes', async () => {
    const { publicKey: explicit } = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      paramEncoding: 'explicit',
    });
    const others: KeyObject[] = [
      generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey,
      generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey,
      generateKeyPairSync('ed448').publicKey,
      generateKeyPairSync('x25519').publicKey,
      generateKeyPairSync('rsa-pss', { modulusLength: 2048 }).publicKey,
      generateKeyPairSync('dsa', { modulusLength: 2048, divisorLength: 256 }).publicKey,
      explicit,
    ];
    for (const key of others) {
      expect((await faultOf({ pem: pemTextOf(key) }))?.fault, key.asymmetricKeyType).to.match(
        /^must be Ed25519, P-256/,
      );
    }
    const n = Buffer.alloc(1025, 0xff).toString('base64url');
    expect((await faultOf({ jwk: { kty: 'RSA', n, e: 'AQAB' } }))?.fault).to.match(
      /8192 bits, and has 8200 bits$/,
    );
  });

  it('accepts RSA keys of 2048 and 8192 bits with exponents of 65537 and 4294967295', async () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048, publicExponent: 0xffff_ffff }).publicKey;
    expect(await faultOf({ jwk: jwkOf(rsa) })).to.equal(undefined);
    // No prime, no small factor, no close factors.
    const modulus = (2n ** 4423n - 1n) * (2n ** 3769n - 1n);
    const n = Buffer.from(modulus.toString(16), 'hex').toString('base64url');
    expect(await checkPublicKey({ jwk: { kty: 'RSA', n, e: 'AQAB' } })).to.include({ rsaBits: 8192 });
  });

  it('names a key by its thumbprint (RFC 7638)', async () => {
    const { x } = jwkOf(generateKeyPairSync('ed25519').publicKey);
    const thumbprint = createHash('sha256')
      .update(`{"crv":"Ed25519","kty":"OKP","x":"${x}"}`)
      .digest('base64url');
    const jwk = { x: x ?? '', kty: 'OKP', kid: 'another', crv: 'Ed25519' };
    expect(await checkPublicKey({ jwk })).to.include({ thumbprint });
  });

  it('refuses what is no point of its curve, and what is no key', async () => {
    const x = Buffer.from(`02${'00'.repeat(31)}`, 'hex').toString('base64url');
    const tooLarge = Buffer.from(`ef${'ff'.repeat(30)}7f`, 'hex').toString('base64url');
    const p256 = jwkOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey);
    const bad: PublicKeySource[] = [
      { jwk: { kty: 'OKP', crv: 'Ed25519', x } },
      { jwk: { kty: 'OKP', crv: 'Ed25519', x: tooLarge } },
      { jwk: { kty: 'OKP', crv: 'Ed25519', x: 'AA' } },
      { jwk: { kty: 'OKP', crv: 'Ed25519' } },
      { jwk: { ...p256, x: p256['y'] } },
      { jwk: { ...p256, crv: 'Ed25519' } },
      { jwk: { ...p256, crv: ['P-256'] } },
      { jwk: { kty: 'RSA', n: '', e: '' } },
      { jwk: { kty: 'RSA', e: 'AQAB' } },
      { jwk: { kty: 'AKP', alg: 'ML-DSA-44', pub: 'AAAA' } },
      { jwk: {} },
      { pem: '' },
      { pem: '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----' },
    ];
    for (const source of bad) expect(await faultOf(source), JSON.stringify(source)).to.not.equal(undefined);
  });

  it('refuses private and symmetric keys', async () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    expect((await faultOf({ pem }))?.fault).to.equal('must be a public key, not a private one');
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    const { kty, n, e, ...privateMembers } = jwkOf(rsa);
    for (const [name, value] of Object.entries(privateMembers)) {
      const found = await faultOf({ jwk: { kty, n, e, [name]: value } });
      expect(found?.fault, name).to.match(/^must contain the public members only/);
    }
    expect((await faultOf({ jwk: jwkOf(privateKey) }))?.fault).to.match(
      /^must contain the public members only/,
    );
    for (const jwk of [{ kty: 'oct', k: 'c2VjcmV0' }, { kty: 'oct' }, { kty, n, e, k: 'AA' }]) {
      expect((await faultOf({ jwk }))?.fault).to.match(/^must be an asymmetric key/);
    }
  });

  it('honours use, key_ops and alg of a JWK', async () => {
    const rsa = jwkOf(generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey);
    const ed = jwkOf(generateKeyPairSync('ed25519').publicKey);
    const good: [Record<string, unknown>, string[]][] = [
      [{ ...rsa, use: 'sig', key_ops: ['verify'], alg: 'PS256' }, ['PS256']],
      [{ ...rsa, key_ops: ['encrypt', 'verify'] }, ['RS256', 'PS256']],
      [{ ...ed, alg: 'Ed25519' }, ['EdDSA']],
    ];
    for (const [jwk, algorithms] of good) {
      expect(await checkPublicKey({ jwk: JSON.parse(JSON.stringify(jwk)) })).to.deep.include({ algorithms });
    }
    const bad: [Record<string, unknown>, RegExp][] = [
      [{ ...rsa, use: 'enc' }, /use sig/],
      [{ ...rsa, use: ['sig'] }, /use sig/],
      [{ ...rsa, use: null }, /use sig/],
      [{ ...rsa, key_ops: [] }, /verify among its key_ops/],
      [{ ...rsa, key_ops: ['wrapKey', 'Verify'] }, /verify among its key_ops/],
      [{ ...rsa, key_ops: 'verify' }, /verify among its key_ops/],
      [{ ...rsa, alg: 'ES256' }, /alg RS256 or PS256, or none$/],
      [{ ...rsa, alg: 'RSA-OAEP' }, /alg RS256 or PS256, or none$/],
      [{ ...ed, alg: 'HS256' }, /alg EdDSA, or none$/],
      [{ ...ed, alg: 7 }, /alg EdDSA, or none$/],
    ];
    for (const [jwk, reason] of bad) {
      const found = await faultOf({ jwk: JSON.parse(JSON.stringify(jwk)) });
      expect(found?.kind).to.equal('PURPOSE');
      expect(found?.fault).to.match(reason);
    }
  });

  it('refuses keys whose private halves are printed in standards, and the generators of the curves', async () => {
    const printed = [
      { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' },
      {
        kty: 'EC',
        crv: 'P-256',
        x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU',
        y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
      },
      {
        kty: 'EC',
        crv: 'P-256',
        x: 'EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84',
        y: 'kGe5DgSIycKp8w9aJmoHhB1sB3QTugfnRWm5nU_TzsY',
      },
    ];
    for (const jwk of printed) {
      expect((await faultOf({ jwk }))?.fault, jwk.x).to.match(
        /^must not be the example of .+, whose private key is printed/,
      );
    }
    const generators = [
      { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(`58${'66'.repeat(31)}`, 'hex').toString('base64url') },
      {
        kty: 'EC',
        crv: 'P-256',
        x: 'axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY',
        y: 'T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU',
      },
    ];
    for (const jwk of generators) {
      expect((await faultOf({ jwk }))?.fault).to.match(/^must not be the generator of its curve/);
    }
  });

  it('survives every single-byte change of a key', async function () {
    this.timeout(180_000);
    const keys = [
      generateKeyPairSync('ed25519').publicKey,
      generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey,
      generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey,
    ];
    for (const key of keys) {
      const der = key.export({ type: 'spki', format: 'der' });
      for (let index = 0; index < Math.min(der.length, 100); index += 1) {
        for (const value of [0x00, 0x01, 0x7f, 0x80, 0xff]) {
          const changed = Buffer.from(der);
          changed[index] = value;
          const pem = `-----BEGIN PUBLIC KEY-----\n${changed.toString('base64')}\n-----END PUBLIC KEY-----\n`;
          const checked = await checkPublicKey({ pem });
          if ('fault' in checked) expect(checked.fault).to.match(/^must /);
        }
      }
    }
  });
});
