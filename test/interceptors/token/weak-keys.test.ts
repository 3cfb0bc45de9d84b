/** The weaknesses of public keys, as numbers: where each check begins and ends. */

import { createHash } from 'node:crypto';
import { expect } from 'chai';
import {
  ed25519PointFault,
  isPrintedSecret,
  knownKeyFault,
  rsaModulusFault,
} from '../../../interceptors/src/token/weak-keys.js';

/** Mersenne primes. */
const LARGE_PRIME = 2n ** 521n - 1n;
const OTHER_LARGE_PRIME = 2n ** 607n - 1n;

const SMALL_PRIMES = range(2, 752).filter((number) =>
  range(2, Math.sqrt(number) + 1).every((other) => other >= number || number % other !== 0),
);

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, Math.ceil(to) - from) }, (_, index) => from + index);
}

describe('the check of an RSA modulus', () => {
  it('accepts the product of two large primes that are far apart', () => {
    expect(rsaModulusFault(LARGE_PRIME * OTHER_LARGE_PRIME)).to.equal(undefined);
  });

  it('finds every prime factor below 752, and no greater one', () => {
    for (const prime of SMALL_PRIMES) {
      expect(rsaModulusFault(BigInt(prime) * LARGE_PRIME), String(prime)).to.match(
        new RegExp(`without small factors, and its modulus is divisible by ${prime}$`),
      );
    }
    expect(SMALL_PRIMES.at(-1)).to.equal(751);
    for (const prime of [757n, 761n, 65_537n]) {
      expect(rsaModulusFault(prime * LARGE_PRIME), String(prime)).to.equal(undefined);
    }
  });

  it('finds the fingerprint of Infineon chips in the residues modulo the primes up to 701', () => {
    const upTo = (limit: number): bigint =>
      SMALL_PRIMES.filter((prime) => prime <= limit).reduce((product, prime) => product * BigInt(prime), 1n);
    const isFingerprint = (modulus: bigint): boolean => rsaModulusFault(modulus)?.includes('ROCA') === true;
    const marked = 65_537n ** 5n;
    expect(isFingerprint(marked)).to.equal(true);
    // 709 and the greater primes do not count: 2 is no power of 65537 modulo 709.
    const other = range(1, 709).map((factor) => marked + BigInt(factor) * upTo(701));
    expect(other.filter((modulus) => modulus % 709n === 2n).map(isFingerprint)).to.deep.equal([true]);
    // The residues that one of the other primes has are no powers of 65537.
    for (const prime of [11, 37, 673, 677, 683, 691]) {
      const powers = new Set(
        range(0, prime).map((power) => Number(65_537n ** BigInt(power) % BigInt(prime))),
      );
      const unmarked = range(0, prime)
        .map((factor) => marked + BigInt(factor) * (upTo(701) / BigInt(prime)))
        .filter((modulus) => !powers.has(Number(modulus % BigInt(prime))) && modulus % BigInt(prime) !== 0n);
      expect(unmarked.length, String(prime)).to.be.greaterThan(0);
      expect(unmarked.some(isFingerprint), String(prime)).to.equal(false);
    }
  });

  it("finds factors that a hundred steps of Fermat's method find, and not the next ones", () => {
    // (a - b) (a + b), found in the step after so many others, with a close to 2^120.
    const cases: [steps: number, a: bigint, b: bigint, isFound: boolean][] = [
      [0, 107n, 1_152_921_504_606_846_976n, true],
      [1, 20n, 1_996_918_623_117_814_387n, true],
      [50, 17n, 11_586_717_722_214_367_606n, true],
      [98, 59n, 16_182_024_445_959_424_732n, true],
      [99, 14n, 16_263_959_270_767_934_959n, true],
      [100, 95n, 16_345_483_386_941_118_250n, false],
    ];
    for (const [steps, offset, b, isFound] of cases) {
      const a = 2n ** 120n + offset;
      const fault = rsaModulusFault((a - b) * (a + b));
      expect(fault?.includes('so close that they can be computed') === true, String(steps)).to.equal(isFound);
    }
    expect(rsaModulusFault(LARGE_PRIME ** 2n)).to.match(/so close that they can be computed$/);
  });
});

describe('the check of an Ed25519 point', () => {
  const FIELD = 2n ** 255n - 19n;
  const encoded = (y: bigint, sign = 0n): Buffer =>
    Buffer.from((y | (sign << 255n)).toString(16).padStart(64, '0'), 'hex').reverse();
  const NEED_NO_KEY = /signatures of this one need no private key$/;

  it('accepts points of large order, with either sign', () => {
    for (const hex of [
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
      '3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c',
      'fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025',
      '5866666666666666666666666666666666666666666666666666666666666666',
    ]) {
      const bytes = Buffer.from(hex, 'hex');
      expect(ed25519PointFault(bytes), hex).to.equal(undefined);
      bytes[31] = (bytes[31] ?? 0) ^ 0x80;
      expect(ed25519PointFault(bytes), hex).to.equal(undefined);
    }
  });

  it('refuses the points whose order divides 8, in every encoding', () => {
    const ofOrder8 =
      2_707_385_501_144_840_649_318_225_287_225_658_788_936_804_267_575_313_519_463_743_609_750_303_402_022n;
    const coordinates = [0n, 1n, FIELD - 1n, ofOrder8, FIELD - ofOrder8];
    // Coordinates that are not reduced modulo p.
    const others = [FIELD, FIELD + 1n];
    for (const y of [...coordinates, ...others]) {
      expect(ed25519PointFault(encoded(y)), String(y)).to.match(NEED_NO_KEY);
      expect(ed25519PointFault(encoded(y, 1n)), String(y)).to.match(NEED_NO_KEY);
    }
  });

  it('refuses coordinates that are on no point of the curve, or are not reduced', () => {
    const small = range(2, 19).map(BigInt);
    // By Euler's criterion: x² = (y² - 1) / (d y² + 1) has a root.
    const onCurve = [3n, 4n, 5n, 6n, 9n, 10n, 14n, 15n, 16n, 18n];
    expect(small.filter((y) => ed25519PointFault(encoded(y)) === undefined)).to.deep.equal(onCurve);
    for (const y of small) {
      expect(ed25519PointFault(encoded(FIELD + y)), String(y)).to.equal('must be a point on Ed25519');
    }
  });
});

describe('the list of public private keys', () => {
  const rsa = (n: string): object => ({ e: 'AQAB', kty: 'RSA', n });
  const p256 = (x: string, y: string): object => ({ crv: 'P-256', kty: 'EC', x, y });
  const ed25519 = (hex: string): object => ({
    crv: 'Ed25519',
    kty: 'OKP',
    x: Buffer.from(hex, 'hex').toString('base64url'),
  });
  const faultOf = (members: object): string | undefined =>
    knownKeyFault(createHash('sha256').update(JSON.stringify(members)).digest('base64url'));

  const printed: [source: string, key: object][] = [
    [
      'RFC 7515 appendix A.2',
      rsa(
        'ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ',
      ),
    ],
    [
      'RFC 7515 appendix A.3',
      p256('f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU', 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0'),
    ],
    [
      'RFC 7517 appendix A',
      rsa(
        '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw',
      ),
    ],
    [
      'RFC 7517 appendix A',
      p256('MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4', '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM'),
    ],
    [
      'RFC 7520 section 3.4',
      rsa(
        'n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw',
      ),
    ],
    ['RFC 8037 appendix A', ed25519('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')],
    ['RFC 8032 section 7.1', ed25519('3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c')],
    ['RFC 8032 section 7.1', ed25519('fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025')],
    [
      'jwt.io',
      rsa(
        'u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW_VDL5AaWTg0nLVkjRo9z-40RQzuVaE8AkAFmxZzow3x-VJYKdjykkJ0iT9wCS0DRTXu269V264Vf_3jvredZiKRkgwlL9xNAwxXFg0x_XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC-9aGVd-Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbcmw',
      ),
    ],
    [
      'jwt.io',
      p256('EVs_o5-uQbTjL3chynL4wXgUg2R9q9UU8I5mEovUf84', 'kGe5DgSIycKp8w9aJmoHhB1sB3QTugfnRWm5nU_TzsY'),
    ],
  ];
  for (const [index, [source, key]] of printed.entries()) {
    it(`contains example ${index + 1}, which is printed in ${source}`, () => {
      expect(faultOf(key)).to.equal(
        `must not be the example of ${source}, whose private key is printed there`,
      );
    });
  }

  it('contains the generators of P-256 and Ed25519, and their negatives', () => {
    const field = 2n ** 256n - 2n ** 224n + 2n ** 192n + 2n ** 96n - 1n;
    const number = (text: string): bigint => BigInt(`0x${Buffer.from(text, 'base64url').toString('hex')}`);
    const x = 'axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY';
    const y = 'T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU';
    const negative = Buffer.from((field - number(y)).toString(16).padStart(64, '0'), 'hex');
    const generators = [
      p256(x, y),
      p256(x, negative.toString('base64url')),
      ed25519(`58${'66'.repeat(31)}`),
      ed25519(`58${'66'.repeat(30)}e6`),
    ];
    for (const [index, key] of generators.entries()) {
      expect(faultOf(key), String(index)).to.match(/^must not be the generator of its curve/);
    }
  });

  it('contains no other key, and only the secret that is printed on jwt.io', () => {
    expect(faultOf(ed25519('00'.repeat(32)))).to.equal(undefined);
    expect(isPrintedSecret(Buffer.from('a-string-secret-at-least-256-bits-long'))).to.equal(true);
    expect(isPrintedSecret(Buffer.from('another-secret-of-at-least-256-bits-long'))).to.equal(false);
  });
});
