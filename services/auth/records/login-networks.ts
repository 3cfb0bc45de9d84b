/** The networks from which users have logged in. */

/** The rows of networks that users have logged in from, inside a transaction. */
export interface LoginNetworkRows {
  remember(network: { key: Buffer; userId: string }): Promise<void>;
  /** Deletes the counted failures of a name: those from networks that are not known, and from the user's known ones. */
  clearFailures(of: { userId: string; nameKey: Buffer }): Promise<void>;
  /** Deletes all networks of the user: logins with the former password may have been an attacker's. */
  deleteAllOfUser(userId: string): Promise<void>;
}
