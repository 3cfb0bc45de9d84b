/** Users as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';

/** A user, as administrators see it. */
export interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles: readonly string[];
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
  readonly roles: readonly string[];
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
    roles: readonly string[];
  }): Promise<User | undefined>;
  find(userId: string): Promise<User | undefined>;
  list(page: PageRequest): Promise<{ users: User[]; nextPageToken: string }>;
  /** Whether a user has this name, or a deleted one had it. */
  hasName(username: string): Promise<boolean>;
  /** Credentials by name; takes no lock. */
  credentialsByName(username: string): Promise<UserCredentials | undefined>;
  /** Credentials by user id; takes no lock. */
  credentialsById(userId: string): Promise<UserCredentials | undefined>;
  /** The user's state; the row stays share-locked until the end of the transaction. */
  lockShared(userId: string): Promise<UserState | undefined>;
  /** Locks the user's row exclusively until the end of the transaction; false when there is no such user. */
  lock(userId: string): Promise<boolean>;
  /** Raises the generation by one and returns it; undefined when there is no such user. */
  raiseGeneration(userId: string): Promise<bigint | undefined>;
  /**
   * Waits until no other transaction can take an administrator away, and returns the enabled administrators: all if there
   * are fewer than two, else two of them. It is called before the user's row is locked.
   */
  lockAdmins(): Promise<readonly string[]>;
  /**
   * Sets the password and raises the generation, if password version and generation are unchanged and the user is not
   * disabled. Returns the new generation; undefined when nothing was changed.
   */
  changePassword(
    from: Pick<UserCredentials, 'userId' | 'passwordVersion' | 'generation'>,
    passwordHash: string,
  ): Promise<bigint | undefined>;
  /** Sets the password; false when there is no such user, or the user is disabled. The caller has locked the row. */
  setPassword(userId: string, passwordHash: string): Promise<boolean>;
  /** Replaces the user's roles. The caller has locked the user's row. */
  setRoles(userId: string, roles: readonly string[]): Promise<void>;
  /** Disables or enables; false when there is no such user. Locks the user's row. */
  setDisabled(userId: string, disabled: boolean): Promise<boolean>;
  /**
   * Deletes the user: password and roles are erased, and no other method but `hasName` finds the user any more. The row
   * stays, so that neither the name nor one that looks like it can be taken again.
   */
  delete(userId: string): Promise<void>;
}
