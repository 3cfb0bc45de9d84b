/** The names of claims by which tokens of other issuers can be revoked, as the protocol has them. */

import { createHash } from 'node:crypto';
import { ID_BYTES } from '../limits.js';
import type { ClaimName } from './foreign-claims.js';

/** In place of a claim: the issuer is trusted. As a JSON Pointer it is the whole payload, which no configuration names. */
export const TRUSTED = '';

/** The JSON Pointer of a claim (RFC 6901). */
export function pointerOf(name: ClaimName): string {
  const names = typeof name === 'string' ? [name] : name;
  return names.map((member) => `/${member.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}

/**
 * What stands for a claim in `SyncRequest.claim_ids`: issuers and claims may have long names, and every request has all of
 * them.
 */
export function claimIdOf(issuer: string, pointer: string): Buffer {
  return createHash('sha256').update(`${issuer}\0${pointer}`, 'utf8').digest().subarray(0, ID_BYTES);
}
