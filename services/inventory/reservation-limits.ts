/** The limits on what one user may hold reserved, so that no user can empty the shop without paying. */

import { InventoryError } from './errors.js';
import type { OrderLine } from './order-lines.js';
import type { Item } from './stock.js';

/** Default of {@link ReservationLimits.openMax}. */
export const OPEN_RESERVATIONS_DEFAULT = 20;
/** Default of {@link ReservationLimits.sharePercent}. */
export const SHARE_PERCENT_DEFAULT = 25;
/** Default of {@link ReservationLimits.secondsMax}. */
export const RESERVATION_SECONDS_DEFAULT = 900;

/** The configured limits. */
export interface ReservationLimits {
  /**
   * Maximum number of active reservations of one user, those of purchases in progress included. Concurrent calls of one
   * user may exceed it by their number.
   */
  readonly openMax: number;
  /**
   * Maximum share of an item's units on hand that one user may hold, in percent; at least one unit. It does not apply to
   * purchases, which a service pays for or releases within a minute.
   */
  readonly sharePercent: number;
  /** Maximum duration of a reservation, in seconds. */
  readonly secondsMax: number;
}

/** The limits that a reservation can reach; a label of the metric. */
export type ReservationLimit = 'open' | 'share';

/** What a user holds reserved. */
export interface Holdings {
  /** Number of active reservations that have not expired. */
  readonly open: number;
  /** Units that the user has reserved directly, by sku. */
  readonly units: ReadonlyMap<string, bigint>;
}

/**
 * Checks that a user may hold these lines as well.
 *
 * @param isPurchase - whether a service reserves them for a purchase of the user
 * @param onReached - called with the limit that was reached
 * @throws ServiceError RESERVATION_LIMIT
 */
export function checkHoldings(
  holdings: Holdings,
  order: {
    readonly lines: readonly OrderLine[];
    readonly items: ReadonlyMap<string, Item>;
    readonly isPurchase: boolean;
  },
  { openMax, sharePercent }: ReservationLimits,
  onReached: (limit: ReservationLimit) => void,
): void {
  if (holdings.open >= openMax) {
    onReached('open');
    throw new InventoryError(
      'RESERVATION_LIMIT',
      `a user may have ${openMax} active reservations: release one, or wait until one expires`,
    );
  }
  if (order.isPurchase) return;
  const exceeding = order.lines.flatMap(({ sku, quantity }) => {
    const allowed = shareOf(order.items.get(sku)?.onHand ?? 0n, sharePercent);
    return (holdings.units.get(sku) ?? 0n) + quantity > allowed ? [`${allowed} of ${sku}`] : [];
  });
  if (exceeding.length === 0) return;
  onReached('share');
  throw new InventoryError('RESERVATION_LIMIT', `a user may reserve at most ${exceeding.join(', ')}`);
}

function shareOf(onHand: bigint, percent: number): bigint {
  const share = (onHand * BigInt(percent)) / 100n;
  return share > 1n ? share : 1n;
}
