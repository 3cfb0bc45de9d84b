/** Narrowing: what a change of the policy took from roles is taken from live sessions, a few hundred users at a time. */

import type { Clock } from '@portcullis/guard/clock';
import type { NarrowedUser, Narrowing } from '../records/policy.js';
import type { Appended, Receipt } from '../records/revocations.js';
import { enforcedEverywhereBy, userRevocation } from '../revocation/log.js';
import type { AuthStore, AuthTransaction } from '../transaction.js';

/** Maximum number of users whose tokens one transaction revokes, so that it locks the log only for a moment. */
export const BATCH_USERS_MAX = 500;

/** Longest commit that a receipt written before it allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

/** What a narrowing has done when it has ended. */
export interface NarrowingResult extends Omit<Receipt, 'enforcedEverywhereBy'> {
  /** The number of users whose earlier tokens were revoked. */
  readonly users: bigint;
  /** Undefined when nothing was revoked. */
  readonly enforcedEverywhereBy: Date | undefined;
}

/** Works off narrowings. Several processes may do so at the same time: one of them works on a batch. */
export interface Narrowings {
  /**
   * Runs batches until the narrowing has ended.
   *
   * @throws ServiceError DEPENDENCY_UNAVAILABLE; what was committed by then stays, and `resume` goes on
   */
  finish(narrowingId: bigint): Promise<NarrowingResult>;
  /** Finishes what a process that stopped has left, and returns the number of such narrowings. */
  resume(): Promise<number>;
  /** The number of narrowings that have not ended. */
  pending(): Promise<number>;
}

interface NarrowingsDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
  /** Called after the commit of each batch with the number of users whose tokens it revoked. */
  readonly onBatch?: ((users: number) => void) | undefined;
}

export function createNarrowings(deps: NarrowingsDeps): Narrowings {
  const finish = (narrowingId: bigint) => finishNarrowing(deps, narrowingId);
  return {
    finish,
    resume: async () => {
      const pending = await deps.store.transaction((tx) => tx.narrowings.pending());
      for (const narrowingId of pending) await finish(narrowingId);
      return pending.length;
    },
    pending: async () => (await deps.store.transaction((tx) => tx.narrowings.pending())).length,
  };
}

async function finishNarrowing(deps: NarrowingsDeps, narrowingId: bigint): Promise<NarrowingResult> {
  for (;;) {
    const { narrowing, ended } = await runBatch(deps, narrowingId);
    if (!ended) continue;
    const { users, sequence, enforcedEverywhereBy } = narrowing;
    return { users, sequence, enforcedEverywhereBy };
  }
}

/** One batch in one transaction, with the narrowing as it is afterwards. */
async function runBatch(
  { store, clock, onBatch }: NarrowingsDeps,
  narrowingId: bigint,
): Promise<{ readonly narrowing: Narrowing; readonly ended: boolean }> {
  const batch = await store.transaction(
    async (tx) => {
      const narrowing = await tx.narrowings.lock(narrowingId);
      if (narrowing === undefined) throw new TypeError(`there is no narrowing ${narrowingId}`);
      if (narrowing.ended) return { narrowing, users: 0, ended: true };
      const { userIds, next } = await tx.narrowings.usersAfter(narrowing, BATCH_USERS_MAX);
      const narrowed = userIds.length === 0 ? [] : await tx.narrowings.raiseGenerations(narrowing, userIds);
      const receipt = narrowed.length === 0 ? undefined : await revoke(tx, clock, narrowing, narrowed);
      const users = narrowed.length;
      const { sequence, enforcedEverywhereBy } = receipt ?? { sequence: 0n, enforcedEverywhereBy: undefined };
      await tx.narrowings.advance(narrowing, { next, users, sequence, enforcedEverywhereBy });
      const after = await tx.narrowings.find(narrowingId);
      return { narrowing: after ?? narrowing, users, ended: next === undefined };
    },
    // As important as any revocation.
    { importance: 'promise' },
  );
  if (batch.users > 0) onBatch?.(batch.users);
  return batch;
}

async function revoke(
  tx: AuthTransaction,
  clock: Clock,
  { actor, eventId }: Narrowing,
  users: readonly NarrowedUser[],
): Promise<Receipt> {
  await tx.narrowings.restamp(users.map(({ userId }) => userId));
  const startedMs = clock.monotonicMs();
  const appended = await tx.revocations.append(
    users.map(({ userId, generation }) => ({
      ...userRevocation(userId, generation),
      reason: 'policy changed',
      actor,
      eventId,
    })),
  );
  return receiptOf(appended, COMMIT_MS_MAX + clock.monotonicMs() - startedMs);
}

function receiptOf(appended: Appended, elapsedMs: number): Receipt {
  const last = appended.entries.at(-1);
  if (last === undefined) throw new TypeError('the log has written no entry');
  return { sequence: last.sequence, enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs) };
}
