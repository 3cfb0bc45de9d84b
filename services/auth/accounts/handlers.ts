/** The handlers of accounts: those of UserService, and ChangePassword of AuthService. */

import { principalOf, unary } from '@portcullis/guard';
import type { AuthServiceServer } from '../../../proto/gen/auth/v1/auth_service.js';
import {
  type User as UserMessage,
  type UserServiceServer,
  UserState,
} from '../../../proto/gen/auth/v1/user_service.js';
import type { User } from '../records/users.js';
import type { AccountChanges } from './account-changes.js';
import type { Users } from './users.js';

/** The methods of UserService that concern accounts. */
export function createUserHandlers({
  users,
  accountChanges,
}: {
  readonly users: Users;
  readonly accountChanges: AccountChanges;
}): Pick<
  UserServiceServer,
  'createUser' | 'getUser' | 'listUsers' | 'setUserRoles' | 'disableUser' | 'enableUser'
> {
  return {
    createUser: unary(async (request, call) => {
      const user = await users.create({ ...request, actor: principalOf(call).subject });
      return { user: userMessageOf(user) };
    }),
    getUser: unary(async ({ userId }) => ({ user: userMessageOf(await users.get(userId)) })),
    listUsers: unary(async (request) => {
      const { users: page, nextPageToken } = await users.list(request);
      return { users: page.map(userMessageOf), nextPageToken };
    }),
    setUserRoles: unary(async (request, call) => {
      const changed = await accountChanges.setRoles({ ...request, actor: principalOf(call).subject });
      return { ...changed, user: userMessageOf(changed.user) };
    }),
    disableUser: unary(async (request, call) => {
      const changed = await accountChanges.disable({ ...request, actor: principalOf(call).subject });
      return { ...changed, user: userMessageOf(changed.user) };
    }),
    enableUser: unary(async (request, call) => {
      const user = await accountChanges.enable({ ...request, actor: principalOf(call).subject });
      return { user: userMessageOf(user) };
    }),
  };
}

/** The method of AuthService that concerns the caller's own account. */
export function createPasswordHandlers({
  accountChanges,
}: {
  readonly accountChanges: Pick<AccountChanges, 'changePassword'>;
}): Pick<AuthServiceServer, 'changePassword'> {
  return {
    changePassword: unary((request, call) =>
      accountChanges.changePassword({
        ...request,
        userId: principalOf(call).subject,
        peer: call.getPeer(),
      }),
    ),
  };
}

function userMessageOf({ userId, username, roles, createTime, disabled }: User): UserMessage {
  const state = disabled ? UserState.USER_STATE_DISABLED : UserState.USER_STATE_ACTIVE;
  return { userId, username, roles: [...roles], createTime, state };
}
