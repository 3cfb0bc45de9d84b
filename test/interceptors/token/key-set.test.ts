/** The JWK Set of another issuer: which members are used, ignored and refused, and which keys a token may have. */

import { generateKeyPairSync } from 'node:crypto';
import { expect } from 'chai';
import { KEYS_MAX } from '../../../interceptors/src/limits.js';
import type { CompactToken } from '../../../interceptors/src/token/compact.js';
import type { SignatureAlgorithm } from '../../../interceptors/src/token/key-checks.js';
import { KEYS_PER_KID_MAX, KeySet } from '../../../interceptors/src/token/key-set.js';
import { rejectionOf } from '../../support/outcomes.js';

type Jwk = Readonly<Record<string, unknown>>;

const ALL: readonly SignatureAlgorithm[] = ['EdDSA', 'ES256', 'RS256', 'PS256'];

function jwkFor(algorithm: SignatureAlgorithm): Jwk {
  switch (algorithm) {
    case 'EdDSA':
      return { ...generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' }) };
    case 'ES256':
      return { ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' }) };
    default:
      return { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' }) };
  }
}

const parse = (members: unknown, algorithms: readonly SignatureAlgorithm[] = ALL): Promise<KeySet> =>
  KeySet.parse(Buffer.from(JSON.stringify({ keys: members })), algorithms);

/** A token of which only the header counts. */
function tokenWith(keyId: string, algorithm: string): CompactToken {
  const nothing = Buffer.alloc(0);
  return { text: '', algorithm, keyId, payload: nothing, signed: nothing, signature: nothing };
}

/** The keys that may have signed a token, as JWK. */
function candidates(set: KeySet, keyId: string, algorithm: string): Jwk[] {
  return set
    .candidatesFor(tokenWith(keyId, algorithm))
    .map(({ key }) => ({ ...key.export({ format: 'jwk' }) }));
}

describe('a JWK Set', () => {
  const [ed, ec] = [jwkFor('EdDSA'), jwkFor('ES256')];
  const other = jwkFor('EdDSA');
  let rsa: Jwk;

  before(() => {
    rsa = jwkFor('RS256');
  });

  it('gives a token the keys with its kid and algorithm', async () => {
    const set = await parse([
      { ...ed, kid: 'a' },
      { ...other, kid: 'b' },
      { ...ec, kid: 'a' },
      { ...rsa, kid: 'a', alg: 'RS256' },
      { ...rsa, kid: 'a', alg: 'PS256' },
    ]);
    expect(set.refused).to.deep.equal([]);
    expect(candidates(set, 'a', 'EdDSA')).to.deep.equal([ed]);
    expect(candidates(set, 'b', 'EdDSA')).to.deep.equal([other]);
    expect(candidates(set, 'a', 'ES256')).to.deep.equal([ec]);
    expect(candidates(set, 'a', 'RS256')).to.deep.equal([rsa]);
    expect(candidates(set, 'a', 'PS256')).to.deep.equal([rsa]);
    for (const [kid, algorithm] of [
      ['b', 'ES256'],
      ['c', 'EdDSA'],
      ['', 'EdDSA'],
      ['a', 'HS256'],
    ] as const) {
      expect(candidates(set, kid, algorithm), `${kid} ${algorithm}`).to.deep.equal([]);
    }
  });

  it('gives a token without kid the keys without kid, or its only key', async () => {
    const single = await parse([{ ...ed, kid: 'a' }]);
    expect(candidates(single, '', 'EdDSA')).to.deep.equal([ed]);
    expect(candidates(single, '', 'ES256')).to.deep.equal([]);
    expect(candidates(single, 'b', 'EdDSA')).to.deep.equal([]);
    const several = await parse([{ ...ed, kid: 'a' }, other]);
    expect(candidates(several, '', 'EdDSA')).to.deep.equal([other]);
    expect(candidates(several, 'a', 'EdDSA')).to.deep.equal([ed]);
    const named = await parse([
      { ...ed, kid: 'a' },
      { ...ec, kid: 'b' },
    ]);
    expect(candidates(named, '', 'EdDSA')).to.deep.equal([]);
  });

  it('contains its keys by their thumbprints', async () => {
    const thumbprintOf = async (jwk: Jwk): Promise<string> =>
      (await parse([jwk])).candidatesFor(tokenWith('', 'EdDSA'))[0]?.thumbprint ?? 'none';
    const set = await parse([{ ...ed, kid: 'a' }]);
    expect(set.has(await thumbprintOf(ed))).to.equal(true);
    expect(set.has(await thumbprintOf(other))).to.equal(false);
    expect(KeySet.EMPTY.has(await thumbprintOf(ed))).to.equal(false);
    expect(KeySet.EMPTY.refused).to.deep.equal([]);
  });

  it('is rejected when it is none, or has no usable key, with the first reason', async () => {
    for (const text of ['', 'null', '[]', '{}', '{"keys":{}}', '{"keys":"x"}', '{"keys":[],"keys":[]}']) {
      const error = await rejectionOf(KeySet.parse(Buffer.from(text), ALL));
      expect(error.message, text).to.equal('expected a JWK Set');
    }
    const message = async (members: unknown): Promise<string> => (await rejectionOf(parse(members))).message;
    expect(await message([])).to.equal('the key set contains no usable key');
    expect(await message([{ ...ed, use: 'enc' }])).to.equal('the key set contains no usable key');
    expect(await message([7, null])).to.equal(
      'the key set contains no usable key: member 0 must be an object',
    );
  });

  it('ignores members that are for something else than the configured algorithms', async () => {
    const ignored: Jwk[] = [
      { kty: 'oct', k: 'c2VjcmV0', alg: 'HS256' },
      { kty: 'oct' },
      { ...ed, use: 'enc' },
      { ...ed, use: null },
      { ...ed, key_ops: ['deriveKey'] },
      { ...ed, alg: 'ES256' },
      { ...ed, alg: 'ECDH-ES' },
      { ...ed, crv: 'X25519' },
      { ...ed, kty: 'EC' },
      { ...ec, crv: 'P-384' },
      { ...ec, kty: 'OKP' },
      { ...rsa, alg: 'RSA-OAEP' },
      // Its exponent would be too small for signatures.
      { ...rsa, alg: 'RSA-OAEP', e: 'Aw' },
      { ...rsa, alg: 'PS256' },
      { ...rsa, kty: 'unknown' },
      {},
    ];
    const set = await parse([...ignored, { ...ed, kid: 'last' }], ['EdDSA', 'ES256', 'RS256']);
    expect(set.refused).to.deep.equal([]);
    expect(candidates(set, '', 'EdDSA')).to.deep.equal([ed]);
    for (const [algorithm, jwk] of [
      ['EdDSA', ec],
      ['ES256', rsa],
      ['RS256', ed],
      ['PS256', ec],
    ] as const) {
      const error = await rejectionOf(parse([jwk], [algorithm]));
      expect(error.message, algorithm).to.equal('the key set contains no usable key');
    }
  });

  it('refuses members that should be usable and are not, each with its reason', async () => {
    const long = 'k'.repeat(256);
    const refused: [member: unknown, reason: string][] = [
      ['no key', 'member 0 must be an object'],
      [null, 'member 1 must be an object'],
      [[ed], 'member 2 must be an object'],
      [{ ...ed, kid: 7 }, 'member 3 must have a kid of 1 to 255 characters, or none'],
      [{ ...ed, kid: null }, 'member 4 must have a kid of 1 to 255 characters, or none'],
      [{ ...ed, kid: '' }, 'key "" must have a kid of 1 to 255 characters, or none'],
      [{ ...ed, kid: long }, `key "${long.slice(0, 64)}" must have a kid of 1 to 255 characters, or none`],
      [{ ...ec, x: ec['y'] }, 'member 7 must be a valid public key as JWK'],
      [{ ...rsa, kid: 'rsa' }, 'key "rsa" must have an alg, because both RS256 and PS256 fit it'],
    ];
    const set = await parse([...refused.map(([member]) => member), { ...ed, kid: 'k'.repeat(255) }]);
    expect(set.refused).to.deep.equal(refused.map(([, reason]) => reason));
    expect(candidates(set, 'k'.repeat(255), 'EdDSA')).to.deep.equal([ed]);
  });

  it('takes an algorithm from its configuration when a key fits only one of those', async () => {
    for (const algorithm of ['RS256', 'PS256'] as const) {
      const set = await parse([{ ...rsa, kid: 'a' }], [algorithm, 'EdDSA']);
      expect(candidates(set, 'a', algorithm)).to.deep.equal([rsa]);
    }
    const named = await parse([{ ...ed, kid: 'a', alg: 'Ed25519' }]);
    expect(candidates(named, 'a', 'EdDSA')).to.deep.equal([ed]);
  });

  it('contains a repeated key once, and otherwise a limited number of keys with one kid', async () => {
    const many = Array.from({ length: KEYS_PER_KID_MAX }, () => ({ ...jwkFor('EdDSA'), kid: 'a' }));
    const set = await parse([
      ...many,
      ...many,
      { ...ed, kid: 'a' },
      { ...ec, kid: 'a' },
      { ...ed, kid: 'b' },
    ]);
    expect(candidates(set, 'a', 'EdDSA')).to.have.length(KEYS_PER_KID_MAX);
    expect(candidates(set, 'a', 'ES256')).to.deep.equal([ec]);
    expect(candidates(set, 'b', 'EdDSA')).to.deep.equal([ed]);
    expect(set.refused).to.deep.equal([
      `key "a" is left out: more than ${KEYS_PER_KID_MAX} keys have its kid and alg`,
    ]);
  });

  it('contains a limited number of keys', async () => {
    const members = Array.from({ length: KEYS_MAX + 1 }, (_, index) => ({ ...ed, kid: `kid-${index}` }));
    const set = await parse([...members, { ...ed, kid: 'encryption', use: 'enc' }]);
    expect(candidates(set, `kid-${KEYS_MAX - 1}`, 'EdDSA')).to.deep.equal([ed]);
    expect(candidates(set, `kid-${KEYS_MAX}`, 'EdDSA')).to.deep.equal([]);
    expect(set.refused).to.deep.equal([
      `key "kid-${KEYS_MAX}" is left out: the set has more than ${KEYS_MAX} usable keys`,
    ]);
  });
});
