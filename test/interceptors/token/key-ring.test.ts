/** One kid, one key, one algorithm: the header of a token does not choose. */

import { constants, generateKeyPairSync, sign } from 'node:crypto';
import { expect } from 'chai';
import { KEYS_MAX, SIGNATURE_ALGORITHMS } from '../../../interceptors/src/limits.js';
import { parseCompactToken } from '../../../interceptors/src/token/compact.js';
import { KeyRing } from '../../../interceptors/src/token/key-ring.js';
import { weakKeys } from '../../../proofs/attack/weak-keys.js';
import { rejectionOf } from '../../support/outcomes.js';
import { hmacToken, TestKey, userPayload } from '../tokens-support.js';

/** Verifies on the thread pool, and on this thread. */
async function verifies(ring: KeyRing, text: string): Promise<boolean> {
  const token = parseCompactToken(text, 'at+jwt');
  if (token === undefined) return false;
  const isGood = await ring.verify(token);
  expect(ring.verifyNow(token)).to.equal(isGood);
  return isGood;
}

/** The token with another header and the same signature. */
function withHeader(text: string, header: object): string {
  const [, payload, signature] = text.split('.');
  return `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`;
}

function withSignature(text: string, signature: Uint8Array): string {
  return `${text.split('.').slice(0, 2).join('.')}.${Buffer.from(signature).toString('base64url')}`;
}

describe('a key ring', () => {
  const keys = new Map<string, TestKey>();
  let ring = KeyRing.EMPTY;

  before(async () => {
    for (const algorithm of SIGNATURE_ALGORITHMS) keys.set(algorithm, new TestKey(algorithm));
    ring = await KeyRing.import([...keys.values()].map(({ published }) => published));
  });

  const keyFor = (algorithm: string): TestKey => {
    const key = keys.get(algorithm);
    if (key === undefined) throw new Error(`no key for ${algorithm}`);
    return key;
  };

  for (const algorithm of SIGNATURE_ALGORITHMS) {
    it(`accepts a token signed with ${algorithm}, and rejects it with any bit changed`, async () => {
      const key = keyFor(algorithm);
      const text = await key.sign(userPayload());
      expect(await verifies(ring, text)).to.equal(true);
      const [header = '', , signature = ''] = text.split('.');
      const payload = Buffer.from(JSON.stringify({ ...userPayload(), sub: 'user-2' })).toString('base64url');
      expect(await verifies(ring, `${header}.${payload}.${signature}`)).to.equal(false);
      const bytes = Buffer.from(signature, 'base64url');
      bytes[7] = (bytes[7] ?? 0) ^ 1;
      expect(await verifies(ring, withSignature(text, bytes))).to.equal(false);
    });

    it(`rejects a token for its ${algorithm} key that names another algorithm`, async () => {
      const key = keyFor(algorithm);
      const text = await key.sign(userPayload());
      const others = [
        'none',
        'None',
        'NONE',
        'nOnE',
        '',
        'HS256',
        'HS512',
        'RS512',
        'ES384',
        'Ed25519',
        'ES256K',
      ];
      for (const alg of [...others, ...SIGNATURE_ALGORITHMS].filter((other) => other !== algorithm)) {
        const header = { alg, kid: key.published.kid, typ: 'at+jwt' };
        expect(await verifies(ring, withHeader(text, header)), alg).to.equal(false);
      }
    });

    it(`rejects a token signed by HMAC with its public ${algorithm} key as the secret`, async () => {
      const { publicKey, published } = keyFor(algorithm);
      const secrets = [
        publicKey.export({ type: 'spki', format: 'pem' }),
        publicKey.export({ type: 'spki', format: 'pem' }).toString().trim(),
        publicKey.export({ type: 'spki', format: 'der' }),
        published.jwk,
        Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url'),
        '',
        'secret',
      ];
      for (const secret of secrets) {
        expect(await verifies(ring, hmacToken(published.kid, secret, userPayload()))).to.equal(false);
      }
    });

    it(`rejects malformed signatures for its ${algorithm} key`, async () => {
      const text = await keyFor(algorithm).sign(userPayload());
      const length = Buffer.from(text.split('.')[2] ?? '', 'base64url').length;
      const another = await new TestKey(algorithm).sign(userPayload());
      const signatures = [
        Buffer.alloc(1),
        Buffer.alloc(length),
        Buffer.alloc(length, 0xff),
        Buffer.alloc(length - 1),
        Buffer.alloc(length + 1),
        Buffer.from(another.split('.')[2] ?? '', 'base64url'),
      ];
      for (const signature of signatures) {
        expect(await verifies(ring, withSignature(text, signature))).to.equal(false);
      }
    });
  }

  it('rejects an ES256 signature in DER', async () => {
    const key = keyFor('ES256');
    const text = await key.sign(userPayload());
    const signed = Buffer.from(text.split('.').slice(0, 2).join('.'));
    const der = sign('sha256', signed, { key: key.privateKey, dsaEncoding: 'der' });
    const raw = sign('sha256', signed, { key: key.privateKey, dsaEncoding: 'ieee-p1363' });
    expect(await verifies(ring, withSignature(text, raw))).to.equal(true);
    expect(await verifies(ring, withSignature(text, der))).to.equal(false);
  });

  it('rejects a PS256 signature whose salt is not as long as the hash', async () => {
    const key = keyFor('PS256');
    const text = await key.sign(userPayload());
    const signed = Buffer.from(text.split('.').slice(0, 2).join('.'));
    for (const saltLength of [0, 20, 32, 64]) {
      const padding = constants.RSA_PKCS1_PSS_PADDING;
      const signature = sign('sha256', signed, { key: key.privateKey, padding, saltLength });
      expect(await verifies(ring, withSignature(text, signature)), String(saltLength)).to.equal(
        saltLength === 32,
      );
    }
  });

  it('rejects a PS256 signature for an RS256 key, and the reverse', async () => {
    for (const [own, other] of [
      ['RS256', 'PS256'],
      ['PS256', 'RS256'],
    ] as const) {
      const { published, privateKey, publicKey } = keyFor(own);
      const forged = await new TestKey(other, published.kid, { privateKey, publicKey }).sign(userPayload());
      expect(await verifies(ring, forged)).to.equal(false);
    }
  });

  it('rejects a good signature under a header that names another algorithm than the key has', async () => {
    const { privateKey, published } = keyFor('EdDSA');
    for (const [alg, isGood] of [
      ['EdDSA', true],
      ['ES256', false],
      ['none', false],
    ] as const) {
      const head = [{ alg, kid: published.kid, typ: 'at+jwt' }, userPayload()]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.');
      const signature = sign(null, Buffer.from(head), privateKey).toString('base64url');
      expect(await verifies(ring, `${head}.${signature}`), alg).to.equal(isGood);
    }
  });

  it('does not throw when the cryptography fails', async () => {
    const token = parseCompactToken(await keyFor('EdDSA').sign(userPayload()), 'at+jwt');
    if (token === undefined) throw new Error('the test made no token');
    expect(ring.verifyNow(token)).to.equal(true);
    // Node refuses the type of an argument, as it would an algorithm that OpenSSL is configured not to provide.
    expect(ring.verifyNow(Object.assign({ ...token }, { signature: 'no bytes' }))).to.equal(false);
  });

  it('rejects a token signed by another of its keys than the one that the token names', async () => {
    const [first, second] = [new TestKey('EdDSA', 'first'), new TestKey('EdDSA', 'second')];
    const both = await KeyRing.import([first.published, second.published]);
    const text = await first.sign(userPayload(), { kid: 'second' });
    expect(await verifies(both, text)).to.equal(false);
  });

  it('rejects a kid that it does not contain', async () => {
    for (const kid of ['unknown', '__proto__', 'constructor', 'toString', '../keys', "' OR '1'='1"]) {
      const text = await keyFor('EdDSA').sign(userPayload(), { kid });
      expect(await verifies(ring, text), kid).to.equal(false);
    }
    expect(KeyRing.EMPTY.has('__proto__')).to.equal(false);
    const { kid } = keyFor('EdDSA').published;
    expect([ring.has(kid), KeyRing.EMPTY.has(kid)]).to.deep.equal([true, false]);
  });

  it('rejects two keys with the same kid', async () => {
    const set = [new TestKey('EdDSA', 'same').published, new TestKey('EdDSA', 'same').published];
    expect((await rejectionOf(KeyRing.import(set))).message).to.equal(
      'two keys of a key set have the same kid',
    );
  });

  it('rejects one kid with two algorithms', async () => {
    const { published } = keyFor('RS256');
    const set = [published, { ...published, algorithm: 'PS256' }];
    expect((await rejectionOf(KeyRing.import(set))).message).to.equal(
      'two keys of a key set have the same kid',
    );
  });

  it('rejects more keys than the limit', async () => {
    const set = Array.from({ length: KEYS_MAX + 1 }, (_, index) => ({
      ...keyFor('EdDSA').published,
      kid: `k${index}`,
    }));
    const { message } = await rejectionOf(KeyRing.import(set));
    expect(message).to.equal(`expected at most ${KEYS_MAX} keys in a key set, got ${KEYS_MAX + 1}`);
    expect([...(await KeyRing.import(set.slice(1))).keyIds()]).to.have.length(KEYS_MAX);
  });

  it('rejects a key set with a private member, or with a key for something other than signatures', async () => {
    const key = new TestKey('EdDSA');
    const published = JSON.parse(key.published.jwk) as object;
    const bad = [
      key.privateKey.export({ format: 'jwk' }),
      { ...published, use: 'enc' },
      { ...published, key_ops: ['sign'] },
      { ...published, alg: 'ES256' },
      { ...published, k: 'AAAA' },
    ];
    for (const jwk of bad) {
      const set = [{ ...key.published, jwk: JSON.stringify(jwk) }];
      expect((await rejectionOf(KeyRing.import(set))).message).to.match(/^key \S+ must /);
    }
    const full = { ...published, use: 'sig', key_ops: ['verify'], alg: 'EdDSA', kid: 'another' };
    const ring = await KeyRing.import([{ ...key.published, jwk: JSON.stringify(full) }]);
    expect(await verifies(ring, await key.sign(userPayload()))).to.equal(true);
  });

  it('rejects a weak key, whichever algorithm it is for', async function () {
    this.timeout(180_000);
    for (const { name, algorithm, jwk } of weakKeys()) {
      const set = [{ kid: 'weak', algorithm, jwk: JSON.stringify(jwk) }];
      expect((await rejectionOf(KeyRing.import(set))).message, name).to.match(/^key weak must /);
    }
  });

  it('rejects a whole key set when one key does not fit its algorithm', async () => {
    const good = new TestKey('EdDSA').published;
    const ec = keyFor('ES256').published.jwk;
    const p384 = JSON.stringify(
      generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' }),
    );
    const ed448 = JSON.stringify(generateKeyPairSync('ed448').publicKey.export({ format: 'jwk' }));
    const bad: [string, string][] = [
      ['EdDSA', ec],
      ['EdDSA', ed448],
      ['ES256', good.jwk],
      ['ES256', p384],
      ['RS256', ec],
      ['EdDSA', JSON.stringify({ kty: 'oct', k: 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I' })],
      ['HS256', JSON.stringify({ kty: 'oct', k: 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I' })],
      ['none', good.jwk],
      ['', good.jwk],
      ['eddsa', good.jwk],
      ['ES384', p384],
      ['EdDSA', JSON.stringify({ kty: 'OKP', crv: 'Ed25519' })],
      ['EdDSA', '{}'],
      ['EdDSA', 'null'],
      ['EdDSA', 'not JSON'],
    ];
    for (const [algorithm, jwk] of bad) {
      const outcome = await rejectionOf(KeyRing.import([good, { kid: 'bad', algorithm, jwk }]));
      const isKnown = SIGNATURE_ALGORITHMS.some((name) => name === algorithm);
      expect(outcome.message, `${algorithm} ${jwk}`).to.match(
        isKnown ? /^key bad must be / : /^key bad: expected one of EdDSA, .*, got algorithm /,
      );
    }
  });

  it('rejects an RSA key of less than 2048 bits', async () => {
    const weak = new TestKey('RS256', 'weak', generateKeyPairSync('rsa', { modulusLength: 1024 }));
    const held = await KeyRing.import([weak.published]).catch(() => KeyRing.EMPTY);
    const head = [{ alg: 'RS256', kid: 'weak', typ: 'at+jwt' }, userPayload()]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.');
    const signature = sign('sha256', Buffer.from(head), weak.privateKey).toString('base64url');
    expect(await verifies(held, `${head}.${signature}`)).to.equal(false);
  });
});
