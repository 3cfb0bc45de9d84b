/** DisableUser and EnableUser: whether a user may log in. */

import { parseRequestId } from '../../common/validation/request-id.js';
import type { User } from '../records/users.js';
import { checkReason } from '../revocation/log.js';
import {
  type ChangedUser,
  changeUser,
  noSuchUser,
  parseUserId,
  type UserChangeDeps,
  type UserRequest,
} from './user-change.js';

/**
 * Prevents a user from logging in, ends the user's sessions and voids a reset token.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED, LAST_ADMIN
 */
export async function disableUser(
  deps: UserChangeDeps,
  request: UserRequest & { readonly reason?: string },
): Promise<ChangedUser> {
  checkReason(request.reason ?? '');
  const reason = request.reason || 'user disabled';
  return await changeUser(deps, request, {
    method: 'DisableUser',
    reason,
    // Without a reason, the payload is that of the versions that knew none: their answers are stored for seven days.
    payload: request.reason ? [request.reason] : [],
    endsAdmin: true,
    apply: async (tx, userId) => {
      await tx.users.setDisabled(userId, true);
      await tx.passwordResets.deleteOfUser(userId);
      await tx.sessions.endAllOfUser(userId, 'USER_DISABLED');
      await tx.events.record({
        type: 'account-disabled',
        subject: { userId },
        actor: request.actor,
        reason,
        network: request.network ?? '',
        requestId: request.requestId,
        details: {},
      });
    },
  });
}

/**
 * Allows a user to log in again. It revokes nothing, so it appends nothing to the revocation log.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function enableUser(
  { store }: Pick<UserChangeDeps, 'store'>,
  request: UserRequest,
): Promise<User> {
  const { actor, network = '' } = request;
  const requestId = parseRequestId(request.requestId);
  const userId = parseUserId(request.userId);
  return await store.transaction((tx) =>
    tx.once({ subject: actor, method: 'EnableUser', requestId, payload: userId }, async () => {
      await tx.users.setDisabled(userId, false);
      await tx.events.record({
        type: 'account-enabled',
        subject: { userId },
        actor,
        reason: 'user enabled',
        network,
        requestId,
        details: {},
      });
      const user = await tx.users.find(userId);
      if (user === undefined) throw noSuchUser();
      return user;
    }),
  );
}
