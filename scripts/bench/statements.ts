/**
 * The statements of one call, as PostgreSQL's log has them, and the same statements sent straight through `pg`: what a
 * call would cost if there were nothing but the database.
 */

import { randomUUID } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const LOG_WAIT_MS = 300;
const LINE = /^\d{4}-\d{2}-\d{2} [^[]*\[(\d+)\] (LOG|DETAIL):\s+/;
const RESERVATION_ID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

/** One statement with its parameters, as text. */
export interface Statement {
  readonly text: string;
  readonly parameters: readonly (string | null)[];
}

/** The statements of one transaction that a call has sent. */
export interface Recording {
  readonly statements: readonly Statement[];
  /** What every repetition replaces by something of its own. */
  readonly requestId: string;
  readonly reservationId: string;
}

/** Where the statements are recorded. */
export interface Recorder {
  /** Any database of the server, as its superuser. */
  readonly administrator: string;
  readonly database: string;
  readonly logFile: string;
}

/**
 * Records what one call sends.
 *
 * @param call - makes the call with this request id, and returns the id of the reservation that it made
 */
export async function record(
  { administrator, database, logFile }: Recorder,
  call: (requestId: string) => Promise<string>,
): Promise<Recording> {
  await administer(administrator, `ALTER DATABASE ${database} SET log_statement = 'all'`);
  await administer(
    administrator,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}'`,
  );
  const requestId = `bench-${randomUUID()}`;
  try {
    await sleep(LOG_WAIT_MS);
    // The first call after the cut meets dead connections; the second one is the one to record.
    await call(`bench-${randomUUID()}`).catch(() => undefined);
    const { size } = await stat(logFile);
    const reservationId = await call(requestId);
    await sleep(LOG_WAIT_MS);
    const log = (await readFile(logFile)).subarray(size).toString('utf8');
    return { statements: transactionWith(log, requestId), requestId, reservationId };
  } finally {
    await administer(administrator, `ALTER DATABASE ${database} RESET log_statement`);
    await administer(
      administrator,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database}'`,
    );
  }
}

/** Sends the recorded statements again, with a request and a reservation of its own. */
export async function replay(
  client: pg.PoolClient,
  { statements, requestId, reservationId }: Recording,
): Promise<void> {
  const mine = `bench-${randomUUID()}`;
  let made = reservationId;
  for (const [index, { text, parameters }] of statements.entries()) {
    const values = parameters.map((value) =>
      value?.replaceAll(requestId, mine).replaceAll(reservationId, made),
    );
    const query = { text, values: values.map((value) => value ?? null) };
    // As the service does: planned once for a connection.
    const { rows } = await client.query(values.length === 0 ? text : { name: `bench_${index}`, ...query });
    const [row] = (rows ?? []) as { reservation_id?: string }[];
    if (row?.reservation_id !== undefined && RESERVATION_ID.test(row.reservation_id))
      made = row.reservation_id;
  }
}

/** The statements of the one backend that mentioned the request, from BEGIN to COMMIT. */
function transactionWith(log: string, requestId: string): Statement[] {
  const entries = entriesOf(log);
  const backend = entries.find(({ text }) => text.includes(requestId))?.pid;
  const mine = entries.filter(({ pid }) => pid === backend);
  const at = mine.findIndex(({ text }) => text.includes(requestId));
  const begin = mine.findLastIndex(({ text }, index) => index < at && /: BEGIN/.test(text));
  const end = mine.findIndex(({ text }, index) => index > at && /COMMIT$/.test(text));
  if (begin < 0 || end < 0) throw new Error('the log of PostgreSQL has no transaction of the call');
  const statements: Statement[] = [];
  for (const { kind, text } of mine.slice(begin, end + 1)) {
    const last = statements.at(-1);
    if (kind === 'LOG') {
      const statement = text.replace(/^(?:statement|execute [^:]*): /, '');
      statements.push({ text: statement, parameters: [] });
    } else if (last !== undefined) {
      statements[statements.length - 1] = { ...last, parameters: parametersOf(text) };
    }
  }
  return statements;
}

interface LogEntry {
  readonly pid: string;
  readonly kind: string;
  readonly text: string;
}

function entriesOf(log: string): LogEntry[] {
  const entries: LogEntry[] = [];
  for (const line of log.split('\n')) {
    const match = LINE.exec(line);
    if (match !== null) {
      const [head, pid = '', kind = ''] = match;
      entries.push({ pid, kind, text: line.slice(head.length) });
    } else if (entries.length > 0) {
      const last = entries.at(-1) as LogEntry;
      // A line of the same entry is indented by a tab.
      entries[entries.length - 1] = { ...last, text: `${last.text}\n${line.replace(/^\t/, '')}`.trimEnd() };
    }
  }
  return entries;
}

/** `Parameters: $1 = 'a', $2 = NULL`, with quotes doubled inside. */
function parametersOf(detail: string): (string | null)[] {
  const parameters: (string | null)[] = [];
  for (const match of detail.matchAll(/\$(\d+) = (?:'((?:[^']|'')*)'|NULL)/g)) {
    const [, number = '', text] = match;
    parameters[Number(number) - 1] = text === undefined ? null : text.replaceAll("''", "'");
  }
  return parameters;
}

async function administer(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end().catch(() => undefined);
  }
}
