/** What runs SQL, as stores see it. */

/** Something that runs SQL: the pool, or one transaction. */
export interface Sql {
  /**
   * Runs one statement. `bigint` columns come as bigint, `timestamptz` as Date, `bytea` as Buffer, `numeric` as
   * text (so cast a `sum` to bigint).
   *
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
  /**
   * The text differs from call to call, as with a filter, so the statement is not kept prepared. Otherwise callers
   * could use up the places of the statements that are.
   */
  readonly isOneOff: boolean;
}

/** What a transaction sees of concurrent ones, and what it may do. */
export interface TransactionOptions {
  readonly isolation?: 'read committed' | 'repeatable read' | 'serializable';
  readonly readOnly?: boolean;
}
