/** Pending resets of passwords, inside a transaction. */

/** The rows of reset tokens. */
export interface PasswordResetRows {
  /** Stores the user's reset token in place of an earlier one, and returns when it expires. */
  put(reset: { userId: string; tokenHash: Buffer; lifetimeSeconds: number }): Promise<Date>;
  /** The user of a reset token that has not expired; undefined when there is none. Takes no lock. */
  find(tokenHash: Buffer): Promise<{ readonly userId: string } | undefined>;
  /** Uses up a reset token; false unless it belongs to the user and has not expired. */
  take(reset: { userId: string; tokenHash: Buffer }): Promise<boolean>;
  /** Deletes the reset token of the user, if there is one. */
  deleteOfUser(userId: string): Promise<void>;
}
