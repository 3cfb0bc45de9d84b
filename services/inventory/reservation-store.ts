/** Reservations and their lines in SQL. */

import { asCaller, type Sql } from '../common/database/database.js';
import { oncePerRequest } from '../common/database/requests.js';
import type {
  NewReservation,
  Reservation,
  ReservationLine,
  ReservationState,
  ReservationStore,
  ReservationTransaction,
  StoredReservation,
} from './reservation.js';
import type { Holdings } from './reservation-limits.js';
import { type ChangeStock, stockTransaction } from './stock-store.js';

/** Creates the store of reservations. */
export function createReservationStore(sql: Sql, changeStock: ChangeStock): ReservationStore {
  return {
    findReservation: (reservationId, caller) => selectReservation(asCaller(sql, caller), reservationId),
    hasDueReservations: (caller) => selectHasDue(asCaller(sql, caller)),
    changeReservations: (work, place) =>
      changeStock((tx, onMoved) => work(reservationTransaction(tx, onMoved)), place),
    changeReservationsOnce: (request, work, place) =>
      changeStock(
        (tx, onMoved) => oncePerRequest(tx, request, () => work(reservationTransaction(tx, onMoved))),
        place,
      ),
  };
}

/** A reservation joined with one of its lines. */
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
 * Reservations with their lines, from a relation `chosen`. The clock is read after the rows are locked, so the time spent
 * waiting for a lock counts.
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

async function selectHasDue(sql: Sql): Promise<boolean> {
  const { rowCount } = await sql.query(
    "SELECT FROM reservations WHERE state = 'ACTIVE' AND expire_time <= (SELECT clock_timestamp()) LIMIT 1",
  );
  return rowCount > 0;
}

function reservationTransaction(sql: Sql, onMoved: () => void): ReservationTransaction {
  return {
    ...stockTransaction(sql, onMoved),
    holdingsOf: (owner, skus) => selectHoldings(sql, owner, skus),
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
      if (rowCount !== 1) throw new TypeError('cannot end a reservation that is not active');
    },
  };
}

/** A reservation that has expired no longer counts, although its units may still be reserved. */
async function selectHoldings(sql: Sql, owner: string, skus: readonly string[]): Promise<Holdings> {
  const { rows } = await sql.query<{ open: bigint; sku: string | null; units: bigint }>(
    `WITH held AS MATERIALIZED (
       SELECT reservation_id, acting_client FROM reservations
        WHERE owner = $1 AND state = 'ACTIVE' AND expire_time > (SELECT clock_timestamp())
     )
     SELECT (SELECT count(*) FROM held) AS open, sku, coalesce(sum(quantity), 0)::bigint AS units
       FROM (SELECT 1) AS always
       LEFT JOIN (SELECT sku, quantity FROM held JOIN reservation_lines USING (reservation_id)
                   WHERE acting_client IS NULL AND sku = ANY ($2::text[])) AS line ON true
      GROUP BY sku`,
    [owner, skus],
  );
  const units = rows.flatMap(({ sku, units: held }): [string, bigint][] =>
    sku === null ? [] : [[sku, held]],
  );
  return { open: Number(rows[0]?.open ?? 0n), units: new Map(units) };
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
  return {
    reservationId: reservation_id,
    owner,
    state: 'ACTIVE',
    lines,
    createTime: create_time,
    expireTime: expire_time,
  };
}

/** Collects the lines of each reservation. */
function reservationsOf(rows: readonly ReservationRow[]): StoredReservation[] {
  const found = new Map<string, StoredReservation & { lines: ReservationLine[] }>();
  for (const row of rows) {
    const { reservation_id: reservationId, owner, state } = row;
    const reservation = found.get(reservationId) ?? {
      reservationId,
      owner,
      actingClient: row.acting_client ?? undefined,
      state,
      lines: [],
      createTime: row.create_time,
      expireTime: row.expire_time,
      isDue: row.is_due,
    };
    const unitPrice = { minorUnits: row.price_minor, currencyCode: row.currency_code };
    reservation.lines.push({ sku: row.sku, quantity: row.quantity, unitPrice });
    found.set(reservationId, reservation);
  }
  return [...found.values()];
}
