/** The catalogue: creating and reading items, and adjusting their stock on hand. */

import { invalidField, type ServiceError } from '@portcullis/guard/errors';
import type { Money } from '../common/money.js';
import type { PageRequest } from '../common/validation/paging.js';
import { payloadOf, type RepeatableRequest } from '../common/validation/request-id.js';
import { createViolations } from '../common/validation/violations.js';
import type { Actor, Caller } from './caller.js';
import { InventoryError } from './errors.js';
import { type ChangeKind, type Item, ON_HAND_MAX, type StockPlace, type StockTransaction } from './stock.js';

/** Maximum number of units that a new item may have. */
const INITIAL_ON_HAND_MAX = 1_000_000_000n;

/** A transaction on the catalogue. */
export interface ItemTransaction extends StockTransaction {
  /** Inserts an item with its first line of history; undefined when the sku is taken. */
  insertItem(item: NewItem & { actor: Actor }): Promise<Item | undefined>;
}

/** Stores the catalogue. */
export interface ItemStore {
  /** @param caller - the user whom it is for, as in {@link StockPlace.caller}; so in the other reads */
  findItem(sku: string, caller?: string): Promise<Item | undefined>;
  /**
   * A page of items, in the order of their skus.
   *
   * @throws ServiceError FIELD_INVALID for an invalid page size, page token or filter
   */
  listItems(page: PageRequest, caller?: string): Promise<ItemPage>;
  /**
   * A page of the changes of one item, newest first.
   *
   * @throws ServiceError FIELD_INVALID for an invalid page size, page token or filter
   */
  listChanges(sku: string, page: PageRequest, caller?: string): Promise<ChangePage>;
  /** Runs the work once for a request and commits it; a repeated request receives the first response. */
  changeItemsOnce<T>(
    request: RepeatableRequest,
    work: (transaction: ItemTransaction) => Promise<T>,
    place?: StockPlace,
  ): Promise<T>;
}

/** One line of the history of an item. */
export interface StockChange {
  readonly changeId: bigint;
  readonly sku: string;
  readonly kind: ChangeKind;
  readonly delta: { readonly onHand: bigint; readonly reserved: bigint };
  /** Units on hand after the change. */
  readonly onHand: bigint;
  /** Reserved units after the change. */
  readonly reserved: bigint;
  readonly reason: string;
  readonly actor: Actor | undefined;
  readonly reservationId: string | undefined;
  readonly changeTime: Date;
}

/** A page of changes, newest first. */
export interface ChangePage {
  readonly changes: readonly StockChange[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** A page of items, in the order of their skus. */
export interface ItemPage {
  readonly items: readonly Item[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** An item that is about to be created. */
export interface NewItem {
  readonly sku: string;
  readonly name: string;
  readonly unitPrice: Money;
  readonly onHand: bigint;
}

interface CreateItemRequest extends Omit<NewItem, 'unitPrice'> {
  /** May be missing on the wire. */
  readonly unitPrice: Money | undefined;
  readonly requestId: string;
}

interface AdjustStockRequest {
  readonly sku: string;
  readonly delta: bigint;
  readonly reason: string;
  readonly requestId: string;
}

/** Who reads: readers take turns when they wait for the database. Reads for no caller share one turn. */
type ReadCaller = Pick<Caller, 'subject'>;

/** Operations on the catalogue. */
export interface Items {
  /**
   * Creates an item.
   *
   * @throws ServiceError FIELD_INVALID; ALREADY_EXISTS when another request created the sku
   */
  create(request: CreateItemRequest, caller: Caller): Promise<Item>;
  /**
   * Returns an item with its stock. Units of an expired reservation may count as reserved until the next sweep.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND
   */
  get(sku: string, caller?: ReadCaller): Promise<Item>;
  /**
   * Lists the catalogue in the order of skus.
   *
   * @throws ServiceError FIELD_INVALID
   */
  list(page: PageRequest, caller?: ReadCaller): Promise<ItemPage>;
  /**
   * Adds to the stock on hand; a negative delta takes from it.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND; INSUFFICIENT_STOCK when reserved units would be taken
   */
  adjust(request: AdjustStockRequest, caller: Caller): Promise<Item>;
  /**
   * Lists the history of one item, newest first.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND
   */
  listChanges(request: PageRequest & { sku: string }, caller?: ReadCaller): Promise<ChangePage>;
}

interface ItemDeps {
  readonly store: ItemStore;
}

/** Creates the operations on the catalogue. */
export function createItems(deps: ItemDeps): Items {
  return {
    create: (request, caller) => createItem(deps, request, caller),
    get: (sku, caller) => getItem(deps, sku, caller),
    list: (page, caller) => deps.store.listItems(page, caller?.subject),
    adjust: (request, caller) => adjustStock(deps, request, caller),
    listChanges: async ({ sku, ...page }, caller) => {
      await getItem(deps, sku, caller);
      return await deps.store.listChanges(sku, page, caller?.subject);
    },
  };
}

/** NOT_FOUND for an item. */
export function itemNotFound(sku: string): ServiceError {
  return new InventoryError('NOT_FOUND', `there is no item ${sku}`);
}

async function createItem({ store }: ItemDeps, request: CreateItemRequest, caller: Caller): Promise<Item> {
  const { sku, name, onHand, requestId } = request;
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.requireText('name', name);
  const { unitPrice = { minorUnits: 0n, currencyCode: '' } } = request;
  violations.requireAmount('unit_price', unitPrice);
  violations.requireRange('on_hand', onHand, { min: 0n, max: INITIAL_ON_HAND_MAX });
  violations.requireRequestId(requestId);
  violations.throwIfAny();

  const payload = payloadOf(sku, name, unitPrice.minorUnits, unitPrice.currencyCode, onHand);
  const repeatable = { subject: caller.subject, method: 'CreateItem', requestId, payload };
  return await store.changeItemsOnce(
    repeatable,
    async (transaction) => {
      const created = await transaction.insertItem({ sku, name, unitPrice, onHand, actor: caller });
      if (created === undefined)
        throw new InventoryError('ALREADY_EXISTS', `there is an item ${sku} already`);
      return created;
    },
    { caller: caller.subject },
  );
}

async function getItem({ store }: ItemDeps, sku: string, caller?: ReadCaller): Promise<Item> {
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.throwIfAny();
  const item = await store.findItem(sku, caller?.subject);
  if (item === undefined) throw itemNotFound(sku);
  return item;
}

async function adjustStock(
  { store }: ItemDeps,
  { sku, delta, reason, requestId }: AdjustStockRequest,
  caller: Caller,
): Promise<Item> {
  const violations = createViolations();
  violations.requireSku('sku', sku);
  violations.require('delta', delta !== 0n, 'must not be 0');
  violations.requireRange('delta', delta, { min: -ON_HAND_MAX, max: ON_HAND_MAX });
  violations.requireText('reason', reason);
  violations.requireRequestId(requestId);
  violations.throwIfAny();

  const payload = payloadOf(sku, delta, reason);
  const repeatable = { subject: caller.subject, method: 'AdjustStock', requestId, payload };
  const place = { skus: [sku], caller: caller.subject };
  return await store.changeItemsOnce(
    repeatable,
    async (transaction) => {
      const [item] = await transaction.lockItems([sku]);
      if (item === undefined) throw itemNotFound(sku);
      checkAdjustment(item, delta);
      const deltas = [{ sku, onHand: delta, reserved: 0n }];
      const movement = { kind: 'ADJUSTED', actor: caller, reason, reservationId: undefined, deltas } as const;
      const [adjusted] = await transaction.move(movement);
      if (adjusted === undefined) throw new TypeError('a locked item was not moved');
      return adjusted;
    },
    place,
  );
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
