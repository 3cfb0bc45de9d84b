/** Users as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';

export const ROLES = ['customer', 'operator', 'security', 'admin'] as const;

/** A user's role; it determines the scopes that the user may have. */
export type Role = (typeof ROLES)[number];

/** A user, as administrators see it. */
export interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles: readonly Role[];
  readonly createTime: Date;
  /** A disabled user may not log in. */
  readonly disabled: boolean;
}

/** What a login is verified against. */
export interface UserCredentials {
  readonly userId: string;
  readonly username: string;
  readonly passwordHash: string;
  readonly passwordVersion: bigint;
  readonly generation: bigint;
}

/** What a user's tokens depend on; read under a lock when a token is minted. */
export interface UserState {
  readonly userId: string;
  readonly generation: bigint;
  readonly passwordVersion: bigint;
  readonly roles: readonly Role[];
  readonly disabled: boolean;
}

/** The rows of users, inside a transaction. */
export interface UserRows {
  /** Creates the user; undefined when the name is taken, or one that looks like it. */
  insert(user: {
    userId: string;
    username: string;
    nameSkeleton: string;
    passwordHash: string;
    roles: readonly Role[];
  }): Promise<User | undefined>;
  find(userId: string): Promise<User | undefined>;
  list(page: PageRequest): Promise<{ users: User[]; nextPageToken: string }>;
  /** Whether a user has this name. */
  hasName(username: string): Promise<boolean>;
  /** Credentials by name; takes no lock. */
  credentialsByName(username: string): Promise<UserCredentials | undefined>;
  /** Credentials by user id; takes no lock. */
  credentialsById(userId: string): Promise<UserCredentials | undefined>;
  /** The user's state; the row stays share-locked until the end of the transaction. */
  lockShared(userId: string): Promise<UserState | undefined>;
  /** Raises the generation by one and returns it; undefined when there is no such user. */
  raiseGeneration(userId: string): Promise<bigint | undefined>;
  /**
   * Sets the password and raises the generation, if password version and generation are unchanged and the user is not
   * disabled. Returns the new generation; undefined when nothing was changed.
   */
  changePassword(
    from: Pick<UserCredentials, 'userId' | 'passwordVersion' | 'generation'>,
    passwordHash: string,
  ): Promise<bigint | undefined>;
  /** Replaces the user's roles. The caller has locked the user's row. */
  setRoles(userId: string, roles: readonly Role[]): Promise<void>;
  /** Disables or enables; false when there is no such user. Locks the user's row. */
  setDisabled(userId: string, disabled: boolean): Promise<boolean>;
}
