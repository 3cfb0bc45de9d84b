/** ChangePassword: users change their own password. */

import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { parseUuid } from '../../common/validation/identifiers.js';
import { AuthError } from '../errors.js';
import type { Appended, Receipt } from '../records/revocations.js';
import type { UserCredentials } from '../records/users.js';
import { userRevocation } from '../revocation/log.js';
import { receiptOf } from '../revocation/revoking-change.js';
import type { Throttle } from '../security/throttle.js';
import type { LoginFailures } from '../sessions/login-failures.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { type Passwords, passwordFault } from './passwords.js';

/** A user's request to change the password. */
export interface PasswordChange {
  readonly userId: string;
  readonly oldPassword: string;
  readonly newPassword: string;
  /** The peer's address. */
  readonly peer: string;
}

export interface ChangePasswordDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** The throttle of the logins: a stolen token must not give an attacker further guesses. */
  readonly throttle: Throttle;
  readonly clock: Clock;
  readonly failures: LoginFailures;
}

/**
 * Changes the password, ends the user's sessions, voids a reset token, and clears the list of networks that the user has
 * logged in from. A wrong old password counts as a failed login.
 *
 * @throws ServiceError FIELD_INVALID; LOGIN_FAILED when the old password is wrong; RATE_LIMITED
 */
export async function changePassword(deps: ChangePasswordDeps, request: PasswordChange): Promise<Receipt> {
  const { store, passwords, clock } = deps;
  const fault = passwordFault(request.newPassword);
  if (fault !== undefined) throw invalidField('new_password', fault);
  const { credentials, networkKey } = await verifyOldPassword(deps, request);
  const passwordHash = await passwords.hash(request.newPassword);
  let startedMs = 0;
  const { userId } = credentials;
  const appended = await store.transaction(
    async (tx) => {
      // The password was verified without a lock, so a revocation or a password change since then counts.
      const generation = await tx.users.changePassword(credentials, passwordHash);
      if (generation === undefined) return undefined;
      await endFormerLogins(tx, { userId, networkKey, peer: request.peer });
      startedMs = clock.monotonicMs();
      return await appendRevocation(tx, userId, generation);
    },
    { contends: [`user ${userId}`], caller: userId },
  );
  if (appended === undefined) throw oldPasswordWrong();
  // Nothing may be awaited between the commit and the response: the change revokes the token of this very call.
  return receiptOf(appended, clock.monotonicMs() - startedMs);
}

/** Verifies the old password under the limits of the logins. */
async function verifyOldPassword(
  { store, passwords, throttle, failures }: ChangePasswordDeps,
  { userId: text, oldPassword, peer }: PasswordChange,
): Promise<{ readonly credentials: UserCredentials; readonly networkKey: Buffer | undefined }> {
  const userId = parseUuid(text);
  if (userId === undefined) throw oldPasswordWrong();
  const credentials = await store.transaction((tx) => tx.users.credentialsById(userId), { caller: userId });
  if (credentials === undefined) throw oldPasswordWrong();
  const failed = { what: 'change of password', name: credentials.username, userId, peer } as const;
  const attempt = await throttle.attempt(credentials.username, peer).catch((error: unknown) => {
    failures.limited(failed);
    throw error;
  });
  const caller = { importance: 'known', key: userId } as const;
  const verified = passwords.verify(credentials.passwordHash, oldPassword, caller);
  const matches = await verified.catch(async (error: unknown) => {
    await attempt.uncount();
    throw error;
  });
  if (!matches) {
    failures.failed(failed);
    throw (await attempt.refusal()) ?? oldPasswordWrong();
  }
  await attempt.uncount();
  return { credentials, networkKey: attempt.networkKey };
}

async function endFormerLogins(
  tx: AuthTransaction,
  { userId, networkKey, peer }: { userId: string; networkKey: Buffer | undefined; peer: string },
): Promise<void> {
  await tx.sessions.endAllOfUser(userId, 'PASSWORD_CHANGED');
  await tx.passwordResets.deleteOfUser(userId);
  await tx.loginNetworks.deleteAllOfUser(userId);
  if (networkKey) await tx.loginNetworks.remember({ key: networkKey, userId });
  await tx.events.record({
    type: 'credential-change',
    subject: { userId },
    actor: userId,
    reason: 'password changed',
    network: networkOfPeer(peer),
    details: { credential: 'password', change: 'update' },
  });
}

function appendRevocation(tx: AuthTransaction, userId: string, generation: bigint): Promise<Appended> {
  const entry = { ...userRevocation(userId, generation), reason: 'password changed', actor: userId };
  return tx.revocations.append([entry]);
}

function oldPasswordWrong(): ServiceError {
  return new AuthError('LOGIN_FAILED', 'the old password is wrong');
}
