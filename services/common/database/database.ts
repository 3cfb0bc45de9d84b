/** PostgreSQL: lanes of connections by importance, retried transactions, notifications, and readiness. */
import type { Log } from '../host/log.js';
import { createAvailability } from './availability.js';
import { parseDatabaseUrl } from './database-url.js';
import {
  DATABASE_LIMITS_DEFAULT,
  type DatabaseLimits,
  IMPORTANCES,
  type Importance,
  type LaneStatus,
  type OpenLane,
  openLane,
} from './lanes.js';
import { migrate } from './migrations.js';
import { listenTo, type Subscription } from './notifications.js';
import { createClient } from './pool.js';
import type { DatabaseLane, TransactionOptions } from './sql.js';
import { type Connection, connectionOver, runStatement, unavailable } from './statements.js';
import { runTransaction, withRetry } from './transaction.js';

export type { DatabaseLimits, Importance, LaneStatus } from './lanes.js';
export { DATABASE_LIMITS_DEFAULT, LANE_WAIT_MS } from './lanes.js';
export { violatedConstraint } from './pg-errors.js';
export {
  IDLE_IN_TRANSACTION_TIMEOUT_MS,
  LOCK_TIMEOUT_MS,
  STATEMENT_TIMEOUT_MS,
} from './pool.js';
export { asCaller, type DatabaseLane, type Sql, type TransactionOptions } from './sql.js';
export { TRANSACTION_ATTEMPTS_MAX } from './transaction.js';

/** The database of one service. By itself it is the lane of known callers. */
export interface Database extends DatabaseLane {
  /** The connections for work of this importance. */
  lane(importance: Importance): DatabaseLane;
  /** Present numbers of every lane. */
  lanes(): readonly LaneStatus[];
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
  /** `postgresql://…`, see {@link parseDatabaseUrl}. */
  readonly url: string;
  /** The same database as a role that may change its schema; the role of `url` does when undefined. */
  readonly migrationUrl?: string | undefined;
  /** The folder with `0001-name.sql`, `0002-name.sql`, …. */
  readonly migrations: URL;
  readonly log: Log;
  readonly limits?: DatabaseLimits | undefined;
}

/** The database at a URL. Connects to nothing yet: see {@link Database.ready}. */
export function openDatabase(options: DatabaseOptions): Database {
  const { migrations, log, limits = DATABASE_LIMITS_DEFAULT } = options;
  const urls = urlsOf(options.url);
  const migrationUrls = urlsOf(options.migrationUrl ?? options.url);
  const closing = new AbortController();
  const availability = createAvailability(urls, { log, signal: closing.signal });
  const subscriptions = createSubscriptions(urls, { log, signal: closing.signal });
  const lanes = IMPORTANCES.map((importance) => openLane(importance, { urls, limits, log }));
  for (const { pool } of lanes) pool.onError(availability.suspect);

  /** Lends a connection; a broken one does not go back to the pool. */
  async function withConnection<T>(
    lane: OpenLane,
    admitted: TransactionOptions,
    work: (connection: Connection) => Promise<T>,
  ): Promise<T> {
    if (!availability.isMigrated()) throw unavailable('the database is not ready yet');
    const leave = await lane.enter(admitted);
    try {
      const client = await lane.pool.connect().catch((error: unknown) => {
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
    } finally {
      leave();
    }
  }

  const laneOver = (lane: OpenLane): DatabaseLane => ({
    query: (text, values, statement = {}) =>
      withRetry(() =>
        withConnection(lane, statement, (connection) => runStatement(connection, text, values, statement)),
      ),
    transaction: (work, transactionOptions = {}) =>
      withRetry(() =>
        withConnection(lane, transactionOptions, (connection) =>
          runTransaction(connection, work, transactionOptions),
        ),
      ),
  });
  const byImportance = new Map(lanes.map((lane) => [lane.status().importance, laneOver(lane)]));
  const laneOf = (importance: Importance): DatabaseLane => {
    const lane = byImportance.get(importance);
    if (lane === undefined) throw new TypeError(`there is no lane ${importance}`);
    return lane;
  };

  async function ready(signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, closing.signal]);
    await availability.waitUntilMigrated(stop, async (attempt) => {
      await migrate({ client: createClient(migrationUrls, attempt), folder: migrations, log, signal: stop });
      // The way that calls will go, which may differ: another role, limits, and perhaps a connection pooler.
      for (const { pool, status } of lanes) {
        if (status().importance === 'promise') await pool.fill();
        else (await pool.connect()).release();
      }
    });
  }

  async function close(): Promise<void> {
    if (closing.signal.aborted) return;
    closing.abort(new Error('the database is closed'));
    await subscriptions.close();
    await Promise.all(lanes.map((lane) => lane.close()));
  }

  return {
    ...laneOf('known'),
    lane: laneOf,
    lanes: () => lanes.map(({ status }) => status()),
    listen: subscriptions.listen,
    ready,
    missing: availability.missing,
    onStateChange: availability.onChange,
    close,
  };
}

/**
 * Migrates the database at a URL, as a role that may change its schema. Waits for the database without a limit, and logs
 * what is missing.
 *
 * @throws the signal's reason when aborted; MigrationError when waiting would not help
 */
export async function migrateDatabase(options: {
  readonly url: string;
  /** The folder with `0001-name.sql`, `0002-name.sql`, …. */
  readonly migrations: URL;
  readonly log: Log;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { url, migrations, log, signal } = options;
  const urls = urlsOf(url);
  await createAvailability(urls, { log, signal }).waitUntilMigrated(signal, (attempt) =>
    migrate({ client: createClient(urls, attempt), folder: migrations, log, signal }),
  );
}

function urlsOf(url: string): readonly string[] {
  const parsed = parseDatabaseUrl(url);
  if ('problem' in parsed) throw new TypeError(`the URL of the database ${parsed.problem}`);
  return parsed.urls;
}

/** What listens to this database, until all of it is closed. */
function createSubscriptions(
  urls: readonly string[],
  context: { log: Log; signal: AbortSignal },
): { listen: Database['listen']; close: () => Promise<void> } {
  const open = new Set<Subscription>();
  return {
    listen: async (channel, onNotification, onReconnect) => {
      let attempts = 0;
      const connect = () => createClient(urls, attempts++);
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
