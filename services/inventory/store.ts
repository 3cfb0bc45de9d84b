/** What the domain needs, in SQL: every statement of the service stands in this file. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Database, Sql } from '../common/database/database.js';
import { forgetRequests, oncePerRequest } from '../common/database/requests.js';
import type { Log } from '../common/host/log.js';
import { type FilterFields, filterOf } from '../common/validation/filter.js';
import { cursorPatterns, pageOf, pageTokenOf } from '../common/validation/paging.js';
import type { ChangeStore, StockLevel } from './change-feed.js';
import type { ChangePage, FilteredPage, ItemStore, ItemTransaction, StockChange } from './items.js';
import type {
  NewReservation,
  Reservation,
  ReservationLine,
  ReservationState,
  ReservationStore,
  ReservationTransaction,
  StoredReservation,
} from './reservations.js';
import type { Actor, ChangeKind, Item, StockMovement, StockTransaction } from './stock.js';
import type { SweeperStore } from './sweeper.js';
import type { WatchStore } from './watch.js';

/** The channel on which the instances tell each other that stock has changed; the payload is empty. */
export const CHANGES_CHANNEL = 'stock_changes';

/** How long after one announcement the next one is sent: under load, one of them stands for many changes. */
const ANNOUNCE_PAUSE_MS = 20;

/** Everything that the service keeps. */
export type Store = ItemStore & ReservationStore & ChangeStore & WatchStore & SweeperStore;

/** The store in a database that is migrated by this service's migrations. */
export function createStore({ database, log }: { database: Database; log: Log }): Store {
  const announce = createAnnouncer(database, log);

  /** Runs the work in a transaction; what it moves is announced once that has committed. */
  async function change<T>(work: (sql: Sql, moved: () => void) => Promise<T>): Promise<T> {
    let hasMoved = false;
    const moved = () => {
      hasMoved = true;
    };
    const result = await database.transaction((sql) => work(sql, moved));
    if (hasMoved) announce();
    return result;
  }

  return {
    getItem: (sku) => selectItem(database, sku),
    listItems: (page) => selectItems(database, page),
    listChanges: (sku, page) => selectChanges(database, sku, page),
    getReservation: (reservationId) => selectReservation(database, reservationId),
    hasDueReservations: () => selectWhetherDue(database),
    changeItemsOnce: (request, work) =>
      change((sql, moved) => oncePerRequest(sql, request, () => work(itemTransaction(sql, moved)))),
    changeReservations: (work) => change((sql, moved) => work(reservationTransaction(sql, moved))),
    changeReservationsOnce: (request, work) =>
      change((sql, moved) => oncePerRequest(sql, request, () => work(reservationTransaction(sql, moved)))),
    forgetOldRequests: () => forgetRequests(database),
    ...changeReads(database),
    ...watchReads(database),
  };
}

/**
 * Wakes the watchers of all instances, after the commit and outside its transaction: a NOTIFY
 * inside would make PostgreSQL commit one transaction at a time. One notification stands for
 * everything that was committed before it was sent; a lost one costs a watcher some time, no more.
 * So it need not be on the disk, and under load it is sent now and then.
 */
function createAnnouncer(database: Database, log: Log): () => void {
  let isSending = false;
  let isWanted = false;

  async function send(): Promise<void> {
    isSending = true;
    while (isWanted) {
      isWanted = false;
      try {
        await database.query(`SET LOCAL synchronous_commit = off; NOTIFY ${CHANGES_CHANNEL}`);
      } catch (error) {
        log.warn({ err: error }, 'could not announce a change of stock');
      }
      await sleep(ANNOUNCE_PAUSE_MS);
    }
    isSending = false;
  }

  return () => {
    isWanted = true;
    if (!isSending) void send();
  };
}

interface ItemRow {
  sku: string;
  name: string;
  price_minor: bigint;
  currency_code: string;
  on_hand: bigint;
  reserved: bigint;
  create_time: Date;
}

const ITEM_COLUMNS = 'sku, name, price_minor, currency_code, on_hand, reserved, create_time';

async function selectItem(sql: Sql, sku: string): Promise<Item | undefined> {
  const { rows } = await sql.query<ItemRow>(`SELECT ${ITEM_COLUMNS} FROM items WHERE sku = $1`, [sku]);
  return rows[0] && itemOf(rows[0]);
}

/** What items can be filtered by. */
const ITEM_FIELDS: FilterFields = {
  sku: { type: 'text', sql: 'sku' },
  name: { type: 'text', sql: 'name' },
  'unit_price.minor_units': { type: 'integer', sql: 'price_minor' },
  'unit_price.currency_code': { type: 'text', sql: 'currency_code' },
  on_hand: { type: 'integer', sql: 'on_hand' },
  reserved: { type: 'integer', sql: 'reserved' },
  create_time: { type: 'time', sql: 'create_time' },
};

async function selectItems(
  sql: Sql,
  request: FilteredPage,
): Promise<{ items: Item[]; nextPageToken: string }> {
  const { condition, values, fingerprint, pattern } = filterOf(request.filter, ITEM_FIELDS, 3);
  const { limit, after } = pageOf(request, [pattern, cursorPatterns.text]);
  const { rows } = await sql.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM items WHERE sku > $1${condition} ORDER BY sku LIMIT $2`,
    [after?.[1] ?? '', limit + 1, ...values],
    { isOneOff: values.length > 0 },
  );
  const items = rows.slice(0, limit).map(itemOf);
  const last = items.at(-1);
  const isLast = rows.length <= limit || last === undefined;
  return { items, nextPageToken: isLast ? '' : pageTokenOf([fingerprint, last.sku]) };
}

/** Every kind of change; the compiler sees to it that none is forgotten. */
const CHANGE_KINDS = Object.keys({
  CREATED: true,
  ADJUSTED: true,
  RESERVED: true,
  COMMITTED: true,
  RELEASED: true,
  EXPIRED: true,
} satisfies Record<ChangeKind, true>);

/** What the history can be filtered by. */
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

async function selectChanges(sql: Sql, sku: string, request: FilteredPage): Promise<ChangePage> {
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
  const changes = rows.slice(0, limit).map(changeOf);
  const last = changes.at(-1);
  const isLast = rows.length <= limit || last === undefined;
  return { changes, nextPageToken: isLast ? '' : pageTokenOf([fingerprint, String(last.changeId)]) };
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

function stockTransaction(sql: Sql, moved: () => void): StockTransaction {
  return {
    lockItems: async (skus) => {
      const { rows } = await sql.query<ItemRow>(
        `SELECT ${ITEM_COLUMNS} FROM items WHERE sku = ANY ($1::text[]) ORDER BY sku FOR NO KEY UPDATE`,
        [skus],
      );
      return rows.map(itemOf);
    },
    move: (movement) => {
      moved();
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
    throw new TypeError('stock was to be moved of an item that does not exist');
  return rows.map(itemOf);
}

function itemTransaction(sql: Sql, moved: () => void): ItemTransaction {
  return {
    ...stockTransaction(sql, moved),
    insertItem: async ({ sku, name, unitPrice, onHand, actor }) => {
      moved();
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
    },
  };
}

function itemOf(row: ItemRow): Item {
  const { sku, name, price_minor, currency_code, on_hand, reserved, create_time } = row;
  const unitPrice = { minorUnits: price_minor, currencyCode: currency_code };
  return { sku, name, unitPrice, onHand: on_hand, reserved, createTime: create_time };
}

/** A reservation beside one of its lines. */
interface ReservationRow {
  reservation_id: string;
  owner: string;
  acting_client: string | null;
  state: ReservationState;
  create_time: Date;
  expire_time: Date;
  is_due: boolean;
  sku: string;
  quantity: bigint;
  price_minor: bigint;
  currency_code: string;
}

/**
 * Reservations with their lines, from a relation `chosen`. The clock is read beside rows that are
 * locked already, so time spent waiting for a lock counts.
 */
const RESERVATIONS_CHOSEN = `
  SELECT reservation_id, owner, acting_client, state, create_time, expire_time, expire_time <= clock_timestamp() AS is_due,
         sku, quantity, price_minor, currency_code
    FROM chosen JOIN reservation_lines USING (reservation_id)
   ORDER BY expire_time, reservation_id, line_number`;

async function selectReservation(sql: Sql, reservationId: string): Promise<StoredReservation | undefined> {
  const { rows } = await sql.query<ReservationRow>(
    `WITH chosen AS (SELECT * FROM reservations WHERE reservation_id = $1) ${RESERVATIONS_CHOSEN}`,
    [reservationId],
  );
  return reservationsOf(rows)[0];
}

async function selectWhetherDue(sql: Sql): Promise<boolean> {
  const { rowCount } = await sql.query(
    "SELECT FROM reservations WHERE state = 'ACTIVE' AND expire_time <= (SELECT clock_timestamp()) LIMIT 1",
  );
  return rowCount > 0;
}

function reservationTransaction(sql: Sql, moved: () => void): ReservationTransaction {
  return {
    ...stockTransaction(sql, moved),
    insertReservation: (reservation) => insertReservation(sql, reservation),
    lockReservation: async (reservationId) => {
      const { rows } = await sql.query<ReservationRow>(
        `WITH chosen AS MATERIALIZED (
           SELECT * FROM reservations WHERE reservation_id = $1 FOR NO KEY UPDATE
         ) ${RESERVATIONS_CHOSEN}`,
        [reservationId],
      );
      return reservationsOf(rows)[0];
    },
    lockDueReservations: async (limit) => {
      const { rows } = await sql.query<ReservationRow>(
        `WITH chosen AS MATERIALIZED (
           SELECT * FROM reservations
            WHERE state = 'ACTIVE' AND expire_time <= (SELECT clock_timestamp())
            ORDER BY expire_time LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
         ) ${RESERVATIONS_CHOSEN}`,
        [limit],
      );
      return reservationsOf(rows);
    },
    endReservation: async (reservationId, state) => {
      const { rowCount } = await sql.query(
        `UPDATE reservations SET state = $2, end_time = clock_timestamp()
          WHERE reservation_id = $1 AND state = 'ACTIVE'`,
        [reservationId, state],
      );
      if (rowCount !== 1) throw new TypeError('a reservation was to be ended that is not active');
    },
  };
}

async function insertReservation(sql: Sql, reservation: NewReservation): Promise<Reservation> {
  const { owner, actingClient, lines, timeToLiveMicroseconds } = reservation;
  const { rows } = await sql.query<Pick<ReservationRow, 'reservation_id' | 'create_time' | 'expire_time'>>(
    `WITH clock AS (
       SELECT clock_timestamp() AS now
     ), made AS (
       INSERT INTO reservations (owner, create_time, expire_time, acting_client)
       SELECT $1, now, now + $2::bigint * interval '1 microsecond', $7 FROM clock
       RETURNING reservation_id, create_time, expire_time
     ), filled AS (
       INSERT INTO reservation_lines (reservation_id, line_number, sku, quantity, price_minor, currency_code)
       SELECT made.reservation_id, line.number, line.sku, line.quantity, line.price_minor, line.currency_code
         FROM made, unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[])
              WITH ORDINALITY AS line (sku, quantity, price_minor, currency_code, number)
     )
     SELECT * FROM made`,
    [
      owner,
      timeToLiveMicroseconds,
      lines.map(({ sku }) => sku),
      lines.map(({ quantity }) => quantity),
      lines.map(({ unitPrice }) => unitPrice.minorUnits),
      lines.map(({ unitPrice }) => unitPrice.currencyCode),
      actingClient ?? null,
    ],
  );
  const [made] = rows;
  if (made === undefined) throw new TypeError('a reservation was not inserted');
  const { reservation_id, create_time, expire_time } = made;
  const times = { createTime: create_time, expireTime: expire_time };
  return { reservationId: reservation_id, owner, state: 'ACTIVE', lines, ...times };
}

function reservationsOf(rows: readonly ReservationRow[]): StoredReservation[] {
  const found = new Map<string, StoredReservation & { lines: ReservationLine[] }>();
  for (const row of rows) {
    const { reservation_id: reservationId, owner, state, is_due: isDue } = row;
    const actingClient = row.acting_client ?? undefined;
    const times = { createTime: row.create_time, expireTime: row.expire_time };
    const known = found.get(reservationId) ?? {
      ...{ reservationId, owner, actingClient, state, lines: [], isDue },
      ...times,
    };
    const unitPrice = { minorUnits: row.price_minor, currencyCode: row.currency_code };
    known.lines.push({ sku: row.sku, quantity: row.quantity, unitPrice });
    found.set(reservationId, known);
  }
  return [...found.values()];
}

interface LevelRow {
  change_id: bigint;
  sku: string;
  on_hand: bigint;
  reserved: bigint;
  change_time: Date;
}

const LEVEL_COLUMNS = 'change_id, sku, on_hand, reserved, change_time';

/** Transactions of this database that may hold an id of the history which nobody can see yet. */
const WRITERS = `
  SELECT DISTINCT virtualtransaction FROM pg_locks
   WHERE locktype = 'relation' AND relation = 'stock_changes'::regclass AND mode = 'RowExclusiveLock' AND granted
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

function changeReads(database: Database): ChangeStore {
  return {
    changesAfter: async ({ after, upTo, skus, limit }) => {
      const { rows } = await database.query<LevelRow>(
        `SELECT ${LEVEL_COLUMNS} FROM stock_changes
          WHERE change_id > $1 AND ($2::bigint IS NULL OR change_id <= $2)
            AND ($3::text[] IS NULL OR sku = ANY ($3))
          ORDER BY change_id LIMIT $4`,
        [after, upTo ?? null, skus ?? null, limit],
      );
      return rows.map(levelOf);
    },
    latestChangeId: async () => {
      const { rows } = await database.query<{ change_id: bigint | null }>(
        'SELECT max(change_id) AS change_id FROM stock_changes',
      );
      return rows[0]?.change_id ?? 0n;
    },
    writers: async () => {
      const { rows } = await database.query<{ virtualtransaction: string }>(WRITERS);
      return rows.map(({ virtualtransaction }) => virtualtransaction);
    },
    isAnyWriting: async (writers) => {
      const { rowCount } = await database.query(
        `${WRITERS} AND virtualtransaction = ANY ($1::text[]) LIMIT 1`,
        [writers],
      );
      return rowCount > 0;
    },
  };
}

function watchReads(database: Database): WatchStore {
  return {
    levels: async ({ afterSku, skus, limit }) => {
      const { rows } = await database.query<LevelRow>(
        `SELECT ${LEVEL_COLUMNS} FROM items
          WHERE sku > $1 AND ($2::text[] IS NULL OR sku = ANY ($2))
          ORDER BY sku LIMIT $3`,
        [afterSku, skus ?? null, limit],
      );
      return rows.map(levelOf);
    },
    existingSkus: async (skus) => {
      const { rows } = await database.query<{ sku: string }>(
        'SELECT sku FROM items WHERE sku = ANY ($1::text[])',
        [skus],
      );
      return rows.map(({ sku }) => sku);
    },
    isChange: async (changeId) => {
      const { rowCount } = await database.query('SELECT FROM stock_changes WHERE change_id = $1', [changeId]);
      return rowCount > 0;
    },
  };
}

function levelOf({ change_id, sku, on_hand, reserved, change_time }: LevelRow): StockLevel {
  return { changeId: change_id, sku, onHand: on_hand, reserved, changeTime: change_time };
}
