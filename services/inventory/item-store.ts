/** The catalogue and the history of its items in SQL. */

import { asCaller, type Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import { type FilterFields, filterOf } from '../common/validation/filter.js';
import { cursorPatterns, cutPage, type PageRequest, pageOf } from '../common/validation/paging.js';
import type { Actor } from './caller.js';
import type { ChangePage, ItemPage, ItemStore, ItemTransaction, NewItem, StockChange } from './items.js';
import type { ChangeKind, Item } from './stock.js';
import { type ChangeStock, ITEM_COLUMNS, type ItemRow, itemOf, stockTransaction } from './stock-store.js';

/** Creates the store of the catalogue. */
export function createItemStore(sql: Sql, changeStock: ChangeStock): ItemStore {
  return {
    findItem: (sku, caller) => selectItem(asCaller(sql, caller), sku),
    listItems: (page, caller) => selectItems(asCaller(sql, caller), page),
    listChanges: (sku, page, caller) => selectChanges(asCaller(sql, caller), sku, page),
    changeItemsOnce: (request, work, place) =>
      changeStock(
        (tx, onMoved) => oncePerRequest(tx, request, () => work(itemTransaction(tx, onMoved))),
        place,
      ),
  };
}

async function selectItem(sql: Sql, sku: string): Promise<Item | undefined> {
  const { rows } = await sql.query<ItemRow>(`SELECT ${ITEM_COLUMNS} FROM items WHERE sku = $1`, [sku]);
  return rows[0] && itemOf(rows[0]);
}

/** The fields of an item that a filter may name. */
const ITEM_FIELDS: FilterFields = {
  sku: { type: 'text', sql: 'sku' },
  name: { type: 'text', sql: 'name' },
  'unit_price.minor_units': { type: 'integer', sql: 'price_minor' },
  'unit_price.currency_code': { type: 'text', sql: 'currency_code' },
  on_hand: { type: 'integer', sql: 'on_hand' },
  reserved: { type: 'integer', sql: 'reserved' },
  create_time: { type: 'time', sql: 'create_time' },
};

async function selectItems(sql: Sql, request: PageRequest): Promise<ItemPage> {
  const { condition, values, fingerprint, pattern } = filterOf(request.filter, ITEM_FIELDS, 3);
  const { limit, after } = pageOf(request, [pattern, cursorPatterns.text]);
  const { rows } = await sql.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM items WHERE sku > $1${condition} ORDER BY sku LIMIT $2`,
    [after?.[1] ?? '', limit + 1, ...values],
    { isOneOff: values.length > 0 },
  );
  const { items, nextPageToken } = cutPage(rows, limit, ({ sku }) => [fingerprint, sku]);
  return { items: items.map(itemOf), nextPageToken };
}

/** Every kind of change; `satisfies` makes the compiler report a missing one. */
const CHANGE_KINDS = Object.keys({
  CREATED: true,
  ADJUSTED: true,
  RESERVED: true,
  COMMITTED: true,
  RELEASED: true,
  EXPIRED: true,
} satisfies Record<ChangeKind, true>);

/** The fields of a change that a filter may name. */
const CHANGE_FIELDS: FilterFields = {
  kind: { type: 'word', sql: 'kind', words: CHANGE_KINDS },
  on_hand_delta: { type: 'integer', sql: 'on_hand_delta' },
  reserved_delta: { type: 'integer', sql: 'reserved_delta' },
  reason: { type: 'text', sql: 'reason' },
  actor_id: { type: 'text', sql: 'actor' },
  acting_client_id: { type: 'text', sql: 'acting_client' },
  reservation_id: { type: 'uuid', sql: 'reservation_id' },
  change_time: { type: 'time', sql: 'change_time' },
};

interface ChangeRow {
  change_id: bigint;
  sku: string;
  kind: ChangeKind;
  on_hand_delta: bigint;
  reserved_delta: bigint;
  on_hand: bigint;
  reserved: bigint;
  reason: string;
  actor: string | null;
  acting_client: string | null;
  authorising_token: string | null;
  reservation_id: string | null;
  change_time: Date;
}

async function selectChanges(sql: Sql, sku: string, request: PageRequest): Promise<ChangePage> {
  const { condition, values, fingerprint, pattern } = filterOf(request.filter, CHANGE_FIELDS, 4);
  const { limit, after } = pageOf(request, [pattern, cursorPatterns.integer]);
  const { rows } = await sql.query<ChangeRow>(
    `SELECT change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved, reason, actor, acting_client,
            authorising_token, reservation_id, change_time
       FROM stock_changes
      WHERE sku = $1 AND ($2::bigint IS NULL OR change_id < $2)${condition}
      ORDER BY change_id DESC LIMIT $3`,
    [sku, after?.[1] ?? null, limit + 1, ...values],
    { isOneOff: values.length > 0 },
  );
  const { items, nextPageToken } = cutPage(rows, limit, ({ change_id }) => [fingerprint, String(change_id)]);
  return { changes: items.map(changeOf), nextPageToken };
}

function changeOf(row: ChangeRow): StockChange {
  const { change_id, sku, kind, on_hand, reserved, reason, change_time } = row;
  return {
    changeId: change_id,
    sku,
    kind,
    delta: { onHand: row.on_hand_delta, reserved: row.reserved_delta },
    onHand: on_hand,
    reserved,
    reason,
    actor: actorOf(row),
    reservationId: row.reservation_id ?? undefined,
    changeTime: change_time,
  };
}

function actorOf({ actor, acting_client, authorising_token }: ChangeRow): Actor | undefined {
  if (actor === null) return undefined;
  const actingClient = acting_client ?? undefined;
  return { subject: actor, actingClient, authorisingToken: authorising_token ?? undefined };
}

function itemTransaction(sql: Sql, onMoved: () => void): ItemTransaction {
  return {
    ...stockTransaction(sql, onMoved),
    insertItem: (item) => {
      onMoved();
      return insertItem(sql, item);
    },
  };
}

async function insertItem(sql: Sql, item: NewItem & { actor: Actor }): Promise<Item | undefined> {
  const { sku, name, unitPrice, onHand, actor } = item;
  const { rows } = await sql.query<ItemRow>(
    `WITH clock AS (
           SELECT clock_timestamp() AS now
         ), created AS (
           INSERT INTO items (sku, name, price_minor, currency_code, on_hand, create_time, change_id, change_time)
           SELECT $1, $2, $3, $4, $5, now, nextval('stock_change_ids'), now FROM clock
           ON CONFLICT (sku) DO NOTHING
           RETURNING *
         ), noted AS (
           INSERT INTO stock_changes (change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved,
                                      reason, actor, acting_client, change_time)
           SELECT change_id, sku, 'CREATED', on_hand, reserved, on_hand, reserved, '', $6, $7, change_time
             FROM created
         )
         SELECT ${ITEM_COLUMNS} FROM created`,
    [
      sku,
      name,
      unitPrice.minorUnits,
      unitPrice.currencyCode,
      onHand,
      actor.subject,
      actor.actingClient ?? null,
    ],
  );
  return rows[0] && itemOf(rows[0]);
}
