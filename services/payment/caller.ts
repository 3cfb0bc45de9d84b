/** Who asks, as the domain sees it. */

/** A verified caller. */
export interface Caller {
  /** The user. */
  readonly subject: string;
  /** Whether the user may see what belongs to others. */
  readonly isOperator: boolean;
  /** The client the token was issued to. */
  readonly clientId: string;
  /** The session of the token. */
  readonly sessionId: string | undefined;
  /** The token, by its identifier. */
  readonly tokenId: string;
  /** Aborted when the call has ended, was cancelled or was cut. */
  readonly signal: AbortSignal;
  /**
   * Milliseconds for which the caller may be relied on.
   *
   * @throws ServiceError when the caller may no longer be relied on at all
   */
  stillAllowed(): number;
}
