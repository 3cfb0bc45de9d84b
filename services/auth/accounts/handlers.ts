/** The handlers of accounts: those of UserService, and those for passwords of AuthService. */

import type { ServerUnaryCall } from '@grpc/grpc-js';
import { principalOf, type ServiceHandlers } from '@portcullis/guard';
import { networkOfPeer } from '@portcullis/guard/networks';
import type { AuthServiceService } from '../../../proto/gen/auth/v1/auth_service.js';
import {
  type User as UserMessage,
  type UserServiceService,
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
      const user = await users.create({ ...request, actor: principalOf(call).subject });
      return { user: userMessageOf(user) };
    },
    getUser: async ({ userId }) => ({ user: userMessageOf(await users.get(userId)) }),
    listUsers: async (request, call) => {
      const { users: page, nextPageToken } = await users.list(request, principalOf(call).subject);
      return { users: page.map(userMessageOf), nextPageToken };
    },
    setUserRoles: async (request, call) => {
      const changed = await accountChanges.setRoles({ ...request, ...adminOf(call) });
      return { ...changed, user: userMessageOf(changed.user) };
    },
    disableUser: async (request, call) => {
      const changed = await accountChanges.disable({ ...request, ...adminOf(call) });
      return { ...changed, user: userMessageOf(changed.user) };
    },
    enableUser: async (request, call) => {
      const user = await accountChanges.enable({ ...request, ...adminOf(call) });
      return { user: userMessageOf(user) };
    },
    resetPassword: (request, call) => accountChanges.resetPassword({ ...request, ...adminOf(call) }),
    unlockUser: async (request, call) => {
      const user = await accountChanges.unlock({ ...request, ...adminOf(call) });
      return { user: userMessageOf(user) };
    },
    deleteUser: (request, call) => accountChanges.delete({ ...request, ...adminOf(call) }),
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

function adminOf<Request, Response>(
  call: ServerUnaryCall<Request, Response>,
): { readonly actor: string; readonly network: string } {
  return { actor: principalOf(call).subject, network: networkOfPeer(call.getPeer()) };
}

function userMessageOf({ userId, username, roles, createTime, disabled }: User): UserMessage {
  const state = disabled ? UserState.USER_STATE_DISABLED : UserState.USER_STATE_ACTIVE;
  return { userId, username, roles: [...roles], createTime, state };
}
