/** The caller, as the domain knows it. */

/** Runs a statement of a transaction. */
type Query = (text: string, values?: readonly unknown[]) => Promise<{ readonly rows: readonly object[] }>;

/** Whether a caller may go on. */
export interface Permit {
  /**
   * For how many milliseconds the caller is still allowed.
   *
   * @throws ServiceError when the caller is no longer allowed, because its token was revoked or has expired
   */
  stillAllowed(): number;
  /**
   * The same, inside a transaction: it locks the fence against revocations that this process does not know of. Until the
   * transaction ends, the fence cannot rise.
   *
   * @param query - runs a statement in that transaction
   * @throws ServiceError as {@link stillAllowed} does, and when this process lags behind the fence
   */
  passFence(query: Query): Promise<number>;
}

/** A verified user. */
export interface Caller extends Permit {
  /** Identifies the user; accounts and payments belong to it. */
  readonly subject: string;
  /** Whether the token may manage payments: then it reads what belongs to other users. */
  readonly isOperator: boolean;
  /** The client that the token was issued to. */
  readonly clientId: string;
  /** The session of the token; undefined when the issuer names none. */
  readonly sessionId: string | undefined;
  /** The identifier of the token. */
  readonly tokenId: string;
  /** Aborted when the call ends, is cancelled, or is cut by a revocation. */
  readonly signal: AbortSignal;
}
