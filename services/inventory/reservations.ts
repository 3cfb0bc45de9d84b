/** Operations on reservations: reserving stock for a user, and committing, releasing or expiring what is reserved. */

import { ServiceError } from '@portcullis/guard/errors';
import { payloadOf } from '../common/validation/request-id.js';
import { createViolations } from '../common/validation/violations.js';
import type { Caller } from './caller.js';
import { endLocked, expireDue, expireLocked, type Outcome, withoutInternals } from './end-reservation.js';
import { InventoryError } from './errors.js';
import type { Reservation, ReservationStore } from './reservation.js';
import { checkReserveStock, type ReserveDeps, type ReserveStockRequest, reserveLines } from './reserve.js';
import type { StockPlace } from './stock.js';

/** Maximum number of reservations that one transaction expires: few, so that their items are not locked for long. */
const EXPIRY_BATCH = 20;
/** Maximum number of batches of one sweep. */
const SWEEP_BATCHES_MAX = 50;

/** A request to commit or release a reservation. */
interface EndReservationRequest {
  readonly reservationId: string;
  readonly requestId: string;
}

/** The user and the token that authorised a service to end a reservation. */
interface Authoriser {
  readonly userId: string;
  /** Empty when the token had none. */
  readonly clientId: string;
  /** Empty when the token had none. */
  readonly sessionId: string;
  readonly tokenId: string;
}

/** A request to end a reservation under the recorded authority of its owner. */
export interface SettleReservationRequest extends EndReservationRequest {
  /** Undefined for any other outcome that came over the wire. */
  readonly outcome: Outcome | undefined;
  readonly authoriser: Authoriser | undefined;
}

/** Operations on reservations. */
export interface Reservations {
  /**
   * Reserves units for the caller, at the present prices: all lines or none.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND for an unknown item; INSUFFICIENT_STOCK;
   *   RESERVATION_LIMIT when the user holds too much
   */
  reserve(request: ReserveStockRequest, caller: Caller): Promise<Reservation>;
  /**
   * Commits a user's reservation: its units leave the stock without a payment, so only an operator may. Committing a
   * committed one changes nothing and returns it. A reservation that a service made for a user can be ended through that
   * service only.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND when the caller is no operator, and when a service made it;
   *   RESERVATION_EXPIRED; RESERVATION_NOT_ACTIVE when it was released
   */
  commit(request: EndReservationRequest, caller: Caller): Promise<Reservation>;
  /**
   * Releases a reservation of the caller: its units are available again. Releasing a released one changes nothing and
   * returns it.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND when it is not the caller's; RESERVATION_EXPIRED;
   *   RESERVATION_NOT_ACTIVE when it was committed
   */
  release(request: EndReservationRequest, caller: Caller): Promise<Reservation>;
  /**
   * Ends a reservation in the name of the service that made it for a user, whose token may have expired. The service can
   * do no more than with the token: it reaches only reservations that it made itself, for the user that it names. A
   * reservation that has ended already stays as it is; the returned state says how it ended.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing reservation, another user's, and one that this
   *   service did not make
   */
  settle(request: SettleReservationRequest, service: string): Promise<Reservation>;
  /**
   * Returns a reservation of the caller; operators may read all reservations.
   *
   * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing reservation and another user's
   */
  get(reservationId: string, caller: Caller): Promise<Reservation>;
  /**
   * Expires the reservations of all users that are due; returns how many. Any number of processes may sweep at once:
   * each reservation is expired by one of them.
   */
  sweep(): Promise<number>;
}

interface ReservationDeps extends ReserveDeps {
  readonly store: ReservationStore;
}

/** Creates the operations on reservations. */
export function createReservations(deps: ReservationDeps): Reservations {
  return {
    reserve: (request, caller) => reserveStock(deps, request, caller),
    commit: (request, caller) => endReservation(deps, request, caller, 'COMMITTED'),
    release: (request, caller) => endReservation(deps, request, caller, 'RELEASED'),
    settle: (request, service) => settleReservation(deps, request, service),
    get: (reservationId, caller) => getReservation(deps, reservationId, caller),
    sweep: () => sweepReservations(deps, { importance: 'promise' }),
  };
}

async function reserveStock(
  deps: ReservationDeps,
  request: ReserveStockRequest,
  caller: Caller,
): Promise<Reservation> {
  checkReserveStock(request, deps.limits);
  try {
    return await reserveLines(deps, request, caller);
  } catch (error) {
    // The missing units may belong to reservations that expired after the last sweep.
    const isMissing = error instanceof ServiceError && error.code === 'INSUFFICIENT_STOCK';
    if (!isMissing || !(await deps.store.hasDueReservations(caller.subject))) throw error;
    await sweepReservations(deps, { caller: caller.subject });
    return await reserveLines(deps, request, caller);
  }
}

const END_METHODS = { COMMITTED: 'CommitReservation', RELEASED: 'ReleaseReservation' } as const;

async function endReservation(
  { store }: ReservationDeps,
  { reservationId, requestId }: EndReservationRequest,
  caller: Caller,
  outcome: Outcome,
): Promise<Reservation> {
  const violations = createViolations();
  const id = violations.requireUuid('reservation_id', reservationId);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  const method = END_METHODS[outcome];
  const request = { subject: caller.subject, method, requestId, payload: payloadOf(id) };
  const ended = await store.changeReservationsOnce(
    request,
    async (transaction) => {
      const found = await transaction.lockReservation(id);
      // A reservation of a purchase must not be ended without the service that carries out the purchase.
      const mayEnd = found?.actingClient === undefined || found.actingClient === caller.actingClient;
      const reaches = outcome === 'COMMITTED' ? caller.isOperator : found?.owner === caller.subject;
      if (found === undefined || !reaches || !mayEnd) throw reservationNotFound();
      // An expiry is committed first and reported afterwards: an error thrown here would roll it back.
      return await endLocked(transaction, found, outcome, caller);
    },
    { caller: caller.subject },
  );
  if (ended.state !== outcome) throw wrongStateError(ended);
  return ended;
}

function wrongStateError({ state }: Reservation): ServiceError {
  if (state === 'EXPIRED') return new InventoryError('RESERVATION_EXPIRED', 'the reservation has expired');
  const description = state === 'COMMITTED' ? 'committed' : 'released';
  return new InventoryError('RESERVATION_NOT_ACTIVE', `the reservation was ${description} before`);
}

async function settleReservation(
  { store }: ReservationDeps,
  settlement: SettleReservationRequest,
  service: string,
): Promise<Reservation> {
  const { reservationId, outcome, authoriser, requestId } = validSettlement(settlement);
  const { userId, clientId, sessionId, tokenId } = authoriser;
  const payload = payloadOf(reservationId, outcome, userId, clientId, sessionId, tokenId);
  const request = { subject: service, method: 'SettleReservation', requestId, payload };
  return await store.changeReservationsOnce(
    request,
    async (transaction) => {
      const found = await transaction.lockReservation(reservationId);
      if (found === undefined || found.owner !== userId || found.actingClient !== service) {
        throw reservationNotFound();
      }
      const actor = { subject: userId, actingClient: service, authorisingToken: tokenId };
      return await endLocked(transaction, found, outcome, actor);
    },
    { importance: 'promise' },
  );
}

interface ValidSettlement extends EndReservationRequest {
  readonly outcome: Outcome;
  readonly authoriser: Authoriser;
}

function validSettlement(request: SettleReservationRequest): ValidSettlement {
  const { requestId, outcome, authoriser } = request;
  const violations = createViolations();
  const reservationId = violations.requireUuid('reservation_id', request.reservationId);
  violations.require('outcome', outcome !== undefined, 'must be COMMITTED or RELEASED');
  const { userId = '', clientId = '', sessionId = '', tokenId = '' } = authoriser ?? {};
  violations.requireForeignId('authoriser.user_id', userId);
  // Another issuer forms its identifiers as it likes, and may name no client and no session. A decided purchase of its user
  // must be settled all the same: nothing else would end it.
  if (clientId !== '') violations.requireForeignId('authoriser.client_id', clientId);
  if (sessionId !== '') violations.requireForeignId('authoriser.session_id', sessionId);
  violations.requireForeignId('authoriser.token_id', tokenId);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  if (outcome === undefined) throw new TypeError('a settlement without an outcome passed the checks');
  return { reservationId, outcome, authoriser: { userId, clientId, sessionId, tokenId }, requestId };
}

async function getReservation(
  { store }: ReservationDeps,
  reservationId: string,
  caller: Caller,
): Promise<Reservation> {
  const violations = createViolations();
  const id = violations.requireUuid('reservation_id', reservationId);
  violations.throwIfAny();
  const found = await store.findReservation(id, caller.subject);
  if (found === undefined) throw reservationNotFound();
  if (found.owner !== caller.subject && !caller.isOperator) throw reservationNotFound();
  if (found.state !== 'ACTIVE' || !found.isDue) return withoutInternals(found);
  return await store.changeReservations(
    async (transaction) => {
      const locked = await transaction.lockReservation(id);
      if (locked === undefined) throw reservationNotFound();
      const mustExpire = locked.state === 'ACTIVE' && locked.isDue;
      return mustExpire ? await expireLocked(transaction, locked) : withoutInternals(locked);
    },
    { caller: caller.subject },
  );
}

async function sweepReservations({ store }: ReservationDeps, place: StockPlace): Promise<number> {
  let expired = 0;
  for (let batch = 0; batch < SWEEP_BATCHES_MAX; batch += 1) {
    const count = await store.changeReservations(
      (transaction) => expireDue(transaction, EXPIRY_BATCH),
      place,
    );
    expired += count;
    if (count < EXPIRY_BATCH) break;
  }
  return expired;
}

/** One error for a missing reservation and another user's, so that ids cannot be probed. */
function reservationNotFound(): ServiceError {
  return new InventoryError('NOT_FOUND', 'there is no such reservation');
}
