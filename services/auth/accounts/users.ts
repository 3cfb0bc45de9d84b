/** The users: who can log in, with which roles, at which generation. */

import { randomUUID } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseUuid } from '../../common/validation/identifiers.js';
import { parseRequestId } from '../../common/validation/request-id.js';
import { LIST_LENGTH_MAX } from '../../common/validation/words.js';
import { AuthError } from '../errors.js';
import type { PageRequest } from '../records/page.js';
import type { Role, User } from '../records/users.js';
import { ROLES } from '../records/users.js';
import type { AuthStore } from '../transaction.js';
import type { Passwords } from './passwords.js';
import { passwordFault } from './passwords.js';
import { isRole } from './roles.js';
import { parseUsername, skeletonOf, USERNAME_RULE } from './usernames.js';

/** What administrators do with users. */
export interface Users {
  /**
   * Creates a user. The same request id answers the same user again.
   *
   * @throws ServiceError FIELD_INVALID, ALREADY_EXISTS, REQUEST_ID_REUSED
   */
  create(request: {
    actor: string;
    username: string;
    password: string;
    roles: readonly string[];
    requestId: string;
  }): Promise<User>;
  /** One user. Throws NOT_FOUND. */
  get(userId: string): Promise<User>;
  /** A page of users, by name. Throws FIELD_INVALID. */
  list(page: PageRequest): Promise<{ users: User[]; nextPageToken: string }>;
}

/** What {@link createUsers} needs. */
export interface UsersDeps {
  readonly store: AuthStore;
  readonly passwords: Passwords;
  /** A keyed hash, with which requests that hold a secret can be compared and nothing else. */
  readonly fingerprint: (secret: string) => string;
}

/** The users of this database. */
export function createUsers({ store, passwords, fingerprint }: UsersDeps): Users {
  return {
    create: async (request) => {
      const username = parseUsername(request.username);
      if (username === undefined) throw invalidField('username', USERNAME_RULE);
      const fault = passwordFault(request.password);
      if (fault !== undefined) throw invalidField('password', fault);
      const roles = parseRoles(request.roles);
      const requestId = parseRequestId(request.requestId);
      if (requestId === '') throw invalidField('request_id', 'must be set');
      const passwordHash = await passwords.hash(request.password);
      const payload = JSON.stringify([username, roles, fingerprint(request.password)]);
      return await store.transaction((tx) =>
        tx.once({ subject: request.actor, method: 'CreateUser', requestId, payload }, async () => {
          const user = await tx.users.insert({
            userId: randomUUID(),
            username,
            nameSkeleton: skeletonOf(username),
            passwordHash,
            roles,
          });
          if (user === undefined) {
            throw new AuthError('ALREADY_EXISTS', 'this username is taken, or one that looks like it');
          }
          await tx.events.record({
            type: 'account-created',
            subject: { userId: user.userId },
            actor: request.actor,
            reason: 'user created',
            network: '',
            details: { roles },
          });
          return user;
        }),
      );
    },
    get: async (text) => {
      const userId = parseUuid(text);
      const user = userId === undefined ? undefined : await store.transaction((tx) => tx.users.find(userId));
      if (user === undefined) throw new AuthError('NOT_FOUND', 'there is no such user');
      return user;
    },
    list: (page) => store.transaction((tx) => tx.users.list(page)),
  };
}

/**
 * The roles of a request, each once, in one order.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseRoles(texts: readonly string[]): readonly Role[] {
  if (texts.length > LIST_LENGTH_MAX)
    throw invalidField('roles', `must have at most ${LIST_LENGTH_MAX} members`);
  const roles = texts.map((text, index) => {
    if (!isRole(text)) throw invalidField(`roles[${index}]`, `must be one of ${ROLES.join(', ')}`);
    return text;
  });
  return [...new Set(roles)].sort();
}
