/** SetUserRoles: replaces a user's roles. */

import { ADMIN_ROLE, audiencesOfScopes, parseRoles, requireKnownRoles, scopesOfRoles } from './roles.js';
import { type ChangedUser, changeUser, type UserChangeDeps, type UserRequest } from './user-change.js';

/**
 * Gives the user exactly these roles. The user's sessions continue, with at most the scopes that they had.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED, LAST_ADMIN
 */
export async function setRoles(
  deps: UserChangeDeps,
  request: UserRequest & { readonly roles: readonly string[] },
): Promise<ChangedUser> {
  const roles = parseRoles(request.roles);
  const reason = 'roles changed';
  return await changeUser(deps, request, {
    method: 'SetUserRoles',
    reason,
    payload: [roles],
    endsAdmin: !roles.includes(ADMIN_ROLE),
    apply: async (tx, userId, generation) => {
      const policy = await tx.policy.current();
      requireKnownRoles(policy, request.roles);
      const scopes = scopesOfRoles(policy, roles);
      await tx.users.setRoles(userId, roles);
      await tx.events.record({
        type: 'token-claims-change',
        subject: { userId },
        actor: request.actor,
        reason,
        network: request.network ?? '',
        requestId: request.requestId,
        details: { roles },
      });
      await tx.sessions.restamp(userId, {
        from: generation - 1n,
        to: generation,
        scopes,
        audiences: audiencesOfScopes(policy, scopes),
      });
    },
  });
}
