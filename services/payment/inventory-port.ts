/** The ports of payment to inventory. */

import type { Money } from '../common/money.js';
import type { OrderLine } from './order-lines.js';

/** The state of a reservation. */
export type ReservationState = 'ACTIVE' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** Units reserved for a user, at the prices of that moment. */
export interface Reservation {
  readonly reservationId: string;
  readonly state: ReservationState;
  readonly lines: readonly (OrderLine & { readonly unitPrice: Money })[];
}

/**
 * Inventory on behalf of one user.
 *
 * Errors are ServiceErrors. DEPENDENCY_UNAVAILABLE means that it is unknown whether the change happened; other codes are
 * inventory's response.
 */
export interface Inventory {
  /**
   * Reserves all lines or none. The request id makes it safe to retry. The request is cancelled when the user's call ends.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND, INSUFFICIENT_STOCK, RESERVATION_LIMIT, DEPENDENCY_UNAVAILABLE
   */
  reserve(request: {
    lines: readonly OrderLine[];
    timeToLiveSeconds: number;
    requestId: string;
  }): Promise<Reservation>;
}

/** The user and the token that authorise a movement of goods and money. */
export interface Authoriser {
  readonly subject: string;
  readonly clientId: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
}

/** Inventory in this service's own name, for reservations that it made for its buyers. */
export interface Settlement {
  /**
   * Ends a reservation under the authority of its owner, as it was recorded when the owner was still allowed. The request
   * id makes it safe to retry. A reservation that has ended already stays as it is; the returned state says how it ended.
   *
   * @throws ServiceError of any code when it is unknown how the reservation ended
   */
  settle(request: {
    reservationId: string;
    outcome: 'COMMITTED' | 'RELEASED';
    authoriser: Authoriser;
    requestId: string;
  }): Promise<Reservation>;
}
