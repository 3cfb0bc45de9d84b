/**
 * A fake of inventory in memory, which fails where a test wants it to. It keeps the contract of inventory-contract.test.ts.
 */

import { randomUUID } from 'node:crypto';
import type { Money } from '../../../services/common/money.js';
import { createViolations } from '../../../services/common/validation/violations.js';
import { PaymentError, type PaymentErrorCode } from '../../../services/payment/errors.js';
import type {
  Authoriser,
  Inventory,
  Reservation,
  ReservationState,
  Settlement,
} from '../../../services/payment/inventory-port.js';
import { type OrderLine, requireLines } from '../../../services/payment/order-lines.js';

/** The requests to a warehouse. */
export type WarehouseMethod = 'reserve' | 'commit' | 'release';
/** Before a request has its effect, or after it, when only the response is lost. */
export type Moment = 'before' | 'after';
/** Called at every moment of every request; the caller receives the error that it throws. */
export type Trouble = (method: WarehouseMethod, moment: Moment) => void | Promise<void>;

interface Item {
  price: Money;
  onHand: bigint;
  reserved: bigint;
  sold: bigint;
}

interface StoredReservation extends Reservation {
  state: ReservationState;
  readonly owner: string;
  expiresAtMs: number;
}

/** Items and their reservations. */
export class Warehouse {
  /** None by default. */
  trouble: Trouble = () => {};
  /** How far the warehouse's clock is ahead, in milliseconds; lets reservations expire. */
  aheadMs = 0;
  readonly asked: WarehouseMethod[] = [];
  readonly #items = new Map<string, Item>();
  readonly #reservations = new Map<string, StoredReservation>();
  readonly #responses = new Map<string, { payload: string; response: Reservation }>();

  stock(sku: string, price: Money, onHand = 1_000n): void {
    this.#items.set(sku, { price, onHand, reserved: 0n, sold: 0n });
  }

  item(sku: string): Item {
    const item = this.#items.get(sku);
    if (item === undefined) throw new PaymentError('NOT_FOUND', `there is no item ${sku}`);
    return item;
  }

  /** Makes one reservation due. */
  runOut(reservationId: string): void {
    const reservation = this.#reservations.get(reservationId);
    if (reservation !== undefined) reservation.expiresAtMs = this.#nowMs();
  }

  /** The number of reservations in a state. */
  count(state: ReservationState): number {
    this.#expire();
    return [...this.#reservations.values()].filter((reservation) => reservation.state === state).length;
  }

  /** Settles reservations of every warehouse as the service that made them for the user in the request. */
  static readonly settlement: Settlement = {
    settle: async ({ reservationId, outcome, authoriser, requestId }) => {
      const warehouse = Warehouse.#byReservation.get(reservationId);
      if (warehouse === undefined) throw new PaymentError('NOT_FOUND', 'there is no such reservation');
      const method = outcome === 'COMMITTED' ? 'commit' : 'release';
      return await warehouse.#ask(method, () =>
        warehouse.#once(
          'payment',
          'settle',
          requestId,
          settlementPayload(reservationId, outcome, authoriser),
          () => {
            const found = warehouse.#own(authoriser.subject, reservationId);
            return found.state === 'ACTIVE' ? warehouse.#end(found, outcome) : found;
          },
        ),
      );
    },
  };
  static readonly #byReservation = new Map<string, Warehouse>();

  /** The warehouse on behalf of one user. */
  for(owner: string): Inventory {
    return {
      reserve: ({ lines, timeToLiveSeconds, requestId }) =>
        this.#ask('reserve', () =>
          this.#once(
            owner,
            'reserve',
            requestId,
            lines.map(({ sku, quantity }) => `${sku} ${quantity}`).join(),
            () => this.#reserve(owner, lines, timeToLiveSeconds),
          ),
        ),
    };
  }

  async #ask(method: WarehouseMethod, work: () => Reservation): Promise<Reservation> {
    this.asked.push(method);
    await this.trouble(method, 'before');
    this.#expire();
    const response = work();
    await this.trouble(method, 'after');
    return response;
  }

  #once(
    owner: string,
    method: string,
    requestId: string,
    payload: string,
    work: () => StoredReservation,
  ): Reservation {
    const key = JSON.stringify([owner, method, requestId]);
    const known = this.#responses.get(key);
    if (known !== undefined) {
      // The adapter passes this reason of inventory on as unavailable: it is not about the order.
      if (known.payload !== payload)
        throw new PaymentError('DEPENDENCY_UNAVAILABLE', 'request_id was used before');
      return known.response;
    }
    const { reservationId, state, lines } = work();
    const response = { reservationId, state, lines };
    this.#responses.set(key, { payload, response });
    return response;
  }

  #reserve(owner: string, lines: readonly OrderLine[], timeToLiveSeconds: number): StoredReservation {
    const violations = createViolations();
    requireLines(violations, lines);
    violations.throwIfAny();
    for (const { sku } of lines) this.item(sku);
    for (const { sku, quantity } of lines) {
      const { onHand, reserved } = this.item(sku);
      if (onHand - reserved < quantity) throw new PaymentError('INSUFFICIENT_STOCK', 'not enough in stock');
    }
    for (const { sku, quantity } of lines) this.item(sku).reserved += quantity;
    const reservation: StoredReservation = {
      reservationId: randomUUID(),
      owner,
      state: 'ACTIVE',
      lines: lines.map((line) => ({ ...line, unitPrice: this.item(line.sku).price })),
      expiresAtMs: this.#nowMs() + timeToLiveSeconds * 1_000,
    };
    this.#reservations.set(reservation.reservationId, reservation);
    Warehouse.#byReservation.set(reservation.reservationId, this);
    return reservation;
  }

  #end(reservation: StoredReservation, state: 'COMMITTED' | 'RELEASED' | 'EXPIRED'): StoredReservation {
    reservation.state = state;
    for (const { sku, quantity } of reservation.lines) {
      const item = this.item(sku);
      item.reserved -= quantity;
      if (state !== 'COMMITTED') continue;
      item.onHand -= quantity;
      item.sold += quantity;
    }
    return reservation;
  }

  #own(owner: string, reservationId: string): StoredReservation {
    const reservation = this.#reservations.get(reservationId);
    if (reservation?.owner !== owner) throw new PaymentError('NOT_FOUND', 'there is no such reservation');
    return reservation;
  }

  #expire(): void {
    for (const reservation of this.#reservations.values()) {
      const isDue = reservation.expiresAtMs <= this.#nowMs();
      if (reservation.state === 'ACTIVE' && isDue) this.#end(reservation, 'EXPIRED');
    }
  }

  #nowMs(): number {
    return Date.now() + this.aheadMs;
  }
}

function settlementPayload(reservationId: string, outcome: string, authoriser: Authoriser): string {
  const { subject, clientId, sessionId = '', tokenId } = authoriser;
  return JSON.stringify([reservationId, outcome, subject, clientId, sessionId, tokenId]);
}

/** A fault that fails one method at one moment, a number of times. */
export function failing(
  method: WarehouseMethod,
  moment: Moment,
  options: { code?: PaymentErrorCode; times?: number } = {},
): Trouble {
  const { code = 'DEPENDENCY_UNAVAILABLE', times = Number.POSITIVE_INFINITY } = options;
  let left = times;
  return (asked, now) => {
    if (asked !== method || now !== moment || left-- <= 0) return;
    throw new PaymentError(code, 'no answer');
  };
}
