/** An administrator's change that revokes tokens: it runs once, with its revocation in the same transaction. */

import type { Clock } from '@portcullis/guard/clock';
import type { Appended, NewEntry, Receipt } from '../records/revocations.js';
import type { AuthStore, AuthTransaction, IdempotentRequest } from '../transaction.js';
import { enforcedEverywhereBy } from './log.js';

/** The result of a change, and the entry that revokes tokens. */
export interface RevokingChange<T> {
  readonly result: T;
  readonly entry: NewEntry;
}

export interface ChangeAndRevokeDeps {
  readonly store: AuthStore;
  readonly clock: Clock;
}

/** Longest commit that an answer written before it allows for, in milliseconds. */
const COMMIT_MS_MAX = 1000;

/**
 * Runs the work and appends its entry, once per request id; a repeated request gets the first answer. The work locks its
 * rows before it returns, so that the lock on the log comes last.
 */
export async function changeAndRevoke<T extends object>(
  deps: ChangeAndRevokeDeps,
  request: IdempotentRequest,
  work: (tx: AuthTransaction) => Promise<RevokingChange<T>>,
): Promise<T & Receipt> {
  return (await change(deps, request, work)) as T & Receipt;
}

/** Like {@link changeAndRevoke}, for work that revokes only sometimes; without an entry there is no receipt. */
export async function changeAndPerhapsRevoke<T extends object>(
  deps: ChangeAndRevokeDeps,
  request: IdempotentRequest,
  work: (tx: AuthTransaction) => Promise<Change<T>>,
): Promise<T & { readonly revocation: Receipt | undefined }> {
  const { sequence, enforcedEverywhereBy, ...result } = await change(deps, request, work);
  const isRevoking = sequence !== undefined && enforcedEverywhereBy !== undefined;
  return {
    ...(result as T & object),
    revocation: isRevoking ? { sequence, enforcedEverywhereBy } : undefined,
  };
}

/** The result of a change, and the entry if it revokes tokens. */
interface Change<T> {
  readonly result: T;
  readonly entry: NewEntry | undefined;
}

async function change<T extends object>(
  { store, clock }: ChangeAndRevokeDeps,
  request: IdempotentRequest,
  work: (tx: AuthTransaction) => Promise<Change<T>>,
): Promise<T & Partial<Receipt>> {
  let fresh: { appended: Appended; startedMs: number } | undefined;
  // As important as a revocation: an administrator's callers are few, and must not wait behind those they disable.
  const place = { importance: 'promise' } as const;
  const answer = await store.transaction((tx) => {
    fresh = undefined;
    return tx.once(request, async () => {
      const { result, entry } = await work(tx);
      if (entry === undefined) return result;
      const startedMs = clock.monotonicMs();
      const appended = await tx.revocations.append([entry]);
      fresh = { appended, startedMs };
      // The answer is stored with the request, so it is written before the commit.
      return { ...result, ...receiptOf(appended, COMMIT_MS_MAX + clock.monotonicMs() - startedMs) };
    });
  }, place);
  if (fresh === undefined) return answer;
  return { ...answer, ...receiptOf(fresh.appended, clock.monotonicMs() - fresh.startedMs) };
}

/**
 * The receipt of a transaction that wrote one entry.
 *
 * @param elapsedMs - at least the time from before the log was locked until the commit was confirmed
 */
export function receiptOf(appended: Appended, elapsedMs: number): Receipt {
  const [entry] = appended.entries;
  if (entry === undefined) throw new TypeError('the log has written no entry');
  return { sequence: entry.sequence, enforcedEverywhereBy: enforcedEverywhereBy(appended, elapsedMs) };
}
