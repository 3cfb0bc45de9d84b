/** The catalogue: items are created, read, and their stock on hand is adjusted. */

import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import type { Money } from '../common/money.js';
import { createViolations } from '../common/validation/violations.js';
import { InventoryError } from './errors.js';
import {
  type Actor,
  type Caller,
  type ChangeKind,
  type Item,
  ON_HAND_MAX,
  payloadOf,
  type RepeatableRequest,
  type StockTransaction,
} from './stock.js';

/** Units that an item may have from the beginning. */
export const INITIAL_ON_HAND_MAX = 1_000_000_000n;

/** What a transaction on the catalogue can do. */
export interface ItemTransaction extends StockTransaction {
  /** Adds an item with its first line of history; undefined when the sku is taken. */
  insertItem(item: NewItem & { actor: Actor }): Promise<Item | undefined>;
}

/** What the catalogue needs of a store. */
export interface ItemStore {
  getItem(sku: string): Promise<Item | undefined>;
  /** A page by sku; throws FIELD_INVALID for a page size, token or filter that is not good. */
  listItems(page: PageRequest): Promise<ItemPage>;
  /** The changes of one item, the newest first; throws as listItems does. */
  listChanges(sku: string, page: PageRequest): Promise<ChangePage>;
  /** Runs the work once for a request and commits it, or nothing; a repeated request gets the first answer. */
  changeItemsOnce<T>(
    request: RepeatableRequest,
    work: (transaction: ItemTransaction) => Promise<T>,
  ): Promise<T>;
}

/** What the functions of this file need. */
export interface ItemDeps {
  readonly store: ItemStore;
}

/** Which part of a list is asked for, as it came from the caller. */
export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
  readonly filter: string;
}

/** One line of the history of an item. */
export interface StockChange {
  readonly changeId: bigint;
  readonly sku: string;
  readonly kind: ChangeKind;
  readonly delta: { readonly onHand: bigint; readonly reserved: bigint };
  /** As they were right after it. */
  readonly onHand: bigint;
  readonly reserved: bigint;
  readonly reason: string;
  readonly actor: Actor | undefined;
  readonly reservationId: string | undefined;
  readonly changeTime: Date;
}

/** Changes from the newest to the oldest. */
export interface ChangePage {
  readonly changes: readonly StockChange[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** Items in the order of their skus. */
export interface ItemPage {
  readonly items: readonly Item[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** An item to be. */
export interface NewItem {
  readonly sku: string;
  readonly name: string;
  readonly unitPrice: Money;
  readonly onHand: bigint;
}

/** Asks to create an item; the price may be missing on the wire. */
export interface CreateItemRequest extends Omit<NewItem, 'unitPrice'> {
  readonly unitPrice: Money | undefined;
  readonly requestId: string;
}

/** Asks to change the stock on hand. */
export interface AdjustStockRequest {
  readonly sku: string;
  readonly delta: bigint;
  readonly reason: string;
  readonly requestId: string;
}

/**
 * Adds an item to the catalogue.
 *
 * @throws ServiceError FIELD_INVALID; ALREADY_EXISTS when another request has created the sku
 */
export async function createItem(deps: ItemDeps, caller: Caller, request: CreateItemRequest): Promise<Item> {
  const { sku, name, onHand, requestId } = request;
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.requireText('name', name);
  const { unitPrice = { minorUnits: 0n, currencyCode: '' } } = request;
  violations.requireAmount('unit_price', unitPrice);
  violations.requireRange('on_hand', onHand, { min: 0n, max: INITIAL_ON_HAND_MAX });
  violations.requireRequestId(requestId);
  violations.throwIfAny();

  const { subject } = caller;
  const payload = payloadOf(sku, name, unitPrice.minorUnits, unitPrice.currencyCode, onHand);
  return deps.store.changeItemsOnce({ subject, method: 'CreateItem', requestId, payload }, async (items) => {
    const created = await items.insertItem({ sku, name, unitPrice, onHand, actor: caller });
    if (created === undefined) throw new InventoryError('ALREADY_EXISTS', `there is an item ${sku} already`);
    return created;
  });
}

/**
 * One item with its stock. Units of a reservation that has just run out may still be counted as
 * reserved until the next sweep.
 *
 * @throws ServiceError FIELD_INVALID, NOT_FOUND
 */
export async function getItem(deps: ItemDeps, sku: string): Promise<Item> {
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.throwIfAny();
  const item = await deps.store.getItem(sku);
  if (item === undefined) throw unknownItem(sku);
  return item;
}

/**
 * A page of the catalogue, by sku.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function listItems(deps: ItemDeps, request: PageRequest): Promise<ItemPage> {
  return deps.store.listItems(request);
}

/**
 * A page of one item's history.
 *
 * @throws ServiceError FIELD_INVALID, NOT_FOUND
 */
export async function listStockChanges(
  deps: ItemDeps,
  { sku, ...page }: PageRequest & { sku: string },
): Promise<ChangePage> {
  await getItem(deps, sku);
  return await deps.store.listChanges(sku, page);
}

/**
 * Adds to or takes from the stock on hand.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND; INSUFFICIENT_STOCK when reserved units would be taken away
 */
export async function adjustStock(
  deps: ItemDeps,
  caller: Caller,
  request: AdjustStockRequest,
): Promise<Item> {
  const { sku, delta, reason, requestId } = request;
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.require('delta', delta !== 0n, 'must not be 0');
  violations.requireRange('delta', delta, { min: -ON_HAND_MAX, max: ON_HAND_MAX });
  violations.requireText('reason', reason);
  violations.requireRequestId(requestId);
  violations.throwIfAny();

  const { subject } = caller;
  const payload = payloadOf(sku, delta, reason);
  return deps.store.changeItemsOnce({ subject, method: 'AdjustStock', requestId, payload }, async (items) => {
    const [item] = await items.lockItems([sku]);
    if (item === undefined) throw unknownItem(sku);
    checkAdjustment(item, delta);
    const deltas = [{ sku, onHand: delta, reserved: 0n }];
    const movement = { kind: 'ADJUSTED', actor: caller, reason, reservationId: undefined, deltas } as const;
    const [adjusted] = await items.move(movement);
    if (adjusted === undefined) throw new TypeError('an item that is locked was not moved');
    return adjusted;
  });
}

/** NOT_FOUND for an item. */
export function unknownItem(sku: string): ServiceError {
  return new InventoryError('NOT_FOUND', `there is no item ${sku}`);
}

function checkAdjustment({ sku, onHand, reserved }: Item, delta: bigint): void {
  if (onHand + delta > ON_HAND_MAX) {
    throw invalidField('delta', `must not raise the stock above ${ON_HAND_MAX.toLocaleString('en')} units`);
  }
  if (onHand + delta < reserved) {
    const free = onHand - reserved;
    throw new InventoryError('INSUFFICIENT_STOCK', `only ${free} units of ${sku} are not reserved`);
  }
}
