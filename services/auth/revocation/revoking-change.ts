/** An administrator's change that kills tokens: carried out once, with its revocation in the same transaction. */

import type { Clock } from '@portcullis/guard/clock';
import type { Appended, NewEntry, Receipt } from '../records/revocations.js';
import type { AuthStore, AuthTransaction, IdempotentRequest } from '../transaction.js';
import { enforcedEverywhereBy } from './log.js';

/** What a change has done in its transaction, and what it takes back. */
export interface RevokingChange<T> {
  readonly result: T;
  readonly entry: NewEntry;
}

/** What {@link changeAndRevoke} needs. */
export interface ChangeAndRevokeDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
}

/** How long a commit may take, in milliseconds, for an answer that is written before it. */
const COMMIT_MS_MAX = 1000;

/**
 * Runs the work and writes its entry to the log, once per request id; the same request gets the first answer again.
 * The work locks its rows before it answers, and the log comes last.
 */
export async function changeAndRevoke<T extends object>(
  { store, clock }: ChangeAndRevokeDeps,
  request: IdempotentRequest,
  work: (tx: AuthTransaction) => Promise<RevokingChange<T>>,
): Promise<T & Receipt> {
  let fresh: { appended: Appended; startedMs: number } | undefined;
  const answer = await store.transaction((tx) => {
    fresh = undefined;
    return tx.once(request, async () => {
      const { result, entry } = await work(tx);
      const startedMs = clock.monotonicMs();
      const appended = await tx.revocations.append([entry]);
      fresh = { appended, startedMs };
      // The answer is kept with the request, so it is made before the commit.
      return { ...result, ...receiptOf(appended, COMMIT_MS_MAX + clock.monotonicMs() - startedMs) };
    });
  });
  if (fresh === undefined) return answer;
  return { ...answer, ...receiptOf(fresh.appended, clock.monotonicMs() - fresh.startedMs) };
}

/**
 * What is known of the one entry that was written.
 *
 * @param elapsedMs - from before the log was locked until the commit was known, or more
 */
export function receiptOf(appended: Appended, elapsedMs: number): Receipt {
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return { sequence: entry.sequence, enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs) };
}
