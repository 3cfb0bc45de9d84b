/** Payments, as their owners read them. */

import type { ServiceError } from '@portcullis/guard/errors';
import type { Money } from '../common/money.js';
import type { PageRequest } from '../common/validation/paging.js';
import { createViolations } from '../common/validation/violations.js';
import type { Caller } from './caller.js';
import { PaymentError } from './errors.js';
import type { OrderLine } from './order-lines.js';

/** The state of a payment, as its owner reads it. */
export type PaymentState = 'PENDING' | 'CAPTURED' | 'FAILED';

/** A purchase. */
export interface Payment {
  readonly paymentId: string;
  readonly userId: string;
  readonly accountId: string;
  readonly state: PaymentState;
  /** Undefined until the prices are known. */
  readonly amount: Money | undefined;
  /** The refunded part of the amount; undefined until the payment is captured. */
  readonly refunded: Money | undefined;
  readonly lines: readonly OrderLine[];
  /** Undefined until the goods are reserved. */
  readonly reservationId: string | undefined;
  /** Why the payment failed or is being undone. */
  readonly failureReason: string | undefined;
  readonly createTime: Date;
  readonly updateTime: Date;
}

/** A page of the payments of a user, newest first. */
interface PaymentPage {
  readonly payments: readonly Payment[];
  /** Empty on the last page. */
  readonly nextPageToken: string;
}

/** The store that payments are read from. */
export interface PaymentStore {
  /** @param caller - the user whom it is for: users take turns when they wait for the database */
  findPayment(paymentId: string, caller: string): Promise<Payment | undefined>;
  /**
   * The payments of a user, newest first.
   *
   * @throws ServiceError FIELD_INVALID for an invalid page size, page token or filter
   */
  listPayments(userId: string, page: PageRequest): Promise<PaymentPage>;
}

/** Reading payments. */
export interface Payments {
  /**
   * Returns a payment of the caller; operators may read all payments.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing payment and another user's
   */
  get(paymentId: string, caller: Caller): Promise<Payment>;
  /**
   * Lists the caller's payments, newest first.
   *
   * @throws ServiceError FIELD_INVALID
   */
  list(page: PageRequest, caller: Caller): Promise<PaymentPage>;
}

interface PaymentDeps {
  readonly store: PaymentStore;
}

/** Creates the operations that read payments. */
export function createPayments(deps: PaymentDeps): Payments {
  return {
    get: (paymentId, caller) => getPayment(deps, paymentId, caller),
    list: (page, caller) => deps.store.listPayments(caller.subject, page),
  };
}

/** NOT_FOUND, with the same message for a missing payment and another user's. */
export function paymentNotFound(): ServiceError {
  return new PaymentError('NOT_FOUND', 'there is no such payment');
}

async function getPayment({ store }: PaymentDeps, paymentId: string, caller: Caller): Promise<Payment> {
  const violations = createViolations();
  const id = violations.requireUuid('payment_id', paymentId);
  violations.throwIfAny();
  const payment = await store.findPayment(id, caller.subject);
  if (payment === undefined) throw paymentNotFound();
  if (payment.userId !== caller.subject && !caller.isOperator) throw paymentNotFound();
  return payment;
}
