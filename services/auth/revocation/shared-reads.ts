/** Shared reads: one read answers many requests, but only requests that arrived before it began. */

import { systemTimers, type Timers } from '@portcullis/guard/clock';
import { shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';

/** Longest time for which a read that is under way blocks the next one, in milliseconds. */
export const READ_BLOCKING_MS_MAX = 2000;

/** Maximum number of reads under way at once. */
export const CONCURRENT_READS_MAX = 4;

/** Maximum number of requests that wait for a read to begin. */
const WAITING_REQUESTS_MAX = 10_000;

const TOO_MANY_READS = shareError(
  new AuthError('RATE_LIMITED', 'too many requests wait for a read', { retryAfterMs: 1000 }),
);

/** Answers requests from shared reads. */
export interface SharedReads<Request, Answer> {
  /**
   * Returns the answer of a read that begins after this call.
   *
   * @throws what the read throws; ServiceError RATE_LIMITED when too many requests wait
   */
  read(request: Request): Promise<Answer>;
}

/**
 * Creates shared reads. A request that arrives while a read is under way waits for the next one, because what that
 * read has seen may be older than the request. A read that hangs blocks the next one only for a bounded time.
 *
 * @param read - reads once for all requests; the function it returns answers one request, or throws for that one alone
 * @param blockingMsMax - longest time for which a read blocks the next one, in milliseconds
 * @param intervalMs - shortest time from the beginning of one read to that of the next, in milliseconds
 */
export function createSharedReads<Request, Answer>(
  read: (requests: readonly Request[]) => Promise<(request: Request) => Answer>,
  blockingMsMax: number = READ_BLOCKING_MS_MAX,
  timers: Timers = systemTimers,
  intervalMs = 0,
): SharedReads<Request, Answer> {
  let waiting: Waiting<Request, Answer>[] = [];
  let underWay = 0;
  let blocking: symbol | undefined;
  let isTooSoon = false;

  const beginWhenPossible = (): void => {
    if (waiting.length === 0 || blocking !== undefined || isTooSoon || underWay >= CONCURRENT_READS_MAX)
      return;
    if (intervalMs > 0) pace();
    const served = waiting;
    waiting = [];
    underWay += 1;
    const own = Symbol('read');
    blocking = own;
    const stop = timers.after(blockingMsMax, () => unblock(own));
    void serve(read, served).finally(() => {
      stop();
      underWay -= 1;
      unblock(own);
    });
  };
  const pace = (): void => {
    isTooSoon = true;
    timers.after(intervalMs, () => {
      isTooSoon = false;
      beginWhenPossible();
    });
  };
  const unblock = (own: symbol): void => {
    if (blocking === own) blocking = undefined;
    beginWhenPossible();
  };

  return {
    read: (request) => {
      if (waiting.length >= WAITING_REQUESTS_MAX) {
        return Promise.reject(TOO_MANY_READS);
      }
      return new Promise((resolve, reject) => {
        waiting.push({ request, resolve, reject });
        beginWhenPossible();
      });
    },
  };
}

interface Waiting<Request, Answer> {
  readonly request: Request;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (cause: unknown) => void;
}

async function serve<Request, Answer>(
  read: (requests: readonly Request[]) => Promise<(request: Request) => Answer>,
  served: readonly Waiting<Request, Answer>[],
): Promise<void> {
  try {
    const answer = await read(served.map(({ request }) => request));
    for (const { request, resolve, reject } of served) {
      try {
        resolve(answer(request));
      } catch (error) {
        reject(error);
      }
    }
  } catch (error) {
    for (const { reject } of served) reject(error);
  }
}
