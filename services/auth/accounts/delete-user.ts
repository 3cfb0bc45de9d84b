/** DeleteUser: an administrator deletes a user for good. */

import type { Receipt } from '../records/revocations.js';
import { checkReason } from '../revocation/log.js';
import { changeAndRevoke } from '../revocation/revoking-change.js';
import { applyUserChange, idempotentRequest, type UserChangeDeps, type UserRequest } from './user-change.js';

/**
 * Deletes a user: erases password, roles, known networks and a reset token, ends the sessions, and revokes all tokens. Id
 * and name stay taken. Records that name the user by id, such as security events and payments, stay as they are.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED, LAST_ADMIN
 */
export async function deleteUser(
  deps: UserChangeDeps,
  request: UserRequest & { readonly reason: string },
): Promise<Receipt> {
  checkReason(request.reason);
  const { actor, network = '' } = request;
  const reason = request.reason || 'user deleted';
  const idempotent = idempotentRequest(request, { method: 'DeleteUser', payload: [request.reason] });
  return await changeAndRevoke(deps, idempotent, async (tx) => {
    const { entry } = await applyUserChange(tx, request, {
      reason,
      endsAdmin: true,
      apply: async (_, userId) => {
        await tx.users.delete(userId);
        await tx.passwordResets.deleteOfUser(userId);
        await tx.loginNetworks.deleteAllOfUser(userId);
        await tx.sessions.endAllOfUser(userId, 'USER_DELETED');
        await tx.events.record({
          type: 'account-purged',
          subject: { userId },
          actor,
          reason,
          network,
          requestId: request.requestId,
          details: {},
        });
      },
    });
    return { result: {}, entry };
  });
}
