/** The steps of a purchase: forward while that goes well, and back when it does not. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@portcullis/guard/clock';
import { ServiceError } from '@portcullis/guard/errors';
import { accountNotFound } from './accounts.js';
import type { Permit } from './caller.js';
import { PaymentError } from './errors.js';
import type { Reservation, Settlement } from './inventory-port.js';
import { captureTransfer } from './ledger.js';
import {
  amountOf,
  type Buyer,
  type Change,
  type CheckoutStore,
  type CheckoutTimes,
  type Failure,
  type Saga,
  type Step,
} from './saga.js';
import {
  CheckoutCancelled,
  failureOf,
  priceOf,
  RESERVATION_EXPIRED,
  unknownOutcome,
} from './saga-failures.js';

/** Where the saga logs what it cannot return to a caller. */
export interface CheckoutLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What the steps need. */
export interface StepDeps {
  readonly store: CheckoutStore;
  readonly settlement: Settlement;
  readonly clock: Clock;
  readonly log: CheckoutLog;
  readonly times: CheckoutTimes;
}

/** Runs the next step of a purchase whose buyer is still there. */
export function stepForward(deps: StepDeps, saga: Saga, buyer: Buyer): Promise<Saga> {
  switch (saga.step) {
    case 'reserving':
      return reserveGoods(deps, saga, buyer);
    case 'reserved':
      return holdMoney(deps, saga);
    case 'held':
      return decide(deps, saga, buyer);
    default:
      return settle(deps, saga);
  }
}

/** Runs the next step after the decision, or of an undo; it needs no authority of the buyer. */
export async function settle(deps: StepDeps, saga: Saga): Promise<Saga> {
  if (saga.step === 'undoing') return await finishUndo(deps, saga);
  if (await handOutGoods(deps, saga)) return await captureMoney(deps, saga);
  return await beginUndo(deps, saga, ['committing'], RESERVATION_EXPIRED);
}

/** Releases the held money and stores why the purchase is undone. */
export async function beginUndo(
  { store, times }: StepDeps,
  saga: Saga,
  from: readonly Step[],
  failure: Failure,
): Promise<Saga> {
  return await store.advance(saga, from, times.leaseMs, async (ledger) => {
    await ledger.releaseHold(saga.paymentId);
    return { step: 'undoing', failure };
  });
}

async function reserveGoods(deps: StepDeps, saga: Saga, buyer: Buyer): Promise<Saga> {
  const { store, times } = deps;
  const reservation = await withRetry(
    deps,
    () =>
      buyer.inventory.reserve({
        lines: saga.lines,
        timeToLiveSeconds: times.reservationTtlSeconds,
        requestId: `${saga.paymentId}:reserve`,
      }),
    buyer.signal,
  );
  const change = reservedChange(saga, reservation);
  const stored = store.advance(saga, ['reserving'], times.leaseMs, async () => change);
  return await stored.catch(async (error: unknown) => {
    await releaseUnstored(deps, saga, reservation.reservationId);
    throw error;
  });
}

/** The reservation is stored even when its price cannot be paid, because the undo needs it. */
function reservedChange({ currencyCode }: Saga, reservation: Reservation): Change {
  const { reservationId } = reservation;
  const price = priceOf(reservation, currencyCode);
  if ('amount' in price) return { step: 'reserved', reservationId, amount: price.amount };
  return { step: 'undoing', reservationId, failure: failureOf(price.fault) };
}

/** A cancellation that came while the goods were being reserved did not know of the reservation. */
async function releaseUnstored(deps: StepDeps, saga: Saga, reservationId: string): Promise<void> {
  const now = await deps.store.findSaga(saga.paymentId).catch(() => undefined);
  if (now?.failure === undefined || now.reservationId !== undefined) return;
  await releaseGoods(deps, { ...saga, reservationId });
}

async function holdMoney({ store, times }: StepDeps, saga: Saga): Promise<Saga> {
  const { accountId, paymentId } = saga;
  return await store.advance(saga, ['reserved'], times.leaseMs, async (ledger) => {
    const amount = amountOf(saga).minorUnits;
    const account = await ledger.lockAccount(accountId);
    if (account === undefined) throw accountNotFound();
    if (account.balance - account.held < amount) {
      throw new PaymentError('INSUFFICIENT_FUNDS', 'the account does not have enough money available');
    }
    await ledger.hold(paymentId, accountId, amount);
    return { step: 'held' };
  });
}

/** The point of no return: the last check that the buyer is neither revoked nor gone. Before it, nothing was charged. */
async function decide({ store, times }: StepDeps, saga: Saga, buyer: Buyer): Promise<Saga> {
  const change: Change = { step: 'committing', allowedBy: buyer };
  const permit: Permit = {
    stillAllowed: () => {
      const validForMs = buyer.stillAllowed();
      if (buyer.signal.aborted) throw new CheckoutCancelled();
      return validForMs;
    },
    passFence: (query) => buyer.passFence(query),
  };
  return await store.advance(saga, ['held'], times.leaseMs, async () => change, permit);
}

/**
 * Lets inventory hand the goods out; false when it is certain that they are not handed out and never will be.
 *
 * @throws ServiceError DEPENDENCY_UNAVAILABLE when that is not known
 */
async function handOutGoods(deps: StepDeps, saga: Saga): Promise<boolean> {
  const { paymentId, reservationId, authoriser } = saga;
  if (reservationId === undefined) throw new TypeError('a payment at committing has a reservation');
  const requestId = `${paymentId}:commit`;
  const request = { reservationId, outcome: 'COMMITTED', authoriser, requestId } as const;
  const { state } = await withRetry(deps, () => deps.settlement.settle(request)).catch((cause: unknown) => {
    throw unknownOutcome(cause);
  });
  if (state === 'ACTIVE') throw unknownOutcome(new Error('inventory left the reservation as it was'));
  return state === 'COMMITTED';
}

async function captureMoney({ store, times }: StepDeps, saga: Saga): Promise<Saga> {
  return await store.advance(saga, ['committing'], times.leaseMs, async (ledger) => {
    await ledger.releaseHold(saga.paymentId);
    await ledger.post(captureTransfer({ ...saga, amount: amountOf(saga) }));
    return { step: 'captured' };
  });
}

async function finishUndo(deps: StepDeps, saga: Saga): Promise<Saga> {
  await releaseGoods(deps, saga);
  return await deps.store.advance(saga, ['undoing'], deps.times.leaseMs, async () => ({ step: 'failed' }));
}

/** Releases the reservation if inventory answers; otherwise the reservation expires by itself. */
async function releaseGoods(deps: StepDeps, { paymentId, reservationId, authoriser }: Saga): Promise<void> {
  if (reservationId === undefined) return;
  const requestId = `${paymentId}:release`;
  const request = { reservationId, outcome: 'RELEASED', authoriser, requestId } as const;
  await withRetry(deps, () => deps.settlement.settle(request)).catch((error: unknown) => {
    deps.log.warn({ err: error, paymentId, reservationId }, 'a reservation is left to expire by itself');
  });
}

/** Sends a request, and sends it again a few times while inventory is unavailable. */
async function withRetry<T>(
  { clock, times }: StepDeps,
  send: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const { attempts, backoffMs, patienceMs } = times;
  const untilMs = clock.monotonicMs() + patienceMs;
  for (let attempt = 1; ; attempt++) {
    try {
      return await send();
    } catch (error) {
      const isUnavailable = error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE';
      const mayRetry = attempt < attempts && clock.monotonicMs() < untilMs && signal?.aborted !== true;
      if (!isUnavailable || !mayRetry) throw error;
      await sleep(backoffMs * 2 ** (attempt - 1));
    }
  }
}
