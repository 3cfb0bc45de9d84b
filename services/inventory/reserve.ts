/** Reserving stock: all lines of an order at the present prices, or none. */

import { payloadOf } from '../common/validation/request-id.js';
import { createViolations, type Violations } from '../common/validation/violations.js';
import type { Caller } from './caller.js';
import { InventoryError } from './errors.js';
import { itemNotFound } from './items.js';
import { type OrderLine, requireLines } from './order-lines.js';
import type {
  Reservation,
  ReservationLine,
  ReservationStore,
  ReservationTransaction,
} from './reservation.js';
import {
  checkHoldings,
  type Holdings,
  type ReservationLimit,
  type ReservationLimits,
} from './reservation-limits.js';
import type { Item } from './stock.js';

/** How long a reservation lasts when the caller does not say. */
const TIME_TO_LIVE_SECONDS_DEFAULT = 600;
/** The shortest time that a reservation may last. */
const TIME_TO_LIVE_SECONDS_MIN = 1;

/** A duration, as it comes over the wire. */
export interface TimeToLive {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** A request to reserve stock. */
export interface ReserveStockRequest {
  readonly lines: readonly OrderLine[];
  /** {@link TIME_TO_LIVE_SECONDS_DEFAULT} when undefined. */
  readonly timeToLive: TimeToLive | undefined;
  readonly requestId: string;
}

/** What reserving needs. */
export interface ReserveDeps {
  readonly store: ReservationStore;
  readonly limits: ReservationLimits;
  /** Called when a user reaches a limit. */
  readonly onLimit: (limit: ReservationLimit) => void;
}

/** @throws ServiceError FIELD_INVALID */
export function checkReserveStock(
  { lines, timeToLive, requestId }: ReserveStockRequest,
  { secondsMax }: ReservationLimits,
): void {
  const violations = createViolations();
  requireLines(violations, lines);
  if (timeToLive !== undefined) requireTimeToLive(violations, timeToLive, secondsMax);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
}

/**
 * Reserves the lines of a checked request.
 *
 * @throws ServiceError NOT_FOUND, INSUFFICIENT_STOCK, RESERVATION_LIMIT
 */
export function reserveLines(
  { store, limits, onLimit }: ReserveDeps,
  { lines, timeToLive, requestId }: ReserveStockRequest,
  caller: Caller,
): Promise<Reservation> {
  const payload = payloadOf(
    lines.map(({ sku, quantity }) => [sku, quantity]),
    timeToLive === undefined ? null : [timeToLive.seconds, timeToLive.nanos],
  );
  const request = { subject: caller.subject, method: 'ReserveStock', requestId, payload };
  const place = { skus: lines.map(({ sku }) => sku), caller: caller.subject };
  return store.changeReservationsOnce(
    request,
    async (transaction) => {
      const { items, holdings } = await lockItemsAndHoldings(transaction, lines, caller);
      const priced = priceLines(lines, items);
      checkAvailable(priced, items);
      const isPurchase = caller.actingClient !== undefined;
      checkHoldings(holdings, { lines: priced, items, isPurchase }, limits, onLimit);
      const reservation = await transaction.insertReservation({
        owner: caller.subject,
        actingClient: caller.actingClient,
        lines: priced,
        timeToLiveMicroseconds: microsecondsOf(timeToLive, limits.secondsMax),
      });
      await transaction.move({
        kind: 'RESERVED',
        actor: caller,
        reason: '',
        reservationId: reservation.reservationId,
        deltas: lines.map(({ sku, quantity }) => ({ sku, onHand: 0n, reserved: quantity })),
      });
      return reservation;
    },
    place,
  );
}

function requireTimeToLive(violations: Violations, { seconds, nanos }: TimeToLive, secondsMax: number): void {
  const min = BigInt(TIME_TO_LIVE_SECONDS_MIN);
  const max = BigInt(secondsMax);
  const isDuration = Number.isInteger(nanos) && nanos >= 0 && nanos < 1_000_000_000;
  const isWithin = seconds >= min && (seconds < max || (seconds === max && nanos === 0));
  const description = `must be ${TIME_TO_LIVE_SECONDS_MIN} to ${secondsMax} seconds`;
  violations.require('time_to_live', isDuration && isWithin, description);
}

/** The holdings are read after the items are locked, so that concurrent calls cannot exceed the share of an item. */
async function lockItemsAndHoldings(
  transaction: ReservationTransaction,
  lines: readonly OrderLine[],
  caller: Caller,
): Promise<{ items: ReadonlyMap<string, Item>; holdings: Holdings }> {
  const skus = lines.map(({ sku }) => sku);
  // Both statements are sent at once and run in this order.
  const [items, holdings] = await Promise.all([
    transaction.lockItems(skus),
    transaction.holdingsOf(caller.subject, skus),
  ]);
  return { items: new Map(items.map((item) => [item.sku, item])), holdings };
}

function priceLines(lines: readonly OrderLine[], items: ReadonlyMap<string, Item>): ReservationLine[] {
  return lines.map(({ sku, quantity }) => {
    const item = items.get(sku);
    if (item === undefined) throw itemNotFound(sku);
    return { sku, quantity, unitPrice: item.unitPrice };
  });
}

function checkAvailable(lines: readonly OrderLine[], items: ReadonlyMap<string, Item>): void {
  const missing = lines.flatMap(({ sku, quantity }) => {
    const { onHand, reserved } = items.get(sku) ?? { onHand: 0n, reserved: 0n };
    const free = onHand - reserved;
    return quantity > free ? [`${free} of ${sku}`] : [];
  });
  if (missing.length === 0) return;
  throw new InventoryError('INSUFFICIENT_STOCK', `not enough in stock: there are ${missing.join(', ')}`);
}

function microsecondsOf(timeToLive: TimeToLive | undefined, secondsMax: number): bigint {
  if (timeToLive === undefined)
    return BigInt(Math.min(TIME_TO_LIVE_SECONDS_DEFAULT, secondsMax)) * 1_000_000n;
  return timeToLive.seconds * 1_000_000n + BigInt(Math.floor(timeToLive.nanos / 1000));
}
