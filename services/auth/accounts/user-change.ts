/** What an administrator's changes of one user have in common. */

import type { Clock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { NewEntry, Receipt } from '../records/revocations.js';
import type { User } from '../records/users.js';
import { userRevocation } from '../revocation/log.js';
import { changeAndRevoke } from '../revocation/revoking-change.js';
import type { AuthStore, AuthTransaction, IdempotentRequest } from '../transaction.js';

/** An administrator's request about one user. */
export interface UserRequest {
  readonly actor: string;
  readonly userId: string;
  /** A repeated request with the same id changes nothing and returns the first response; empty for none. */
  readonly requestId: string;
  /** The network of the administrator, for the security event. */
  readonly network?: string;
}

/** A changed user, and the receipt of the revocation that the change brought. */
export interface ChangedUser extends Receipt {
  readonly user: User;
}

export interface UserChangeDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
}

/** One change of a user that revokes all tokens issued before it. */
interface UserChange {
  readonly method: string;
  /** Also the reason in the revocation log. */
  readonly reason: string;
  /** What the request says beside the user, for the comparison with an earlier request of the same id. */
  readonly payload: readonly unknown[];
  /** Whether the user is no enabled administrator afterwards. */
  readonly endsAdmin: boolean;
  apply(tx: AuthTransaction, userId: string, generation: bigint): Promise<void>;
}

/**
 * Raises the user's generation, applies the change, and appends the revocation, all in one transaction.
 *
 * @throws ServiceError NOT_FOUND, FIELD_INVALID, REQUEST_ID_REUSED; LAST_ADMIN when the change would leave no enabled
 *   administrator
 */
export async function changeUser(
  deps: UserChangeDeps,
  request: UserRequest,
  change: UserChange,
): Promise<ChangedUser> {
  return await changeAndRevoke(deps, idempotentRequest(request, change), async (tx) => {
    const { userId, entry } = await applyUserChange(tx, request, change);
    const user = await tx.users.find(userId);
    if (user === undefined) throw noSuchUser();
    return { result: { user }, entry };
  });
}

/** How a retry of the request is recognized. Throws NOT_FOUND, FIELD_INVALID. */
export function idempotentRequest(
  request: UserRequest,
  { method, payload }: Pick<UserChange, 'method' | 'payload'>,
): IdempotentRequest {
  const requestId = parseRequestId(request.requestId);
  const userId = parseUserId(request.userId);
  return { subject: request.actor, method, requestId, payload: JSON.stringify([userId, ...payload]) };
}

/** The part of {@link changeUser} inside the transaction; returns the entry to be appended. */
export async function applyUserChange(
  tx: AuthTransaction,
  request: UserRequest,
  { reason, endsAdmin, apply }: Pick<UserChange, 'reason' | 'endsAdmin' | 'apply'>,
): Promise<{ readonly userId: string; readonly entry: NewEntry }> {
  const userId = parseUserId(request.userId);
  if (endsAdmin) await requireOtherAdmin(tx, userId);
  // The user's row is locked first, as everywhere: minting for this user waits from here on, or is waited for.
  const generation = await tx.users.raiseGeneration(userId);
  if (generation === undefined) throw noSuchUser();
  await apply(tx, userId, generation);
  return {
    userId,
    entry: {
      ...userRevocation(userId, generation),
      reason,
      actor: request.actor,
      network: request.network,
      requestId: request.requestId,
    },
  };
}

/** Holds until the end of the transaction: no other one can take the other administrator away meanwhile. */
async function requireOtherAdmin(tx: AuthTransaction, userId: string): Promise<void> {
  const [first, second] = await tx.users.lockAdmins();
  if (first === userId && second === undefined) {
    throw new AuthError('LAST_ADMIN', 'this is the last enabled administrator: make another one first');
  }
}

/** The canonical form of a user id. Throws NOT_FOUND for a text that is no user's id. */
export function parseUserId(text: string): string {
  const userId = parseUuid(text);
  if (userId === undefined) throw noSuchUser();
  return userId;
}

export function noSuchUser(): ServiceError {
  return new AuthError('NOT_FOUND', 'there is no such user');
}
