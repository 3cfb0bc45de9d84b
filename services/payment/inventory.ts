/** The goods: what a checkout needs of the service that keeps them. */
import type { OrderLine } from './fields.js';
import type { Money } from './money.js';

/** How far a reservation has come. */
export type ReservationState = 'ACTIVE' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** Units set aside for a user, at the price of that moment. */
export interface Reservation {
  readonly reservationId: string;
  readonly state: ReservationState;
  readonly lines: readonly (OrderLine & { readonly unitPrice: Money })[];
}

/**
 * Inventory on behalf of one user. Each change carries a request id, so it may be asked for again.
 *
 * Errors are ServiceErrors. DEPENDENCY_UNAVAILABLE says that nobody knows whether the change happened; other codes
 * are inventory's answer.
 */
export interface Inventory {
  /** Sets units aside: all lines or none. Ends early when the caller's call does. */
  reserve(request: {
    lines: readonly OrderLine[];
    timeToLiveSeconds: number;
    requestId: string;
  }): Promise<Reservation>;
  /** Hands the units out for good. Goes on when the caller's call has ended. */
  commit(request: { reservationId: string; requestId: string }): Promise<Reservation>;
  /** Gives the units back. Goes on when the caller's call has ended. */
  release(request: { reservationId: string; requestId: string }): Promise<Reservation>;
  /** How a reservation stands. Goes on when the caller's call has ended. */
  find(reservationId: string): Promise<Reservation>;
}
