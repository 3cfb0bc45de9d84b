/** Checkouts: the operation that runs the saga, and the one that ends payments whose worker is gone. */

import { createHash, randomUUID } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import { ServiceError } from '@portcullis/guard/errors';
import { payloadOf } from '../common/validation/request-id.js';
import { createViolations } from '../common/validation/violations.js';
import { accountNotFound } from './accounts.js';
import { PaymentError } from './errors.js';
import type { Settlement } from './inventory-port.js';
import { type OrderLine, requireLines } from './order-lines.js';
import type { Payment } from './payments.js';
import {
  type Buyer,
  type CheckoutStore,
  type CheckoutTimes,
  defaultCheckoutTimes,
  hasEnded,
  isUndoable,
  type Saga,
  UNDOABLE,
} from './saga.js';
import { errorOf, failureOf, INTERRUPTED, rootCauseOf } from './saga-failures.js';
import { beginUndo, type CheckoutLog, type StepDeps, settle, stepForward } from './saga-steps.js';

/** One round claims at most this many abandoned payments. */
const ABANDONED_MAX = 20;

interface CheckoutDeps {
  readonly store: CheckoutStore;
  readonly settlement: Settlement;
  readonly clock: Clock;
  readonly log: CheckoutLog;
  readonly times?: CheckoutTimes;
}

/** An order, as the caller sent it. */
interface Order {
  readonly accountId: string;
  readonly lines: readonly OrderLine[];
  readonly requestId: string;
}

/** Operations on purchases. */
export interface Checkout {
  /**
   * Buys the lines of an order. A repeated request continues its payment, or returns the payment's outcome again.
   *
   * @throws ServiceError with the reason of the failure: FIELD_INVALID, NOT_FOUND, INSUFFICIENT_STOCK, INSUFFICIENT_FUNDS,
   *   RESERVATION_EXPIRED, PAYMENT_CANCELLED, reasons of the caller's token, REQUEST_ID_REUSED; DEPENDENCY_UNAVAILABLE and
   *   REQUEST_IN_PROGRESS also while the outcome is unknown: a retry with the same request_id returns it
   */
  checkout(order: Order, buyer: Buyer): Promise<Payment>;
  /** Finishes or undoes abandoned payments; returns how many ended. */
  resumeAbandoned(): Promise<number>;
  /** Finishes or undoes one payment that its worker has claimed; returns whether it ended. */
  finish(claimed: Saga): Promise<boolean>;
}

/** Creates the operations on purchases. */
export function createCheckout({ times = defaultCheckoutTimes, ...rest }: CheckoutDeps): Checkout {
  const deps: StepDeps = { times, ...rest };
  return {
    checkout: (order, buyer) => checkout(deps, order, buyer),
    resumeAbandoned: () => resumeAbandoned(deps),
    finish: (claimed) => finish(deps, claimed),
  };
}

async function resumeAbandoned(deps: StepDeps): Promise<number> {
  const abandoned = await deps.store.claimAbandoned(ABANDONED_MAX, deps.times.leaseMs);
  const outcomes = await Promise.all(abandoned.map((saga) => finish(deps, saga)));
  return outcomes.filter((ended) => ended).length;
}

async function checkout(deps: StepDeps, order: Order, buyer: Buyer): Promise<Payment> {
  const { store, times } = deps;
  const { accountId, lines, requestId } = validated(order);
  const payloadHash = hashOf(accountId, lines);
  const worker = randomUUID();
  const payment = { accountId, lines, requestId, payloadHash, worker, caller: buyer };
  const begun = await store.begin(payment, times.leaseMs);
  if (begun === undefined) throw accountNotFound();
  if (begun.isNew) return await buy(deps, begun.saga, buyer);
  const { saga } = begun;
  if (saga.payloadHash !== payloadHash) throw requestIdReused();
  if (saga.step === 'captured') return saga.response ?? saga;
  if (saga.step === 'failed') throw errorOf(saga);
  const claimed = await store.claim(saga.paymentId, worker, times.leaseMs);
  if (claimed === undefined) throw requestInProgress();
  return await buy(deps, claimed, buyer);
}

function validated({ accountId: text, lines, requestId }: Order): Order {
  const violations = createViolations();
  const accountId = violations.requireUuid('account_id', text);
  requireLines(violations, lines);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  return { accountId, lines, requestId };
}

/** Steps forward while that succeeds, and undoes the purchase when a step fails. */
async function buy(deps: StepDeps, begun: Saga, buyer: Buyer): Promise<Payment> {
  let cause: ServiceError | undefined;
  const running = run(deps, begun, async (saga) => {
    try {
      return await stepForward(deps, saga, buyer);
    } catch (error) {
      if (!isUndoable(saga) || !(error instanceof ServiceError)) throw error;
      cause = rootCauseOf(error, buyer);
      return await beginUndo(deps, saga, UNDOABLE, failureOf(cause));
    }
  });
  const ended = await running.catch(async (error: unknown) => {
    const elsewhere = await endedElsewhere(deps, begun, error);
    cause = undefined;
    return elsewhere;
  });
  if (ended.step === 'captured') return ended.response ?? ended;
  throw cause ?? errorOf(ended);
}

/** The payment when another worker has ended it, as a cancellation does; otherwise throws the error again. */
async function endedElsewhere({ store }: StepDeps, { paymentId }: Saga, error: unknown): Promise<Saga> {
  const isClaimed = error instanceof ServiceError && error.code === 'REQUEST_IN_PROGRESS';
  const now = isClaimed ? await store.findSaga(paymentId) : undefined;
  if (now === undefined || !(hasEnded(now) || now.step === 'undoing')) throw error;
  return now;
}

/** Finishes a decided purchase; undoes any other, because its caller is gone. */
async function finish(deps: StepDeps, claimed: Saga): Promise<boolean> {
  const { log } = deps;
  const { paymentId, step } = claimed;
  try {
    const ended = await run(deps, claimed, async (saga) =>
      isUndoable(saga) ? await beginUndo(deps, saga, UNDOABLE, INTERRUPTED) : await settle(deps, saga),
    );
    log.info({ paymentId, foundAt: step, end: ended.step }, 'an abandoned payment has ended');
    return true;
  } catch (error) {
    log.warn({ err: error, paymentId, foundAt: step }, 'an abandoned payment is not settled yet');
    return false;
  }
}

/** Runs steps until the payment has ended. An error releases the claim, and leaves the payment to the resumer. */
async function run(
  { store, log }: StepDeps,
  begun: Saga,
  next: (saga: Saga) => Promise<Saga>,
): Promise<Saga> {
  let saga = begun;
  try {
    while (!hasEnded(saga)) saga = await next(saga);
    return saga;
  } catch (error) {
    await store.releaseClaim(saga).catch((cause: unknown) => {
      log.warn(
        { err: cause, paymentId: saga.paymentId },
        'cannot release the claim of a payment; it will expire',
      );
    });
    throw error;
  }
}

function requestIdReused(): ServiceError {
  const violation = { field: 'request_id', description: 'was used before with another request' };
  const message = `${violation.field} ${violation.description}`;
  return new PaymentError('REQUEST_ID_REUSED', message, { violations: [violation] });
}

function requestInProgress(): ServiceError {
  return new PaymentError('REQUEST_IN_PROGRESS', 'the same request is being carried out', {
    retryAfterMs: 500,
  });
}

function hashOf(accountId: string, lines: readonly OrderLine[]): string {
  const payload = payloadOf(
    accountId,
    lines.map(({ sku, quantity }) => [sku, quantity]),
  );
  return createHash('sha256').update(payload).digest('hex');
}
