/** Transactions: begun with their first statement, committed only when the server confirms it, and retried. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { errorCodeOf, isPlanOutdated } from './pg-errors.js';
import type { Sql, StatementOptions, TransactionOptions } from './sql.js';
import { type Connection, classifyError, runStatement, unavailable } from './statements.js';

/** How often a transaction is tried when it conflicts with another one. */
export const TRANSACTION_ATTEMPTS_MAX = 12;
/** The longest pause between two attempts. */
const TRANSACTION_BACKOFF_MS_MAX = 200;

/**
 * Runs the work again for as long as it conflicts with another transaction (40001, 40P01), or uses a plan that a
 * migration has outdated.
 *
 * @throws ServiceError DEPENDENCY_UNAVAILABLE when every attempt conflicted; else what `work` throws
 */
export async function withRetry<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isRetriable(error)) throw error;
      if (attempt === TRANSACTION_ATTEMPTS_MAX) throw unavailable('too many transactions at once', error);
      await sleep(Math.random() * Math.min(TRANSACTION_BACKOFF_MS_MAX, 2 ** (attempt + 1)));
    }
  }
}

function isRetriable(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === '40001' || code === '40P01' || isPlanOutdated(error);
}

/**
 * Runs the work in one transaction. The transaction begins with the first statement. Later statements may be sent
 * before the answers to earlier ones, and run in the order in which they were sent.
 */
export async function runTransaction<T>(
  connection: Connection,
  work: (sql: Sql) => Promise<T>,
  { isolation = 'read committed', readOnly = false }: TransactionOptions,
): Promise<T> {
  const begin = `BEGIN ISOLATION LEVEL ${isolation} ${readOnly ? 'READ ONLY' : 'READ WRITE'}`;
  const transaction = createTransaction(connection, begin);
  try {
    const result = await work(transaction.sql);
    if (transaction.end()) await commit(connection);
    return result;
  } catch (error) {
    if (transaction.end()) await rollBack(connection);
    throw error;
  }
}

/** A transaction that has not begun. `end` refuses further statements, and returns whether it has begun. */
function createTransaction(connection: Connection, begin: string): { sql: Sql; end: () => boolean } {
  let open = true;
  let begun: Promise<unknown> | undefined;
  const requireOpen = (): void => {
    if (!open) throw new TypeError('this transaction has ended; was a promise not awaited?');
  };
  async function query<Row extends object>(
    text: string,
    values?: readonly unknown[],
    options?: StatementOptions,
  ): Promise<{ rows: Row[]; rowCount: number }> {
    requireOpen();
    if (begun === undefined) {
      const first = runStatement<Row>(connection, text, values, { ...options, begin });
      // Later statements only wait for it to end; its error goes to its own caller.
      begun = first.catch(() => undefined);
      return await first;
    }
    // Sent before the transaction has begun, a statement would run by itself if it does not begin.
    await begun;
    requireOpen();
    return await runStatement<Row>(connection, text, values, options);
  }
  return {
    sql: { query },
    end: () => {
      open = false;
      return begun !== undefined;
    },
  };
}

/** Never throws: the caller must see the error that came before. */
async function rollBack(connection: Connection): Promise<void> {
  if (connection.broken) return;
  await runStatement(connection, 'ROLLBACK').catch(() => {
    connection.broken = true;
  });
}

/**
 * Commits, and accepts nothing less than a plain COMMIT. A transaction in which an error was swallowed is answered
 * with ROLLBACK, and a cancelled wait for the standby with COMMIT and a warning; neither may count as success. The
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
      throw classifyError(connection, error);
    });
    const last = Array.isArray(answer) ? answer.at(-1) : answer;
    if (last?.command === 'COMMIT' && warnings.length === 0) return;
    const cause = new Error(warnings.join('; ') || `got ${last?.command}`);
    throw unavailable('the commit was not confirmed', cause);
  } finally {
    client.removeListener('notice', onNotice);
  }
}
