/** The users: who can log in, with which roles, at which generation. */

/** A user as the database has it. */
export interface User {
  readonly userId: string;
  readonly username: string;
  readonly roles: readonly string[];
  readonly createTime: Date;
}

/** What a user's authority rests on; read under a lock when tokens are minted. */
export interface UserState {
  readonly userId: string;
  readonly generation: bigint;
  readonly passwordVersion: bigint;
  readonly roles: readonly string[];
}

/** The user's rows, inside a transaction. */
export interface UserRows {
  /** The user's present state; the row stays share-locked until the end of the transaction. */
  lockShared(userId: string): Promise<UserState | undefined>;
  /** Raises the generation by one and answers the new one; undefined when there is no such user. */
  raiseGeneration(userId: string): Promise<bigint | undefined>;
}
