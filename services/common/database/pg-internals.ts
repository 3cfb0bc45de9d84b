/** The first statement of a transaction, sent together with what begins it: one way to the server and back instead of two. */

import pg from 'pg';

/** A query as the client of pg treats it; its types leave some of this out. */
type ClientQuery = pg.Query & {
  name: string | undefined;
  callback: (error: Error | null | undefined, result: unknown) => void;
  query_timeout: number;
  handleCommandComplete(message: unknown, connection: pg.Connection): void;
};

/** The connection below a client; its types leave out which statements are on their way to be prepared. */
type ClientConnection = pg.Connection & { readonly submittedNamedStatements?: Record<string, string> };

/** How a transaction begins, and its first statement. */
export interface FirstStatement {
  readonly begin: string;
  /** One statement. */
  readonly text: string;
  readonly values: unknown[];
  /** Under which it is prepared; undefined when it is not. */
  readonly name?: string;
  /** How long the answer may take, in milliseconds. */
  readonly timeoutMs: number;
}

/**
 * Begins a transaction and runs its first statement.
 *
 * Between the two the server is sent no Sync: should the transaction not begin, it passes over everything up to the
 * next one, so the statement cannot run outside of a transaction (PostgreSQL, Frontend/Backend Protocol, §"Extended
 * Query"). Whoever sends a second statement waits for this answer, for the same reason.
 *
 * @returns the result of the statement
 */
export function beginWith<Row extends object>(
  client: pg.ClientBase,
  { begin, timeoutMs, ...statement }: FirstStatement,
): Promise<pg.QueryResult<Row>> {
  // The simple protocol knows no Sync, so it could not be mixed with what begins the transaction.
  const config = { ...statement, queryMode: 'extended' };
  const query = new pg.Query(config) as ClientQuery;
  query.query_timeout = timeoutMs;
  const { name } = query;
  let below: ClientConnection | undefined;
  const submit = query.submit.bind(query);
  query.submit = (connection) => {
    below = connection;
    const { stream } = connection;
    stream.cork();
    try {
      connection.parse({ name: '', text: begin, types: [] }, true);
      connection.bind({}, true);
      connection.execute({}, true);
      return submit(connection);
    } finally {
      stream.uncork();
      // The client takes the next message that says so for the preparation of the statement with this name.
      query.name = undefined;
    }
  };
  let hasBegun = false;
  const complete = query.handleCommandComplete.bind(query);
  query.handleCommandComplete = (message, connection) => {
    // The first of the two is that of BEGIN, which has no result.
    if (hasBegun) complete(message, connection);
    hasBegun = true;
    query.name = name;
  };
  return new Promise((resolve, reject) => {
    query.callback = (error, result) => {
      // It was passed over, so it is to be prepared next time.
      if (!hasBegun && name !== undefined) delete below?.submittedNamedStatements?.[name];
      if (error) reject(error);
      else resolve(result as pg.QueryResult<Row>);
    };
    client.query(query);
  });
}
