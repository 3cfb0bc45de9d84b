/** ResetPassword and SetPassword: a user sets a new password with a token that an administrator has requested. */

import { randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { AuthError } from '../errors.js';
import type { Receipt } from '../records/revocations.js';
import { checkReason, userRevocation } from '../revocation/log.js';
import { receiptOf } from '../revocation/revoking-change.js';
import type { Throttle } from '../security/throttle.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { type Passwords, passwordFault } from './passwords.js';
import { parseResetToken, type ResetToken, resetTokenOf } from './reset-tokens.js';
import { idempotentRequest, noSuchUser, parseUserId, type UserRequest } from './user-change.js';

export interface ResetPasswordDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  readonly clock: Clock;
  /** Secret of this issuer that signs reset tokens. */
  readonly resetKey: Buffer;
  /** Lifetime of a reset token, in seconds. */
  readonly resetSeconds: number;
  /** Names the network from which the user sets the password, so that it becomes a known one. */
  readonly throttle: Pick<Throttle, 'networkKeyOf'>;
}

type ResetIssuing = Pick<ResetPasswordDeps, 'store' | 'resetKey' | 'resetSeconds'>;

/** A reset token as it is handed out. */
export interface IssuedReset {
  readonly resetToken: string;
  readonly expireTime: Date;
}

/** A user's request to set a password with a reset token. */
export interface PasswordSetting {
  readonly resetToken: string;
  readonly newPassword: string;
  /** The peer's address. */
  readonly peer: string;
}

/** Delay after which a caller retries while another call uses the same reset token, in milliseconds. */
const IN_USE_RETRY_MS = 1000;

/**
 * Creates a reset token in place of an earlier one. It revokes nothing: an attacker who makes an administrator reset a
 * password must not thereby end the user's sessions.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED; USER_DISABLED
 */
export async function resetPassword(
  deps: ResetIssuing,
  request: UserRequest & { readonly reason: string },
): Promise<IssuedReset> {
  const { actor, network = '' } = request;
  checkReason(request.reason);
  if (request.requestId === '') throw invalidField('request_id', 'must be set');
  const idempotent = idempotentRequest(request, { method: 'ResetPassword', payload: [request.reason] });
  const userId = parseUserId(request.userId);
  const reason = request.reason || 'password reset requested';
  // The stored answer has the id alone. Only the issuer's secret makes the token of it.
  const { resetId, expireTime } = await deps.store.transaction((tx) =>
    tx.once(idempotent, async () => {
      const user = await tx.users.lockShared(userId);
      if (user === undefined) throw noSuchUser();
      if (user.disabled)
        throw new AuthError('USER_DISABLED', 'enable the user before you reset the password');
      return await storeReset(deps, tx, { userId, actor, reason, network, requestId: request.requestId });
    }),
  );
  return { resetToken: resetTokenOf(deps.resetKey, resetId).text, expireTime };
}

/** Who resets the password of which user, and why. */
interface ResetBy {
  readonly userId: string;
  readonly actor: string;
  readonly reason: string;
  readonly network: string;
  readonly requestId?: string;
}

/** Creates a reset token in this transaction, which has locked the user. */
export async function createReset(
  deps: ResetIssuing,
  tx: AuthTransaction,
  by: ResetBy,
): Promise<IssuedReset> {
  const { resetId, expireTime } = await storeReset(deps, tx, by);
  return { resetToken: resetTokenOf(deps.resetKey, resetId).text, expireTime };
}

async function storeReset(
  { resetKey, resetSeconds }: ResetIssuing,
  tx: AuthTransaction,
  { userId, ...by }: ResetBy,
): Promise<{ readonly resetId: string; readonly expireTime: Date }> {
  const resetId = randomUUID();
  const { hash: tokenHash } = resetTokenOf(resetKey, resetId);
  const expireTime = await tx.passwordResets.put({ userId, tokenHash, lifetimeSeconds: resetSeconds });
  await tx.events.record({ ...by, type: 'recovery-activated', subject: { userId }, details: {} });
  return { resetId, expireTime };
}

/**
 * Creates the command that sets a password with a reset token. It uses up the token, ends the user's sessions, and
 * remembers the peer's network as the only known one.
 *
 * Each token is used by one call at a time, so that its holder cannot fill the queue of password hashes.
 */
export function createSetPassword(deps: ResetPasswordDeps): (request: PasswordSetting) => Promise<Receipt> {
  const inUse = new Set<string>();
  return async ({ resetToken, newPassword, peer }) => {
    const fault = passwordFault(newPassword);
    if (fault !== undefined) throw invalidField('new_password', fault);
    const token = parseResetToken(deps.resetKey, resetToken);
    if (token === undefined) throw resetTokenInvalid();
    if (inUse.has(token.text)) {
      throw new AuthError('RATE_LIMITED', 'another call uses this reset token', {
        retryAfterMs: IN_USE_RETRY_MS,
      });
    }
    inUse.add(token.text);
    try {
      return await setPassword(deps, { token, newPassword, peer });
    } finally {
      inUse.delete(token.text);
    }
  };
}

/** @throws ServiceError RESET_TOKEN_INVALID whatever is wrong with the token; RATE_LIMITED */
async function setPassword(
  { store, passwords, clock, throttle }: ResetPasswordDeps,
  { token, newPassword, peer }: { token: ResetToken; newPassword: string; peer: string },
): Promise<Receipt> {
  const found = await store.reads.passwordResets.find(token.hash);
  if (found === undefined) throw resetTokenInvalid();
  const { userId } = found;
  const passwordHash = await passwords.hash(newPassword);
  let startedMs = 0;
  const appended = await store.transaction(async (tx) => {
    const generation = await tx.users.raiseGeneration(userId);
    // The token was found without a lock, so whatever voided it since then counts.
    const isSet =
      generation !== undefined &&
      (await tx.passwordResets.take({ userId, tokenHash: token.hash })) &&
      (await tx.users.setPassword(userId, passwordHash));
    if (!isSet) throw resetTokenInvalid();
    await endFormerLogins(tx, { userId, throttle, peer });
    startedMs = clock.monotonicMs();
    const entry = { ...userRevocation(userId, generation), reason: 'password reset', actor: userId };
    return await tx.revocations.append([entry]);
  });
  return receiptOf(appended, clock.monotonicMs() - startedMs);
}

async function endFormerLogins(
  tx: AuthTransaction,
  { userId, throttle, peer }: Pick<ResetPasswordDeps, 'throttle'> & { userId: string; peer: string },
): Promise<void> {
  await tx.sessions.endAllOfUser(userId, 'PASSWORD_CHANGED');
  await tx.loginNetworks.deleteAllOfUser(userId);
  const user = await tx.users.find(userId);
  if (user !== undefined) {
    await tx.loginNetworks.remember({ key: throttle.networkKeyOf(user.username, peer), userId });
  }
  await tx.events.record({
    type: 'credential-change',
    subject: { userId },
    actor: userId,
    reason: 'password set with a reset token',
    network: networkOfPeer(peer),
    details: { credential: 'password', change: 'update' },
  });
}

function resetTokenInvalid(): ServiceError {
  return new AuthError('RESET_TOKEN_INVALID', 'the reset token cannot be used');
}
