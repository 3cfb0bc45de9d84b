/** PostgreSQL: one pool per process, retried transactions, notifications, and readiness. */
import type { Log } from '../host/log.js';
import { createAvailability } from './availability.js';
import { migrate } from './migrations.js';
import { listenTo, type Subscription } from './notifications.js';
import { createClient, createPool } from './pool.js';
import type { Sql, TransactionOptions } from './sql.js';
import { type Connection, connectionOver, runStatement, unavailable } from './statements.js';
import { runTransaction, withRetry } from './transaction.js';

export { violatedConstraint } from './pg-errors.js';
export {
  CONNECT_TIMEOUT_MS,
  IDLE_IN_TRANSACTION_TIMEOUT_MS,
  LOCK_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
} from './pool.js';
export type { Sql, TransactionOptions } from './sql.js';
export { TRANSACTION_ATTEMPTS_MAX } from './transaction.js';

/** The database of one service. */
export interface Database extends Sql {
  /**
   * Runs `work` in one transaction and commits. `work` runs again when the transaction conflicted with another one
   * (40001, 40P01), so it must touch nothing outside the transaction, and must let errors of `sql` through
   * unless it used a savepoint.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the connection is lost, when the commit was not confirmed
   *   (it may or may not have happened), and when every attempt conflicted; else what `work` throws, after a rollback
   */
  transaction<T>(work: (sql: Sql) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * Receives notifications on a connection of its own. Resolves when the first LISTEN is in place. A lost
   * connection is made again, without end; `onReconnect` then reports that notifications may have been missed.
   */
  listen(
    channel: string,
    onNotification: (payload: string) => void,
    onReconnect: () => void,
  ): Promise<Subscription>;
  /**
   * Waits for the database, without a limit, and logs what is missing; then migrates it. Queries before that fail
   * with DEPENDENCY_UNAVAILABLE.
   *
   * @throws the signal's reason when aborted; MigrationError when waiting would not help
   */
  ready(signal: AbortSignal): Promise<void>;
  /** '' when the database answered last, else one phrase that says what is missing. */
  missing(): string;
  /** Calls the listener whenever `missing()` changes; returns a function that stops it. */
  onStateChange(listener: () => void): () => void;
  /** Closes all connections, after the work under way. */
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** `postgresql://…`. */
  readonly url: string;
  /** The same database as a role that may change its schema; the role of `url` does when undefined. */
  readonly migrationUrl?: string | undefined;
  /** The folder with `0001-name.sql`, `0002-name.sql`, …. */
  readonly migrations: URL;
  readonly log: Log;
  readonly poolSize?: number;
}

/** The database at a URL. Connects to nothing yet: see {@link Database.ready}. */
export function openDatabase(options: DatabaseOptions): Database {
  const { url, migrationUrl = url, migrations, log } = options;
  const pool = createPool(options);
  const closing = new AbortController();
  const availability = createAvailability(url, { log, signal: closing.signal });
  const subscriptions = createSubscriptions(url, { log, signal: closing.signal });
  pool.on('error', availability.suspect);

  /** Lends a connection; a broken one does not go back to the pool. */
  async function withConnection<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    if (!availability.isMigrated()) throw unavailable('the database is not ready yet');
    const client = await pool.connect().catch((error: unknown) => {
      availability.suspect();
      throw unavailable('the database does not answer', error);
    });
    const connection = connectionOver(client);
    try {
      return await work(connection);
    } finally {
      client.release(connection.broken);
      if (connection.broken) availability.suspect();
    }
  }

  async function ready(signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, closing.signal]);
    await availability.waitUntilMigrated(stop, () =>
      migrate({ client: createClient(migrationUrl), folder: migrations, log, signal: stop }),
    );
  }

  async function close(): Promise<void> {
    if (closing.signal.aborted) return;
    closing.abort(new Error('the database is closed'));
    await subscriptions.close();
    await pool.end();
  }

  return {
    query: (text, values, statement) =>
      withRetry(() => withConnection((connection) => runStatement(connection, text, values, statement))),
    transaction: (work, transactionOptions = {}) =>
      withRetry(() => withConnection((connection) => runTransaction(connection, work, transactionOptions))),
    listen: subscriptions.listen,
    ready,
    missing: availability.missing,
    onStateChange: availability.onChange,
    close,
  };
}

/** What listens to this database, until all of it is closed. */
function createSubscriptions(
  url: string,
  context: { log: Log; signal: AbortSignal },
): { listen: Database['listen']; close: () => Promise<void> } {
  const open = new Set<Subscription>();
  return {
    listen: async (channel, onNotification, onReconnect) => {
      const connect = () => createClient(url);
      const subscription = await listenTo({ connect, ...context }, { channel, onNotification, onReconnect });
      open.add(subscription);
      return {
        close: async () => {
          open.delete(subscription);
          await subscription.close();
        },
      };
    },
    close: async () => {
      await Promise.all([...open].map((subscription) => subscription.close()));
    },
  };
}
