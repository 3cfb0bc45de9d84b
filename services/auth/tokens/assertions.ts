/** Assertions with which clients authenticate (RFC 7523): their form, their signature and their claims. */

import { CLOCK_SKEW_SECONDS } from '@portcullis/guard/limits';
import { type CompactJWSHeaderParameters, compactVerify, decodeJwt, decodeProtectedHeader } from 'jose';
import { type ClientFault, type ClientFaultName, clientFault } from './client-faults.js';

/** Maximum time until an assertion expires, in seconds. Its `jti` is remembered for that long. */
export const ASSERTION_SECONDS_MAX = 300;

/** Maximum length of an assertion, in characters. */
const ASSERTION_LENGTH_MAX = 4096;

/** Maximum length of an assertion's `jti`, in characters. */
const ASSERTION_JTI_LENGTH_MAX = 128;

/** A key that verifies assertions. */
interface AssertionKey {
  readonly key: Parameters<typeof compactVerify>[1];
  readonly algorithms: readonly string[];
}

/** The claims of an assertion, before their values are checked. */
export type AssertionClaims = Readonly<Record<string, unknown>>;

/**
 * What is wrong with the form of an assertion; undefined when its signature is worth verifying. Neither the database nor
 * a key is needed, so a malformed assertion costs next to nothing.
 */
export function assertionFormFault(assertion: string, clientId: string): ClientFaultName | undefined {
  if (assertion.length > ASSERTION_LENGTH_MAX) return 'malformed';
  let header: CompactJWSHeaderParameters;
  let claims: AssertionClaims;
  try {
    header = decodeProtectedHeader(assertion) as CompactJWSHeaderParameters;
    claims = decodeJwt(assertion);
  } catch {
    return 'malformed';
  }
  if (header.crit !== undefined) return 'malformed';
  if (!isAssertionType(header.typ)) return 'typ';
  if (claims['iss'] !== clientId) return 'iss';
  return claims['sub'] === clientId ? undefined : 'sub';
}

/** The claims of an assertion whose signature the key verifies; undefined when it does not. */
export async function verifyAssertionSignature(
  assertion: string,
  { key, algorithms }: AssertionKey,
): Promise<AssertionClaims | undefined> {
  try {
    const { payload } = await compactVerify(assertion, key, { algorithms: [...algorithms] });
    return JSON.parse(new TextDecoder().decode(payload)) as AssertionClaims;
  } catch {
    return undefined;
  }
}

/**
 * Checks the claims of a verified assertion: RFC 7523 §3, with the stricter choice where it leaves one.
 *
 * @param issuer - the only valid audience
 */
export function checkAssertionClaims(
  { aud, exp, iat, nbf, jti }: AssertionClaims,
  issuer: string,
  nowSeconds: number,
): { readonly jti: string; readonly exp: number } | ClientFault {
  // Any of several audiences could present the assertion here (RFC 7523bis).
  const audience = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  if (audience !== issuer) return clientFault('aud');
  if (typeof jti !== 'string' || jti === '' || jti.length > ASSERTION_JTI_LENGTH_MAX)
    return clientFault('jti');
  if (!isTime(exp)) return clientFault('exp');
  if (exp <= nowSeconds - CLOCK_SKEW_SECONDS) return clientFault('exp', nowSeconds - exp);
  for (const begin of [iat, nbf]) {
    if (begin === undefined) continue;
    if (!isTime(begin)) return clientFault('malformed');
    if (begin > nowSeconds + CLOCK_SKEW_SECONDS) return clientFault('clock', begin - nowSeconds);
  }
  const latest = nowSeconds + ASSERTION_SECONDS_MAX + CLOCK_SKEW_SECONDS;
  return exp > latest ? clientFault('lifetime', exp - nowSeconds) : { jti, exp };
}

function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

/** A token of another type that the same key signed is no assertion (RFC 8725 §3.11). */
function isAssertionType(type: unknown): boolean {
  if (type === undefined) return true;
  if (typeof type !== 'string') return false;
  // Without a slash, `application/` belongs before it (RFC 7515 §4.1.9).
  const name = type.toLowerCase().replace(/^application\/(?=[^/]*$)/, '');
  return name === 'jwt' || name === 'client-authentication+jwt';
}
