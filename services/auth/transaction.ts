/** A database transaction of auth, as the domain uses it. */

import type { Client, ClientRows } from './records/clients.js';
import type { Importance } from './records/importance.js';
import type { KeyRows } from './records/keys.js';
import type { LoginNetworkRows } from './records/login-networks.js';
import type { PasswordResetRows } from './records/password-resets.js';
import type { NarrowingRows, Policy, PolicyRows } from './records/policy.js';
import type { RevocationRows } from './records/revocations.js';
import type { SecurityEventRows, SecurityStreamRows } from './records/security-events.js';
import type { RefreshTokenRow, SessionRows } from './records/sessions.js';
import type { TokenRows } from './records/tokens.js';
import type { UserCredentials, UserRows } from './records/users.js';

/**
 * One transaction, read committed. To prevent deadlocks, all transactions lock rows in one order: administrators,
 * user, session, refresh token, client, policy, signing key, revocation log.
 */
export interface AuthTransaction {
  readonly users: UserRows;
  readonly passwordResets: PasswordResetRows;
  readonly sessions: SessionRows;
  readonly clients: ClientRows;
  readonly policy: PolicyRows;
  readonly narrowings: NarrowingRows;
  readonly keys: KeyRows;
  readonly tokens: TokenRows;
  readonly revocations: RevocationRows;
  readonly loginNetworks: LoginNetworkRows;
  readonly events: SecurityEventRows;
  readonly eventStream: SecurityStreamRows;
  /** The current database time (`clock_timestamp()`), not the start time of the transaction. */
  databaseTime(): Promise<Date>;
  /**
   * Registers an effect that runs after the commit, such as a broadcast. It never runs after a rollback, and it runs
   * once when the transaction was retried.
   */
  afterCommit(effect: () => void): void;
  /**
   * Runs the work once per request id, and returns the first result for every repetition. Without an id, the work always
   * runs. Throws REQUEST_ID_REUSED or REQUEST_IN_PROGRESS.
   */
  once<T>(request: IdempotentRequest, work: () => Promise<T>): Promise<T>;
}

/** A request that its caller may retry. */
export interface IdempotentRequest {
  readonly subject: string;
  readonly method: string;
  readonly requestId: string;
  /** The request's content, in a form that is equal for equal requests and contains no secret. */
  readonly payload: string;
}

/** Whose connections a transaction uses, and what it shares with others. */
export interface TransactionPlace {
  /** Default: the class of the store. */
  readonly importance?: Importance;
  /** Names of the rows for which callers can make others wait, such as `session 7b…`. */
  readonly contends?: readonly string[];
  /** Whom it is for, such as a network: callers take turns when they wait for a connection. */
  readonly caller?: string | undefined;
}

/** Where and for whom a single read runs. */
export type ReadPlace = Pick<TransactionPlace, 'importance' | 'caller'>;

/** Runs transactions. */
export interface AuthStore {
  /** Single reads outside a transaction, which cost less. Anyone may cause them, unless the store is for `promise`. */
  readonly reads: {
    readonly users: {
      /** @param place - `unknown` by default */
      credentialsByName(username: string, place?: ReadPlace): Promise<UserCredentials | undefined>;
    };
    readonly clients: {
      /** @param place - `unknown` by default */
      find(clientId: string, place?: ReadPlace): Promise<Client | undefined>;
    };
    readonly passwordResets: Pick<PasswordResetRows, 'find'>;
    readonly policy: {
      /**
       * The policy at this moment; it may be replaced before it is used.
       *
       * @param place - `unknown` by default
       */
      current(place?: ReadPlace): Promise<Policy>;
    };
    readonly sessions: {
      /** @param caller - see {@link TransactionPlace.caller} */
      findRefreshToken(hash: Buffer, caller?: string): Promise<RefreshTokenRow | undefined>;
    };
  };
  /**
   * Commits all effects of the work, or none. The work is retried after a serialization failure or a deadlock, so it must
   * not keep state outside the transaction.
   *
   * @throws ServiceError RATE_LIMITED when too many transactions wait for a connection or for one of the named rows
   */
  transaction<T>(work: (tx: AuthTransaction) => Promise<T>, place?: TransactionPlace): Promise<T>;
}
