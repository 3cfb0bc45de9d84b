/** Single statements on a lent connection: preparing them, and classifying their errors. */
import { createHash } from 'node:crypto';
import type { ServiceError } from '@portcullis/guard/errors';
import type pg from 'pg';
import { CommonError } from '../errors.js';
import { errorCodeOf, isAway, isPlanOutdated, isTooSlow } from './pg-errors.js';
import { sendStatement } from './pg-internals.js';
import { STATEMENT_TIMEOUT_MS } from './pool.js';
import type { StatementOptions } from './sql.js';

/** How many different statements a process keeps prepared; any after them are planned each time. */
const PREPARED_STATEMENTS_MAX = 512;

/**
 * Timeout of a response, in milliseconds: the server's own statement timeout plus one second. The connection is then
 * closed. It starts when the statement is sent, so statements sent together share it.
 */
const ANSWER_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 1_000;
/** RetryInfo delay of DEPENDENCY_UNAVAILABLE while the database is unreachable, in milliseconds. */
const RETRY_AFTER_MS = 1_000;

/** A connection while it is lent out. */
export interface Connection {
  readonly client: pg.PoolClient;
  /** Must not go back to the pool. */
  broken: boolean;
  /** The last error that a statement caused by itself. */
  failure: { readonly error: unknown } | undefined;
}

/** A connection on which nothing has happened yet. */
export function connectionOver(client: pg.PoolClient): Connection {
  return { client, broken: false, failure: undefined };
}

/**
 * Runs a statement; with `begin`, as the first of a transaction that begins in this way.
 *
 * @throws ServiceError DEPENDENCY_UNAVAILABLE when the database is away or too slow; else the error of `pg`. A
 *   statement that was sent behind one that has failed, fails with the same error
 */
export async function runStatement<Row extends object>(
  connection: Connection,
  text: string,
  values: readonly unknown[] = [],
  { isOneOff = false, begin }: StatementOptions & { readonly begin?: string } = {},
): Promise<{ rows: Row[]; rowCount: number }> {
  const name = isOneOff ? undefined : nameOf(text, values);
  const statement = { text, values: [...values], name, begin, timeoutMs: ANSWER_TIMEOUT_MS };
  try {
    const { rows, rowCount } = await sendStatement<Row>(connection.client, statement);
    return { rows, rowCount: rowCount ?? 0 };
  } catch (error) {
    // All of what was sent together may fail in one turn. Every caller gets the first error, which is the reason.
    if (connection.failure !== undefined && isAftermath(error)) throw connection.failure.error;
    const classified = classifyError(connection, error);
    connection.failure = { error: classified };
    throw classified;
  }
}

/** Tells an error of the statement, which is passed on, from a database that is away or too slow. */
export function classifyError(connection: Connection, error: unknown): unknown {
  if (isAway(error)) {
    connection.broken = true;
    return unavailable('the database does not answer', error);
  }
  if (isTooSlow(error)) return unavailable('the database took too long', error);
  if (isPlanOutdated(error)) connection.broken = true;
  return error;
}

/** DEPENDENCY_UNAVAILABLE. */
export function unavailable(message: string, cause?: unknown): ServiceError {
  return new CommonError('DEPENDENCY_UNAVAILABLE', message, { cause, retryAfterMs: RETRY_AFTER_MS });
}

/**
 * What follows from a statement before: the transaction is aborted, or a statement was not prepared because of that
 * although it was about to be.
 */
function isAftermath(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === '25P02' || code === '26000';
}

const statementNames = new Map<string, string>();

/**
 * Names a statement, so that a connection has the server parse and plan it once: for the statement that writes to
 * the revocation log that is most of its time. SQL without parameters is not prepared, because it may contain several statements.
 *
 * The name follows from the text alone. A connection pooler may hand out sessions in which another process has
 * prepared its own statements: a name may be unknown there, but it never means another statement.
 */
function nameOf(text: string, values: readonly unknown[]): string | undefined {
  if (values.length === 0) return undefined;
  const known = statementNames.get(text);
  if (known !== undefined) return known;
  if (statementNames.size >= PREPARED_STATEMENTS_MAX) return undefined;
  const name = `portcullis_${createHash('sha256').update(text).digest('base64url')}`;
  statementNames.set(text, name);
  return name;
}
