/**
 * The purchase as a saga: its steps, what is stored of it, and the store that keeps it.
 *
 * The saga reserves the goods, holds the money, checks that the buyer is still allowed to buy, hands the goods out, and
 * captures the money. Each step is stored before it runs, so the stored step shows what may have happened, and each step
 * can be repeated.
 *
 * The goods are reserved with the buyer's own authority. The decision to buy is stored with the token that authorised
 * it. From then on payment ends the reservation in its own name and needs no token of the buyer, who may have left.
 *
 * Until `committing` is stored, everything can be undone, and no goods have left. From then on inventory's answer alone
 * decides. Goods that were handed out are paid from money that is held already, so the capture cannot fail. Goods that
 * were not handed out release the money. While the answer is missing, nothing is undone.
 */

import type { FieldViolation } from '@portcullis/guard/errors';
import type { Caller, Permit } from './caller.js';
import type { Authoriser, Inventory } from './inventory-port.js';
import type { LedgerTransaction } from './ledger.js';
import type { OrderLine } from './order-lines.js';
import type { Payment } from './payments.js';

/** The step that runs next; `captured` and `failed` are the ends. */
export type Step = 'reserving' | 'reserved' | 'held' | 'committing' | 'undoing' | 'captured' | 'failed';

/** Why a payment failed. */
export interface Failure {
  /** The reason that the owner reads: an error code, or CANCELLED, or INTERRUPTED. */
  readonly reason: string;
  readonly message: string;
  readonly violations: readonly FieldViolation[];
  /** Whether the same request may be tried again, because the failure is not about the order itself. */
  readonly isRetriable: boolean;
}

/** A payment with the fields that only the saga needs. */
export interface Saga extends Payment {
  readonly step: Step;
  readonly currencyCode: string;
  readonly payloadHash: string;
  /** The worker that claimed the payment last; no other worker may change it. */
  readonly worker: string;
  readonly failure: Failure | undefined;
  /** The authorisation under which it runs: that of the decision, once the decision is made. */
  readonly authoriser: Authoriser;
  /** The response to its request when it was captured; every retry returns the same. */
  readonly response: Payment | undefined;
}

/** A payment that is about to begin. */
export interface NewPayment {
  readonly accountId: string;
  readonly lines: readonly OrderLine[];
  /** As the caller sent it. */
  readonly requestId: string;
  readonly payloadHash: string;
  readonly worker: string;
  /** The caller who authorises the payment. */
  readonly caller: Authoriser;
}

/** The changes that a step makes to the payment. */
export interface Change {
  readonly step: Step;
  readonly reservationId?: string;
  readonly amount?: bigint;
  readonly failure?: Failure;
  /** The authorisation of the decision. */
  readonly allowedBy?: Authoriser;
}

/** Stores sagas. A claim lasts for the lease, and every change renews it. */
export interface CheckoutStore {
  /**
   * Begins a payment that is claimed by its worker. A request that was made before returns its payment instead, unless
   * that payment failed and the same payload may be tried again.
   *
   * @returns undefined when the caller has no such account
   */
  begin(payment: NewPayment, leaseMs: number): Promise<{ saga: Saga; isNew: boolean } | undefined>;
  /** Claims a payment that no worker holds; undefined when a worker holds it, or when it has ended. */
  claim(paymentId: string, worker: string, leaseMs: number): Promise<Saga | undefined>;
  /** Claims unfinished payments that no worker holds, each for a worker of its own. */
  claimAbandoned(limit: number, leaseMs: number): Promise<readonly Saga[]>;
  /** The stored payment; undefined when there is none. */
  findSaga(paymentId: string): Promise<Saga | undefined>;
  /**
   * Runs one step in one transaction. `permit`, when given, is checked last before the commit.
   *
   * @throws ServiceError REQUEST_IN_PROGRESS when the payment is at none of the steps, or claimed by another worker
   */
  advance(
    saga: Saga,
    from: readonly Step[],
    leaseMs: number,
    work: (ledger: LedgerTransaction) => Promise<Change>,
    permit?: Permit,
  ): Promise<Saga>;
  /** Ends the claim, so that other workers need not wait until it expires. */
  releaseClaim(saga: Saga): Promise<void>;
}

/** The caller who buys. */
export interface Buyer extends Caller {
  /** Inventory on behalf of this user. */
  readonly inventory: Inventory;
}

/** Times of the saga. */
export interface CheckoutTimes {
  /**
   * How long a claim lasts, in milliseconds: longer than a step takes, shorter than a buyer waits after a crash. A slower
   * worker does no harm, because every step checks its claim.
   */
  readonly leaseMs: number;
  /** How long the goods stay reserved, in seconds: longer than the saga takes. */
  readonly reservationTtlSeconds: number;
  /** How often a request to inventory is sent at most while it does not answer. */
  readonly attempts: number;
  /** The pause after the first attempt, in milliseconds; it doubles after each attempt. */
  readonly backoffMs: number;
  /** After this time no further attempt begins, in milliseconds, so that the step ends within the lease. */
  readonly patienceMs: number;
}

/** Times for production. */
export const defaultCheckoutTimes: CheckoutTimes = {
  leaseMs: 10_000,
  reservationTtlSeconds: 60,
  attempts: 4,
  backoffMs: 100,
  patienceMs: 4_000,
};

/** Steps from which everything can still be undone. */
export const UNDOABLE: readonly Step[] = ['reserving', 'reserved', 'held'];

/** Whether everything can still be undone: no goods have left. */
export function isUndoable({ step }: Saga): boolean {
  return UNDOABLE.includes(step);
}

/** Whether the saga has come to one of its ends. */
export function hasEnded({ step }: Saga): boolean {
  return step === 'captured' || step === 'failed';
}

/**
 * The price of the goods.
 *
 * @throws TypeError before the goods are reserved
 */
export function amountOf({ amount, paymentId }: Saga): NonNullable<Payment['amount']> {
  if (amount === undefined) throw new TypeError(`payment ${paymentId} has no price yet`);
  return amount;
}
