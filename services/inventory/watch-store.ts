/** What the change feed and the watchers read in SQL. */

import type { Sql } from '../common/database/database.js';
import type { FeedStore } from './change-feed.js';
import type { ChangeRange, ChangeStore } from './change-tail.js';
import type { StockLevel } from './stock.js';
import type { WatchStore } from './watch.js';

interface LevelRow {
  change_id: bigint;
  sku: string;
  on_hand: bigint;
  reserved: bigint;
  change_time: Date;
}

const LEVEL_COLUMNS = 'change_id, sku, on_hand, reserved, change_time';

/** Transactions of this database that may have drawn an id of the history that is not visible yet. */
const WRITERS = `
  SELECT DISTINCT virtualtransaction FROM pg_locks
   WHERE locktype = 'relation' AND relation = 'stock_changes'::regclass AND mode = 'RowExclusiveLock' AND granted
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

async function changesAfter(
  sql: Sql,
  { after, upTo, skus, limit }: ChangeRange,
  caller?: string,
): Promise<readonly StockLevel[]> {
  const { rows } = await sql.query<LevelRow>(
    `SELECT ${LEVEL_COLUMNS} FROM stock_changes
      WHERE change_id > $1 AND ($2::bigint IS NULL OR change_id <= $2)
        AND ($3::text[] IS NULL OR sku = ANY ($3))
      ORDER BY change_id LIMIT $4`,
    [after, upTo ?? null, skus ?? null, limit],
    { caller },
  );
  return rows.map(levelOf);
}

/** Creates the store that the change feed reads. */
export function createChangeStore(sql: Sql): ChangeStore {
  return {
    changesAfter: (range) => changesAfter(sql, range),
    latestChangeId: async () => {
      const { rows } = await sql.query<{ change_id: bigint | null }>(
        'SELECT max(change_id) AS change_id FROM stock_changes',
      );
      return rows[0]?.change_id ?? 0n;
    },
    writers: async () => {
      const { rows } = await sql.query<{ virtualtransaction: string }>(WRITERS);
      return rows.map(({ virtualtransaction }) => virtualtransaction);
    },
    isAnyWriting: async (writers) => {
      const { rowCount } = await sql.query(`${WRITERS} AND virtualtransaction = ANY ($1::text[]) LIMIT 1`, [
        writers,
      ]);
      return rowCount > 0;
    },
  };
}

/** Creates the store that watchers read. */
export function createWatchStore(sql: Sql): WatchStore & Pick<FeedStore, 'pastChanges'> {
  return {
    levels: async ({ afterSku, skus, limit, caller }) => {
      const { rows } = await sql.query<LevelRow>(
        `SELECT ${LEVEL_COLUMNS} FROM items
          WHERE sku > $1 AND ($2::text[] IS NULL OR sku = ANY ($2))
          ORDER BY sku LIMIT $3`,
        [afterSku, skus ?? null, limit],
        { caller },
      );
      return rows.map(levelOf);
    },
    existingSkus: async (skus, caller) => {
      const { rows } = await sql.query<{ sku: string }>(
        'SELECT sku FROM items WHERE sku = ANY ($1::text[])',
        [skus],
        { caller },
      );
      return rows.map(({ sku }) => sku);
    },
    pastChanges: (range, caller) => changesAfter(sql, range, caller),
    isChange: async (changeId, caller) => {
      const { rowCount } = await sql.query('SELECT FROM stock_changes WHERE change_id = $1', [changeId], {
        caller,
      });
      return rowCount > 0;
    },
  };
}

function levelOf({ change_id, sku, on_hand, reserved, change_time }: LevelRow): StockLevel {
  return { changeId: change_id, sku, onHand: on_hand, reserved, changeTime: change_time };
}
