/** Connections: their settings, their limits, and how their values are read. */
import pg from 'pg';

/** Connections of one process. */
const POOL_SIZE_DEFAULT = 10;
/** How long a call waits for a connection. */
export const CONNECT_TIMEOUT_MS = 3_000;
/** How long one statement may run. */
export const STATEMENT_TIMEOUT_MS = 5_000;
/** How long a statement may wait for a lock, so that a frozen process does not block the others for long. */
export const LOCK_TIMEOUT_MS = 1_000;
/** How long a transaction may do nothing; then the server ends it and releases its locks. */
export const IDLE_IN_TRANSACTION_TIMEOUT_MS = 1_000;

/** A pool with the limits of calls. */
export function createPool({ url, poolSize }: { url: string; poolSize?: number | undefined }): pg.Pool {
  const pool = new pg.Pool({
    ...connectionSettings(url),
    max: poolSize ?? POOL_SIZE_DEFAULT,
    // Statements that do not depend on each other's results travel together.
    pipeline: true,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    lock_timeout: LOCK_TIMEOUT_MS,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_TIMEOUT_MS,
  });
  // Without a listener, a connection that breaks while it is lent out would end the process. The query reports it.
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** A connection outside the pool, without its limits: for migrations, LISTEN and probes. */
export function createClient(url: string): pg.Client {
  const client = new pg.Client(connectionSettings(url));
  client.on('error', () => {});
  return client;
}

function connectionSettings(url: string): pg.ClientConfig {
  return {
    connectionString: url,
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
