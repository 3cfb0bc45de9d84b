/** The changes of an account that take effect on its present logins: another password, other roles, being disabled. */

import type { Receipt } from '../records/revocations.js';
import type { User } from '../records/users.js';
import { type ChangePasswordDeps, changePassword, type PasswordChange } from './change-password.js';
import { disableUser, enableUser } from './disable-user.js';
import { setRoles } from './set-roles.js';
import type { ChangedUser, UserChangeDeps, UserRequest } from './user-change.js';

/** The commands on accounts; each is documented where it is defined. */
export interface AccountChanges {
  changePassword(request: PasswordChange): Promise<Receipt>;
  setRoles(request: UserRequest & { readonly roles: readonly string[] }): Promise<ChangedUser>;
  disable(request: UserRequest): Promise<ChangedUser>;
  enable(request: UserRequest): Promise<User>;
}

interface AccountChangesDeps extends ChangePasswordDeps, UserChangeDeps {}

export function createAccountChanges(deps: AccountChangesDeps): AccountChanges {
  return {
    changePassword: (request) => changePassword(deps, request),
    setRoles: (request) => setRoles(deps, request),
    disable: (request) => disableUser(deps, request),
    enable: (request) => enableUser(deps, request),
  };
}
