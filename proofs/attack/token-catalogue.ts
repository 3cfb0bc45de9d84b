/** Tokens that are each wrong in one way: failures that token libraries have had. */

import { claimTypes, issuersAndAudiences, jsonTricks, times } from './bad-claims.js';
import { algorithms, headers, keyIds, ownKeys, publicKeyAsSecret } from './bad-headers.js';
import { otherKinds, signatures, spellings } from './bad-signatures.js';
import type { BadToken, TokenMaterial } from './bad-token.js';

export function badTokens(material: TokenMaterial): BadToken[] {
  return [
    ...algorithms(material),
    ...publicKeyAsSecret(material),
    ...ownKeys(material),
    ...headers(material),
    ...keyIds(material),
    ...signatures(material),
    ...spellings(material),
    ...claimTypes(material),
    ...issuersAndAudiences(material),
    ...times(material),
    ...jsonTricks(material),
    ...otherKinds(material),
  ];
}
