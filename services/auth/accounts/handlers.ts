/** The handlers of accounts: those of UserService, and those for passwords of AuthService. */

import { invalidField, principalOf, type ServiceHandlers } from '@portcullis/guard';
import type { AuthServiceService } from '../../../proto/gen/auth/v1/auth_service.js';
import {
  type User as UserMessage,
  type UserServiceService,
  UserState,
} from '../../../proto/gen/auth/v1/user_service.js';
import type { User } from '../records/users.js';
import type { AccountChanges } from './account-changes.js';
import { adminOf } from './admin.js';
import type { Users } from './users.js';

/** The methods of UserService that concern accounts. */
export function createUserHandlers({
  users,
  accountChanges,
}: {
  readonly users: Users;
  readonly accountChanges: AccountChanges;
}): Pick<
  ServiceHandlers<UserServiceService>,
  | 'createUser'
  | 'getUser'
  | 'listUsers'
  | 'setUserRoles'
  | 'disableUser'
  | 'enableUser'
  | 'resetPassword'
  | 'unlockUser'
  | 'deleteUser'
> {
  return {
    createUser: async (request, call) => {
      const user = await users.create({ ...request, ...adminOf(principalOf(call), call) });
      return { user: userMessageOf(user) };
    },
    getUser: async ({ userId, username }) => {
      if (userId !== '' && username !== '') {
        throw invalidField('username', 'must be empty when user_id is set');
      }
      const user = username === '' ? await users.get(userId) : await users.getByName(username);
      return { user: userMessageOf(user) };
    },
    listUsers: async (request, call) => {
      const { users: page, nextPageToken } = await users.list(request, principalOf(call).subject);
      return { users: page.map(userMessageOf), nextPageToken };
    },
    setUserRoles: async (request, call) => {
      const changed = await accountChanges.setRoles({ ...request, ...adminOf(principalOf(call), call) });
      return { ...changed, user: userMessageOf(changed.user) };
    },
    disableUser: async (request, call) => {
      const changed = await accountChanges.disable({ ...request, ...adminOf(principalOf(call), call) });
      return { ...changed, user: userMessageOf(changed.user) };
    },
    enableUser: async (request, call) => {
      const user = await accountChanges.enable({ ...request, ...adminOf(principalOf(call), call) });
      return { user: userMessageOf(user) };
    },
    resetPassword: (request, call) =>
      accountChanges.resetPassword({ ...request, ...adminOf(principalOf(call), call) }),
    unlockUser: async (request, call) => {
      const user = await accountChanges.unlock({ ...request, ...adminOf(principalOf(call), call) });
      return { user: userMessageOf(user) };
    },
    deleteUser: (request, call) => accountChanges.delete({ ...request, ...adminOf(principalOf(call), call) }),
  };
}

/** The methods of AuthService with which users set their own passwords. */
export function createPasswordHandlers({
  accountChanges,
}: {
  readonly accountChanges: Pick<AccountChanges, 'changePassword' | 'setPassword'>;
}): Pick<ServiceHandlers<AuthServiceService>, 'changePassword' | 'setPassword'> {
  return {
    changePassword: (request, call) =>
      accountChanges.changePassword({
        ...request,
        userId: principalOf(call).subject,
        peer: call.getPeer(),
      }),
    setPassword: (request, call) => accountChanges.setPassword({ ...request, peer: call.getPeer() }),
  };
}

function userMessageOf({ userId, username, roles, createTime, disabled }: User): UserMessage {
  const state = disabled ? UserState.USER_STATE_DISABLED : UserState.USER_STATE_ACTIVE;
  return { userId, username, roles: [...roles], createTime, state };
}
