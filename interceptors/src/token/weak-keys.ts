/**
 * Weaknesses that can be seen in a public key alone: with them, its signatures can be made without the private key, or the
 * private key can be computed. The arithmetic is on public numbers, so it need not run in constant time.
 */

/** RSA moduli have no smaller prime factor (NIST SP 800-89 §5.3.3). */
const FACTOR_MIN = 752;

/** The largest prime whose residues mark an Infineon key of 2048 bits or more (CVE-2017-15361). */
const ROCA_PRIME_MAX = 701;

/** Number of steps of Fermat's factorization that are tried. */
const FERMAT_STEPS = 100;

const SMALL_PRIMES = primesBelow(FACTOR_MIN);

/** The powers of 65537 modulo each small prime: the residues of every modulus that an affected Infineon chip made. */
const ROCA_RESIDUES = SMALL_PRIMES.map((prime) => powersOf(65537 % prime, prime));

/**
 * Finds a known weakness of an RSA modulus. Whether it is a prime is not checked here, because that takes milliseconds.
 *
 * Checked: factors below {@link FACTOR_MIN}; the fingerprint of Infineon's key generator (ROCA; an honest modulus has it with
 * probability 2^-167); two factors so close that Fermat's method finds them (CVE-2022-26320), equal ones included.
 *
 * @returns what the modulus must be and is not; undefined when nothing is found
 */
export function rsaModulusFault(modulus: bigint): string | undefined {
  const residues = SMALL_PRIMES.map((prime) => Number(modulus % BigInt(prime)));
  const divisor = SMALL_PRIMES[residues.indexOf(0)];
  if (divisor !== undefined) {
    return `must have an RSA modulus without small factors, and its modulus is divisible by ${divisor}`;
  }
  const isRoca = SMALL_PRIMES.every(
    (prime, index) => prime > ROCA_PRIME_MAX || ROCA_RESIDUES[index]?.has(residues[index] ?? 0) === true,
  );
  if (isRoca)
    return 'must not come from an Infineon chip with the weak key generator of CVE-2017-15361 (ROCA)';
  return hasCloseFactors(modulus)
    ? 'must have an RSA modulus of two primes that are far apart, and its primes are so close that they can be computed'
    : undefined;
}

/** Fermat's factorization: n = a² - b², where a is close to the root of n. */
function hasCloseFactors(modulus: bigint): boolean {
  let a = squareRoot(modulus);
  if (a * a < modulus) a += 1n;
  for (let step = 0; step < FERMAT_STEPS; step += 1, a += 1n) {
    if (isSquare(a * a - modulus)) return true;
  }
  return false;
}

/** The squares modulo 64. Three of four numbers are no squares because of their last bits alone. */
const SQUARES_64 = new Set(Array.from({ length: 64 }, (_, root) => (root * root) % 64));

function isSquare(value: bigint): boolean {
  if (!SQUARES_64.has(Number(value & 63n))) return false;
  const root = squareRoot(value);
  return root * root === value;
}

/** The largest integer whose square is not greater, by Newton's method from above. */
function squareRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let root = 1n << BigInt(value.toString(16).length * 2);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

function primesBelow(limit: number): readonly number[] {
  const primes: number[] = [];
  for (let number = 2; number < limit; number += 1) {
    if (primes.every((prime) => number % prime !== 0)) primes.push(number);
  }
  return primes;
}

function powersOf(base: number, modulus: number): ReadonlySet<number> {
  const powers = new Set<number>();
  for (let power = 1 % modulus; !powers.has(power); power = (power * base) % modulus) powers.add(power);
  return powers;
}

/** The field of Ed25519 (RFC 8032 §5.1). */
const P25519 = 2n ** 255n - 19n;
const D25519 = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;

/** One y coordinate of the points of order 8. The other one is its negative. */
const Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022n;

/** The y coordinates of the points whose order divides 8. */
const SMALL_ORDER_Y: ReadonlySet<bigint> = new Set([
  0n,
  1n,
  P25519 - 1n,
  Y_OF_ORDER_8,
  P25519 - Y_OF_ORDER_8,
]);

/**
 * Checks that the 32 bytes are a point of Ed25519 that can be a public key. Signatures of a point of small order can be
 * made for any message without a private key, and OpenSSL verifies them.
 *
 * @returns what the key must be and is not; undefined when it is good
 */
export function ed25519PointFault(bytes: Uint8Array): string | undefined {
  const encoded = BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`);
  // The highest bit is the sign of x.
  const y = encoded & ((1n << 255n) - 1n);
  if (SMALL_ORDER_Y.has(y % P25519)) {
    return 'must be a point of large order on Ed25519, and signatures of this one need no private key';
  }
  // RFC 8032 §5.1.3: y is below p, and x² = (y² - 1) / (d y² + 1) has a root.
  const square = (y * y) % P25519;
  const ratio = ((square - 1n) * (D25519 * square + 1n)) % P25519;
  const isOnCurve = y < P25519 && power(ratio, (P25519 - 1n) / 2n, P25519) === 1n;
  return isOnCurve ? undefined : 'must be a point on Ed25519';
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let square = base % modulus;
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

/** Keys whose private halves are printed in standards and manuals, by their thumbprints (RFC 7638). */
const PRINTED_KEYS: ReadonlyMap<string, string> = new Map([
  ['IsUn6_e04MaShXFIISMp4kG62LWzMIPy_MvSA5pJgX8', 'RFC 7515 appendix A.2'],
  ['oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U', 'RFC 7515 appendix A.3'],
  ['NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs', 'RFC 7517 appendix A'],
  ['cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s', 'RFC 7517 appendix A'],
  ['9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI', 'RFC 7520 section 3.4'],
  ['kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k', 'RFC 8037 appendix A'],
  ['FtIu-VbGrfe_KB6CH7GNwODB72MNxj_ml11dEvO-7kk', 'RFC 8032 section 7.1'],
  ['FVV5umTuau890q59V-4Ga_R6qWb7ON_ivJc4EjvCwTM', 'RFC 8032 section 7.1'],
  ['oGDmHqCJ7yzMkWEkrlZVHkvrHIyQwtlDmeq5ForUHeY', 'jwt.io'],
  ['19J8y7Zprt2-QKLjF2I5pVk0OELX6cY2AfaAv1LC_w8', 'jwt.io'],
]);

/** The generators of P-256 and Ed25519, and their negatives. */
const GENERATORS: ReadonlySet<string> = new Set([
  'xx0BcA-wMohw8atYDJOe6peGModklG2wRHBlXHMvl0M',
  'WUvr_3qhO1HgZwQzcjEwvNYMQct45rClzuRw4DNhrAA',
  'NjZaU2HGG-7yDNqBr1WPnI1xImaa2SB9j4kfKhS96S4',
  '_YWUfvNscv8tLVDEuIeXNMy39fKi98jt-s2t18abSJ4',
]);

/**
 * Whether the private key is public knowledge.
 *
 * @param thumbprint - the key's SHA-256 thumbprint (RFC 7638), in base64url
 * @returns what the key must not be; undefined when it is none of the known keys
 */
export function knownKeyFault(thumbprint: string): string | undefined {
  if (GENERATORS.has(thumbprint)) return 'must not be the generator of its curve, whose private key is 1';
  const source = PRINTED_KEYS.get(thumbprint);
  return source && `must not be the example of ${source}, whose private key is printed there`;
}

/** Whether a secret is the example of a manual. @param secret - the secret of a legacy issuer */
export function isPrintedSecret(secret: Uint8Array): boolean {
  // The example of jwt.io; its earlier ones are shorter than a secret may be.
  return Buffer.from(secret).toString('latin1') === 'a-string-secret-at-least-256-bits-long';
}
