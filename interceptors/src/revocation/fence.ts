/**
 * A fence: one row in a service's own PostgreSQL database that rejects the work of instances which lag behind the log. It
 * only rises. A transaction that cannot be undone locks it for sharing as its last statement, and goes on only if its
 * instance has applied the log up to it. To raise it, a transaction first waits for all that hold that lock.
 */

/** A place in the logs of all epochs. The number of a later epoch is larger. */
export interface LogPlace {
  readonly epochNumber: bigint;
  /** Position in the log of the epoch. */
  readonly sequence: bigint;
}

/** Where a fence stands. */
export interface FencePlace extends LogPlace {
  /** Random identifier of the row, 16 bytes. */
  readonly fenceId: Buffer;
}

/** Runs one statement of a transaction, as the `query` of `pg` and of most other clients does. */
export type FenceQuery = (
  text: string,
  values?: readonly unknown[],
) => Promise<{ readonly rows: readonly object[] }>;

/** How long raising waits for transactions that have passed the fence, in milliseconds; others wait behind it. */
const RAISE_WAIT_MS = 500;

/** Longest pause of a process that is raising the fence, in milliseconds; then the server ends its transaction. */
const RAISE_IDLE_MS = 1000;

/** The advisory lock of the instance that raises the fence, so that the others do not queue for the table. */
const RAISE_LOCK = '8115732046211';

/** The table of the fence, for a migration of the service. The service's role needs SELECT and UPDATE. */
export const FENCE_TABLE = `CREATE TABLE revocation_fence (
  one          boolean PRIMARY KEY DEFAULT true CHECK (one),
  fence_id     uuid NOT NULL DEFAULT gen_random_uuid(),
  epoch_number bigint NOT NULL DEFAULT 0,
  sequence     bigint NOT NULL DEFAULT 0
);
INSERT INTO revocation_fence DEFAULT VALUES;`;

const COLUMNS = `encode(uuid_send(fence_id), 'hex') AS fence_id,
  epoch_number::text AS epoch_number, sequence::text AS sequence`;

/**
 * Locks the fence for sharing, and reads it as it is then. The lock on the row makes PostgreSQL read its latest version,
 * or fail with 40001 where the isolation level forbids that. The lock on the table, which the statement takes as well,
 * queues fairly: a stream of transactions cannot starve the one that raises the fence.
 */
const READ_LOCKED = `SELECT ${COLUMNS} FROM revocation_fence FOR SHARE`;

/** As in the log: the commit is on disk before it is confirmed, whatever the settings of the session are. */
const BEGIN_RAISE = `SELECT ${COLUMNS}, pg_try_advisory_xact_lock(${RAISE_LOCK}) AS alone,
  set_config('lock_timeout', '${RAISE_WAIT_MS}ms', true) || set_config('idle_in_transaction_session_timeout',
    '${RAISE_IDLE_MS}ms', true) || set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true) AS settings
  FROM revocation_fence`;

const LOCK = 'LOCK TABLE revocation_fence IN EXCLUSIVE MODE';

const RAISE = `UPDATE revocation_fence SET epoch_number = $1::bigint, sequence = $2::bigint
  WHERE (epoch_number, sequence) < ($1::bigint, $2::bigint)`;

const READ = `SELECT ${COLUMNS} FROM revocation_fence`;

/** Whether a place is before another one. */
export function isBefore(one: LogPlace, other: LogPlace): boolean {
  if (one.epochNumber !== other.epochNumber) return one.epochNumber < other.epochNumber;
  return one.sequence < other.sequence;
}

/** Whether a list has everything up to a fence. */
export function passesFence({ place }: { readonly place: LogPlace }, fence: LogPlace): boolean {
  return !isBefore(place, fence);
}

/**
 * Locks the fence in the transaction of `query`, until that transaction ends, and reads it.
 *
 * @throws Error when there is no fence
 */
export async function lockFence(query: FenceQuery): Promise<FencePlace> {
  return fenceOf((await query(READ_LOCKED)).rows);
}

/**
 * Raises the fence to a place, in a transaction of its own. It never falls.
 *
 * @returns where the fence stands once the transaction is committed; lower than the place when another instance is
 *   raising it at this moment
 */
export async function raiseFence(query: FenceQuery, to: LogPlace): Promise<FencePlace> {
  const rows: readonly FenceRow[] = (await query(BEGIN_RAISE)).rows;
  const present = fenceOf(rows);
  if (!isBefore(present, to) || rows[0]?.alone !== true) return present;
  await query(LOCK);
  await query(RAISE, [String(to.epochNumber), String(to.sequence)]);
  return fenceOf((await query(READ)).rows);
}

interface FenceRow {
  readonly fence_id?: unknown;
  readonly epoch_number?: unknown;
  readonly sequence?: unknown;
  readonly alone?: unknown;
}

function fenceOf(rows: readonly FenceRow[]): FencePlace {
  const [row] = rows;
  if (row === undefined || rows.length > 1) {
    throw new Error(`expected one row in revocation_fence, got ${rows.length}`);
  }
  return {
    fenceId: Buffer.from(String(row.fence_id), 'hex'),
    epochNumber: BigInt(String(row.epoch_number)),
    sequence: BigInt(String(row.sequence)),
  };
}
