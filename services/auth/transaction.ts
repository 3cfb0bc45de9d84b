/** The handle of one database transaction of auth: what every domain file may do inside it, and after it. */

import type { ClientRows } from './records/clients.js';
import type { KeyRows } from './records/keys.js';
import type { LoginNetworkRows } from './records/login-networks.js';
import type { RevocationRows } from './records/revocations.js';
import type { SecurityEventRows, SecurityStreamRows } from './records/security-events.js';
import type { SessionRows } from './records/sessions.js';
import type { TokenRows } from './records/tokens.js';
import type { UserRows } from './records/users.js';

/**
 * One transaction, read committed. Rows are locked in one order everywhere, so that no two
 * transactions wait for each other: user, session, refresh token, client, signing key, revocation log.
 */
export interface AuthTransaction {
  readonly users: UserRows;
  readonly sessions: SessionRows;
  readonly clients: ClientRows;
  readonly keys: KeyRows;
  readonly tokens: TokenRows;
  readonly revocations: RevocationRows;
  readonly loginNetworks: LoginNetworkRows;
  readonly events: SecurityEventRows;
  readonly eventStream: SecurityStreamRows;
  /** Database time (`clock_timestamp()`), never the time at which the transaction began. */
  databaseTime(): Promise<Date>;
  /**
   * Registers what is to happen once the transaction has committed, such as a broadcast. It never
   * runs when the transaction is rolled back, and runs once when the transaction had to be repeated.
   */
  afterCommit(effect: () => void): void;
  /**
   * Runs the work once per request id and answers the first result again afterwards; without an id
   * it simply runs. Throws REQUEST_ID_REUSED or REQUEST_IN_PROGRESS.
   */
  once<T>(request: IdempotentRequest, work: () => Promise<T>): Promise<T>;
}

/** A request that its caller may send again. */
export interface IdempotentRequest {
  readonly subject: string;
  readonly method: string;
  readonly requestId: string;
  /** What was asked for, in a form that is equal for equal requests and holds no secret. */
  readonly payload: string;
}

/** Runs transactions. */
export interface AuthStore {
  /** Reads one thing at a time, without the cost of a transaction around it. */
  readonly reads: { readonly users: Pick<UserRows, 'credentialsOf'> };
  /**
   * Commits what the work did, or nothing. The work may run more than once (serialisation failure,
   * deadlock), so it must keep no state of its own outside the transaction.
   */
  transaction<T>(work: (tx: AuthTransaction) => Promise<T>): Promise<T>;
}
