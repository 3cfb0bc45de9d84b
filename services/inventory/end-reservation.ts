/** Ending reservations: each is committed, released or expired exactly once. */

import type { Actor } from './caller.js';
import type { Reservation, ReservationTransaction, StoredReservation } from './reservation.js';
import type { ChangeKind } from './stock.js';

/** A state that a caller may ask for. */
export type Outcome = 'COMMITTED' | 'RELEASED';

/** Ends a locked reservation. One that has ended already stays as it is; one that is due expires. */
export async function endLocked(
  transaction: ReservationTransaction,
  found: StoredReservation,
  outcome: Outcome,
  actor: Actor,
): Promise<Reservation> {
  if (found.state !== 'ACTIVE') return withoutInternals(found);
  if (found.isDue) return await expireLocked(transaction, found);
  await lockItemsOf(transaction, [found]);
  return await writeEnd(transaction, found, outcome, actor);
}

/** Expires a locked reservation. */
export async function expireLocked(
  transaction: ReservationTransaction,
  found: StoredReservation,
): Promise<Reservation> {
  await lockItemsOf(transaction, [found]);
  return await writeEnd(transaction, found, 'EXPIRED', undefined);
}

/** Expires up to `limit` reservations that are due; returns how many. */
export async function expireDue(transaction: ReservationTransaction, limit: number): Promise<number> {
  const due = await transaction.lockDueReservations(limit);
  // All items are locked at once, in their order, before any is moved. Locking them one reservation at a time could deadlock.
  await lockItemsOf(transaction, due);
  for (const reservation of due) await writeEnd(transaction, reservation, 'EXPIRED', undefined);
  return due.length;
}

/** The reservation without the fields that only the domain needs. */
export function withoutInternals(stored: StoredReservation): Reservation {
  const { isDue: _isDue, actingClient: _actingClient, ...reservation } = stored;
  return reservation;
}

async function lockItemsOf(
  transaction: ReservationTransaction,
  locked: readonly Reservation[],
): Promise<void> {
  const skus = new Set(locked.flatMap(({ lines }) => lines.map(({ sku }) => sku)));
  if (skus.size > 0) await transaction.lockItems([...skus]);
}

/** Ends a reservation whose row and items are locked. A commit takes its units out of the stock. */
async function writeEnd(
  transaction: ReservationTransaction,
  reservation: StoredReservation,
  kind: Extract<ChangeKind, 'COMMITTED' | 'RELEASED' | 'EXPIRED'>,
  actor: Actor | undefined,
): Promise<Reservation> {
  const { reservationId, lines } = reservation;
  const deltas = lines.map(({ sku, quantity }) => {
    return { sku, onHand: kind === 'COMMITTED' ? -quantity : 0n, reserved: -quantity };
  });
  await transaction.endReservation(reservationId, kind);
  await transaction.move({ kind, actor, reason: '', reservationId, deltas });
  return withoutInternals({ ...reservation, state: kind });
}
