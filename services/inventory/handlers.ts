/** InventoryService: from messages to the domain and back. */

import { type Principal, principalOf, serverStream, signalOf, unary } from '@portcullis/guard';
import {
  StockChangeKind as ChangeKindMessage,
  type InventoryServiceServer,
  type Item as ItemMessage,
  type Reservation as ReservationMessage,
  type SettleReservationRequest as SettleMessage,
  ReservationState as StateMessage,
  type StockChange as StockChangeMessage,
} from '../../proto/gen/inventory/v1/inventory_service.js';
import {
  adjustStock,
  createItem,
  getItem,
  type ItemDeps,
  listItems,
  listStockChanges,
  type StockChange,
} from './items.js';
import {
  commitReservation,
  getReservation,
  type Reservation,
  type ReservationDeps,
  type ReservationState,
  releaseReservation,
  reserveStock,
  type SettleReservationRequest,
  settleReservation,
} from './reservations.js';
import type { Caller, ChangeKind, Item } from './stock.js';
import { type WatchDeps, watchStock } from './watch.js';

/** The role that may read what belongs to others. */
export const OPERATOR_ROLE = 'operator';

/** What the handlers need. */
export type HandlerDeps = ItemDeps & ReservationDeps & WatchDeps;

/** The methods of InventoryService, to be added through the guard. */
export function createHandlers(deps: HandlerDeps): InventoryServiceServer {
  return {
    createItem: unary(async (request, call) => ({
      item: itemMessageOf(await createItem(deps, callerOf(principalOf(call)), request)),
    })),
    getItem: unary(async ({ sku }) => ({ item: itemMessageOf(await getItem(deps, sku)) })),
    listItems: unary(async (request) => {
      const { items, nextPageToken } = await listItems(deps, request);
      return { items: items.map(itemMessageOf), nextPageToken };
    }),
    adjustStock: unary(async (request, call) => ({
      item: itemMessageOf(await adjustStock(deps, callerOf(principalOf(call)), request)),
    })),
    reserveStock: unary(async (request, call) => ({
      reservation: reservationMessageOf(await reserveStock(deps, callerOf(principalOf(call)), request)),
    })),
    commitReservation: unary(async (request, call) => ({
      reservation: reservationMessageOf(await commitReservation(deps, callerOf(principalOf(call)), request)),
    })),
    releaseReservation: unary(async (request, call) => ({
      reservation: reservationMessageOf(await releaseReservation(deps, callerOf(principalOf(call)), request)),
    })),
    getReservation: unary(async ({ reservationId }, call) => ({
      reservation: reservationMessageOf(
        await getReservation(deps, callerOf(principalOf(call)), reservationId),
      ),
    })),
    settleReservation: unary(async (request, call) => ({
      reservation: reservationMessageOf(
        // A service's own id: another issuer may call a client of its own as ours is called.
        await settleReservation(deps, principalOf(call).id, settlementOf(request)),
      ),
    })),
    listStockChanges: unary(async (request) => {
      const { changes, nextPageToken } = await listStockChanges(deps, request);
      return { changes: changes.map(changeMessageOf), nextPageToken };
    }),
    watchStock: serverStream((request, call) => watchStock(deps, request, signalOf(call))),
  };
}

/** Whose things are whose goes by issuer and subject: another issuer's alice is not ours. */
function callerOf({ id, roles, actors }: Principal): Caller {
  return { subject: id, isOperator: roles.has(OPERATOR_ROLE), actingClient: actors[0] };
}

/** Whatever is no end that can be asked for counts as missing. */
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
