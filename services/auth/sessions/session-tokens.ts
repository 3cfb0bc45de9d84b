/** Access tokens of a session. */

import { audiencesOfScopes, rolesWithin, scopesOfRoles } from '../accounts/roles.js';
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
 * Mints an access token for a session whose user, session and client rows are locked. The user's roles, and what they grant,
 * may have been reduced since the login, so the token gets only those of the session's scopes that the roles still grant,
 * and only the roles of which it has all scopes.
 */
export async function mintSessionToken(
  tokens: Tokens,
  tx: AuthTransaction,
  session: Session,
  user: UserState,
): Promise<MintedToken> {
  const policy = await tx.policy.current();
  const granted = scopesOfRoles(policy, user.roles);
  const reachable = audiencesOfScopes(policy, granted);
  const audiences = session.audiences.filter((audience) => reachable.includes(audience));
  const scopes = session.scopes.filter((scope) => granted.includes(scope));
  return await tokens.mint(tx, {
    subject: user.userId,
    clientId: session.clientId,
    audiences,
    scopes,
    roles: rolesWithin(policy, user.roles, { scopes, audiences }),
    clients: [[session.clientId, session.clientGeneration]],
    session: { ...session, authTime: session.createTime },
    notAfter: session.expireTime,
    certificateThumbprint: session.certificateThumbprint,
  });
}
