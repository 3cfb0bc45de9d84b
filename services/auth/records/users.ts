/** Users as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';
/** The roles there are. */
export const ROLES = ['customer', 'operator', 'security', 'admin'] as const;

/** What a user is. */
export type Role = (typeof ROLES)[number];

/** A user, as administrators see it. */
export interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles: readonly Role[];
  readonly createTime: Date;
  /** May not log in. */
  readonly disabled: boolean;
}

/** What a login compares with. */
export interface UserCredentials {
  readonly userId: string;
  readonly username: string;
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
  readonly disabled: boolean;
}

/** The user's rows, inside a transaction. */
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
  /** Whether somebody has the name. */
  hasName(username: string): Promise<boolean>;
  /** What a login with this name compares with; takes no lock. */
  credentialsOf(username: string): Promise<UserCredentials | undefined>;
  /** What the user's present password is compared with; takes no lock. */
  credentialsOfId(userId: string): Promise<UserCredentials | undefined>;
  /** The user's present state; the row stays share-locked until the end of the transaction. */
  lockShared(userId: string): Promise<UserState | undefined>;
  /** Raises the generation by one and answers the new one; undefined when there is no such user. */
  raiseGeneration(userId: string): Promise<bigint | undefined>;
  /**
   * Sets the password and raises the generation, if both versions are still the given ones and the user is not
   * disabled; answers the new generation, else undefined.
   */
  changePassword(
    from: Pick<UserCredentials, 'userId' | 'passwordVersion' | 'generation'>,
    passwordHash: string,
  ): Promise<bigint | undefined>;
  /** Gives the user these roles and no others. The user's row is locked. */
  setRoles(userId: string, roles: readonly Role[]): Promise<void>;
  /** Disables or enables; false when there is no such user. Locks the user's row. */
  setDisabled(userId: string, disabled: boolean): Promise<boolean>;
}
