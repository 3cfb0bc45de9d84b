/** A warehouse in memory that keeps the promises of inventory, and fails where a test wants it to. */

import { randomUUID } from 'node:crypto';
import type { Money } from '../../../services/common/money.js';
import { InventoryError } from '../../../services/inventory/errors.js';
import { PaymentError, type PaymentErrorCode } from '../../../services/payment/errors.js';
import type {
  Inventory,
  Reservation,
  ReservationState,
  Settlement,
} from '../../../services/payment/inventory.js';
import type { OrderLine } from '../../../services/payment/order-lines.js';

/** What can be asked of a warehouse. */
export type WarehouseMethod = 'reserve' | 'commit' | 'release';
/** Before a request has its effect, or after it had, so that only the answer is lost. */
export type Moment = 'before' | 'after';
/** Called at every moment of every request; what it throws is what the caller gets. */
export type Trouble = (method: WarehouseMethod, moment: Moment) => void | Promise<void>;

interface Item {
  readonly price: Money;
  onHand: bigint;
  reserved: bigint;
  sold: bigint;
}

interface Kept extends Reservation {
  state: ReservationState;
  readonly owner: string;
  readonly expiresAtMs: number;
}

/** Goods, and who has reserved them. */
export class Warehouse {
  /** None, unless a test says otherwise. */
  trouble: Trouble = () => {};
  /** Milliseconds by which the warehouse's clock is ahead, so that reservations can be made to run out. */
  aheadMs = 0;
  readonly asked: WarehouseMethod[] = [];
  readonly #items = new Map<string, Item>();
  readonly #reservations = new Map<string, Kept>();
  readonly #answers = new Map<string, { payload: string; reservationId: string }>();

  stock(sku: string, price: Money, onHand = 1_000n): void {
    this.#items.set(sku, { price, onHand, reserved: 0n, sold: 0n });
  }

  item(sku: string): Item {
    const item = this.#items.get(sku);
    if (item === undefined) throw new PaymentError('NOT_FOUND', `there is no item ${sku}`);
    return item;
  }

  /** How many reservations are in a state. */
  count(state: ReservationState): number {
    this.#expire();
    return [...this.#reservations.values()].filter((reservation) => reservation.state === state).length;
  }

  /** Every warehouse in the name of the service, which may end what was reserved through it for the user it names. */
  static readonly settlement: Settlement = {
    settle: ({ reservationId, outcome, authoriser, requestId }) => {
      const warehouse = Warehouse.#keepers.get(reservationId);
      if (warehouse === undefined) throw new PaymentError('NOT_FOUND', 'there is no such reservation');
      const method = outcome === 'COMMITTED' ? 'commit' : 'release';
      return warehouse.#ask(method, () =>
        warehouse.#once(authoriser.subject, 'settle', requestId, `${reservationId} ${outcome}`, () => {
          const found = warehouse.#own(authoriser.subject, reservationId);
          return found.state === 'ACTIVE' ? warehouse.#end(found.owner, reservationId, outcome) : found;
        }),
      );
    },
  };
  static readonly #keepers = new Map<string, Warehouse>();

  /** The warehouse as one user sees it. */
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

  async #ask(method: WarehouseMethod, work: () => Kept): Promise<Reservation> {
    this.asked.push(method);
    await this.trouble(method, 'before');
    this.#expire();
    const answer = { ...work() };
    await this.trouble(method, 'after');
    return answer;
  }

  #once(owner: string, method: string, requestId: string, payload: string, work: () => Kept): Kept {
    const key = JSON.stringify([owner, method, requestId]);
    const known = this.#answers.get(key);
    if (known !== undefined) {
      if (known.payload !== payload) throw new PaymentError('REQUEST_ID_REUSED', 'used before');
      return this.#own(owner, known.reservationId);
    }
    const reservation = work();
    this.#answers.set(key, { payload, reservationId: reservation.reservationId });
    return reservation;
  }

  #reserve(owner: string, lines: readonly OrderLine[], timeToLiveSeconds: number): Kept {
    for (const { sku, quantity } of lines) {
      const { onHand, reserved } = this.item(sku);
      if (onHand - reserved < quantity) throw new PaymentError('INSUFFICIENT_STOCK', 'not enough in stock');
    }
    for (const { sku, quantity } of lines) this.item(sku).reserved += quantity;
    const reservation: Kept = {
      reservationId: randomUUID(),
      owner,
      state: 'ACTIVE',
      lines: lines.map((line) => ({ ...line, unitPrice: this.item(line.sku).price })),
      expiresAtMs: this.#nowMs() + timeToLiveSeconds * 1_000,
    };
    this.#reservations.set(reservation.reservationId, reservation);
    Warehouse.#keepers.set(reservation.reservationId, this);
    return reservation;
  }

  #end(owner: string, reservationId: string, state: 'COMMITTED' | 'RELEASED' | 'EXPIRED'): Kept {
    const reservation = this.#own(owner, reservationId);
    if (reservation.state === 'EXPIRED') throw new InventoryError('RESERVATION_EXPIRED', 'it has expired');
    if (reservation.state !== 'ACTIVE') throw new InventoryError('RESERVATION_NOT_ACTIVE', 'it has ended');
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

  #own(owner: string, reservationId: string): Kept {
    const reservation = this.#reservations.get(reservationId);
    if (reservation?.owner !== owner) throw new PaymentError('NOT_FOUND', 'there is no such reservation');
    return reservation;
  }

  #expire(): void {
    for (const { owner, reservationId, state, expiresAtMs } of this.#reservations.values()) {
      if (state === 'ACTIVE' && expiresAtMs <= this.#nowMs()) this.#end(owner, reservationId, 'EXPIRED');
    }
  }

  #nowMs(): number {
    return Date.now() + this.aheadMs;
  }
}

/** Trouble that strikes at one moment of one method, so many times. */
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
