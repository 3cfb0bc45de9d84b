/** Units set aside for a user: reserved all lines or none, then committed, released or expired exactly once. */

import { ServiceError } from '@portcullis/guard/errors';
import type { Money } from '../common/money.js';
import { createViolations, type Violations } from '../common/validation/violations.js';
import { InventoryError } from './errors.js';
import { unknownItem } from './items.js';
import {
  type Actor,
  type Caller,
  type ChangeKind,
  type Item,
  payloadOf,
  type RepeatableRequest,
  type StockTransaction,
} from './stock.js';

/** Lines of one reservation at most. */
export const LINES_MAX = 50;
/** Units of one line at most. */
export const QUANTITY_MAX = 1_000_000n;
/** How long a reservation holds when the caller does not say. */
export const TIME_TO_LIVE_SECONDS_DEFAULT = 600;
/** The shortest time that a reservation may hold. */
export const TIME_TO_LIVE_SECONDS_MIN = 1;
/** The longest time that a reservation may hold. */
export const TIME_TO_LIVE_SECONDS_MAX = 3600;
/** Reservations expired in one transaction: few, so that their items are not locked for long. */
export const EXPIRY_BATCH = 20;
/** Batches that one sweep takes before it yields to the next one. */
export const SWEEP_BATCHES_MAX = 50;

/** How far a reservation has come. */
export type ReservationState = 'ACTIVE' | 'COMMITTED' | 'RELEASED' | 'EXPIRED';

/** A number of units of one item. */
export interface OrderLine {
  readonly sku: string;
  readonly quantity: bigint;
}

/** A number of units of one item, at the price of the moment of reservation. */
export interface ReservationLine extends OrderLine {
  readonly unitPrice: Money;
}

/** Units set aside for one user. */
export interface Reservation {
  readonly reservationId: string;
  /** The subject it belongs to. */
  readonly owner: string;
  readonly state: ReservationState;
  /** As they were ordered. */
  readonly lines: readonly ReservationLine[];
  readonly createTime: Date;
  readonly expireTime: Date;
}

/** A reservation as it is in the database. */
export interface StoredReservation extends Reservation {
  /** The service that acted for the owner when it was made; undefined when the owner came by itself. */
  readonly actingClient: string | undefined;
  /** Whether its time is up by the database's clock, although its state may not say so yet. */
  readonly isDue: boolean;
}

/** A reservation to be. */
export interface NewReservation {
  readonly owner: string;
  readonly actingClient: string | undefined;
  readonly lines: readonly ReservationLine[];
  readonly timeToLiveMicroseconds: bigint;
}

/** What a transaction on reservations can do. Reservations are locked before items. */
export interface ReservationTransaction extends StockTransaction {
  /** Adds a reservation that begins now, by the database's clock. */
  insertReservation(reservation: NewReservation): Promise<Reservation>;
  /** Locks a reservation until the end of the transaction; undefined when there is none. */
  lockReservation(reservationId: string): Promise<StoredReservation | undefined>;
  /** Locks active reservations whose time is up, the oldest first; leaves out those that others have locked. */
  lockDueReservations(limit: number): Promise<readonly StoredReservation[]>;
  /** Gives a locked reservation its last state. */
  endReservation(reservationId: string, state: Exclude<ReservationState, 'ACTIVE'>): Promise<void>;
}

/** What the functions of this file need of a store. */
export interface ReservationStore {
  getReservation(reservationId: string): Promise<StoredReservation | undefined>;
  /** Whether there is an active reservation whose time is up. */
  hasDueReservations(): Promise<boolean>;
  /** Commits what the work did, or nothing; the work may run again after a conflict. */
  changeReservations<T>(work: (transaction: ReservationTransaction) => Promise<T>): Promise<T>;
  /** The same, once for a request; a repeated request gets the first answer. */
  changeReservationsOnce<T>(
    request: RepeatableRequest,
    work: (transaction: ReservationTransaction) => Promise<T>,
  ): Promise<T>;
}

/** What the functions of this file need. */
export interface ReservationDeps {
  readonly store: ReservationStore;
}

/** A length of time as it comes over the wire. */
export interface TimeToLive {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** Asks to set units aside. */
export interface ReserveStockRequest {
  readonly lines: readonly OrderLine[];
  readonly timeToLive: TimeToLive | undefined;
  readonly requestId: string;
}

/** Asks to commit or release a reservation. */
export interface EndReservationRequest {
  readonly reservationId: string;
  readonly requestId: string;
}

/**
 * Sets units aside for the caller, at the present prices: all lines or none.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND for an unknown item; INSUFFICIENT_STOCK
 */
export async function reserveStock(
  deps: ReservationDeps,
  caller: Caller,
  request: ReserveStockRequest,
): Promise<Reservation> {
  checkReserveStock(request);
  try {
    return await reserve(deps, caller, request);
  } catch (error) {
    // What is missing may be held by reservations that have run out since the last sweep.
    const isMissing = error instanceof ServiceError && error.code === 'INSUFFICIENT_STOCK';
    if (!isMissing || !(await deps.store.hasDueReservations())) throw error;
    await sweepReservations(deps);
    return await reserve(deps, caller, request);
  }
}

/**
 * Hands the reserved units out for good: they leave the stock. Committing what is committed
 * already changes nothing and answers the same. What a service has set aside for the caller is
 * ended through that service alone.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND when it is not the caller's; RESERVATION_EXPIRED;
 *   RESERVATION_NOT_ACTIVE when it was released
 */
export function commitReservation(
  deps: ReservationDeps,
  caller: Caller,
  request: EndReservationRequest,
): Promise<Reservation> {
  return end(deps, caller, request, { method: 'CommitReservation', state: 'COMMITTED' });
}

/**
 * Gives the reserved units back. Releasing what is released already changes nothing and answers
 * the same.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND when it is not the caller's; RESERVATION_EXPIRED;
 *   RESERVATION_NOT_ACTIVE when it was committed
 */
export function releaseReservation(
  deps: ReservationDeps,
  caller: Caller,
  request: EndReservationRequest,
): Promise<Reservation> {
  return end(deps, caller, request, { method: 'ReleaseReservation', state: 'RELEASED' });
}

/** On whose word a service ends a reservation, by identifiers alone. */
export interface Authoriser {
  readonly userId: string;
  /** Empty when the token had none. */
  readonly clientId: string;
  /** Empty when the token had none. */
  readonly sessionId: string;
  readonly tokenId: string;
}

/** Asks to end a reservation on the recorded word of its owner. */
export interface SettleReservationRequest extends EndReservationRequest {
  readonly outcome: 'COMMITTED' | 'RELEASED' | undefined;
  readonly authoriser: Authoriser | undefined;
}

/**
 * Ends a reservation in the name of the service that made it for a user, when that user's token may have expired.
 * The service can do nothing that it could not do with the token: it reaches only what it has reserved itself, for
 * the user whom it names. What has ended already stays as it is, and the answer says how.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a reservation that is missing, of another user, or
 *   made without this service
 */
export async function settleReservation(
  deps: ReservationDeps,
  service: string,
  { reservationId, requestId, outcome, authoriser }: SettleReservationRequest,
): Promise<Reservation> {
  const violations = createViolations();
  const id = violations.requireUuid('reservation_id', reservationId);
  violations.require('outcome', outcome !== undefined, 'must be COMMITTED or RELEASED');
  const { userId = '', clientId = '', sessionId = '', tokenId = '' } = authoriser ?? {};
  violations.requireForeignId('authoriser.user_id', userId);
  // Another issuer forms its identifiers as it likes, and may name no client and no session. A purchase of its user
  // that is decided must be settled all the same: nothing else would ever end it.
  if (clientId !== '') violations.requireForeignId('authoriser.client_id', clientId);
  if (sessionId !== '') violations.requireForeignId('authoriser.session_id', sessionId);
  violations.requireForeignId('authoriser.token_id', tokenId);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  if (outcome === undefined) throw new TypeError('a missing outcome was let through');
  const payload = payloadOf(id, outcome, userId, clientId, sessionId, tokenId);
  const request = { subject: service, method: 'SettleReservation', requestId, payload };
  return await deps.store.changeReservationsOnce(request, async (reservations) => {
    const found = await reservations.lockReservation(id);
    if (found === undefined || found.owner !== userId || found.actingClient !== service) {
      throw unknownReservation();
    }
    const actor = { subject: userId, actingClient: service, authorisingToken: tokenId };
    return await endLocked(reservations, found, outcome, actor);
  });
}

/**
 * One of the caller's reservations; an operator may read anyone's.
 *
 * @throws ServiceError FIELD_INVALID; NOT_FOUND, the same for a missing and a foreign one
 */
export async function getReservation(
  deps: ReservationDeps,
  caller: Caller,
  reservationId: string,
): Promise<Reservation> {
  const violations = createViolations();
  const id = violations.requireUuid('reservation_id', reservationId);
  violations.throwIfAny();
  const found = await deps.store.getReservation(id);
  if (found === undefined || !(caller.isOperator || isOwn(found, caller))) throw unknownReservation();
  if (found.state !== 'ACTIVE' || !found.isDue) return plain(found);
  return await deps.store.changeReservations(async (reservations) => {
    const locked = await reservations.lockReservation(id);
    if (locked === undefined) throw unknownReservation();
    return locked.state === 'ACTIVE' && locked.isDue ? await expire(reservations, locked) : plain(locked);
  });
}

/**
 * Expires the reservations whose time is up, whoever owns them, and answers how many. Any number
 * of processes may sweep at once: each reservation falls to one of them.
 */
export async function sweepReservations(deps: ReservationDeps): Promise<number> {
  let expired = 0;
  for (let batch = 0; batch < SWEEP_BATCHES_MAX; batch += 1) {
    const count = await deps.store.changeReservations(async (reservations) => {
      const due = await reservations.lockDueReservations(EXPIRY_BATCH);
      // All items at once, in their order, before any is moved: one reservation after the other could deadlock.
      await lockItemsOf(reservations, due);
      for (const reservation of due) {
        await settle(reservations, reservation, { kind: 'EXPIRED', actor: undefined });
      }
      return due.length;
    });
    expired += count;
    if (count < EXPIRY_BATCH) break;
  }
  return expired;
}

function checkReserveStock({ lines, timeToLive, requestId }: ReserveStockRequest): void {
  const violations = createViolations();
  const hasGoodLength = lines.length >= 1 && lines.length <= LINES_MAX;
  violations.require('lines', hasGoodLength, `must be 1 to ${LINES_MAX}`);
  // Too many lines are not looked at one by one: there may be a million.
  if (hasGoodLength) checkLines(lines, violations);
  if (timeToLive !== undefined) checkTimeToLive(timeToLive, violations);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
}

function checkLines(lines: readonly OrderLine[], violations: Violations): void {
  const seen = new Set<string>();
  for (const [index, { sku, quantity }] of lines.entries()) {
    violations.requireSku(`lines[${index}].sku`, sku);
    violations.require(`lines[${index}].sku`, !seen.has(sku), 'must not be in another line as well');
    violations.requireRange(`lines[${index}].quantity`, quantity, { min: 1n, max: QUANTITY_MAX });
    seen.add(sku);
  }
}

function checkTimeToLive({ seconds, nanos }: TimeToLive, violations: Violations): void {
  const min = BigInt(TIME_TO_LIVE_SECONDS_MIN);
  const max = BigInt(TIME_TO_LIVE_SECONDS_MAX);
  const isDuration = Number.isInteger(nanos) && nanos >= 0 && nanos < 1_000_000_000;
  const isWithin = seconds >= min && (seconds < max || (seconds === max && nanos === 0));
  const description = `must be ${TIME_TO_LIVE_SECONDS_MIN} to ${TIME_TO_LIVE_SECONDS_MAX} seconds`;
  violations.require('time_to_live', isDuration && isWithin, description);
}

function reserve(
  { store }: ReservationDeps,
  caller: Caller,
  { lines, timeToLive, requestId }: ReserveStockRequest,
): Promise<Reservation> {
  const { subject } = caller;
  const payload = payloadOf(
    lines.map(({ sku, quantity }) => [sku, quantity]),
    timeToLive === undefined ? null : [timeToLive.seconds, timeToLive.nanos],
  );
  const request = { subject, method: 'ReserveStock', requestId, payload };
  return store.changeReservationsOnce(request, async (reservations) => {
    const items = new Map<string, Item>();
    for (const item of await reservations.lockItems(lines.map(({ sku }) => sku))) items.set(item.sku, item);
    const priced = priceLines(lines, items);
    checkAvailable(priced, items);
    const timeToLiveMicroseconds = microsecondsOf(timeToLive);
    const reservation = await reservations.insertReservation({
      owner: subject,
      actingClient: caller.actingClient,
      lines: priced,
      timeToLiveMicroseconds,
    });
    await reservations.move({
      kind: 'RESERVED',
      actor: caller,
      reason: '',
      reservationId: reservation.reservationId,
      deltas: lines.map(({ sku, quantity }) => ({ sku, onHand: 0n, reserved: quantity })),
    });
    return reservation;
  });
}

function priceLines(lines: readonly OrderLine[], items: ReadonlyMap<string, Item>): ReservationLine[] {
  return lines.map(({ sku, quantity }) => {
    const item = items.get(sku);
    if (item === undefined) throw unknownItem(sku);
    return { sku, quantity, unitPrice: item.unitPrice };
  });
}

function checkAvailable(lines: readonly OrderLine[], items: ReadonlyMap<string, Item>): void {
  const missing = lines.flatMap(({ sku, quantity }) => {
    const { onHand, reserved } = items.get(sku) ?? { onHand: 0n, reserved: 0n };
    const free = onHand - reserved;
    return quantity > free ? [`${free} of ${sku}`] : [];
  });
  if (missing.length === 0) return;
  throw new InventoryError('INSUFFICIENT_STOCK', `not enough in stock: there are ${missing.join(', ')}`);
}

function microsecondsOf(timeToLive: TimeToLive | undefined): bigint {
  if (timeToLive === undefined) return BigInt(TIME_TO_LIVE_SECONDS_DEFAULT) * 1_000_000n;
  return timeToLive.seconds * 1_000_000n + BigInt(Math.floor(timeToLive.nanos / 1000));
}

type Ending = {
  readonly method: 'CommitReservation' | 'ReleaseReservation';
  readonly state: 'COMMITTED' | 'RELEASED';
};

async function end(
  { store }: ReservationDeps,
  caller: Caller,
  { reservationId, requestId }: EndReservationRequest,
  { method, state }: Ending,
): Promise<Reservation> {
  const violations = createViolations();
  const id = violations.requireUuid('reservation_id', reservationId);
  violations.requireRequestId(requestId);
  violations.throwIfAny();
  const request = { subject: caller.subject, method, requestId, payload: payloadOf(id) };
  const ended = await store.changeReservationsOnce(request, async (reservations) => {
    const found = await reservations.lockReservation(id);
    // What a service set aside for a purchase must not leave, or go back, behind the purchase's back.
    const isThrough = found?.actingClient === undefined || found.actingClient === caller.actingClient;
    if (found === undefined || !isOwn(found, caller) || !isThrough) throw unknownReservation();
    // An expiry is committed and told afterwards: an error thrown here would undo it.
    return await endLocked(reservations, found, state, caller);
  });
  if (ended.state === state) return ended;
  if (ended.state === 'EXPIRED')
    throw new InventoryError('RESERVATION_EXPIRED', 'the reservation has expired');
  const description = ended.state === 'COMMITTED' ? 'committed' : 'released';
  throw new InventoryError('RESERVATION_NOT_ACTIVE', `the reservation was ${description} before`);
}

/** Ends a reservation whose row is locked, unless it has ended before or its time is up. */
async function endLocked(
  reservations: ReservationTransaction,
  found: StoredReservation,
  state: Ending['state'],
  actor: Actor,
): Promise<Reservation> {
  if (found.state !== 'ACTIVE') return plain(found);
  if (found.isDue) return await expire(reservations, found);
  await lockItemsOf(reservations, [found]);
  return await settle(reservations, found, { kind: state, actor });
}

async function expire(
  reservations: ReservationTransaction,
  reservation: StoredReservation,
): Promise<Reservation> {
  await lockItemsOf(reservations, [reservation]);
  return await settle(reservations, reservation, { kind: 'EXPIRED', actor: undefined });
}

async function lockItemsOf(
  reservations: ReservationTransaction,
  locked: readonly Reservation[],
): Promise<void> {
  const skus = new Set(locked.flatMap(({ lines }) => lines.map(({ sku }) => sku)));
  if (skus.size > 0) await reservations.lockItems([...skus]);
}

/** Ends a reservation whose row and items are locked; a committed one takes its units out of the stock. */
async function settle(
  reservations: ReservationTransaction,
  reservation: StoredReservation,
  {
    kind,
    actor,
  }: { kind: Extract<ChangeKind, 'COMMITTED' | 'RELEASED' | 'EXPIRED'>; actor: Actor | undefined },
): Promise<Reservation> {
  const { reservationId, lines } = reservation;
  const deltas = lines.map(({ sku, quantity }) => {
    return { sku, onHand: kind === 'COMMITTED' ? -quantity : 0n, reserved: -quantity };
  });
  await reservations.endReservation(reservationId, kind);
  await reservations.move({ kind, actor, reason: '', reservationId, deltas });
  return plain({ ...reservation, state: kind });
}

function isOwn(reservation: Reservation, caller: Caller): boolean {
  return reservation.owner === caller.subject;
}

/** One answer for a missing and a foreign reservation, so that ids cannot be tried out. */
function unknownReservation(): ServiceError {
  return new InventoryError('NOT_FOUND', 'there is no such reservation');
}

function plain({
  isDue: _isDue,
  actingClient: _actingClient,
  ...reservation
}: StoredReservation): Reservation {
  return reservation;
}
