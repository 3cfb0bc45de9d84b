/** CreateUser: an administrator creates a user. */

import { randomUUID } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseRequestId } from '../../common/validation/request-id.js';
import { AuthError } from '../errors.js';
import type { User } from '../records/users.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';
import { type Passwords, passwordFault } from './passwords.js';
import { parseRoles, requireKnownRoles } from './roles.js';
import { parseUsername, skeletonOf, USERNAME_RULE } from './usernames.js';

/** An administrator's request to create a user. */
export interface NewUser {
  readonly actor: string;
  /** The network of the administrator, for the security event. */
  readonly network?: string;
  readonly username: string;
  readonly password: string;
  readonly roles: readonly string[];
  readonly requestId: string;
}

export interface CreateUserDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** Keyed hash with which requests that contain a secret can be compared, and nothing else. */
  readonly fingerprint: (secret: string) => string;
}

/**
 * Creates a user. A repeated request with the same id returns the same user.
 *
 * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED
 */
export async function createUser(deps: CreateUserDeps, request: NewUser): Promise<User> {
  const { username, roles, requestId } = parseNewUser(request);
  const passwordHash = await deps.passwords.hash(request.password);
  const payload = JSON.stringify([username, roles, deps.fingerprint(request.password)]);
  const idempotent = { subject: request.actor, method: 'CreateUser', requestId, payload };
  return await deps.store.transaction((tx) =>
    tx.once(idempotent, async () => {
      requireKnownRoles(await tx.policy.current(), request.roles);
      const nameSkeleton = skeletonOf(username);
      const user = await tx.users.insert({
        userId: randomUUID(),
        username,
        nameSkeleton,
        passwordHash,
        roles,
      });
      if (user === undefined) {
        throw new AuthError('ALREADY_EXISTS', 'this username is taken, or one that looks like it');
      }
      await recordCreation(tx, user, { ...request, requestId });
      return user;
    }),
  );
}

function parseNewUser(request: NewUser) {
  const username = parseUsername(request.username);
  if (username === undefined) throw invalidField('username', USERNAME_RULE);
  const fault = passwordFault(request.password);
  if (fault !== undefined) throw invalidField('password', fault);
  const roles = parseRoles(request.roles);
  const requestId = parseRequestId(request.requestId);
  if (requestId === '') throw invalidField('request_id', 'must be set');
  return { username, roles, requestId };
}

async function recordCreation(
  tx: AuthTransaction,
  { userId, roles }: User,
  { actor, network = '', requestId }: Pick<NewUser, 'actor' | 'network' | 'requestId'>,
): Promise<void> {
  await tx.events.record({
    type: 'account-created',
    subject: { userId },
    actor,
    reason: 'user created',
    network,
    requestId,
    details: { roles },
  });
}
