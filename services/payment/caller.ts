/** The caller, as the domain knows it. */

/** A verified user. */
export interface Caller {
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
  /**
   * For how many milliseconds the caller is still allowed.
   *
   * @throws ServiceError when the caller is no longer allowed, because its token was revoked or has expired
   */
  stillAllowed(): number;
}
