/**
 * Buying, as a saga: reserve the goods, hold the money, make sure that the buyer is still allowed to, hand the goods
 * out, take the money. Each step is written down before it is taken, so whoever finds the payment knows what may
 * have happened, and each can be taken again.
 *
 * The goods are reserved with the buyer's own authority. With the decision it is recorded on whose word it was made;
 * from then on the service ends the reservation in its own name, so it needs no token of a buyer who may be gone.
 *
 * Until `committing` is written, everything can be undone, and no goods have left. From then on only inventory's
 * answer decides: goods handed out are paid for from money that is held already, so the capture cannot fail; goods
 * not handed out release the money. While the answer is missing, nothing is undone.
 */

import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@portcullis/guard/clock';
import { type FieldViolation, ServiceError } from '@portcullis/guard/errors';
import { MINOR_UNITS_MAX } from '../common/money.js';
import { createViolations } from '../common/validation/violations.js';
import { accountNotFound } from './accounts.js';
import type { Caller } from './caller.js';
import { PaymentError, type PaymentErrorCode } from './errors.js';
import type { Authoriser, Inventory, Reservation, Settlement } from './inventory.js';
import { type Books, captureTransfer } from './ledger.js';
import { type OrderLine, requireLines } from './order-lines.js';
import type { Payment } from './payments.js';

/** The step that is taken next; `captured` and `failed` are the ends. */
export type Step = 'reserving' | 'reserved' | 'held' | 'committing' | 'undoing' | 'captured' | 'failed';

/** Why a payment comes to nothing. */
export interface Failure {
  /** What the owner reads: an error code, or CANCELLED, or INTERRUPTED. */
  readonly reason: string;
  readonly message: string;
  readonly violations: readonly FieldViolation[];
  /** Whether the same request may be tried again, because the failure says nothing about the order itself. */
  readonly isRetriable: boolean;
}

/** A payment with what only the saga needs to know. */
export interface Saga extends Payment {
  readonly step: Step;
  readonly currencyCode: string;
  readonly payloadHash: string;
  /** Whoever claimed the payment last; nobody else may change it. */
  readonly worker: string;
  readonly failure: Failure | undefined;
  /** On whose word it runs: of the decision, once that is made. */
  readonly authoriser: Authoriser;
  /** What its request was answered when it was captured; every retry gets the same. */
  readonly firstAnswer: Payment | undefined;
}

/** A payment that is about to begin. */
export interface NewPayment {
  readonly accountId: string;
  readonly lines: readonly OrderLine[];
  readonly requestId: string;
  readonly payloadHash: string;
  readonly worker: string;
  /** On whose word the money is to move. */
  readonly caller: Authoriser;
}

/** What a step changes in the payment. */
export interface Change {
  readonly step: Step;
  readonly reservationId?: string;
  readonly amount?: bigint;
  readonly failure?: Failure;
  /** On whose word it was decided. */
  readonly allowedBy?: Authoriser;
}

/** What the saga is written down in. A claim lasts for the lease, which every change renews. */
export interface CheckoutStore {
  /**
   * Begins a payment that is claimed by its worker. When the request was made before, and did not fail in a way
   * that lets it be tried again with the same payload, returns that payment instead.
   *
   * @returns undefined when the caller has no such account
   */
  begin(payment: NewPayment, leaseMs: number): Promise<{ saga: Saga; isNew: boolean } | undefined>;
  /** Claims a payment that nobody works on; undefined when somebody does, or when it has ended. */
  claim(paymentId: string, worker: string, leaseMs: number): Promise<Saga | undefined>;
  /** Claims unfinished payments that nobody works on, each for a worker of its own. */
  claimAbandoned(limit: number, leaseMs: number): Promise<readonly Saga[]>;
  /** A payment as it stands; undefined when there is none. */
  findSaga(paymentId: string): Promise<Saga | undefined>;
  /**
   * Takes one step in one transaction. `stillAllowed`, when given, is asked last before it commits.
   *
   * @throws ServiceError REQUEST_IN_PROGRESS when the payment is at none of the steps, or claimed by another
   */
  advance(
    saga: Saga,
    from: readonly Step[],
    leaseMs: number,
    work: (books: Books) => Promise<Change>,
    stillAllowed?: () => number,
  ): Promise<Saga>;
  /** Ends the claim, so that others need not wait for it to run out. */
  giveUp(saga: Saga): Promise<void>;
}

/** Who buys. */
export interface Buyer extends Caller {
  /** Inventory on behalf of this user. */
  readonly inventory: Inventory;
}

/** Times of the saga. */
export interface CheckoutTimes {
  /**
   * How long a claim lasts: longer than a step takes, shorter than a buyer wants to wait after a crash. A worker that
   * is slower than that does no harm, because its claim is checked with every step.
   */
  readonly leaseMs: number;
  /** How long the goods stay set aside: longer than the saga takes. */
  readonly reservationTtlSeconds: number;
  /** How often inventory is asked at most when it does not answer. */
  readonly attempts: number;
  /** The pause after the first attempt; it doubles each time. */
  readonly backoffMs: number;
  /** After so long no further attempt begins, so that the step ends within the lease. */
  readonly patienceMs: number;
}

/** Times that suit production. */
export const defaultCheckoutTimes: CheckoutTimes = {
  leaseMs: 10_000,
  reservationTtlSeconds: 60,
  attempts: 4,
  backoffMs: 100,
  patienceMs: 4_000,
};

/** Abandoned payments taken up in one go. */
export const ABANDONED_MAX = 20;

/** Where the saga tells operators of what it could not tell a caller. */
export interface CheckoutLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What the saga needs. */
export interface CheckoutDeps {
  readonly store: CheckoutStore;
  readonly settlement: Settlement;
  readonly clock: Clock;
  readonly log: CheckoutLog;
  readonly times?: CheckoutTimes;
}

/** Buying. */
export interface Checkout {
  /**
   * Buys, or finishes or repeats what the same request began.
   *
   * @throws ServiceError why it came to nothing: FIELD_INVALID, NOT_FOUND, INSUFFICIENT_STOCK, INSUFFICIENT_FUNDS,
   *   RESERVATION_EXPIRED, PAYMENT_CANCELLED, codes of the caller's token; DEPENDENCY_UNAVAILABLE and REQUEST_IN_PROGRESS also when
   *   it is not known yet, and asking again with the same request_id tells; REQUEST_ID_REUSED
   */
  checkout(
    request: { accountId: string; lines: readonly OrderLine[]; requestId: string },
    buyer: Buyer,
  ): Promise<Payment>;
  /** Finishes or undoes payments that were left behind; returns how many came to an end. */
  resumeAbandoned(): Promise<number>;
  /** Finishes or undoes one payment that its worker has claimed; returns whether it came to an end. */
  finish(claimed: Saga): Promise<boolean>;
}

/** Steps from which everything can still be undone. */
const UNDOABLE: readonly Step[] = ['reserving', 'reserved', 'held'];

/** Whether everything can still be undone: no goods have left. */
export function isUndoable({ step }: Saga): boolean {
  return UNDOABLE.includes(step);
}

/** Failures that say something about the order: the same request gets the same answer for ever. */
const ORDER_REASONS = [
  'FIELD_INVALID',
  'NOT_FOUND',
  'INSUFFICIENT_STOCK',
  'INSUFFICIENT_FUNDS',
] as const satisfies readonly PaymentErrorCode[];

const ABOUT_THE_ORDER: ReadonlySet<string> = new Set(ORDER_REASONS);

/** What a payment that failed answers with, whenever it is asked about. */
const FINAL_REASONS = [
  ...ORDER_REASONS,
  'RESERVATION_EXPIRED',
  'PAYMENT_CANCELLED',
] as const satisfies readonly PaymentErrorCode[];

/** The saga over a store. */
export function createCheckout(deps: CheckoutDeps): Checkout {
  const { store, settlement, log, times = defaultCheckoutTimes } = deps;
  const { leaseMs } = times;
  const persist = createPersistence(deps.clock, times);

  /** Takes steps until the payment has ended. What remains unfinished is left for the resumer. */
  async function run(begun: Saga, next: (saga: Saga) => Promise<Saga>): Promise<Saga> {
    let saga = begun;
    try {
      while (!hasEnded(saga)) saga = await next(saga);
      return saga;
    } catch (error) {
      await store.giveUp(saga).catch((cause: unknown) => {
        log.warn({ err: cause, paymentId: saga.paymentId }, 'a claim could not be given up; it will run out');
      });
      throw error;
    }
  }

  /** Buys as long as that goes well, and undoes when it does not. */
  async function buy(begun: Saga, buyer: Buyer): Promise<Payment> {
    let fault: ServiceError | undefined;
    const running = run(begun, async (saga) => {
      try {
        return await stepForward(saga, buyer);
      } catch (error) {
        if (!isUndoable(saga) || !(error instanceof ServiceError)) throw error;
        fault = faultOf(error, buyer);
        return await beginUndo(saga, UNDOABLE, failureOf(fault));
      }
    });
    const ended = await running.catch(async (error: unknown) => {
      const elsewhere = await endedElsewhere(begun, error);
      fault = undefined;
      return elsewhere;
    });
    if (ended.step === 'captured') return ended.firstAnswer ?? ended;
    throw fault ?? errorOf(ended);
  }

  /** The payment that somebody else has brought to its end, as a cancellation does; or throws what there was. */
  async function endedElsewhere({ paymentId }: Saga, error: unknown): Promise<Saga> {
    const isTaken = error instanceof ServiceError && error.code === 'REQUEST_IN_PROGRESS';
    const now = isTaken ? await store.findSaga(paymentId) : undefined;
    if (now === undefined || !(hasEnded(now) || now.step === 'undoing')) throw error;
    return now;
  }

  function stepForward(saga: Saga, buyer: Buyer): Promise<Saga> {
    switch (saga.step) {
      case 'reserving':
        return reserve(saga, buyer);
      case 'reserved':
        return hold(saga);
      case 'held':
        return decide(saga, buyer);
      default:
        return settle(saga);
    }
  }

  async function reserve(saga: Saga, buyer: Buyer): Promise<Saga> {
    const { lines, paymentId, currencyCode } = saga;
    const { reservationTtlSeconds: timeToLiveSeconds } = times;
    const request = { lines, timeToLiveSeconds, requestId: `${paymentId}:reserve` };
    const reservation = await persist(() => buyer.inventory.reserve(request), buyer.signal);
    const { reservationId } = reservation;
    const price = priceOf(reservation, currencyCode);
    // The reservation is noted even when its price will not do, because undoing needs to know it.
    const change: Change =
      'amount' in price
        ? { step: 'reserved', reservationId, amount: price.amount }
        : { step: 'undoing', reservationId, failure: failureOf(price.fault) };
    const noting = store.advance(saga, ['reserving'], leaseMs, async () => change);
    return await noting.catch(async (error: unknown) => {
      await giveBackUnwanted(saga, reservationId);
      throw error;
    });
  }

  /** Whoever cancelled while the goods were being reserved did not know of the reservation. */
  async function giveBackUnwanted(saga: Saga, reservationId: string): Promise<void> {
    const now = await store.findSaga(saga.paymentId).catch(() => undefined);
    if (now?.failure !== undefined && now.reservationId === undefined)
      await release({ ...saga, reservationId });
  }

  async function hold(saga: Saga): Promise<Saga> {
    const { accountId, paymentId } = saga;
    return await store.advance(saga, ['reserved'], leaseMs, async (books) => {
      const amount = amountOf(saga).minorUnits;
      const account = await books.lockAccount(accountId);
      if (account === undefined) throw accountNotFound();
      if (account.balance - account.held < amount) {
        throw new PaymentError('INSUFFICIENT_FUNDS', 'the account does not have enough money available');
      }
      await books.hold(paymentId, accountId, amount);
      return { step: 'held' };
    });
  }

  /** The last moment at which a buyer who was revoked, or has gone, costs nobody anything. */
  async function decide(saga: Saga, buyer: Buyer): Promise<Saga> {
    const change: Change = { step: 'committing', allowedBy: buyer };
    return await store.advance(
      saga,
      ['held'],
      leaseMs,
      async () => change,
      () => {
        const reliableMs = buyer.stillAllowed();
        if (buyer.signal.aborted) throw new CheckoutCancelled();
        return reliableMs;
      },
    );
  }

  /** What is left to do once it is decided: needs no word of the buyer's any more. */
  async function settle(saga: Saga): Promise<Saga> {
    if (saga.step === 'undoing') return await finishUndo(saga);
    if (!(await handOut(saga))) return await beginUndo(saga, ['committing'], RAN_OUT);
    return await store.advance(saga, ['committing'], leaseMs, async (books) => {
      await books.dropHold(saga.paymentId);
      await books.post(captureTransfer({ ...saga, amount: amountOf(saga) }));
      return { step: 'captured' };
    });
  }

  /**
   * Has the goods handed out; false when it is certain that they are not and never will be.
   *
   * @throws whatever leaves it open
   */
  async function handOut(saga: Saga): Promise<boolean> {
    const { paymentId, reservationId, authoriser } = saga;
    if (reservationId === undefined) throw new TypeError('a payment at committing has a reservation');
    const request = {
      reservationId,
      outcome: 'COMMITTED',
      authoriser,
      requestId: `${paymentId}:commit`,
    } as const;
    const { state } = await persist(() => settlement.settle(request)).catch((cause: unknown) => {
      throw unknownOutcome(cause);
    });
    if (state === 'ACTIVE') throw unknownOutcome(new Error('inventory left the reservation as it was'));
    return state === 'COMMITTED';
  }

  async function beginUndo(saga: Saga, from: readonly Step[], failure: Failure): Promise<Saga> {
    return await store.advance(saga, from, leaseMs, async (books) => {
      await books.dropHold(saga.paymentId);
      return { step: 'undoing', failure };
    });
  }

  async function finishUndo(saga: Saga): Promise<Saga> {
    await release(saga);
    return await store.advance(saga, ['undoing'], leaseMs, async () => ({ step: 'failed' }));
  }

  /** Gives the goods back if that is possible; if not, their reservation runs out by itself. */
  async function release({ paymentId, reservationId, authoriser }: Saga): Promise<void> {
    if (reservationId === undefined) return;
    const request = {
      reservationId,
      outcome: 'RELEASED',
      authoriser,
      requestId: `${paymentId}:release`,
    } as const;
    await persist(() => settlement.settle(request)).catch((error: unknown) => {
      log.warn({ err: error, paymentId, reservationId }, 'a reservation was left to run out by itself');
    });
  }

  /** Finishes what was decided; undoes the rest, because its caller is no longer there. */
  async function finish(claimed: Saga): Promise<boolean> {
    const { paymentId, step } = claimed;
    try {
      const ended = await run(claimed, async (current) =>
        isUndoable(current) ? await beginUndo(current, UNDOABLE, INTERRUPTED) : await settle(current),
      );
      log.info(
        { paymentId, foundAt: step, end: ended.step },
        'a payment that was left behind came to its end',
      );
      return true;
    } catch (error) {
      log.warn({ err: error, paymentId, foundAt: step }, 'a payment that was left behind is not settled yet');
      return false;
    }
  }

  return {
    async checkout({ accountId, lines, requestId: givenId }, buyer) {
      const violations = createViolations();
      violations.requireUuid('account_id', accountId);
      requireLines(violations, lines);
      const requestId = violations.requireRequestId(givenId);
      violations.throwIfAny();
      const payloadHash = hashOf(accountId, lines);
      const worker = randomUUID();
      const order = { accountId, lines, requestId, payloadHash, worker, caller: buyer };
      const begun = await store.begin(order, leaseMs);
      if (begun === undefined) throw accountNotFound();
      if (begun.isNew) return await buy(begun.saga, buyer);
      const { saga } = begun;
      if (saga.payloadHash !== payloadHash) throw reused();
      if (saga.step === 'captured') return saga.firstAnswer ?? saga;
      if (saga.step === 'failed') throw errorOf(saga);
      const claimed = await store.claim(saga.paymentId, worker, leaseMs);
      if (claimed === undefined) throw inProgress();
      return await buy(claimed, buyer);
    },

    async resumeAbandoned() {
      const abandoned = await store.claimAbandoned(ABANDONED_MAX, leaseMs);
      const outcomes = await Promise.all(abandoned.map(finish));
      return outcomes.filter((hasCome) => hasCome).length;
    },

    finish,
  };
}

/** The buyer's call ended before the goods were handed out. */
class CheckoutCancelled extends ServiceError<'DEPENDENCY_UNAVAILABLE'> {
  constructor() {
    super(
      'DEPENDENCY_UNAVAILABLE',
      'UNAVAILABLE',
      'the call ended before the purchase was decided; nothing was charged',
    );
    this.name = 'CheckoutCancelled';
  }
}

const RAN_OUT: Failure = {
  reason: 'RESERVATION_EXPIRED',
  message: 'the reservation ran out before the goods were handed out; nothing was charged',
  violations: [],
  isRetriable: true,
};

const INTERRUPTED: Failure = {
  reason: 'INTERRUPTED',
  message: 'the purchase was interrupted before it was decided; nothing was charged',
  violations: [],
  isRetriable: true,
};

/** Asks, and asks again a few times while nobody answers. */
type Persist = <T>(ask: () => Promise<T>, signal?: AbortSignal) => Promise<T>;

function createPersistence(clock: Clock, { attempts, backoffMs, patienceMs }: CheckoutTimes): Persist {
  return async (ask, signal) => {
    const untilMs = clock.monotonicMs() + patienceMs;
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (error) {
        const unanswered = error instanceof ServiceError && error.code === 'DEPENDENCY_UNAVAILABLE';
        const goesOn = attempt < attempts && clock.monotonicMs() < untilMs && signal?.aborted !== true;
        if (!unanswered || !goesOn) throw error;
        await sleep(backoffMs * 2 ** (attempt - 1));
      }
    }
  };
}

/** What the goods cost at the reservation's own prices, if the account can pay such a price at all. */
function priceOf(
  reservation: Reservation,
  currencyCode: string,
): { amount: bigint } | { fault: ServiceError } {
  const violations = reservation.lines.flatMap(({ unitPrice }, index) =>
    unitPrice.currencyCode === currencyCode
      ? []
      : [
          {
            field: `lines[${index}].sku`,
            description: `is priced in ${unitPrice.currencyCode}, the account is in ${currencyCode}`,
          },
        ],
  );
  const [first] = violations;
  if (first !== undefined) {
    const message = `${first.field} ${first.description}`;
    return { fault: new PaymentError('FIELD_INVALID', message, { violations }) };
  }
  const amount = reservation.lines.reduce((sum, line) => sum + line.quantity * line.unitPrice.minorUnits, 0n);
  if (amount <= MINOR_UNITS_MAX) return { amount };
  const tooMuch = { field: 'lines', description: 'must not cost more than an int64 of minor units' };
  const message = `${tooMuch.field} ${tooMuch.description}`;
  return { fault: new PaymentError('FIELD_INVALID', message, { violations: [tooMuch] }) };
}

/** Why the purchase really failed: a buyer who was revoked, or has gone, makes others stop answering. */
function faultOf(error: ServiceError, buyer: Buyer): ServiceError {
  if (error.code !== 'DEPENDENCY_UNAVAILABLE') return error;
  try {
    buyer.stillAllowed();
  } catch (refusal) {
    if (refusal instanceof ServiceError) return refusal;
  }
  return buyer.signal.aborted ? new CheckoutCancelled() : error;
}

function failureOf(error: ServiceError): Failure {
  const { code, message, violations } = error;
  const reason = error instanceof CheckoutCancelled ? 'CANCELLED' : code;
  return { reason, message, violations, isRetriable: !ABOUT_THE_ORDER.has(code) };
}

/** The answer that a payment which came to nothing gives again. */
function errorOf({ failure }: Saga): ServiceError {
  if (failure === undefined) throw new TypeError('a payment that failed has a failure');
  const { reason, message, violations } = failure;
  const code = FINAL_REASONS.find((known) => known === reason) ?? 'DEPENDENCY_UNAVAILABLE';
  return new PaymentError(code, message, { violations });
}

function unknownOutcome(cause: unknown): ServiceError {
  const message = 'it is not known yet whether the goods were handed out; ask again with the same request_id';
  return new PaymentError('DEPENDENCY_UNAVAILABLE', message, { cause, retryAfterMs: 1_000 });
}

function reused(): ServiceError {
  const violation = { field: 'request_id', description: 'was used before with another request' };
  const message = `${violation.field} ${violation.description}`;
  return new PaymentError('REQUEST_ID_REUSED', message, { violations: [violation] });
}

function inProgress(): ServiceError {
  return new PaymentError('REQUEST_IN_PROGRESS', 'the same request is being carried out', {
    retryAfterMs: 500,
  });
}

function amountOf({ amount, paymentId }: Saga) {
  if (amount === undefined) throw new TypeError(`payment ${paymentId} has no price yet`);
  return amount;
}

function hasEnded({ step }: Saga): boolean {
  return step === 'captured' || step === 'failed';
}

function hashOf(accountId: string, lines: readonly OrderLine[]): string {
  const payload = JSON.stringify([accountId, lines.map(({ sku, quantity }) => [sku, String(quantity)])]);
  return createHash('sha256').update(payload).digest('hex');
}
