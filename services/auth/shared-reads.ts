/** Lets one read answer many requests, but only those that had arrived before it began. */

import { systemTimers, type Timers } from '@portcullis/guard/clock';
import { AuthError } from './errors.js';

/** After this many milliseconds a read no longer keeps the next one from beginning. */
export const READ_PATIENCE_MS = 2000;

/** Most reads under way at once; more are begun only when one ends. */
export const READS_MAX = 4;

/** Most requests that wait for a read to begin. */
export const WAITING_MAX = 10_000;

/** Answers requests by reads that are shared. */
export interface NextRead<Request, Answer> {
  /**
   * The answer of a read that begins after this call.
   *
   * @throws what the read throws; ServiceError RATE_LIMITED when too many wait
   */
  ask(request: Request): Promise<Answer>;
}

/**
 * Shares reads. A request that arrives while a read is under way waits for the next one, since what that read
 * has seen may be older than the request. A read that hangs holds up the others only for a while.
 *
 * @param read - reads once for all of the requests; the function it returns answers one, or throws for it alone
 * @param patienceMs - how long a read keeps the next one from beginning
 * @param timers - what measures that
 */
export function createNextRead<Request, Answer>(
  read: (requests: readonly Request[]) => Promise<(request: Request) => Answer>,
  patienceMs: number = READ_PATIENCE_MS,
  timers: Timers = systemTimers,
): NextRead<Request, Answer> {
  let waiting: Waiting<Request, Answer>[] = [];
  let underWay = 0;
  let holding: symbol | undefined;

  const beginWhenPossible = (): void => {
    if (waiting.length === 0 || holding !== undefined || underWay >= READS_MAX) return;
    const served = waiting;
    waiting = [];
    underWay += 1;
    const held = Symbol('held');
    holding = held;
    const stop = timers.after(patienceMs, () => release(held));
    void serve(read, served).finally(() => {
      stop();
      underWay -= 1;
      release(held);
    });
  };
  const release = (held: symbol): void => {
    if (holding === held) holding = undefined;
    beginWhenPossible();
  };

  return {
    ask: (request) => {
      if (waiting.length >= WAITING_MAX) {
        return Promise.reject(
          new AuthError('RATE_LIMITED', 'too many instances wait for an answer', { retryAfterMs: 1000 }),
        );
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
