/**
 * Reversals: cancelling a payment that is under way, refunding one that is captured.
 *
 * A cancellation takes the payment over from its worker and releases the held money in one transaction. It fails once the
 * goods may have left. A refund is a transfer of its own: the ledger keeps the capture and the refund.
 */

import { randomUUID } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { formatMoney, MINOR_UNITS_MAX, type Money } from '../common/money.js';
import { payloadOf, type RepeatableRequest } from '../common/validation/request-id.js';
import { createViolations } from '../common/validation/violations.js';
import { accountNotFound } from './accounts.js';
import type { Caller, Permit } from './caller.js';
import { PaymentError } from './errors.js';
import { type LedgerTransaction, refundTransfer } from './ledger.js';
import { type Payment, paymentNotFound } from './payments.js';
import { type Change, type Failure, isUndoable, type Saga } from './saga.js';

/** One transaction on one payment and the ledger. */
export interface ReversalTransaction {
  readonly ledger: LedgerTransaction;
  /** Locks the payment until the transaction ends. */
  lockPayment(paymentId: string): Promise<Saga | undefined>;
  /** Claims a locked payment for another worker, and changes it. */
  takeOver(paymentId: string, worker: string, change: Change, leaseMs: number): Promise<Saga>;
  /** Adds to the refunded amount of a locked, captured payment. */
  addRefund(paymentId: string, minorUnits: bigint): Promise<Payment>;
}

/** Stores reversals. */
export interface ReversalStore {
  /**
   * Runs the work once for a request and commits it; a repeated request receives the first response. `permit` is checked
   * last before the commit.
   */
  reverseOnce<T>(
    request: RepeatableRequest & { readonly paymentId: string },
    permit: Permit,
    work: (transaction: ReversalTransaction) => Promise<T>,
  ): Promise<T>;
}

interface ReversalDeps {
  readonly store: ReversalStore;
  /** Releases the goods of a cancelled payment; the resumer repeats what fails. */
  readonly finish: (saga: Saga) => Promise<unknown>;
  /** How long a cancelled payment is claimed, in milliseconds. */
  readonly leaseMs: number;
}

interface CancelRequest {
  readonly paymentId: string;
  readonly requestId: string;
}

interface RefundRequest {
  readonly paymentId: string;
  /** Everything that is left of the payment when undefined. */
  readonly amount: Money | undefined;
  readonly reason: string;
  readonly requestId: string;
}

/** Operations that take payments back. */
export interface Reversals {
  /**
   * Cancels a payment of the caller that is under way; operators may cancel any. Cancelling a failed payment changes
   * nothing and returns it.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing payment and another user's;
   *   PAYMENT_NOT_CANCELLABLE once the goods may have left; REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and the reason why the
   *   caller is no longer allowed
   */
  cancel(request: CancelRequest, caller: Caller): Promise<Payment>;
  /**
   * Refunds money of a captured payment; the access rule admits operators only.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND; PAYMENT_NOT_CAPTURED; REFUND_EXCEEDS_PAYMENT;
   *   REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and the reason why the caller is no longer allowed
   */
  refund(request: RefundRequest, caller: Caller): Promise<Payment>;
}

/** The failure of a cancelled payment. Every retry of its checkout returns it. */
const CANCELLED: Failure = {
  reason: 'PAYMENT_CANCELLED',
  message: 'the payment was cancelled; nothing was charged',
  violations: [],
  isRetriable: false,
};

/** Creates the operations that take payments back. */
export function createReversals(deps: ReversalDeps): Reversals {
  return {
    cancel: (request, caller) => cancelPayment(deps, request, caller),
    refund: (request, caller) => refundPayment(deps, request, caller),
  };
}

async function cancelPayment(
  { store, finish, leaseMs }: ReversalDeps,
  { paymentId, requestId }: CancelRequest,
  caller: Caller,
): Promise<Payment> {
  const violations = createViolations();
  const id = violations.requireUuid('payment_id', paymentId);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  const request = {
    subject: caller.subject,
    method: 'CancelPayment',
    requestId,
    payload: payloadOf(id),
    paymentId: id,
  };
  let cancelled: Saga | undefined;
  const response = await store.reverseOnce(request, caller, async (transaction) => {
    cancelled = undefined;
    const found = await transaction.lockPayment(id);
    if (found === undefined || !(found.userId === caller.subject || caller.isOperator)) {
      throw paymentNotFound();
    }
    if (found.state === 'FAILED') return paymentOf(found);
    if (found.step !== 'undoing') cancelled = await cancelLocked(transaction, found, leaseMs);
    // The payment is certain to fail: the money is released, and the reservation is released next or expires.
    return { ...paymentOf(cancelled ?? found), state: 'FAILED' as const };
  });
  if (cancelled !== undefined) await finish(cancelled);
  return response;
}

async function cancelLocked(
  { ledger, takeOver }: ReversalTransaction,
  found: Saga,
  leaseMs: number,
): Promise<Saga> {
  if (!isUndoable(found)) {
    const message = 'the goods may have left; what was paid can be refunded';
    throw new PaymentError('PAYMENT_NOT_CANCELLABLE', message);
  }
  await ledger.releaseHold(found.paymentId);
  return await takeOver(found.paymentId, randomUUID(), { step: 'undoing', failure: CANCELLED }, leaseMs);
}

async function refundPayment(
  { store }: ReversalDeps,
  { paymentId, amount, reason, requestId }: RefundRequest,
  caller: Caller,
): Promise<Payment> {
  const { subject } = caller;
  const violations = createViolations();
  const id = violations.requireUuid('payment_id', paymentId);
  if (amount !== undefined) violations.requireAmount('amount', amount);
  violations.requireOptionalText('reason', reason);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  const amountPayload = amount === undefined ? null : [amount.minorUnits, amount.currencyCode];
  const payload = payloadOf(id, amountPayload, reason);
  const request = { subject, method: 'RefundPayment', requestId, payload, paymentId: id };
  return await store.reverseOnce(request, caller, async (transaction) => {
    const found = await transaction.lockPayment(id);
    if (found === undefined) throw paymentNotFound();
    return await refundLocked(transaction, found, { amount, reason, actorId: subject });
  });
}

async function refundLocked(
  { ledger, addRefund }: ReversalTransaction,
  { paymentId, accountId, state, amount: paid, refunded }: Saga,
  { amount, reason, actorId }: { amount: Money | undefined; reason: string; actorId: string },
): Promise<Payment> {
  if (state !== 'CAPTURED' || paid === undefined) {
    throw new PaymentError('PAYMENT_NOT_CAPTURED', 'there is nothing to refund: the payment is not captured');
  }
  const { currencyCode } = paid;
  if (amount !== undefined && amount.currencyCode !== currencyCode) {
    throw invalidField('amount.currency_code', `must be ${currencyCode}, the payment's currency`);
  }
  const left = paid.minorUnits - (refunded?.minorUnits ?? 0n);
  const minorUnits = amount?.minorUnits ?? left;
  if (minorUnits > left || left === 0n) {
    throw new PaymentError(
      'REFUND_EXCEEDS_PAYMENT',
      `of this payment, ${formatMoney({ minorUnits: left, currencyCode })} can still be refunded`,
    );
  }
  const account = await ledger.lockAccount(accountId);
  if (account === undefined) throw accountNotFound();
  if (minorUnits > MINOR_UNITS_MAX - account.balance) {
    throw invalidField('amount.minor_units', 'must leave the balance within what an int64 holds');
  }
  await ledger.post(
    refundTransfer({ paymentId, accountId, amount: { minorUnits, currencyCode }, actorId, reason }),
  );
  return await addRefund(paymentId, minorUnits);
}

/** The payment without the fields that only the saga needs. */
function paymentOf(saga: Saga): Payment {
  const { paymentId, userId, accountId, state, amount, refunded } = saga;
  const { lines, reservationId, failureReason, createTime, updateTime } = saga;
  return {
    paymentId,
    userId,
    accountId,
    state,
    amount,
    refunded,
    lines,
    reservationId,
    failureReason,
    createTime,
    updateTime,
  };
}
