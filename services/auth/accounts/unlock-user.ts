/** UnlockUser: clears the failed logins that are counted for a user's name. */

import type { User } from '../records/users.js';
import type { Throttle } from '../security/throttle.js';
import type { AuthStore } from '../transaction.js';
import { idempotentRequest, noSuchUser, parseUserId, type UserRequest } from './user-change.js';

export interface UnlockUserDeps {
  readonly store: AuthStore;
  readonly throttle: Pick<Throttle, 'nameKeyOf'>;
}

/**
 * Lets the user log in again from networks that are not known yet, until the name is guessed again. Each replica may repeat
 * a rejection for a second more. The limits of networks stay as they are.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED
 */
export async function unlockUser({ store, throttle }: UnlockUserDeps, request: UserRequest): Promise<User> {
  const { actor, network = '' } = request;
  const idempotent = idempotentRequest(request, { method: 'UnlockUser', payload: [] });
  const userId = parseUserId(request.userId);
  return await store.transaction((tx) =>
    tx.once(idempotent, async () => {
      const user = await tx.users.find(userId);
      if (user === undefined) throw noSuchUser();
      await tx.loginNetworks.clearFailures({ userId, nameKey: throttle.nameKeyOf(user.username) });
      await tx.events.record({
        type: 'account-unlocked',
        subject: { userId },
        actor,
        reason: 'failed logins cleared',
        network,
        requestId: request.requestId,
        details: {},
      });
      return user;
    }),
  );
}
