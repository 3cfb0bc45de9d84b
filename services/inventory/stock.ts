/** What there is of every item, and the one way in which it changes: inside a transaction, with a line of history. */

import type { Money } from '../common/money.js';

/** Units of one item that the service keeps at most. */
export const ON_HAND_MAX = 1_000_000_000_000n;

/** Something that can be sold, with its stock. */
export interface Item {
  readonly sku: string;
  readonly name: string;
  readonly unitPrice: Money;
  /** Units in the warehouse, reserved ones included. */
  readonly onHand: bigint;
  /** Units set aside by active reservations. */
  readonly reserved: bigint;
  readonly createTime: Date;
}

/** Who calls, as far as stock is concerned. */
export interface Caller {
  /** Owns what it reserves. */
  readonly subject: string;
  /** Operators may read what belongs to others. */
  readonly isOperator: boolean;
  /** The service that acts for the subject; undefined when the subject came by itself. */
  readonly actingClient: string | undefined;
}

/** A request that its caller may send again. */
export interface RepeatableRequest {
  readonly subject: string;
  readonly method: string;
  readonly requestId: string;
  /** What was asked for, as text that is equal for equal requests alone. */
  readonly payload: string;
}

/** Why the stock of an item changed. */
export type ChangeKind = 'CREATED' | 'ADJUSTED' | 'RESERVED' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** On whose word stock moves. */
export interface Actor {
  readonly subject: string;
  /** The service that acts for the subject, or in its own name on the subject's word. */
  readonly actingClient: string | undefined;
  /** The token with which the subject gave its word to a service that acts in its own name. */
  readonly authorisingToken?: string | undefined;
}

/** What happened to the stock of some items at once. */
export interface StockMovement {
  readonly kind: ChangeKind;
  /** On whose word it happened; undefined when nobody asked for it, as in an expiry. */
  readonly actor: Actor | undefined;
  readonly reason: string;
  readonly reservationId: string | undefined;
  /** Each sku once. */
  readonly deltas: readonly StockDelta[];
}

/** By how much the two numbers of an item change. */
export interface StockDelta {
  readonly sku: string;
  readonly onHand: bigint;
  readonly reserved: bigint;
}

/** What every transaction that moves stock can do. */
export interface StockTransaction {
  /**
   * The items that exist among these, locked until the end of the transaction. They are locked in
   * the order of their skus, so that two transactions never wait for each other.
   */
  lockItems(skus: readonly string[]): Promise<readonly Item[]>;
  /**
   * Changes the stock of items that {@link lockItems} has locked, writes the history, and answers
   * the items as they are then. The movement must keep 0 <= reserved <= onHand.
   */
  move(movement: StockMovement): Promise<readonly Item[]>;
}

/** The payload of a repeatable request: one text for each meaning, whatever the order of object keys. */
export function payloadOf(...parts: readonly unknown[]): string {
  return JSON.stringify(parts, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
}
