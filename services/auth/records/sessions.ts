/** Sessions and refresh tokens as the database has them, and their rows inside a transaction. */

import type { PageRequest } from './page.js';
/** Why a session ended. */
export type SessionEnd =
  | 'LOGOUT'
  | 'REVOKED'
  | 'REFRESH_REUSED'
  | 'USER_REVOKED'
  | 'EPOCH_ENDED'
  | 'PASSWORD_CHANGED'
  | 'USER_DISABLED'
  | 'ROLES_CHANGED';

/** A session as the database has it. */
export interface Session {
  readonly sessionId: string;
  readonly userId: string;
  readonly clientId: string;
  /** The user's generation at the login; at an older one the session gets no token any more. */
  readonly generation: bigint;
  /** The client's generation at the login. */
  readonly clientGeneration: bigint;
  readonly deviceName: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly amr: readonly string[];
  /** The certificate that the session's tokens are bound to; undefined when they are not. */
  readonly certificateThumbprint: string | undefined;
  /** When the user logged in. */
  readonly createTime: Date;
  readonly lastUseTime: Date;
  readonly expireTime: Date;
  /** Neither ended nor expired, by database time. */
  readonly open: boolean;
}

/** A refresh token as the database has it: never the token itself. */
export interface RefreshTokenRow {
  readonly sessionId: string;
  readonly userId: string;
  readonly expireTime: Date;
  readonly used: boolean;
  /** Whose request used it; undefined when unused, or when the request had no id. */
  readonly requestId: string | undefined;
  readonly successorHash: Buffer | undefined;
}

/** The sessions' rows, inside a transaction. */
export interface SessionRows {
  insert(session: Omit<Session, 'open'>): Promise<void>;
  /** The session; its row stays share-locked until the end of the transaction. */
  lockShared(sessionId: string): Promise<Session | undefined>;
  /** The session; nobody else may lock its row until the end of the transaction. */
  lock(sessionId: string): Promise<Session | undefined>;
  /** Notes a refresh. */
  touch(sessionId: string, time: Date): Promise<void>;
  /** Closes the session's row; false when there is no such session or it was closed before. */
  end(sessionId: string, why: SessionEnd): Promise<boolean>;
  /** Closes every open session of the user and answers how many. */
  endAllOf(userId: string, why: SessionEnd): Promise<number>;
  /**
   * Lifts the user's open sessions from one generation to the next, so that they get tokens again, and narrows what
   * they may ask for. Closes those that have nobody left to ask, and those of an older generation.
   */
  restamp(
    userId: string,
    change: { from: bigint; to: bigint; scopes: readonly string[]; audiences: readonly string[] },
  ): Promise<void>;
  /** Closes every open session of all users and answers how many. */
  endEvery(why: SessionEnd): Promise<number>;
  /** A page of the user's open sessions, newest first. */
  listOpen(userId: string, page: PageRequest): Promise<{ sessions: Session[]; nextPageToken: string }>;
  insertRefreshToken(token: { hash: Buffer; sessionId: string; expireTime: Date }): Promise<void>;
  /** What is known of a refresh token; takes no lock, so ask again under the session's. */
  findRefreshToken(hash: Buffer): Promise<RefreshTokenRow | undefined>;
  markUsed(token: {
    hash: Buffer;
    time: Date;
    requestId: string | undefined;
    successorHash: Buffer;
  }): Promise<void>;
  /** Drops sessions that ended long ago, at most so many; answers how many. */
  dropOld(limit: number): Promise<number>;
}
