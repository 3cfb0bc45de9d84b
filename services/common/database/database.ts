/** PostgreSQL: one pool per process, transactions that repeat themselves, notifications, and getting ready. */

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceError } from '@portcullis/guard';
import pg from 'pg';
import { CommonError } from '../errors.js';
import type { Log } from '../host/log.js';
import { beginWith } from './pg-internals.js';
import { describeMissing, errorCodeOf, isAway, isPlanOutdated, isTooSlow } from './pg-errors.js';
import type { Subscription } from './listen.js';
import { listenTo } from './listen.js';
import { migrate } from './migrations.js';

export { errorCodeOf, violatedConstraint } from './pg-errors.js';
export type { Subscription } from './listen.js';

/** Connections of one process. */
export const POOL_SIZE_DEFAULT = 10;
/** How long a call waits for a connection. */
export const CONNECT_TIMEOUT_MS = 3_000;
/** How long one statement may run. */
export const STATEMENT_TIMEOUT_MS = 5_000;
/** How long a statement may wait for a lock: a frozen process must not hold up the others for long. */
export const LOCK_TIMEOUT_MS = 1_000;
/** How long a transaction may do nothing; then the server ends it, and its locks are free. */
export const IDLE_IN_TRANSACTION_TIMEOUT_MS = 1_000;
/** How often a transaction is tried when it loses against another one. */
export const TRANSACTION_ATTEMPTS_MAX = 12;
/** The longest pause between two attempts. */
export const TRANSACTION_BACKOFF_MS_MAX = 200;

/** How many different statements a connection keeps prepared; whatever comes after them is planned each time. */
export const PREPARED_STATEMENTS_MAX = 256;

/**
 * Beyond the server's own limit a silent server is given up, and the connection with it. It counts from the sending, so
 * what is sent together has so long together.
 */
const ANSWER_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 1_000;
const RECONNECT_DELAY_MS_MIN = 100;
const RECONNECT_DELAY_MS_MAX = 2_000;
/** While the database stays away, the log says so once in this many attempts. */
const ATTEMPTS_PER_REMINDER = 10;
/** What callers are told while the database is away. */
const RETRY_AFTER_MS = 1_000;
const PROBE_INTERVAL_MS = 500;

/** Something that runs SQL: the pool, or one transaction. */
export interface Sql {
  /**
   * Runs one statement. `bigint` columns come as bigint, `timestamptz` as Date, `bytea` as Buffer, `numeric` as
   * text (so cast a `sum` to bigint).
   *
   * @param options.isOneOff - the text differs from call to call, as with a filter: it takes no place among the
   *   statements that are kept prepared, which callers could use up otherwise
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the database is away or too slow; else the error of `pg`
   */
  query<Row extends object>(
    text: string,
    values?: readonly unknown[],
    options?: StatementOptions,
  ): Promise<{ rows: Row[]; rowCount: number }>;
}

/** How a statement is run. */
export interface StatementOptions {
  readonly isOneOff: boolean;
}

/** How a transaction sees the others. */
export interface TransactionOptions {
  readonly isolation?: 'read committed' | 'repeatable read' | 'serializable';
  readonly readOnly?: boolean;
}

/** The database of one service. */
export interface Database extends Sql {
  /**
   * Runs `work` in one transaction and commits. `work` runs again when the transaction lost against another one
   * (40001, 40P01), so it must touch nothing outside the transaction, and must let errors of `sql` through
   * unless it used a savepoint.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the connection is lost, when the commit was not confirmed
   *   (it may or may not have happened), and when every attempt lost; else what `work` throws, after a rollback
   */
  transaction<T>(work: (sql: Sql) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * Hears notifications on a connection of its own. Resolves when the first LISTEN is in place; a lost
   * connection is made again for ever, and `onReconnect` tells that notifications may have been missed.
   */
  listen(
    channel: string,
    onNotification: (payload: string) => void,
    onReconnect: () => void,
  ): Promise<Subscription>;
  /**
   * Waits for the database for as long as it takes, saying in the log what is missing, then migrates it.
   * Queries before that are refused with DEPENDENCY_UNAVAILABLE.
   *
   * @throws the signal's reason when aborted; MigrationError when waiting would not help
   */
  ready(signal: AbortSignal): Promise<void>;
  /** '' when the database answered last, else one phrase that says what is missing. */
  missing(): string;
  /** Calls the listener whenever `missing()` changes; returns a function that stops it. */
  onStateChange(listener: () => void): () => void;
  /** Closes all connections; work under way is waited for. */
  close(): Promise<void>;
}

/** What {@link openDatabase} needs. */
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
  const { log, migrationUrl = options.url } = options;
  const pool = createPool(options);
  const closing = new AbortController();
  const watch = createWatch(log, closing.signal, () => probe(options));
  const subscriptions = new Set<Subscription>();
  pool.on('error', watch.suspect);
  // A connection that breaks while it is lent out would otherwise end the process: the query tells of it anyway.
  pool.on('connect', (client) => client.on('error', () => {}));

  /** Lends a connection; one that is broken does not go back to the pool. */
  async function useConnection<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    if (!watch.isMigrated()) throw unavailable('the database is not ready yet');
    const client = await pool.connect().catch((error: unknown) => {
      watch.suspect();
      throw unavailable('the database does not answer', error);
    });
    const connection: Connection = { client, broken: false, isGathering: false, failure: undefined };
    try {
      return await work(connection);
    } finally {
      client.release(connection.broken);
      if (connection.broken) watch.suspect();
    }
  }

  async function untilItWins<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await useConnection(work);
      } catch (error) {
        if (!lostAgainstAnother(error)) throw error;
        if (attempt === TRANSACTION_ATTEMPTS_MAX) throw unavailable('too many transactions at once', error);
        await sleep(Math.random() * Math.min(TRANSACTION_BACKOFF_MS_MAX, 2 ** (attempt + 1)));
      }
    }
  }

  async function listen(
    channel: string,
    onNotification: (payload: string) => void,
    onReconnect: () => void,
  ): Promise<Subscription> {
    const subscription = await listenTo(
      { connect: () => createClient(options), log, signal: closing.signal },
      { channel, onNotification, onReconnect },
    );
    subscriptions.add(subscription);
    return {
      close: async () => {
        subscriptions.delete(subscription);
        await subscription.close();
      },
    };
  }

  async function ready(signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, closing.signal]);
    await retryWhileAway(stop, log, watch.found, () =>
      migrate({
        client: createClient({ ...options, url: migrationUrl }),
        folder: options.migrations,
        log,
        signal: stop,
      }),
    );
    watch.becameReady();
  }

  return {
    query: <Row extends object>(text: string, values?: readonly unknown[], statement?: StatementOptions) =>
      untilItWins((connection) => runQuery<Row>(connection, text, values, statement)),
    transaction: (work, transactionOptions = {}) =>
      untilItWins((connection) => runTransaction(connection, work, transactionOptions)),
    listen,
    ready,
    missing: watch.missing,
    onStateChange: watch.onChange,
    close: async () => {
      if (closing.signal.aborted) return;
      closing.abort(new Error('the database is closed'));
      await Promise.all([...subscriptions].map((subscription) => subscription.close()));
      await pool.end();
    },
  };
}

/** A connection while it is lent out. */
interface Connection {
  readonly client: pg.PoolClient;
  broken: boolean;
  /** What is sent waits for what else is sent in the same turn. */
  isGathering: boolean;
  /** What the last statement that failed by itself has failed with. */
  failure: { readonly error: unknown } | undefined;
}

/** Tries again for as long as the database is away, and says in the log what is missing. */
async function retryWhileAway(
  signal: AbortSignal,
  log: Log,
  onMissing: (missing: string) => void,
  attempt: () => Promise<void>,
): Promise<void> {
  let told = '';
  for (let count = 0, delayMs = RECONNECT_DELAY_MS_MIN; ; count++) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!isAway(error)) throw error;
      const missing = describeMissing(error);
      onMissing(missing);
      if (missing !== told || count % ATTEMPTS_PER_REMINDER === 0) {
        log.warn({ missing }, 'waiting for the database');
      }
      told = missing;
    }
    await sleep(delayMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    delayMs = Math.min(delayMs * 2, RECONNECT_DELAY_MS_MAX);
  }
}

/**
 * Runs the work. The transaction begins with its first statement; what comes after that may be sent before it is
 * answered, and is run in the order in which it was sent.
 */
async function runTransaction<T>(
  connection: Connection,
  work: (sql: Sql) => Promise<T>,
  options: TransactionOptions,
): Promise<T> {
  const { isolation = 'read committed', readOnly = false } = options;
  const begin = `BEGIN ISOLATION LEVEL ${isolation} ${readOnly ? 'READ ONLY' : 'READ WRITE'}`;
  let open = true;
  let begun: Promise<unknown> | undefined;
  const checkOpen = (): void => {
    if (!open) throw new TypeError('this transaction has ended; was a promise not awaited?');
  };
  const sql: Sql = {
    query: async <Row extends object>(
      text: string,
      values?: readonly unknown[],
      statement?: StatementOptions,
    ) => {
      checkOpen();
      if (begun === undefined) {
        const first = runQuery<Row>(connection, text, values, { ...statement, begin });
        // Who waits for this only wants to know that it is over.
        begun = first.catch(() => undefined);
        return await first;
      }
      // Were it sent now, and the transaction had not begun, it would stand alone.
      await begun;
      checkOpen();
      return await runQuery<Row>(connection, text, values, statement);
    },
  };
  try {
    const result = await work(sql);
    open = false;
    if (begun !== undefined) await commit(connection);
    return result;
  } catch (error) {
    open = false;
    if (begun !== undefined) await rollBack(connection);
    throw error;
  }
}

/** Never throws: what the caller must see is what went wrong before. */
async function rollBack(connection: Connection): Promise<void> {
  if (connection.broken) return;
  await runQuery(connection, 'ROLLBACK').catch(() => {
    connection.broken = true;
  });
}

/**
 * Commits, and believes nothing less than a plain COMMIT. A transaction in which an error was swallowed answers
 * ROLLBACK, and a cancelled wait for the standby answers COMMIT with a warning; neither may count as success. The
 * statement timeout is lifted because it would cancel that wait.
 */
async function commit(connection: Connection): Promise<void> {
  const { client } = connection;
  const warnings: string[] = [];
  const onNotice = (notice: { severity?: string | undefined; message?: string | undefined }) => {
    if (notice.severity === 'WARNING') warnings.push(notice.message ?? 'unknown warning');
  };
  client.on('notice', onNotice);
  try {
    const committing: Promise<pg.QueryResult | pg.QueryResult[]> = client.query(
      'SET LOCAL statement_timeout = 0; COMMIT',
    );
    const answer = await committing.catch((error: unknown) => {
      throw toldOf(connection, error);
    });
    const last = Array.isArray(answer) ? answer.at(-1) : answer;
    if (last?.command === 'COMMIT' && warnings.length === 0) return;
    throw unavailable(
      'the commit was not confirmed',
      new Error(warnings.join('; ') || `got ${last?.command}`),
    );
  } finally {
    client.removeListener('notice', onNotice);
  }
}

async function runQuery<Row extends object>(
  connection: Connection,
  text: string,
  values: readonly unknown[] = [],
  { isOneOff = false, begin }: Partial<StatementOptions> & { readonly begin?: string } = {},
): Promise<{ rows: Row[]; rowCount: number }> {
  const { client } = connection;
  const statement = { ...(isOneOff ? {} : preparedAs(text, values)), text, values: [...values] };
  const timed = { ...statement, query_timeout: ANSWER_TIMEOUT_MS };
  gather(connection);
  const { rows, rowCount } = await guarded<pg.QueryResult<Row>>(connection, () =>
    begin === undefined
      ? client.query<Row>(timed)
      : beginWith<Row>(client, { ...statement, begin, timeoutMs: ANSWER_TIMEOUT_MS }),
  );
  return { rows, rowCount: rowCount ?? 0 };
}

/**
 * Holds back what is sent until nothing else is to be sent at once: to hand it to the socket statement by statement
 * takes more time than all else that a statement needs here.
 */
function gather(connection: Connection): void {
  if (connection.isGathering) return;
  // Its types do not show the connection below; without it each statement is simply sent by itself.
  const { stream } = (connection.client as { readonly connection?: pg.Connection }).connection ?? {};
  if (stream === undefined) return;
  connection.isGathering = true;
  stream.cork();
  process.nextTick(() => {
    connection.isGathering = false;
    stream.uncork();
  });
}

const statementNames = new Map<string, string>();

/**
 * Names a statement, so that a connection has the server parse and plan it once: for the statement that writes to
 * the revocation log that is most of its time. What has no parameters is not named: it may be several statements.
 *
 * The name follows from the text alone. Somebody between us and the server may hand out sessions in which another
 * process has prepared its own statements: a name may be unknown there, but it never means another statement.
 */
function preparedAs(text: string, values: readonly unknown[]): { name?: string } {
  if (values.length === 0) return {};
  const known = statementNames.get(text);
  if (known !== undefined) return { name: known };
  if (statementNames.size >= PREPARED_STATEMENTS_MAX) return {};
  const name = `portcullis_${createHash('sha256').update(text).digest('base64url')}`;
  statementNames.set(text, name);
  return { name };
}

/**
 * Runs a statement, and tells why it failed. What was sent behind a statement that has failed, fails because of that, and all
 * of it may come back in one turn: whoever waits for several hears the one reason, whichever is looked at first.
 */
async function guarded<T>(connection: Connection, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (connection.failure !== undefined && isAftermath(error)) throw connection.failure.error;
    const told = toldOf(connection, error);
    connection.failure = { error: told };
    throw told;
  }
}

/** Tells apart an error of the statement, which is passed on, from a database that is away or too slow. */
function toldOf(connection: Connection, error: unknown): unknown {
  if (isAway(error)) {
    connection.broken = true;
    return unavailable('the database does not answer', error);
  }
  if (isTooSlow(error)) return unavailable('the database took too long', error);
  if (isPlanOutdated(error)) connection.broken = true;
  return error;
}

/**
 * What follows from a statement before: the transaction is aborted, or a statement was not prepared because of that
 * although it was about to be.
 */
function isAftermath(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === '25P02' || code === '26000';
}

/** Knows whether the database answers. A suspicion is probed first: one broken connection is no outage. */
function createWatch(log: Log, signal: AbortSignal, probe: () => Promise<void>) {
  const listeners = new Set<() => void>();
  let migrated = false;
  let missing = 'the database was not reached yet';
  let probing = false;

  function found(next: string): void {
    if (next === missing) return;
    missing = next;
    for (const listener of listeners) listener();
  }

  async function probeUntilGood(): Promise<void> {
    for (probing = true; probing && !signal.aborted; ) {
      try {
        await probe();
        if (missing !== '') log.info('the database answers again');
        found('');
        probing = false;
      } catch (error) {
        if (missing === '') log.warn({ err: error, missing: describeMissing(error) }, 'the database is away');
        found(describeMissing(error));
        await sleep(PROBE_INTERVAL_MS, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  }

  return {
    found,
    missing: () => missing,
    isMigrated: () => migrated,
    becameReady: () => {
      migrated = true;
      found('');
    },
    suspect: () => {
      if (migrated && !probing) void probeUntilGood();
    },
    onChange: (listener: () => void) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** Asks on a connection of its own, because a pool whose connections are all in use is no outage either. */
async function probe(options: DatabaseOptions): Promise<void> {
  const client = createClient(options);
  const query = { text: 'SELECT 1', query_timeout: CONNECT_TIMEOUT_MS };
  try {
    await client.connect();
    await client.query(query);
  } finally {
    client.end().catch(() => {});
  }
}

function lostAgainstAnother(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === '40001' || code === '40P01' || isPlanOutdated(error);
}

function unavailable(message: string, cause?: unknown): ServiceError {
  return new CommonError('DEPENDENCY_UNAVAILABLE', message, { cause, retryAfterMs: RETRY_AFTER_MS });
}

function createPool(options: DatabaseOptions): pg.Pool {
  return new pg.Pool({
    ...connectionSettings(options),
    max: options.poolSize ?? POOL_SIZE_DEFAULT,
    // Statements that need not know each other's answers travel together.
    pipeline: true,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: LOCK_TIMEOUT_MS,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
  });
}

/** A connection outside the pool, without its limits: for migrations and for LISTEN. */
function createClient(options: DatabaseOptions): pg.Client {
  const client = new pg.Client(connectionSettings(options));
  client.on('error', () => {});
  return client;
}

function connectionSettings(options: DatabaseOptions): pg.ClientConfig {
  return {
    connectionString: options.url,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: 1_000,
    application_name: 'portcullis',
    types: { getTypeParser },
  };
}

const TYPE_INT8 = 20;
const TYPE_INT8_ARRAY = 1016;

/** 64-bit numbers as bigint, because a JavaScript number loses their last digits. */
const getTypeParser: typeof pg.types.getTypeParser = (type: number, format?: 'text' | 'binary') => {
  if (format === 'binary') return pg.types.getTypeParser(type, 'binary');
  if (type === TYPE_INT8) return BigInt;
  if (type === TYPE_INT8_ARRAY) return parseBigintArray;
  return pg.types.getTypeParser(type, 'text');
};

function parseBigintArray(array: string): (bigint | null)[] {
  if (array === '{}') return [];
  return array
    .slice(1, -1)
    .split(',')
    .map((item) => (item === 'NULL' ? null : BigInt(item)));
}
