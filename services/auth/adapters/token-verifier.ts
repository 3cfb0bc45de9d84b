/** Verification of access tokens as the guard does it, with keys from the database. */

import { KeyRing, parseCompactToken, parseJsonObject, readClaims } from '@portcullis/guard/internal';
import { ACCESS_TOKEN_TYPE } from '@portcullis/guard/limits';
import type { PublishedKeys } from '../records/keys.js';
import type { VerifyToken } from '../tokens/tokens.js';

/**
 * Verifies this issuer's tokens with the guard's code. Auth must not exchange, or call active, a token that every
 * instance would reject.
 */
export function createTokenVerifier(issuer: string): VerifyToken {
  const ringOf = createRings();
  return async (text, keySet, { audience, nowSeconds }) => {
    const token = parseCompactToken(text, ACCESS_TOKEN_TYPE);
    if (token === undefined || !(await (await ringOf(keySet)).verify(token))) return undefined;
    const payload = parseJsonObject(token.payload);
    const claims = payload && readClaims(payload, token.keyId, { issuer, audience, nowSeconds });
    return claims === undefined || 'fault' in claims ? undefined : claims;
  };
}

/** Caches the last key set, because importing keys costs more than verifying with one, and the set rarely changes. */
function createRings(): (keySet: PublishedKeys['keySet']) => Promise<KeyRing> {
  let last: { version: Buffer; ring: Promise<KeyRing> } | undefined;
  return async ({ version, keys }) => {
    if (!last?.version.equals(version)) last = { version, ring: KeyRing.import(keys) };
    return await last.ring;
  };
}
