/** The users: who can log in, with which roles, at which generation. */

import { randomUUID } from 'node:crypto';
import { invalidField, ServiceError } from '../../interceptors/errors.js';
import type { Passwords } from './passwords.js';
import { passwordFault } from './passwords.js';
import type { Role } from './roles.js';
import { isRole, ROLES } from './roles.js';
import { isUuid, LIST_LENGTH_MAX, parseRequestId } from './text-checks.js';
import type { AuthStore } from './transaction.js';

/** A user, as administrators see it. */
export interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles: readonly Role[];
  readonly createTime: Date;
}

/** What a login compares with. */
export interface UserCredentials {
  readonly userId: string;
  readonly passwordHash: string;
  readonly passwordVersion: bigint;
  readonly generation: bigint;
}

/** What a user's authority rests on; read under a lock when tokens are minted. */
export interface UserState {
  readonly userId: string;
  readonly generation: bigint;
  readonly passwordVersion: bigint;
  readonly roles: readonly Role[];
}

/** A page of a list, asked for. */
export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
}

/** The user's rows, inside a transaction. */
export interface UserRows {
  /** Creates the user; undefined when the name is taken. */
  insert(user: {
    userId: string;
    username: string;
    passwordHash: string;
    roles: readonly Role[];
  }): Promise<User | undefined>;
  find(userId: string): Promise<User | undefined>;
  list(page: PageRequest): Promise<{ users: User[]; nextPageToken: string }>;
  /** Whether somebody has the name. */
  hasName(username: string): Promise<boolean>;
  /** What a login with this name compares with; takes no lock. */
  credentialsOf(username: string): Promise<UserCredentials | undefined>;
  /** The user's present state; the row stays share-locked until the end of the transaction. */
  lockShared(userId: string): Promise<UserState | undefined>;
  /** Raises the generation by one and answers the new one; undefined when there is no such user. */
  raiseGeneration(userId: string): Promise<bigint | undefined>;
}

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
          const user = await tx.users.insert({ userId: randomUUID(), username, passwordHash, roles });
          if (user === undefined) throw new ServiceError('ALREADY_EXISTS', 'this username is taken');
          return user;
        }),
      );
    },
    get: async (userId) => {
      const user = isUuid(userId) ? await store.transaction((tx) => tx.users.find(userId)) : undefined;
      if (user === undefined) throw new ServiceError('NOT_FOUND', 'there is no such user');
      return user;
    },
    list: (page) => store.transaction((tx) => tx.users.list(page)),
  };
}

const USERNAME_RULE = 'must have 3 to 64 characters out of a to z, 0 to 9, dot, underscore and hyphen';

/**
 * The name in its one spelling, or undefined when it cannot be one. The letters are checked before
 * they are lowered: the Kelvin sign would become a plain k, and two names one user.
 */
export function parseUsername(text: string): string | undefined {
  return /^[A-Za-z0-9._-]{3,64}$/.test(text) ? text.toLowerCase() : undefined;
}

function parseRoles(texts: readonly string[]): readonly Role[] {
  if (texts.length > LIST_LENGTH_MAX)
    throw invalidField('roles', `must have at most ${LIST_LENGTH_MAX} members`);
  const roles = texts.map((text, index) => {
    if (!isRole(text)) throw invalidField(`roles[${index}]`, `must be one of ${ROLES.join(', ')}`);
    return text;
  });
  return [...new Set(roles)].sort();
}
