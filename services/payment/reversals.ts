/**
 * Taking payments back: cancelling one that is under way, refunding one that is captured.
 *
 * A cancellation takes the payment from whoever works on it, in one transaction with giving the money free; it comes
 * too late once the goods may have left. A refund is a transfer of its own, so the ledger show both ways.
 */

import { randomUUID } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { MINOR_UNITS_MAX, type Money } from '../common/money.js';
import { createViolations } from '../common/validation/violations.js';
import { accountNotFound, type RepeatableRequest } from './accounts.js';
import type { Caller } from './caller.js';
import { PaymentError } from './errors.js';
import { type LedgerTransaction, refundTransfer } from './ledger.js';
import { type Payment, paymentNotFound } from './payments.js';
import { type Change, type Failure, isUndoable, type Saga } from './saga.js';

/** One transaction on one payment and the ledger. */
export interface ReversalTransaction {
  readonly ledger: LedgerTransaction;
  /** The payment, which nobody else moves until the transaction ends. */
  lockPayment(paymentId: string): Promise<Saga | undefined>;
  /** Takes a locked payment from whoever works on it, and changes it. */
  takeOver(paymentId: string, worker: string, change: Change, leaseMs: number): Promise<Saga>;
  /** Notes that so much of a locked, captured payment was paid back, on top of what was before. */
  addRefund(paymentId: string, minorUnits: bigint): Promise<Payment>;
}

/** What reversals are kept in. */
export interface ReversalStore {
  /**
   * Does the work in one transaction, or returns what it returned the first time. `stillAllowed` is asked last
   * before the transaction commits.
   */
  reverseOnce<T>(
    request: RepeatableRequest,
    stillAllowed: () => number,
    work: (transaction: ReversalTransaction) => Promise<T>,
  ): Promise<T>;
}

/** What reversals need. */
export interface ReversalDeps {
  readonly store: ReversalStore;
  /** Gives back the goods of a payment that was seized; whatever fails is left to the resumer. */
  readonly finish: (saga: Saga) => Promise<unknown>;
  /** How long the seized payment is claimed. */
  readonly leaseMs: number;
}

/** Taking payments back. */
export interface Reversals {
  /**
   * Ends a payment of the caller's that is under way; operators may end anyone's. Cancelling what has come to
   * nothing already answers what there is.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND whether it is missing or somebody else's;
   *   PAYMENT_NOT_CANCELLABLE once the goods may have left; REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and why the
   *   caller is no longer allowed to
   */
  cancel(request: { paymentId: string; requestId: string }, caller: Caller): Promise<Payment>;
  /**
   * Gives money of a captured payment back, what is left of it when no amount is named; the access rule lets
   * operators alone come here.
   *
   * @throws ServiceError FIELD_INVALID, NOT_FOUND; PAYMENT_NOT_CAPTURED; REFUND_EXCEEDS_PAYMENT;
   *   REQUEST_ID_REUSED, REQUEST_IN_PROGRESS, and why the caller is no longer allowed to
   */
  refund(
    request: { paymentId: string; amount: Money | undefined; reason: string; requestId: string },
    caller: Caller,
  ): Promise<Payment>;
}

/** What an owner reads of a payment that was cancelled, and what its request gets from then on. */
const CANCELLED: Failure = {
  reason: 'PAYMENT_CANCELLED',
  message: 'the payment was cancelled; nothing was charged',
  violations: [],
  isRetriable: false,
};

/** Reversals over a store. */
export function createReversals({ store, finish, leaseMs }: ReversalDeps): Reversals {
  return {
    async cancel({ paymentId, requestId }, caller) {
      const violations = createViolations();
      const id = violations.requireUuid('payment_id', paymentId);
      violations.requireRequestId(requestId);
      violations.throwIfAny();
      const payload = JSON.stringify([id]);
      const request = { subject: caller.subject, method: 'CancelPayment', requestId, payload };
      let seized: Saga | undefined;
      const answer = await store.reverseOnce(request, caller.stillAllowed, async (transaction) => {
        seized = undefined;
        const found = await transaction.lockPayment(id);
        if (found === undefined || !(found.userId === caller.subject || caller.isOperator)) {
          throw paymentNotFound();
        }
        if (found.state === 'FAILED') return paymentOf(found);
        if (found.step !== 'undoing') seized = await decideToCancel(transaction, found, leaseMs);
        // It is certain to fail: the money is free, and the goods are given back next, or run out by themselves.
        return { ...paymentOf(seized ?? found), state: 'FAILED' as const };
      });
      if (seized !== undefined) await finish(seized);
      return answer;
    },

    async refund({ paymentId, amount, reason, requestId }, caller) {
      const violations = createViolations();
      const id = violations.requireUuid('payment_id', paymentId);
      if (amount !== undefined) violations.requireAmount('amount', amount);
      violations.requireOptionalText('reason', reason);
      violations.requireRequestId(requestId);
      violations.throwIfAny();
      const sum = amount === undefined ? null : [String(amount.minorUnits), amount.currencyCode];
      const payload = JSON.stringify([id, sum, reason]);
      const request = { subject: caller.subject, method: 'RefundPayment', requestId, payload };
      return await store.reverseOnce(request, caller.stillAllowed, async (transaction) => {
        const found = await transaction.lockPayment(id);
        if (found === undefined) throw paymentNotFound();
        return await refundLocked(transaction, found, { amount, reason, actorId: caller.subject });
      });
    },
  };
}

async function decideToCancel(
  { ledger, takeOver }: ReversalTransaction,
  found: Saga,
  leaseMs: number,
): Promise<Saga> {
  if (!isUndoable(found)) {
    const message = 'the goods may have left; what was paid can be refunded';
    throw new PaymentError('PAYMENT_NOT_CANCELLABLE', message);
  }
  await ledger.dropHold(found.paymentId);
  return await takeOver(found.paymentId, randomUUID(), { step: 'undoing', failure: CANCELLED }, leaseMs);
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
      `of this payment ${left} ${currencyCode} are left to refund`,
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

/** Without what only the saga needs to know. */
function paymentOf(saga: Saga): Payment {
  const { paymentId, userId, accountId, state, amount, refunded, lines, reservationId, failureReason } = saga;
  const { createTime, updateTime } = saga;
  const times = { createTime, updateTime };
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
    ...times,
  };
}
