/** Payments: what they are, how far they have come, and reading them. */

import type { ServiceError } from '@portcullis/guard/errors';
import type { Money } from '../common/money.js';
import { createViolations } from '../common/validation/violations.js';
import type { PageRequest } from './accounts.js';
import type { Caller } from './caller.js';
import { PaymentError } from './errors.js';
import type { OrderLine } from './order-lines.js';

/** How far a payment has come, as its owner sees it. */
export type PaymentState = 'PENDING' | 'CAPTURED' | 'FAILED';

/** A purchase. */
export interface Payment {
  readonly paymentId: string;
  readonly userId: string;
  readonly accountId: string;
  readonly state: PaymentState;
  /** Undefined until the prices are known. */
  readonly amount: Money | undefined;
  /** How much of the amount was paid back; undefined until it is captured. */
  readonly refunded: Money | undefined;
  readonly lines: readonly OrderLine[];
  /** Undefined until the reservation is made. */
  readonly reservationId: string | undefined;
  /** Why it failed or is being undone. */
  readonly failureReason: string | undefined;
  readonly createTime: Date;
  readonly updateTime: Date;
}

/** What payments are read from. */
export interface PaymentStore {
  findPayment(paymentId: string): Promise<Payment | undefined>;
  /**
   * The payments of a user, newest first.
   *
   * @throws ServiceError FIELD_INVALID for a page that cannot be
   */
  listPayments(
    userId: string,
    page: PageRequest,
  ): Promise<{ payments: readonly Payment[]; nextPageToken: string }>;
}

/** What can be asked about payments. */
export interface Payments {
  /**
   * One payment of the caller; operators see all.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND whether it is missing or somebody else's
   */
  get(paymentId: string, caller: Caller): Promise<Payment>;
  /**
   * The caller's payments, newest first.
   *
   * @throws ServiceError FIELD_INVALID
   */
  list(page: PageRequest, caller: Caller): Promise<{ payments: readonly Payment[]; nextPageToken: string }>;
}

/** NOT_FOUND, in the same words whether the payment is missing or somebody else's. */
export function paymentNotFound(): ServiceError {
  return new PaymentError('NOT_FOUND', 'there is no such payment');
}

/** The payments that a store keeps. */
export function createPayments({ store }: { store: PaymentStore }): Payments {
  return {
    async get(paymentId, caller) {
      const violations = createViolations();
      violations.requireUuid('payment_id', paymentId);
      violations.throwIfAny();
      const payment = await store.findPayment(paymentId);
      const visible = payment !== undefined && (payment.userId === caller.subject || caller.isOperator);
      if (!visible) throw paymentNotFound();
      return payment;
    },

    list: (page, caller) => store.listPayments(caller.subject, page),
  };
}
