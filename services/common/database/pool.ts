/** Connections: their settings, their limits, and how their values are read. */
import pg from 'pg';

/** How long a call waits for a connection. */
const CONNECT_TIMEOUT_MS = 3_000;
/** How long one statement may run. */
export const STATEMENT_TIMEOUT_MS = 5_000;
/** How long a statement may wait for a lock, so that a frozen process does not block the others for long. */
export const LOCK_TIMEOUT_MS = 1_000;
/** How long a transaction may do nothing; then the server ends it and releases its locks. */
export const IDLE_IN_TRANSACTION_TIMEOUT_MS = 1_000;

/**
 * Sets the limits of calls for a session. A statement, because a connection pooler such as PgBouncer refuses them as
 * parameters of the start, or drops them silently.
 */
const SET_LIMITS = `SET statement_timeout = ${STATEMENT_TIMEOUT_MS}; SET lock_timeout = ${LOCK_TIMEOUT_MS};
  SET idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_TIMEOUT_MS}; SHOW transaction_read_only`;

/** SQLSTATE of a write on a standby. */
const READ_ONLY = '25006';

/** Connections that are lent out. */
export interface Pool {
  /** Lends a connection to a host that takes writes; tries each host once. */
  connect(): Promise<pg.PoolClient>;
  /** Opens connections until there are as many as the pool may have. */
  fill(): Promise<void>;
  onError(listener: () => void): void;
  end(): Promise<void>;
}

/**
 * Creates a pool of connections with the limits of calls.
 *
 * @param options.urls - one for each host of the database; the first that answers is used until it fails
 * @param options.keepsConnections - never closes an idle connection
 */
export function createPool(options: {
  readonly urls: readonly string[];
  readonly size: number;
  readonly keepsConnections: boolean;
}): Pool {
  const { urls, size, keepsConnections } = options;
  let host = 0;
  class HostClient extends pg.Client {
    constructor(config?: pg.ClientConfig) {
      super({ ...config, connectionString: urls[host % urls.length] });
      // Without a listener, a connection that breaks while it is lent out would end the process. The query reports it.
      this.on('error', () => {});
    }
  }
  const pool = new pg.Pool({
    ...CONNECTION_SETTINGS,
    // The settings of a connection come from the URL of its host.
    Client: HostClient,
    max: size,
    ...(keepsConnections && { idleTimeoutMillis: 0 }),
    // Statements that do not depend on each other's results travel together.
    pipeline: true,
    onConnect: setLimits,
  });

  async function connect(): Promise<pg.PoolClient> {
    for (let attempt = 1; ; attempt += 1) {
      const tried = host;
      try {
        return await pool.connect();
      } catch (error) {
        // Several calls may fail at once: only the first of them moves on.
        if (host === tried) host += 1;
        if (attempt >= urls.length) throw error;
      }
    }
  }

  return {
    connect,
    fill: async () => {
      const opened = await Promise.allSettled(Array.from({ length: size }, connect));
      for (const each of opened) if (each.status === 'fulfilled') each.value.release();
      for (const each of opened) if (each.status === 'rejected') throw each.reason;
    },
    onError: (listener) => void pool.on('error', listener),
    end: () => pool.end(),
  };
}

/** Prepares a new session for calls. @throws an error with SQLSTATE 25006 when the server takes no writes */
export async function setLimits(client: pg.ClientBase): Promise<void> {
  const setting = { text: SET_LIMITS, query_timeout: CONNECT_TIMEOUT_MS };
  const results: unknown = await client.query(setting);
  const last: unknown = Array.isArray(results) ? results.at(-1) : undefined;
  const [row] = (last as pg.QueryResult<{ transaction_read_only: string }> | undefined)?.rows ?? [];
  if (row?.transaction_read_only === 'off') return;
  throw Object.assign(new Error('the server takes no writes'), { code: READ_ONLY });
}

/**
 * A connection outside the pools, without the limits of calls: for migrations, LISTEN and probes.
 *
 * @param urls - one for each host of the database
 * @param attempt - which of them to use: the hosts are taken in turn
 */
export function createClient(urls: readonly string[], attempt: number): pg.Client {
  const client = new pg.Client({ ...CONNECTION_SETTINGS, connectionString: urls[attempt % urls.length] });
  client.on('error', () => {});
  return client;
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

const CONNECTION_SETTINGS: pg.ClientConfig = {
  connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
  keepAlive: true,
  keepAliveInitialDelayMillis: 1_000,
  application_name: 'portcullis',
  types: { getTypeParser },
};
