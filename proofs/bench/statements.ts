/** The SQL statements of an operation, from PostgreSQL's log, so that they can be run on their own. */

import { randomBytes } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const LOG_SETTLE_MS = 400;
const RECORD = /^\d{4}-\d\d-\d\d [^[]*\[(\d+)\] (\w+): {2}(.*)$/;
const EXECUTE = /^execute ([^:]+): ([\s\S]*)$/;
const HASH_BYTES = 32;
const HASH = /^\\x[0-9a-f]{64}$/;
const PARAMETER = /\$\d+ = (NULL|'(?:[^']|'')*')/g;

export interface Statement {
  /** The name of a prepared statement; `undefined` when the statement is planned each time. */
  readonly name: string | undefined;
  readonly text: string;
  readonly values: (string | null)[];
}

/**
 * Returns, in order, the statements of the transactions in which `parameter` occurs.
 *
 * @param options.operation - runs while PostgreSQL logs its statements
 */
export async function statementsOf(options: {
  readonly url: string;
  readonly logFile: string;
  readonly operation: () => Promise<void>;
  readonly parameter: string;
}): Promise<Statement[]> {
  const client = new pg.Client({ connectionString: options.url });
  await client.connect();
  try {
    await client.query("ALTER SYSTEM SET log_statement = 'all'");
    await client.query('ALTER SYSTEM SET log_parameter_max_length = -1');
    await reload(client);
    const { size } = await stat(options.logFile);
    await options.operation();
    await client.query('ALTER SYSTEM RESET log_statement');
    await client.query('ALTER SYSTEM RESET log_parameter_max_length');
    await reload(client);
    const log = (await readFile(options.logFile)).subarray(size).toString('utf8');
    return transactionsIn(log)
      .filter((all) => all.some(({ values }) => values.includes(options.parameter)))
      .flat();
  } finally {
    await client.end();
  }
}

async function reload(client: pg.Client): Promise<void> {
  await client.query('SELECT pg_reload_conf()');
  await sleep(LOG_SETTLE_MS);
}

function transactionsIn(log: string): Statement[][] {
  const done: Statement[][] = [];
  const open = new Map<string, Statement[]>();
  for (const { process, text, values } of recordsIn(log)) {
    const named = EXECUTE.exec(text);
    const sql = named?.[2] ?? text.replace(/^statement: /, '');
    if (/^BEGIN\b/.test(sql)) open.set(process, []);
    const transaction = open.get(process);
    if (transaction === undefined) continue;
    const name = named?.[1] === undefined || named[1] === '<unnamed>' ? undefined : named[1];
    transaction.push({ name, text: sql, values });
    if (!/\bCOMMIT$/.test(sql)) continue;
    open.delete(process);
    done.push(transaction);
  }
  return done;
}

interface LogRecord {
  readonly process: string;
  text: string;
  values: (string | null)[];
}

function recordsIn(log: string): LogRecord[] {
  const records: LogRecord[] = [];
  let detail = '';
  for (const line of log.split('\n')) {
    const [, process = '', level, text = ''] = RECORD.exec(line) ?? [];
    const last = records.at(-1);
    if (level === 'LOG') {
      records.push({ process, text, values: [] });
      detail = '';
    } else if (level === 'DETAIL' && last !== undefined) {
      detail = text;
      last.values = valuesIn(detail);
    } else if (level === undefined && last !== undefined) {
      // A continuation of the previous record.
      if (detail === '') last.text += `\n${line.trimStart()}`;
      else {
        detail += `\n${line}`;
        last.values = valuesIn(detail);
      }
    }
  }
  return records.filter(({ text }) => /^(statement|execute)/.test(text));
}

function valuesIn(detail: string): (string | null)[] {
  return [...detail.matchAll(PARAMETER)].map(([, value = 'NULL']) =>
    value === 'NULL' ? null : value.slice(1, -1).replaceAll("''", "'"),
  );
}

/** Runs statements and rolls them back, so that they can be repeated. */
export async function replay(client: pg.Client, statements: readonly Statement[]): Promise<void> {
  for (const { name, text, values } of statements) {
    const sql = text.replace(/\bCOMMIT$/, 'ROLLBACK');
    if (values.length === 0) await client.query(sql);
    else {
      const named = name === undefined ? {} : { name: `replayed ${name}` };
      await client.query({
        ...named,
        text: sql,
        values: /\bINSERT\b/.test(sql) ? values.map(fresh) : values,
      });
    }
  }
}

/** Replaces a hash by a random one: the recorded one exists already, and is unique. */
function fresh(value: string | null): string | null {
  return value !== null && HASH.test(value) ? `\\x${randomBytes(HASH_BYTES).toString('hex')}` : value;
}
