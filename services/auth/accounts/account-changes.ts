/** The changes of an existing account: password, roles, being disabled, unlocked or deleted. */

import type { Receipt } from '../records/revocations.js';
import type { User } from '../records/users.js';
import { type ChangePasswordDeps, changePassword, type PasswordChange } from './change-password.js';
import { deleteUser } from './delete-user.js';
import { disableUser, enableUser } from './disable-user.js';
import { type RecoveredAdmin, recoverAdmin } from './recover-admin.js';
import {
  createSetPassword,
  type IssuedReset,
  type PasswordSetting,
  type ResetPasswordDeps,
  resetPassword,
} from './reset-password.js';
import { setRoles } from './set-roles.js';
import { type UnlockUserDeps, unlockUser } from './unlock-user.js';
import type { ChangedUser, UserChangeDeps, UserRequest } from './user-change.js';

/** The commands on accounts; each is documented where it is defined. */
export interface AccountChanges {
  changePassword(request: PasswordChange): Promise<Receipt>;
  resetPassword(request: UserRequest & { readonly reason: string }): Promise<IssuedReset>;
  setPassword(request: PasswordSetting): Promise<Receipt>;
  recoverAdmin(username: string): Promise<RecoveredAdmin | undefined>;
  setRoles(request: UserRequest & { readonly roles: readonly string[] }): Promise<ChangedUser>;
  disable(request: UserRequest & { readonly reason?: string }): Promise<ChangedUser>;
  enable(request: UserRequest): Promise<User>;
  unlock(request: UserRequest): Promise<User>;
  delete(request: UserRequest & { readonly reason: string }): Promise<Receipt>;
}

type AccountChangesDeps = ChangePasswordDeps & ResetPasswordDeps & UnlockUserDeps & UserChangeDeps;

export function createAccountChanges(deps: AccountChangesDeps): AccountChanges {
  return {
    changePassword: (request) => changePassword(deps, request),
    resetPassword: (request) => resetPassword(deps, request),
    setPassword: createSetPassword(deps),
    recoverAdmin: (username) => recoverAdmin(deps, username),
    setRoles: (request) => setRoles(deps, request),
    disable: (request) => disableUser(deps, request),
    enable: (request) => enableUser(deps, request),
    unlock: (request) => unlockUser(deps, request),
    delete: (request) => deleteUser(deps, request),
  };
}
