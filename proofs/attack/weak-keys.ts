/** Public keys for which signatures can be made without a private key, or whose private keys can be computed. */

import {
  checkPrimeSync,
  createHash,
  createPublicKey,
  generateKeyPairSync,
  generatePrimeSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto';

/** A public key as JWK. */
export interface WeakKey {
  readonly name: string;
  readonly algorithm: 'RS256' | 'EdDSA';
  readonly jwk: Readonly<Record<string, string>>;
  /** Signs without a private key, or with one that was computed; undefined where only the key is refused. */
  readonly sign: ((signed: Buffer) => Buffer) | undefined;
}

const BITS = 2048;

let made: readonly WeakKey[] | undefined;

/** All kinds of weak keys, made once: that takes a few seconds. */
export function weakKeys(): readonly WeakKey[] {
  made ??= makeWeakKeys();
  return made;
}

function makeWeakKeys(): WeakKey[] {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: BITS });
  const honest = modulusOf(publicKey);
  return [
    rsa('exponent 1', honest, 1n, (signed) => toBytes(paddedDigest(signed), BITS / 8)),
    rsa('exponent 2', honest, 2n),
    rsa('exponent 3', honest, 3n),
    rsa('even exponent', honest, 65_538n),
    rsa('exponent of 33 bits', honest, 2n ** 32n + 1n),
    ...factoredKeys(),
    rsa('1024 bits', modulusOf(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey), 65_537n),
    ...SMALL_ORDER_POINTS.map(smallOrderKey),
  ];
}

/** Moduli whose private exponents can be computed. */
function factoredKeys(): WeakKey[] {
  const prime = generatePrimeSync(BITS / 2, { bigint: true, safe: false });
  const neighbour = primeFrom(prime + 2n);
  const whole = generatePrimeSync(BITS, { bigint: true });
  const cofactor = generatePrimeSync(BITS - 2, { bigint: true });
  const [roca, otherRoca] = [rocaPrime(), rocaPrime()];
  return [
    rsa('prime modulus', whole, 65_537n, signWith(whole, whole - 1n)),
    rsa('divisible by 3', 3n * cofactor, 65_537n, signWith(3n * cofactor, 2n * (cofactor - 1n))),
    rsa('even modulus', 4n * cofactor, 65_537n),
    rsa(
      'close primes',
      prime * neighbour,
      65_537n,
      signWith(prime * neighbour, (prime - 1n) * (neighbour - 1n)),
    ),
    rsa('equal primes', prime * prime, 65_537n, signWith(prime * prime, prime * (prime - 1n))),
    rsa('ROCA', roca * otherRoca, 65_537n, signWith(roca * otherRoca, (roca - 1n) * (otherRoca - 1n))),
  ];
}

/** A prime as the Infineon library made it: k M + (65537^a mod M), where M is the product of the first 126 primes. */
function rocaPrime(): bigint {
  const product = firstPrimes(126).reduce((all, prime) => all * BigInt(prime), 1n);
  for (;;) {
    const random = (bytes: number): bigint => BigInt(`0x${randomBytes(bytes).toString('hex')}`);
    const bits = BITS / 2 - product.toString(2).length;
    const k = (1n << BigInt(bits)) | random(Math.floor(bits / 8));
    const candidate = k * product + power(65_537n, random(8), product);
    if (candidate.toString(2).length === BITS / 2 && checkPrimeSync(candidate)) return candidate;
  }
}

function primeFrom(start: bigint): bigint {
  for (let candidate = start | 1n; ; candidate += 2n) if (checkPrimeSync(candidate)) return candidate;
}

function firstPrimes(count: number): number[] {
  const primes: number[] = [];
  for (let number = 2; primes.length < count; number += 1) {
    if (primes.every((prime) => number % prime !== 0)) primes.push(number);
  }
  return primes;
}

function rsa(name: string, n: bigint, e: bigint, signer?: WeakKey['sign']): WeakKey {
  return {
    name: `RSA, ${name}`,
    algorithm: 'RS256',
    jwk: { kty: 'RSA', n: numberText(n), e: numberText(e) },
    sign: signer,
  };
}

/** Signs with the private exponent that follows from the factors. */
function signWith(modulus: bigint, phi: bigint): (signed: Buffer) => Buffer {
  return (signed) => toBytes(power(paddedDigest(signed), inverse(65_537n, phi), modulus), BITS / 8);
}

/** EMSA-PKCS1-v1_5 of the SHA-256 digest (RFC 8017 §9.2), as a number. */
function paddedDigest(signed: Buffer): bigint {
  const info = Buffer.from('3031300d060960864801650304020105000420', 'hex');
  const digest = Buffer.concat([info, createHash('sha256').update(signed).digest()]);
  const padding = Buffer.alloc(BITS / 8 - digest.length - 3, 0xff);
  return BigInt(`0x0001${padding.toString('hex')}00${digest.toString('hex')}`);
}

/** The eight points of Ed25519 whose order divides 8. */
const SMALL_ORDER_POINTS = [
  '0100000000000000000000000000000000000000000000000000000000000000',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0000000000000000000000000000000000000000000000000000000000000080',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
];

/** The signature R = identity, S = 0 is right whenever the hash is divisible by the order of the point. */
function smallOrderKey(point: string, index: number): WeakKey {
  return {
    name: `Ed25519, point of small order ${index}`,
    algorithm: 'EdDSA',
    jwk: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(point, 'hex').toString('base64url') },
    sign: () => Buffer.concat([Buffer.from(SMALL_ORDER_POINTS[0] ?? '', 'hex'), Buffer.alloc(32)]),
  };
}

/**
 * The point at infinity as a key on P-256. Only PEM can express it. Node aborts the process when it is asked for the
 * details of such a key.
 */
export function infinityPem(): string {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = publicKey.export({ type: 'spki', format: 'der' }).subarray(2, 23);
  const point = Buffer.from('03020000', 'hex');
  const der = Buffer.concat([Buffer.from([0x30, algorithm.length + point.length]), algorithm, point]);
  return `-----BEGIN PUBLIC KEY-----\n${der.toString('base64')}\n-----END PUBLIC KEY-----\n`;
}

/** The PEM of a JWK. */
export function pemOf(jwk: Readonly<Record<string, string>>): string {
  return createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' }).toString();
}

function modulusOf(key: KeyObject): bigint {
  return BigInt(`0x${Buffer.from(key.export({ format: 'jwk' }).n ?? '', 'base64url').toString('hex')}`);
}

function numberText(number: bigint): string {
  const hex = number.toString(16);
  return Buffer.from(hex.padStart(hex.length + (hex.length % 2), '0'), 'hex').toString('base64url');
}

function toBytes(number: bigint, length: number): Buffer {
  return Buffer.from(number.toString(16).padStart(length * 2, '0'), 'hex');
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let [result, square] = [1n, base % modulus];
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

/** The inverse by Euclid's algorithm. */
function inverse(number: bigint, modulus: bigint): bigint {
  let [a, b, x, y] = [number, modulus, 1n, 0n];
  while (b > 0n) [a, b, x, y] = [b, a % b, y, x - (a / b) * y];
  return ((x % modulus) + modulus) % modulus;
}
