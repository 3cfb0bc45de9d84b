/** The way back for a system without an administrator: an operator at the database makes a user one. */

import type { Subject } from '../records/security-events.js';
import type { AuthTransaction } from '../transaction.js';
import { createReset, type IssuedReset, type ResetPasswordDeps } from './reset-password.js';
import { ADMIN_ROLE } from './roles.js';
import { parseUsername } from './usernames.js';

/** A user who is an administrator now, and the token with which the user sets a password. */
export interface RecoveredAdmin extends IssuedReset {
  readonly userId: string;
}

/**
 * Enables the user, adds the role admin and creates a reset token. It revokes nothing: earlier tokens of the user keep
 * their rights.
 *
 * @returns undefined when there is no such user
 */
export async function recoverAdmin(
  deps: Pick<ResetPasswordDeps, 'store' | 'resetKey' | 'resetSeconds'>,
  name: string,
): Promise<RecoveredAdmin | undefined> {
  const username = parseUsername(name);
  if (username === undefined) return undefined;
  return await deps.store.transaction(async (tx) => {
    const credentials = await tx.users.credentialsByName(username);
    if (credentials === undefined || !(await tx.users.lock(credentials.userId))) return undefined;
    const { userId } = credentials;
    await makeAdmin(tx, userId);
    return { userId, ...(await createReset(deps, tx, { userId, ...BY_OPERATOR })) };
  });
}

const BY_OPERATOR = { actor: 'operator', reason: 'administrator recovered', network: '' } as const;

async function makeAdmin(tx: AuthTransaction, userId: string): Promise<void> {
  const user = await tx.users.find(userId);
  const subject: Subject = { userId };
  if (user?.disabled) {
    await tx.users.setDisabled(userId, false);
    await tx.events.record({ ...BY_OPERATOR, type: 'account-enabled', subject, details: {} });
  }
  const former = user?.roles ?? [];
  if (former.includes(ADMIN_ROLE)) return;
  const roles = [...former, ADMIN_ROLE].sort();
  await tx.users.setRoles(userId, roles);
  await tx.events.record({ ...BY_OPERATOR, type: 'token-claims-change', subject, details: { roles } });
}
