/** What runs SQL, as stores see it. */

/** Something that runs SQL: the pool, or one transaction. */
export interface Sql {
  /**
   * Runs one statement. `bigint` columns come as bigint, `timestamptz` as Date, `bytea` as Buffer, `numeric` as
   * text (so cast a `sum` to bigint).
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE when the database is away or too slow; RATE_LIMITED, outside a
   *   transaction, when too many wait for a connection; else the error of `pg`
   */
  query<Row extends object>(
    text: string,
    values?: readonly unknown[],
    options?: StatementOptions,
  ): Promise<{ rows: Row[]; rowCount: number }>;
}

/** The same, with the statements of one caller, who takes turns with others. See {@link TransactionOptions.caller}. */
export function asCaller(sql: Sql, caller: string | undefined): Sql {
  return { query: (text, values, options) => sql.query(text, values, { ...options, caller }) };
}

/** How a statement is run. */
export interface StatementOptions {
  /** Outside a transaction: whom it is for. See {@link TransactionOptions.caller}. */
  readonly caller?: string | undefined;
  /**
   * The text differs from call to call, as with a filter, so the statement is not kept prepared. Otherwise callers
   * could use up the places of the statements that are.
   */
  readonly isOneOff?: boolean;
}

/** What a transaction sees of concurrent ones, and what it may do. */
export interface TransactionOptions {
  readonly isolation?: 'read committed' | 'repeatable read' | 'serializable';
  readonly readOnly?: boolean;
  /**
   * Names of the rows that it locks and for which callers can make others wait, such as `session 7b…`. Few transactions
   * with one name use connections at a time, and a bounded number of them waits.
   */
  readonly contends?: readonly string[] | undefined;
  /** Whom it is for, such as a network. Callers take turns when they wait for a connection. */
  readonly caller?: string | undefined;
}

/** What runs SQL on the connections of one lane. */
export interface DatabaseLane extends Sql {
  /**
   * Runs `work` in one transaction and commits. `work` runs again when the transaction conflicted with another one
   * (40001, 40P01), so it must touch nothing outside the transaction, and must let errors of `sql` through
   * unless it used a savepoint.
   *
   * @throws ServiceError RATE_LIMITED when too many wait for a connection or a row; DEPENDENCY_UNAVAILABLE when the
   *   connection is lost, when the commit was not confirmed (it may or may not have happened), and when every attempt
   *   conflicted; else what `work` throws, after a rollback
   */
  transaction<T>(work: (sql: Sql) => Promise<T>, options?: TransactionOptions): Promise<T>;
}
