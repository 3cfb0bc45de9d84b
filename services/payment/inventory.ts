/** The goods: what a checkout needs of the service that keeps them. */

import type { Money } from '../common/money.js';
import type { OrderLine } from './order-lines.js';

/** How far a reservation has come. */
export type ReservationState = 'ACTIVE' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** Units set aside for a user, at the price of that moment. */
export interface Reservation {
  readonly reservationId: string;
  readonly state: ReservationState;
  readonly lines: readonly (OrderLine & { readonly unitPrice: Money })[];
}

/**
 * Inventory on behalf of one user.
 *
 * Errors are ServiceErrors. DEPENDENCY_UNAVAILABLE says that nobody knows whether the change happened; other codes
 * are inventory's answer.
 */
export interface Inventory {
  /**
   * Sets units aside: all lines or none. It carries a request id, so it may be asked for again. Ends early when the
   * caller's call does.
   */
  reserve(request: {
    lines: readonly OrderLine[];
    timeToLiveSeconds: number;
    requestId: string;
  }): Promise<Reservation>;
}

/** On whose word goods and money move, by identifiers alone. */
export interface Authoriser {
  readonly subject: string;
  readonly clientId: string;
  readonly sessionId: string | undefined;
  readonly tokenId: string;
}

/** Inventory in this service's own name, for reservations that it has made for its buyers. */
export interface Settlement {
  /**
   * Ends a reservation on the word that its owner gave when that still counted, which may be long ago. It carries a
   * request id, so it may be asked for again. What has ended already stays as it is: the state of the answer says
   * what has become of the goods.
   *
   * @throws ServiceError of any code when that is not known
   */
  settle(request: {
    reservationId: string;
    outcome: 'COMMITTED' | 'RELEASED';
    authoriser: Authoriser;
    requestId: string;
  }): Promise<Reservation>;
}
