/** Reservations and their lines in SQL. */

import type { Sql } from '../common/database/database.js';
import type {
  NewReservation,
  Reservation,
  ReservationLine,
  ReservationState,
  ReservationTransaction,
  StoredReservation,
} from './reservations.js';
import { stockTransaction } from './stock-store.js';

/** A reservation beside one of its lines. */
export interface ReservationRow {
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
export const RESERVATIONS_CHOSEN = `
  SELECT reservation_id, owner, acting_client, state, create_time, expire_time, expire_time <= clock_timestamp() AS is_due,
         sku, quantity, price_minor, currency_code
    FROM chosen JOIN reservation_lines USING (reservation_id)
   ORDER BY expire_time, reservation_id, line_number`;

export async function selectReservation(
  sql: Sql,
  reservationId: string,
): Promise<StoredReservation | undefined> {
  const { rows } = await sql.query<ReservationRow>(
    `WITH chosen AS (SELECT * FROM reservations WHERE reservation_id = $1) ${RESERVATIONS_CHOSEN}`,
    [reservationId],
  );
  return reservationsOf(rows)[0];
}

export async function selectWhetherDue(sql: Sql): Promise<boolean> {
  const { rowCount } = await sql.query(
    "SELECT FROM reservations WHERE state = 'ACTIVE' AND expire_time <= (SELECT clock_timestamp()) LIMIT 1",
  );
  return rowCount > 0;
}

export function reservationTransaction(sql: Sql, moved: () => void): ReservationTransaction {
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

export async function insertReservation(sql: Sql, reservation: NewReservation): Promise<Reservation> {
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

export function reservationsOf(rows: readonly ReservationRow[]): StoredReservation[] {
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
