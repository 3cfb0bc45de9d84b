/** Access tokens of a session. */

import { audiencesOfScopes, scopesOfRoles } from '../accounts/roles.js';
import type { Session } from '../records/sessions.js';
import type { UserState } from '../records/users.js';
import type { MintedToken, Tokens } from '../tokens/tokens.js';
import type { AuthTransaction } from '../transaction.js';

/** The tokens with which a user stays logged in. */
export interface TokenPair {
  readonly access: MintedToken;
  readonly refreshToken: string;
  readonly refreshTokenExpireTime: Date;
}

/**
 * Mints an access token for a session whose user, session and client rows are locked. The user's roles may have been
 * reduced since the login, so the token gets only those of the session's scopes that the roles still grant.
 */
export function mintSessionToken(
  tokens: Tokens,
  tx: AuthTransaction,
  session: Session,
  user: UserState,
): Promise<MintedToken> {
  const granted = scopesOfRoles(user.roles);
  const reachable = audiencesOfScopes(granted);
  return tokens.mint(tx, {
    subject: user.userId,
    clientId: session.clientId,
    audiences: session.audiences.filter((audience) => reachable.includes(audience)),
    scopes: session.scopes.filter((scope) => granted.includes(scope)),
    roles: user.roles,
    clients: [[session.clientId, session.clientGeneration]],
    session: { ...session, authTime: session.createTime },
    notAfter: session.expireTime,
    certificateThumbprint: session.certificateThumbprint,
  });
}
