/**
 * Checks public keys. Every key that verifies signatures passes here first: keys of clients, members of key sets, and keys
 * that the issuer distributes.
 */

import {
  checkPrime,
  checkPrimeSync,
  createHash,
  createPublicKey,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';
import { promisify } from 'node:util';
import {
  RSA_BITS_MAX,
  RSA_BITS_MIN,
  RSA_EXPONENT_MAX,
  RSA_EXPONENT_MIN,
  type SIGNATURE_ALGORITHMS,
} from '../limits.js';
import type { JsonObject, JsonValue } from './strict-json.js';
import { ed25519PointFault, knownKeyFault, rsaModulusFault } from './weak-keys.js';

const isPrime = promisify(checkPrime);

/** An algorithm of signatures (RFC 7518 §3.1, RFC 8037 §3.1). */
export type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number];

/** A public key as it arrives: PEM text, or a JWK (RFC 7517 §4). */
export type PublicKeySource = { readonly pem: string } | { readonly jwk: JsonObject };

/** A public key that may verify signatures. */
export interface CheckedKey {
  readonly key: KeyObject;
  /** The algorithms that the key may verify. The key decides, never a token's header (RFC 8725 §3.1). */
  readonly algorithms: readonly SignatureAlgorithm[];
  /** The size of an RSA key, in bits; undefined for other keys, whose strength follows from the curve. */
  readonly rsaBits: number | undefined;
  /** The SHA-256 thumbprint (RFC 7638), in base64url. */
  readonly thumbprint: string;
}

/** Why a public key is refused. */
export interface KeyFault {
  /** What the key must be, without a subject: `must be …`. No final period. Contains no key. */
  readonly fault: string;
  /**
   * PURPOSE: a key for something other than these signatures. FORM: no public key of an accepted type. WEAK: signatures can
   * be made without its private key, or the private key can be computed or is known.
   */
  readonly kind: 'PURPOSE' | 'FORM' | 'WEAK';
}

/**
 * Checks a public key: its type, curve and size; its exponent and modulus, or its point; for a JWK also `use`, `key_ops`,
 * `alg`, and that it contains nothing private. A prime RSA modulus is found on the thread pool, in 5 to 200 ms.
 *
 * Not checked: lists of keys that became known one by one, such as those of Debian's OpenSSL (CVE-2008-0166), and factors
 * that the modulus has in common with other moduli.
 */
export async function checkPublicKey(source: PublicKeySource): Promise<CheckedKey | KeyFault> {
  const checked = checkCheaply(source);
  if ('fault' in checked || checked.modulus === undefined) return checked;
  const { modulus, ...key } = checked;
  return (await isPrime(modulus)) ? PRIME_MODULUS : key;
}

/** The same, on the caller's thread; for the start of a process. */
export function checkPublicKeySync(source: PublicKeySource): CheckedKey | KeyFault {
  const checked = checkCheaply(source);
  if ('fault' in checked || checked.modulus === undefined) return checked;
  const { modulus, ...key } = checked;
  return checkPrimeSync(modulus) ? PRIME_MODULUS : key;
}

/** With a prime modulus, the private exponent follows from the public one. */
const PRIME_MODULUS = weak('must have an RSA modulus of two primes, and its modulus is a prime');

/** A checked key; with its modulus if that may still be a prime. */
type CheaplyChecked = CheckedKey & { readonly modulus?: bigint };

function checkCheaply(source: PublicKeySource): CheaplyChecked | KeyFault {
  if ('jwk' in source) return checkJwk(source.jwk);
  if (source.pem.includes('PRIVATE KEY')) return form('must be a public key, not a private one');
  const key = imported(source.pem);
  return key === undefined ? form('must be a public key in PEM') : checkKey(key);
}

/** The private members of RSA, EC and OKP keys (RFC 7518 §6.2.2, §6.3.2; RFC 8037 §2). */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth'] as const;

function checkJwk(jwk: JsonObject): CheaplyChecked | KeyFault {
  const { kty, crv, x, y, n, e, use, alg, key_ops: operations } = jwk;
  if (kty === 'oct' || Object.hasOwn(jwk, 'k')) {
    return form('must be an asymmetric key: a symmetric one also signs, and must never be published');
  }
  if (PRIVATE_MEMBERS.some((name) => Object.hasOwn(jwk, name))) {
    return form('must contain the public members only: readers of a private member can sign');
  }
  if (use !== undefined && use !== 'sig') return purpose('must have the use sig (RFC 7517 §4.2)');
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) {
    return purpose('must have verify among its key_ops (RFC 7517 §4.3)');
  }
  const key = imported({ key: { kty, crv, x, y, n, e } as JsonWebKey, format: 'jwk' });
  const checked = key === undefined ? form('must be a valid public key as JWK') : checkKey(key);
  return 'fault' in checked ? checked : restrictedTo(alg, checked);
}

/** Restricts a key to the algorithm that its JWK names (RFC 7517 §4.4). */
function restrictedTo(alg: JsonValue | undefined, checked: CheaplyChecked): CheaplyChecked | KeyFault {
  // RFC 9864 gives the algorithm of Ed25519 a second name.
  const name = alg === 'Ed25519' ? 'EdDSA' : alg;
  const algorithms = checked.algorithms.filter((algorithm) => name === undefined || name === algorithm);
  if (algorithms.length > 0) return { ...checked, algorithms };
  return purpose(`must have the alg ${checked.algorithms.join(' or ')}, or none`);
}

function imported(key: Parameters<typeof createPublicKey>[0]): KeyObject | undefined {
  try {
    return createPublicKey(key);
  } catch {
    return undefined;
  }
}

const ACCEPTED_TYPES = `Ed25519, P-256, or RSA of ${RSA_BITS_MIN} to ${RSA_BITS_MAX} bits`;

function checkKey(key: KeyObject): CheaplyChecked | KeyFault {
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return checkEd25519(key);
    case 'ec':
      return checkP256(key);
    case 'rsa':
      return checkRsa(key);
    default:
      return form(`must be ${ACCEPTED_TYPES}`);
  }
}

function checkEd25519(key: KeyObject): CheaplyChecked | KeyFault {
  const { x = '' } = key.export({ format: 'jwk' });
  const fault = ed25519PointFault(Buffer.from(x, 'base64url'));
  if (fault !== undefined) return weak(fault);
  return unlessKnown({ crv: 'Ed25519', kty: 'OKP', x }, { key, algorithms: ['EdDSA'], rsaBits: undefined });
}

/** The start of every P-256 key as SubjectPublicKeyInfo (RFC 5480 §2), up to the point. */
const P256_POINTS: ReadonlySet<string> = new Set([
  // Uncompressed, compressed.
  '3059301306072a8648ce3d020106082a8648ce3d03010703420004',
  '3039301306072a8648ce3d020106082a8648ce3d03010703220002',
  '3039301306072a8648ce3d020106082a8648ce3d03010703220003',
]);
const P256_POINT_OFFSET = 27;

/**
 * Checks a key on P-256 by its encoding. OpenSSL imports only points on the curve, but also the point at infinity: with it
 * anyone can sign, and Node aborts the process when it is asked for the details or the JWK of that key.
 */
function checkP256(key: KeyObject): CheaplyChecked | KeyFault {
  let start: string;
  try {
    start = key.export({ type: 'spki', format: 'der' }).subarray(0, P256_POINT_OFFSET).toString('hex');
  } catch {
    return weak('must be a point on P-256 other than infinity');
  }
  if (!P256_POINTS.has(start)) return form(`must be ${ACCEPTED_TYPES}, with its curve by name`);
  const { x = '', y = '' } = key.export({ format: 'jwk' });
  return unlessKnown({ crv: 'P-256', kty: 'EC', x, y }, { key, algorithms: ['ES256'], rsaBits: undefined });
}

function checkRsa(key: KeyObject): CheaplyChecked | KeyFault {
  const { e = '', n = '' } = key.export({ format: 'jwk' });
  const [exponent, modulus] = [numberIn(e), numberIn(n)];
  const rsaBits = modulus.toString(2).length;
  if (rsaBits < RSA_BITS_MIN) return weak(`must be ${ACCEPTED_TYPES}, and has ${rsaBits} bits`);
  if (rsaBits > RSA_BITS_MAX) return form(`must be ${ACCEPTED_TYPES}, and has ${rsaBits} bits`);
  if (exponent < RSA_EXPONENT_MIN || exponent > RSA_EXPONENT_MAX || exponent % 2n === 0n) {
    const shown = exponent > RSA_EXPONENT_MAX ? 'a greater one' : String(exponent);
    return weak(
      `must have an odd RSA exponent from ${RSA_EXPONENT_MIN} to ${RSA_EXPONENT_MAX}, and has ${shown}`,
    );
  }
  const fault = rsaModulusFault(modulus);
  if (fault !== undefined) return weak(fault);
  const algorithms = ['RS256', 'PS256'] as const;
  const checked = unlessKnown({ e, kty: 'RSA', n }, { key, algorithms, rsaBits });
  return 'fault' in checked ? checked : { ...checked, modulus };
}

function numberIn(text: string): bigint {
  return BigInt(`0x0${Buffer.from(text, 'base64url').toString('hex')}`);
}

/** @param members - the members that RFC 7638 hashes, in its order */
function unlessKnown(
  members: Readonly<Record<string, string>>,
  checked: Omit<CheckedKey, 'thumbprint'>,
): CheckedKey | KeyFault {
  const thumbprint = createHash('sha256').update(JSON.stringify(members), 'utf8').digest('base64url');
  const fault = knownKeyFault(thumbprint);
  return fault === undefined ? { ...checked, thumbprint } : weak(fault);
}

function form(fault: string): KeyFault {
  return { fault, kind: 'FORM' };
}

function purpose(fault: string): KeyFault {
  return { fault, kind: 'PURPOSE' };
}

function weak(fault: string): KeyFault {
  return { fault, kind: 'WEAK' };
}
