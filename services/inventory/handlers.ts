/** The methods of InventoryService: they map messages to the domain and back. */

import { type Principal, principalOf, type ServiceHandlers, signalOf } from '@portcullis/guard';
import {
  StockChangeKind as ChangeKindMessage,
  type InventoryServiceService,
  type Item as ItemMessage,
  type Reservation as ReservationMessage,
  type SettleReservationRequest as SettleMessage,
  ReservationState as StateMessage,
  type StockChange as StockChangeMessage,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import type { Caller } from './caller.js';
import type { Items, StockChange } from './items.js';
import type { Reservation, ReservationState } from './reservation.js';
import type { Reservations, SettleReservationRequest } from './reservations.js';
import type { ChangeKind, Item } from './stock.js';
import type { StockWatch } from './watch.js';

/** The scope that lets a caller read and commit what belongs to others. Roles do not: a narrowed token may still have them. */
const MANAGE_SCOPE = 'inventory.manage';

interface HandlerDeps {
  readonly items: Items;
  readonly reservations: Reservations;
  readonly stockWatch: StockWatch;
}

/** Creates the handlers of InventoryService, to be added through the guard. */
export function createHandlers({
  items,
  reservations,
  stockWatch,
}: HandlerDeps): ServiceHandlers<InventoryServiceService> {
  return {
    createItem: async (request, call) => {
      const item = await items.create(request, callerOf(principalOf(call)));
      return { item: itemMessageOf(item) };
    },
    getItem: async ({ sku }, call) => {
      const item = await items.get(sku, callerOf(principalOf(call)));
      return { item: itemMessageOf(item) };
    },
    listItems: async (request, call) => {
      const caller = callerOf(principalOf(call));
      const { items: page, nextPageToken } = await items.list(request, caller);
      return { items: page.map(itemMessageOf), nextPageToken };
    },
    adjustStock: async (request, call) => {
      const item = await items.adjust(request, callerOf(principalOf(call)));
      return { item: itemMessageOf(item) };
    },
    reserveStock: async (request, call) => {
      const reservation = await reservations.reserve(request, callerOf(principalOf(call)));
      return { reservation: reservationMessageOf(reservation) };
    },
    commitReservation: async (request, call) => {
      const reservation = await reservations.commit(request, callerOf(principalOf(call)));
      return { reservation: reservationMessageOf(reservation) };
    },
    releaseReservation: async (request, call) => {
      const reservation = await reservations.release(request, callerOf(principalOf(call)));
      return { reservation: reservationMessageOf(reservation) };
    },
    getReservation: async ({ reservationId }, call) => {
      const reservation = await reservations.get(reservationId, callerOf(principalOf(call)));
      return { reservation: reservationMessageOf(reservation) };
    },
    settleReservation: async (request, call) => {
      // The id identifies the service by issuer and client: another issuer may have a client of the same name.
      const reservation = await reservations.settle(settlementOf(request), principalOf(call).id);
      return { reservation: reservationMessageOf(reservation) };
    },
    listStockChanges: async (request, call) => {
      const caller = callerOf(principalOf(call));
      const { changes, nextPageToken } = await items.listChanges(request, caller);
      return { changes: changes.map(changeMessageOf), nextPageToken };
    },
    watchStock: (request, call) =>
      stockWatch.watch({ ...request, caller: principalOf(call).id }, signalOf(call)),
  };
}

/** Identifies the user by issuer and subject: two issuers may have a user of the same name. */
function callerOf({ id, scopes, actors }: Principal): Caller {
  return { subject: id, isOperator: scopes.has(MANAGE_SCOPE), actingClient: actors[0] };
}

/** Any outcome that cannot be asked for counts as missing. */
function settlementOf({
  reservationId,
  outcome,
  authoriser,
  requestId,
}: SettleMessage): SettleReservationRequest {
  const outcomes = {
    [StateMessage.RESERVATION_STATE_COMMITTED]: 'COMMITTED',
    [StateMessage.RESERVATION_STATE_RELEASED]: 'RELEASED',
  } as const;
  const known: Readonly<Record<number, 'COMMITTED' | 'RELEASED'>> = outcomes;
  return { reservationId, outcome: known[outcome], authoriser, requestId };
}

function itemMessageOf({ sku, name, unitPrice, onHand, reserved, createTime }: Item): ItemMessage {
  return { sku, name, unitPrice: { ...unitPrice }, onHand, reserved, createTime };
}

const STATE_MESSAGES = {
  ACTIVE: StateMessage.RESERVATION_STATE_ACTIVE,
  COMMITTED: StateMessage.RESERVATION_STATE_COMMITTED,
  RELEASED: StateMessage.RESERVATION_STATE_RELEASED,
  EXPIRED: StateMessage.RESERVATION_STATE_EXPIRED,
} satisfies Record<ReservationState, StateMessage>;

function reservationMessageOf(reservation: Reservation): ReservationMessage {
  const { reservationId, state, lines, createTime, expireTime } = reservation;
  return {
    reservationId,
    state: STATE_MESSAGES[state],
    lines: lines.map(({ sku, quantity, unitPrice }) => ({ sku, quantity, unitPrice: { ...unitPrice } })),
    createTime,
    expireTime,
  };
}

const KIND_MESSAGES = {
  CREATED: ChangeKindMessage.STOCK_CHANGE_KIND_CREATED,
  ADJUSTED: ChangeKindMessage.STOCK_CHANGE_KIND_ADJUSTED,
  RESERVED: ChangeKindMessage.STOCK_CHANGE_KIND_RESERVED,
  COMMITTED: ChangeKindMessage.STOCK_CHANGE_KIND_COMMITTED,
  RELEASED: ChangeKindMessage.STOCK_CHANGE_KIND_RELEASED,
  EXPIRED: ChangeKindMessage.STOCK_CHANGE_KIND_EXPIRED,
} satisfies Record<ChangeKind, ChangeKindMessage>;

function changeMessageOf({ delta, actor, kind, reservationId, ...change }: StockChange): StockChangeMessage {
  return {
    ...change,
    kind: KIND_MESSAGES[kind],
    onHandDelta: delta.onHand,
    reservedDelta: delta.reserved,
    actorId: actor?.subject ?? '',
    actingClientId: actor?.actingClient ?? '',
    authorisingTokenId: actor?.authorisingToken ?? '',
    reservationId: reservationId ?? '',
  };
}
