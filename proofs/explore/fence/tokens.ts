/** The tokens of the calls, and the entries that revoke them. */

import type { Feed } from '@portcullis/guard/internal';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { entryIdOf } from '../identifiers.js';

const OTHER_ISSUER = 'https://other.example';

/** Tokens of another issuer, because they outlive an epoch. */
export function entryOf(token: number, index: number) {
  return {
    entryId: entryIdOf(index + 1),
    sequence: BigInt(index + 1),
    kind: EntryKind.ENTRY_KIND_TOKEN,
    key: Buffer.from(tokenName(token)),
    minGeneration: 0n,
    keepUntil: new Date(1e12),
    acknowledge: false,
    issuer: OTHER_ISSUER,
    claim: '',
    cutOffTime: undefined,
  };
}

export function claimsOf(token: number): Parameters<Feed['list']['revokes']>[0] {
  return {
    issuer: OTHER_ISSUER,
    id: 'someone',
    subject: 'someone',
    clientId: 'direct',
    tokenId: tokenName(token),
    sessionId: undefined,
    kind: 'USER',
    scopes: new Set(),
    roles: new Set(),
    audiences: [],
    actors: [],
    authTimeSeconds: undefined,
    expiresAtSeconds: 1e9,
    generation: undefined,
    clients: [],
    ancestors: [],
    origin: undefined,
    issuedAtSeconds: 0,
    keyId: '',
    certificateThumbprint: undefined,
    isForeign: true,
  };
}

function tokenName(token: number): string {
  return `token-${token + 1}`;
}
