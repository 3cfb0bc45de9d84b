/** The guard's own strict reading of access tokens, with keys that come from the database. */

import { KeyRing, parseCompactToken, parseJsonObject, readClaims } from '@portcullis/guard/internal';
import { ACCESS_TOKEN_TYPE } from '../keys/keys.js';
import type { PublishedKeys } from '../records/keys.js';
import type { VerifyToken } from '../tokens/tokens.js';

/**
 * A verifier of this issuer's tokens. It is as strict as the guard because it is the same code:
 * what no instance would take, auth must not trade or call good either.
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

/** Importing keys costs more than using one, and the set seldom changes: the last one is kept. */
function createRings(): (keySet: PublishedKeys['keySet']) => Promise<KeyRing> {
  let last: { version: Buffer; ring: Promise<KeyRing> } | undefined;
  return async ({ version, keys }) => {
    if (!last?.version.equals(version)) last = { version, ring: KeyRing.import(keys) };
    return await last.ring;
  };
}
