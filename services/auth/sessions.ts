/** Sessions: one login of one user, and the chain of its refresh tokens. */

/** Why a session ended. */
export type SessionEnd = 'LOGOUT' | 'REVOKED' | 'REFRESH_REUSED' | 'USER_REVOKED';

/** The sessions' rows, inside a transaction. */
export interface SessionRows {
  /** Closes the session's row; false when there is no such session or it was closed before. */
  end(sessionId: string, why: SessionEnd): Promise<boolean>;
  /** Closes every open session of the user and answers how many. */
  endAllOf(userId: string, why: SessionEnd): Promise<number>;
}
