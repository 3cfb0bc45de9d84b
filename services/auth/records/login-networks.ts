/** The networks from which users have logged in. */

/** From where users have logged in, inside a transaction. */
export interface LoginNetworkRows {
  remember(network: { key: Buffer; userId: string }): Promise<void>;
  /** Forgets them all: whoever logged in with a password that is no longer right may have been somebody else. */
  forgetAllOf(userId: string): Promise<void>;
}
