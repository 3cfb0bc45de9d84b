/** Items with their stock, and the one way to change stock: inside a transaction, together with a line of history. */

import type { Money } from '../common/money.js';
import type { Actor } from './caller.js';

/** Maximum number of units on hand of one item. */
export const ON_HAND_MAX = 1_000_000_000_000n;

/** An item of the catalogue, with its stock. */
export interface Item {
  readonly sku: string;
  readonly name: string;
  readonly unitPrice: Money;
  /** Units in the warehouse, reserved ones included. */
  readonly onHand: bigint;
  /** Units of active reservations. */
  readonly reserved: bigint;
  readonly createTime: Date;
}

/** The stock of one item right after a change. */
export interface StockLevel {
  readonly changeId: bigint;
  readonly sku: string;
  readonly onHand: bigint;
  readonly reserved: bigint;
  readonly changeTime: Date;
}

/** Why the stock of an item changed. */
export type ChangeKind = 'CREATED' | 'ADJUSTED' | 'RESERVED' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** A change of the stock of some items at once. */
export interface StockMovement {
  readonly kind: ChangeKind;
  /** Who authorised it; undefined for an expiry. */
  readonly actor: Actor | undefined;
  readonly reason: string;
  readonly reservationId: string | undefined;
  /** Each sku once. */
  readonly deltas: readonly StockDelta[];
}

/** The differences to the stock of one item. */
interface StockDelta {
  readonly sku: string;
  readonly onHand: bigint;
  readonly reserved: bigint;
}

/** Where a transaction runs, and for which rows callers can make others wait. */
export interface StockPlace {
  /** `promise` for what must go on however many callers there are; default `known`. */
  readonly importance?: 'promise' | 'known';
  /** The items that it locks. */
  readonly skus?: readonly string[];
  /** The user whom it is for: users take turns when they wait for a connection. */
  readonly caller?: string;
}

/** A transaction that may move stock. */
export interface StockTransaction {
  /**
   * Returns those of the items that exist, locked until the transaction ends. Items are locked in the order of their skus,
   * so that transactions do not deadlock.
   */
  lockItems(skus: readonly string[]): Promise<readonly Item[]>;
  /**
   * Changes the stock of locked items, writes the history, and returns the changed items. The movement must keep
   * 0 <= reserved <= onHand.
   */
  move(movement: StockMovement): Promise<readonly Item[]>;
}
