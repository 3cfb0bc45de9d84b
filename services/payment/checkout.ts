/**
 * Buying, as a saga: reserve the goods, hold the money, make sure that the buyer is still allowed to, hand the goods
 * out, take the money. Each step is written down before it is taken, so whoever finds the payment knows what may
 * have happened, and each can be taken again.
 *
 * Until `committing` is written, everything can be undone, and no goods have left. From then on only inventory's
 * answer decides: goods handed out are paid for from money that is held already, so the capture cannot fail; goods
 * not handed out release the money. While the answer is missing, nothing is undone.
 */
import { createHash, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../../interceptors/clock.js';
import { type ErrorCode, type FieldViolation, ServiceError } from '../../interceptors/errors.js';
import { accountNotFound } from './accounts.js';
import type { Caller } from './caller.js';
import { checkId, checkLines, checkRequestId, type OrderLine, requireValid } from './fields.js';
import type { Inventory, Reservation } from './inventory.js';
import { type Books, captureTransfer } from './ledger.js';
import { MINOR_UNITS_MAX } from './money.js';
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
}

/** On whose word money moves, by identifiers alone. */
export type Authoriser = Pick<Caller, 'subject' | 'clientId' | 'sessionId' | 'tokenId'>;

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
  /**
   * Claims unfinished payments that nobody works on, each for a worker of its own. Those at `committing` only when
   * they are among `settleable`.
   */
  claimAbandoned(settleable: readonly string[], limit: number, leaseMs: number): Promise<readonly Saga[]>;
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
/** Payments whose buyers' authority is remembered at most. */
export const UNSETTLED_MAX = 10_000;

/** Where the saga tells operators of what it could not tell a caller. */
export interface CheckoutLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What the saga needs. */
export interface CheckoutDeps {
  readonly store: CheckoutStore;
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
   *   RESERVATION_EXPIRED, codes of the caller's token; DEPENDENCY_UNAVAILABLE and REQUEST_IN_PROGRESS also when
   *   it is not known yet, and asking again with the same request_id tells; REQUEST_ID_REUSED
   */
  checkout(
    request: { accountId: string; lines: readonly OrderLine[]; requestId: string },
    buyer: Buyer,
  ): Promise<Payment>;
  /** Finishes or undoes payments that were left behind; returns how many came to an end. */
  resumeAbandoned(): Promise<number>;
}

/** Steps from which everything can still be undone. */
const UNDOABLE: readonly Step[] = ['reserving', 'reserved', 'held'];

/** Failures that say something about the order: the same request gets the same answer for ever. */
const ABOUT_THE_ORDER: ReadonlySet<ErrorCode> = new Set([
  'FIELD_INVALID',
  'NOT_FOUND',
  'INSUFFICIENT_STOCK',
  'INSUFFICIENT_FUNDS',
]);

/** The saga over a store. */
export function createCheckout(deps: CheckoutDeps): Checkout {
  const { store, log, times = defaultCheckoutTimes } = deps;
  const { leaseMs } = times;
  const unsettled = createUnsettled(deps.clock);
  const persist = createPersistence(deps.clock, times);

  /** Takes steps until the payment has ended. What remains unfinished is left for the resumer. */
  async function run(begun: Saga, authority: Authority, next: (saga: Saga) => Promise<Saga>): Promise<Saga> {
    let saga = begun;
    try {
      while (!hasEnded(saga)) saga = await next(saga);
      unsettled.forget(saga.paymentId);
      return saga;
    } catch (error) {
      unsettled.remember(saga.paymentId, authority);
      await store.giveUp(saga).catch((cause: unknown) => {
        log.warn({ err: cause, paymentId: saga.paymentId }, 'a claim could not be given up; it will run out');
      });
      throw error;
    }
  }

  /** Buys as long as that goes well, and undoes when it does not. */
  async function buy(begun: Saga, buyer: Buyer): Promise<Payment> {
    let fault: ServiceError | undefined;
    const ended = await run(begun, buyer, async (saga) => {
      try {
        return await stepForward(saga, buyer);
      } catch (error) {
        const undoable = UNDOABLE.includes(saga.step) && error instanceof ServiceError;
        if (!undoable) throw error;
        fault = faultOf(error, buyer);
        return await beginUndo(saga, UNDOABLE, failureOf(fault));
      }
    });
    if (ended.step === 'captured') return ended;
    throw fault ?? errorOf(ended);
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
        return settle(saga, buyer.inventory);
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
    return await store.advance(saga, ['reserving'], leaseMs, async () =>
      'amount' in price
        ? { step: 'reserved', reservationId, amount: price.amount }
        : { step: 'undoing', reservationId, failure: failureOf(price.fault) },
    );
  }

  async function hold(saga: Saga): Promise<Saga> {
    const { accountId, paymentId } = saga;
    return await store.advance(saga, ['reserved'], leaseMs, async (books) => {
      const amount = amountOf(saga).minorUnits;
      const account = await books.lockAccount(accountId);
      if (account === undefined) throw accountNotFound();
      if (account.balance - account.held < amount) {
        throw new ServiceError('INSUFFICIENT_FUNDS', 'the account does not have enough money available');
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

  /** What is left to do once it is decided: needs no word of the buyer's any more, only access to inventory. */
  async function settle(saga: Saga, inventory: Inventory | undefined): Promise<Saga> {
    if (saga.step === 'undoing') return await finishUndo(saga, inventory);
    if (inventory === undefined) throw new TypeError('a payment at committing needs inventory to be settled');
    const refused = await commitGoods(saga, inventory, persist);
    if (refused !== undefined) return await beginUndo(saga, ['committing'], failureOf(refused));
    return await store.advance(saga, ['committing'], leaseMs, async (books) => {
      await books.dropHold(saga.paymentId);
      await books.post(captureTransfer({ ...saga, amount: amountOf(saga) }));
      return { step: 'captured' };
    });
  }

  async function beginUndo(saga: Saga, from: readonly Step[], failure: Failure): Promise<Saga> {
    return await store.advance(saga, from, leaseMs, async (books) => {
      await books.dropHold(saga.paymentId);
      return { step: 'undoing', failure };
    });
  }

  /** Gives the goods back if that is possible; if not, their reservation runs out by itself. */
  async function finishUndo(saga: Saga, inventory: Inventory | undefined): Promise<Saga> {
    const { paymentId, reservationId } = saga;
    if (reservationId !== undefined && inventory !== undefined) {
      const request = { reservationId, requestId: `${paymentId}:release` };
      await persist(() => inventory.release(request)).catch((error: unknown) => {
        log.warn({ err: error, paymentId, reservationId }, 'a reservation was left to run out by itself');
      });
    }
    return await store.advance(saga, ['undoing'], leaseMs, async () => ({ step: 'failed' }));
  }

  /** Finishes what was decided; undoes the rest, because its caller is no longer there. */
  async function resume(saga: Saga): Promise<boolean> {
    const { paymentId, step } = saga;
    const authority = unsettled.recall(paymentId);
    try {
      const ended = await run(saga, authority, async (current) => {
        if (!UNDOABLE.includes(current.step)) return await settle(current, authority.inventory);
        return await beginUndo(current, UNDOABLE, INTERRUPTED);
      });
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
    async checkout({ accountId, lines, requestId }, buyer) {
      requireValid(checkId('account_id', accountId), checkLines(lines), checkRequestId(requestId));
      const payloadHash = hashOf(accountId, lines);
      const worker = randomUUID();
      const order = { accountId, lines, requestId, payloadHash, worker, caller: buyer };
      const begun = await store.begin(order, leaseMs);
      if (begun === undefined) throw accountNotFound();
      if (begun.isNew) return await buy(begun.saga, buyer);
      const { saga } = begun;
      if (saga.payloadHash !== payloadHash) throw reused();
      if (saga.step === 'captured') return saga;
      if (saga.step === 'failed') throw errorOf(saga);
      const claimed = await store.claim(saga.paymentId, worker, leaseMs);
      if (claimed === undefined) throw inProgress();
      return await buy(claimed, buyer);
    },

    async resumeAbandoned() {
      const abandoned = await store.claimAbandoned(unsettled.paymentIds(), ABANDONED_MAX, leaseMs);
      const outcomes = await Promise.all(abandoned.map(resume));
      return outcomes.filter((hasCome) => hasCome).length;
    },
  };
}

/** What a payment under way can be settled with, and for how long. */
interface Authority {
  readonly inventory: Inventory | undefined;
  readonly expiresAtSeconds: number;
}

const NO_AUTHORITY: Authority = { inventory: undefined, expiresAtSeconds: 0 };

/**
 * Remembers with whose authority an unfinished payment can be settled, for as long as the token lives. In memory
 * alone: a token must not be written down anywhere.
 */
function createUnsettled(clock: Clock) {
  const authorities = new Map<string, Authority>();

  const isOver = ({ expiresAtSeconds }: Authority) => expiresAtSeconds * 1_000 <= clock.wallMs();

  return {
    remember(paymentId: string, authority: Authority): void {
      if (authority.inventory === undefined || isOver(authority)) return;
      if (authorities.size < UNSETTLED_MAX) authorities.set(paymentId, authority);
    },
    recall: (paymentId: string): Authority => authorities.get(paymentId) ?? NO_AUTHORITY,
    forget: (paymentId: string): void => void authorities.delete(paymentId),
    paymentIds(): readonly string[] {
      for (const [paymentId, authority] of authorities) if (isOver(authority)) authorities.delete(paymentId);
      return [...authorities.keys()];
    },
  };
}

/** The buyer's call ended before the goods were handed out. */
class CheckoutCancelled extends ServiceError {
  constructor() {
    super('DEPENDENCY_UNAVAILABLE', 'the call ended before the purchase was decided; nothing was charged');
    this.name = 'CheckoutCancelled';
  }
}

const INTERRUPTED: Failure = {
  reason: 'INTERRUPTED',
  message: 'the purchase was interrupted before it was decided; nothing was charged',
  violations: [],
  isRetriable: true,
};

/**
 * Has the goods handed out.
 *
 * @returns undefined when they are; the reason when it is certain that they are not and never will be
 * @throws whatever leaves it open
 */
async function commitGoods(
  saga: Saga,
  inventory: Inventory,
  persist: Persist,
): Promise<ServiceError | undefined> {
  const { paymentId, reservationId } = saga;
  if (reservationId === undefined) throw new TypeError('a payment at committing has a reservation');
  const request = { reservationId, requestId: `${paymentId}:commit` };
  try {
    await persist(() => inventory.commit(request));
    return undefined;
  } catch (error) {
    const code = error instanceof ServiceError ? error.code : undefined;
    if (code === 'NOT_FOUND') return ranOut(error);
    if (code !== 'RESERVATION_EXPIRED' && code !== 'RESERVATION_NOT_ACTIVE') throw unknownOutcome(error);
    // An earlier attempt whose answer was lost may have handed the goods out.
    const { state } = await persist(() => inventory.find(reservationId)).catch((cause: unknown) => {
      throw unknownOutcome(cause);
    });
    if (state === 'COMMITTED') return undefined;
    if (state === 'ACTIVE' && code === 'RESERVATION_NOT_ACTIVE') throw unknownOutcome(error);
    return ranOut(error);
  }
}

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
    return { fault: new ServiceError('FIELD_INVALID', message, { violations }) };
  }
  const amount = reservation.lines.reduce((sum, line) => sum + line.quantity * line.unitPrice.minorUnits, 0n);
  if (amount <= MINOR_UNITS_MAX) return { amount };
  const tooMuch = { field: 'lines', description: 'must not cost more than an int64 of minor units' };
  const message = `${tooMuch.field} ${tooMuch.description}`;
  return { fault: new ServiceError('FIELD_INVALID', message, { violations: [tooMuch] }) };
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
  const codes: readonly ErrorCode[] = [...ABOUT_THE_ORDER, 'RESERVATION_EXPIRED'];
  const code = codes.find((known) => known === reason) ?? 'DEPENDENCY_UNAVAILABLE';
  return new ServiceError(code, message, { violations });
}

function ranOut(cause: unknown): ServiceError {
  const message = 'the reservation ran out before the goods were handed out; nothing was charged';
  return new ServiceError('RESERVATION_EXPIRED', message, { cause });
}

function unknownOutcome(cause: unknown): ServiceError {
  const message = 'it is not known yet whether the goods were handed out; ask again with the same request_id';
  return new ServiceError('DEPENDENCY_UNAVAILABLE', message, { cause, retryAfterMs: 1_000 });
}

function reused(): ServiceError {
  const violation = { field: 'request_id', description: 'was used before with another request' };
  const message = `${violation.field} ${violation.description}`;
  return new ServiceError('REQUEST_ID_REUSED', message, { violations: [violation] });
}

function inProgress(): ServiceError {
  return new ServiceError('REQUEST_IN_PROGRESS', 'the same request is being carried out', {
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
