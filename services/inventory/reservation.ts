/** What a reservation is, and how it is stored. */

import type { Money } from '../common/money.js';
import type { RepeatableRequest } from '../common/validation/request-id.js';
import type { OrderLine } from './order-lines.js';
import type { Holdings } from './reservation-limits.js';
import type { StockPlace, StockTransaction } from './stock.js';

/** The state of a reservation. */
export type ReservationState = 'ACTIVE' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** A number of units of one item, at the price of the moment of reservation. */
export interface ReservationLine extends OrderLine {
  readonly unitPrice: Money;
}

/** Units reserved for one user. */
export interface Reservation {
  readonly reservationId: string;
  /** The subject that it belongs to. */
  readonly owner: string;
  readonly state: ReservationState;
  /** In the order of the request. */
  readonly lines: readonly ReservationLine[];
  readonly createTime: Date;
  readonly expireTime: Date;
}

/** A reservation with the fields that only the domain needs. */
export interface StoredReservation extends Reservation {
  /** The service that acted for the owner when it was made; undefined when the owner called directly. */
  readonly actingClient: string | undefined;
  /** Whether it has expired by the clock of the database, although its state may still be ACTIVE. */
  readonly isDue: boolean;
}

/** A reservation that is about to be made. */
export interface NewReservation {
  readonly owner: string;
  readonly actingClient: string | undefined;
  readonly lines: readonly ReservationLine[];
  readonly timeToLiveMicroseconds: bigint;
}

/** A transaction on reservations. Reservations are locked before items. */
export interface ReservationTransaction extends StockTransaction {
  /** What a user holds reserved, of these items. */
  holdingsOf(owner: string, skus: readonly string[]): Promise<Holdings>;
  /** Inserts a reservation that begins now, by the clock of the database. */
  insertReservation(reservation: NewReservation): Promise<Reservation>;
  /** Locks a reservation until the transaction ends; undefined when there is none. */
  lockReservation(reservationId: string): Promise<StoredReservation | undefined>;
  /** Locks active reservations that have expired, the oldest first, and skips those that another transaction has locked. */
  lockDueReservations(limit: number): Promise<readonly StoredReservation[]>;
  /** Writes the last state of a locked reservation. */
  endReservation(reservationId: string, state: Exclude<ReservationState, 'ACTIVE'>): Promise<void>;
}

/** Stores reservations. */
export interface ReservationStore {
  /** @param caller - the user whom it is for, as in {@link StockPlace.caller} */
  findReservation(reservationId: string, caller?: string): Promise<StoredReservation | undefined>;
  /** Whether an active reservation has expired. */
  hasDueReservations(caller?: string): Promise<boolean>;
  /** Runs the work in a transaction and commits it; the work may run again after a conflict. */
  changeReservations<T>(
    work: (transaction: ReservationTransaction) => Promise<T>,
    place?: StockPlace,
  ): Promise<T>;
  /** Runs the work once for a request and commits it; a repeated request receives the first response. */
  changeReservationsOnce<T>(
    request: RepeatableRequest,
    work: (transaction: ReservationTransaction) => Promise<T>,
    place?: StockPlace,
  ): Promise<T>;
}
