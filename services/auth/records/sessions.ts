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
  | 'ROLES_CHANGED'
  | 'USER_DELETED';

/** A session as the database has it. */
export interface Session {
  readonly sessionId: string;
  readonly userId: string;
  readonly clientId: string;
  /** The user's generation at the login. Once the user has a newer one, the session gets no more tokens. */
  readonly generation: bigint;
  /** The client's generation at the login. */
  readonly clientGeneration: bigint;
  readonly deviceName: string;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  readonly amr: readonly string[];
  /** The certificate that the session's tokens are bound to; undefined for bearer tokens. */
  readonly certificateThumbprint: string | undefined;
  /** The network that the user logged in from; empty for logins of versions that did not record it. */
  readonly network?: string | undefined;
  /** When the user logged in. */
  readonly createTime: Date;
  readonly lastUseTime: Date;
  readonly expireTime: Date;
  /** Neither ended nor expired, by database time. */
  readonly open: boolean;
}

/** Which open sessions are meant: those that meet all conditions that are set. */
export interface SessionFilter {
  readonly role: string | undefined;
  /** The client through which the user logged in. */
  readonly clientId: string | undefined;
  readonly loggedInBeforeTime: Date | undefined;
  /** The network of the login, as security events record it. */
  readonly network: string | undefined;
  readonly userId: string | undefined;
}

/** A session that matches a filter. */
export interface MatchedSession extends Pick<Session, 'sessionId' | 'userId' | 'clientId' | 'createTime'> {
  readonly username: string;
}

/** One step of a search for sessions. */
export interface SearchedSessions {
  /** By id. */
  readonly sessions: readonly MatchedSession[];
  /** The id after which the next step continues; undefined at the end. */
  readonly next: string | undefined;
}

/** What ending a session needs to know of it. */
export interface LockedSession extends Pick<Session, 'sessionId' | 'userId' | 'open'> {
  /** It ended before; a session that has only expired is not open, but has not ended. */
  readonly ended: boolean;
}

/** A refresh token as the database has it; the token itself is not stored. */
export interface RefreshTokenRow {
  readonly sessionId: string;
  readonly userId: string;
  readonly expireTime: Date;
  /** When it was used; undefined when it is unused. */
  readonly useTime: Date | undefined;
  /** The id of the request that used it; undefined when it is unused, or the request had no id. */
  readonly requestId: string | undefined;
  readonly successorHash: Buffer | undefined;
}

/** The rows of sessions and refresh tokens, inside a transaction. */
export interface SessionRows {
  insert(session: Omit<Session, 'open'>): Promise<void>;
  /** The session; its row stays share-locked until the end of the transaction. */
  lockShared(sessionId: string): Promise<Session | undefined>;
  /** The session; its row stays locked exclusively until the end of the transaction. */
  lock(sessionId: string): Promise<Session | undefined>;
  /** Sets the time of the session's last refresh. */
  setLastUse(sessionId: string, time: Date): Promise<void>;
  /** Ends the session; false when there is no such session or it had already ended. */
  end(sessionId: string, why: SessionEnd): Promise<boolean>;
  /**
   * Locks these sessions exclusively until the end of the transaction.
   *
   * @param busy - what to do about sessions that another transaction has locked: `skip` leaves them out and never waits
   * @returns those that were locked; sessions that do not exist are missing
   */
  lockEach(sessionIds: readonly string[], busy: 'wait' | 'skip'): Promise<readonly LockedSession[]>;
  /** Which of these sessions exist, open or ended. Takes no lock. */
  existing(sessionIds: readonly string[]): Promise<readonly string[]>;
  /** Ends these sessions, each for its own reason; those that have ended stay as they are. */
  endEach(endings: readonly { readonly sessionId: string; readonly why: SessionEnd }[]): Promise<void>;
  /** Ends all open sessions of the user, and returns their number. */
  endAllOfUser(userId: string, why: SessionEnd): Promise<number>;
  /** Ends at most `limit` open sessions of the user other than one, and returns their ids. */
  endOthersOfUser(
    userId: string,
    others: { readonly than: string; readonly why: SessionEnd; readonly limit: number },
  ): Promise<readonly string[]>;
  /**
   * Moves the user's open sessions from one generation to the next, so that they continue to get tokens, and narrows
   * their scopes and audiences. Ends sessions that have no audience left, and sessions of an older generation.
   */
  restamp(
    userId: string,
    change: { from: bigint; to: bigint; scopes: readonly string[]; audiences: readonly string[] },
  ): Promise<void>;
  /** One step of the search for open sessions that match a filter, by id, after one id. Takes no lock. */
  match(
    filter: SessionFilter,
    page: { readonly after: string | undefined; readonly limit: number },
  ): Promise<SearchedSessions>;
  /** Counts the open sessions that match a filter: one step of it, after one id. */
  countMatching(
    filter: SessionFilter,
    after: string | undefined,
  ): Promise<{ readonly count: number; readonly next: string | undefined }>;
  /** Ends all open sessions of all users, and returns their number. */
  endEvery(why: SessionEnd): Promise<number>;
  /** A page of the user's open sessions, newest first. */
  listOpen(userId: string, page: PageRequest): Promise<{ sessions: Session[]; nextPageToken: string }>;
  insertRefreshToken(token: { hash: Buffer; sessionId: string; expireTime: Date }): Promise<void>;
  /** Takes no lock: read the token again once its session is locked. */
  findRefreshToken(hash: Buffer): Promise<RefreshTokenRow | undefined>;
  markUsed(token: {
    hash: Buffer;
    time: Date;
    requestId: string | undefined;
    successorHash: Buffer;
  }): Promise<void>;
  /** Deletes at most `limit` sessions that ended long ago, and returns their number. */
  deleteOld(limit: number): Promise<number>;
}
