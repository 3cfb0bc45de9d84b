/** Items and their stock in SQL, shared by all transactions that move stock. */

import type { Sql } from '../common/database/database.js';
import type { Item, StockMovement, StockPlace, StockTransaction } from './stock.js';

/** Runs the work in a transaction that may move stock, and notifies the watchers after its commit. */
export type ChangeStock = <T>(
  work: (sql: Sql, onMoved: () => void) => Promise<T>,
  place?: StockPlace,
) => Promise<T>;

/** A row of `items`. */
export interface ItemRow {
  sku: string;
  name: string;
  price_minor: bigint;
  currency_code: string;
  on_hand: bigint;
  reserved: bigint;
  create_time: Date;
}

/** The columns of an {@link ItemRow}. */
export const ITEM_COLUMNS = 'sku, name, price_minor, currency_code, on_hand, reserved, create_time';

/** Locks and changes stock inside the transaction of `sql`; `onMoved` is called before each change. */
export function stockTransaction(sql: Sql, onMoved: () => void): StockTransaction {
  return {
    lockItems: async (skus) => {
      const { rows } = await sql.query<ItemRow>(
        `SELECT ${ITEM_COLUMNS} FROM items WHERE sku = ANY ($1::text[]) ORDER BY sku FOR NO KEY UPDATE`,
        [skus],
      );
      return rows.map(itemOf);
    },
    move: (movement) => {
      onMoved();
      return moveStock(sql, movement);
    },
  };
}

async function moveStock(sql: Sql, movement: StockMovement): Promise<Item[]> {
  const { kind, actor, reason, reservationId, deltas } = movement;
  const { rows } = await sql.query<ItemRow>(
    `WITH delta AS (
       SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS delta (sku, on_hand, reserved)
     ), moved AS (
       UPDATE items
          SET on_hand = items.on_hand + delta.on_hand,
              reserved = items.reserved + delta.reserved,
              change_id = nextval('stock_change_ids'),
              change_time = clock_timestamp()
         FROM delta
        WHERE items.sku = delta.sku
       RETURNING items.*, delta.on_hand AS on_hand_delta, delta.reserved AS reserved_delta
     ), noted AS (
       INSERT INTO stock_changes (change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved,
                                  reason, actor, reservation_id, change_time, acting_client, authorising_token)
       SELECT change_id, sku, $4, on_hand_delta, reserved_delta, on_hand, reserved, $5, $6, $7, change_time, $8, $9
         FROM moved
     )
     SELECT ${ITEM_COLUMNS} FROM moved`,
    [
      deltas.map(({ sku }) => sku),
      deltas.map(({ onHand }) => onHand),
      deltas.map(({ reserved }) => reserved),
      kind,
      reason,
      actor?.subject ?? null,
      reservationId ?? null,
      actor?.actingClient ?? null,
      actor?.authorisingToken ?? null,
    ],
  );
  if (rows.length !== deltas.length)
    throw new TypeError('cannot move the stock of an item that does not exist');
  return rows.map(itemOf);
}

/** Maps a row of `items`. */
export function itemOf(row: ItemRow): Item {
  const { sku, name, price_minor, currency_code, on_hand, reserved, create_time } = row;
  const unitPrice = { minorUnits: price_minor, currencyCode: currency_code };
  return { sku, name, unitPrice, onHand: on_hand, reserved, createTime: create_time };
}
