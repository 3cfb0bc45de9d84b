/** A queue for work that costs much: each class of callers has a share of it, and within a class callers take turns. */

import type { Clock } from '@portcullis/guard/clock';
import { shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';

/** The classes of callers, and for each the number of its turns while all classes wait. */
const SHARES = {
  /** Authenticated callers, and networks from which this user or client has authenticated before. */
  known: 4,
  /** Names that have logged in lately, from any network. */
  recent: 2,
  unknown: 1,
} as const;

/** Of the work that runs at the same time, so much is never for unknown callers, if there is more than one piece. */
const UNKNOWN_LEAVE_FREE = 1;

/** The classes of callers, the most important first. */
export const CALLER_CLASSES = ['known', 'recent', 'unknown'] as const;

/** One of {@link CALLER_CLASSES}. */
export type CallerClass = (typeof CALLER_CLASSES)[number];

/** Why a queue refuses work: too much of it waits, or this has waited too long. */
export const QUEUE_LIMITS = ['full', 'waited'] as const;

/** One of {@link QUEUE_LIMITS}. */
export type QueueLimit = (typeof QUEUE_LIMITS)[number];

/** On whose behalf work is done. */
export interface QueueCaller {
  readonly importance: CallerClass;
  /** Callers of one class with different keys take turns: a network, a name or a client. */
  readonly key: string;
}

/** The configured limits of a queue. */
export interface QueueLimits {
  /** Maximum number of pieces of work that run at the same time. */
  readonly atOnceMax: number;
  /** Maximum number of callers of one class that wait. */
  readonly waitingMax: number;
  /** Maximum time that a caller waits, in milliseconds. */
  readonly waitMaxMs: number;
}

/** A queue. */
export interface FairQueue {
  /**
   * Runs the work when it is the caller's turn.
   *
   * @param signal - a caller that leaves gives up its place, unless its work has begun
   * @throws ServiceError RATE_LIMITED when the work was not begun; the reason of the signal
   */
  run<T>(caller: QueueCaller, work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
  /**
   * Refuses a caller for whom {@link run} would have no place, before the caller costs anything else.
   *
   * @throws ServiceError RATE_LIMITED
   */
  requirePlace(caller: QueueCaller): void;
  /** The number of waiting callers. */
  waiting(importance: CallerClass): number;
}

interface FairQueueDeps {
  /** What the work is, as the error names it. */
  readonly name: string;
  readonly limits: QueueLimits;
  readonly clock: Clock;
  readonly onRefused?: ((caller: QueueCaller, limit: QueueLimit) => void) | undefined;
}

/** Creates an empty queue. */
export function createFairQueue({ name, limits, clock, onRefused }: FairQueueDeps): FairQueue {
  const { atOnceMax, waitingMax, waitMaxMs } = limits;
  const lines = new Map(CALLER_CLASSES.map((importance) => [importance, new Lines(importance)]));
  const linesOf = (importance: CallerClass): Lines => lines.get(importance) ?? raise(importance);
  const unknownAtOnceMax = Math.max(1, atOnceMax - UNKNOWN_LEAVE_FREE);
  let running = 0;
  let runningUnknown = 0;
  /** The position of the last turn; a class that begins to wait starts from here. */
  let position = 0;

  const refusalOf = (what: string) =>
    shareError(new AuthError('RATE_LIMITED', `too many ${name} ${what}`, { retryAfterMs: waitMaxMs }));
  const refusals = { full: refusalOf('wait'), waited: refusalOf('were ahead') };
  const refuse = ({ caller, settle }: Waiter, limit: QueueLimit): void => {
    onRefused?.(caller, limit);
    settle(refusals[limit]);
  };
  const wait = (caller: QueueCaller, signal: AbortSignal | undefined): Promise<void> => {
    const own = linesOf(caller.importance);
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        own.remove(waiter);
        reject(signal?.reason);
      };
      const settle = (error?: Error): void => {
        signal?.removeEventListener('abort', leave);
        if (error === undefined) resolve();
        else reject(error);
      };
      const waiter = { caller, settle, sinceMs: clock.monotonicMs() };
      const displaced = own.add(waiter, waitingMax, position);
      signal?.addEventListener('abort', leave, { once: true });
      if (displaced !== undefined) refuse(displaced, 'full');
    });
  };
  const refuseLate = (): void => {
    const sinceMs = clock.monotonicMs() - waitMaxMs;
    for (const each of lines.values()) {
      for (const late of each.removeBefore(sinceMs)) refuse(late, 'waited');
    }
  };
  const mayRun = (importance: CallerClass): boolean =>
    running < atOnceMax && (importance !== 'unknown' || runningUnknown < unknownAtOnceMax);
  const count = ({ importance }: QueueCaller, by: 1 | -1): void => {
    running += by;
    if (importance === 'unknown') runningUnknown += by;
  };
  const next = (): Waiter | undefined => {
    refuseLate();
    const waiting = [...lines.values()].filter(({ size, importance }) => size > 0 && mayRun(importance));
    const first = waiting.reduce<Lines | undefined>(
      (best, each) => (best === undefined || each.position < best.position ? each : best),
      undefined,
    );
    if (first === undefined) return undefined;
    position = first.position;
    return first.shift();
  };

  return {
    run: async (caller, work, signal) => {
      signal?.throwIfAborted();
      if (mayRun(caller.importance)) count(caller, 1);
      else await wait(caller, signal);
      try {
        return await work();
      } finally {
        count(caller, -1);
        // The place passes to the next waiter at once, so that later callers cannot overtake it.
        for (let waiter = next(); waiter !== undefined; waiter = next()) {
          count(waiter.caller, 1);
          waiter.settle();
        }
      }
    },
    requirePlace: (caller) => {
      if (mayRun(caller.importance) || linesOf(caller.importance).hasPlaceFor(caller.key, waitingMax)) return;
      onRefused?.(caller, 'full');
      throw refusals.full;
    },
    waiting: (importance) => linesOf(importance).size,
  };
}

interface Waiter {
  readonly caller: QueueCaller;
  readonly sinceMs: number;
  /** Begins the work, or refuses it. */
  settle(error?: Error): void;
}

/** The waiting callers of one class: a line for each key. The lines take turns, in the order of the map. */
class Lines {
  size = 0;
  /** Grows with each turn, the more slowly the larger the share is: the class with the lowest position is next. */
  position = 0;
  readonly importance: CallerClass;
  readonly #share: number;
  readonly #lines = new Map<string, Waiter[]>();

  constructor(importance: CallerClass) {
    this.importance = importance;
    this.#share = SHARES[importance];
  }

  /** Whether {@link add} would have a place for a waiter with this key. */
  hasPlaceFor(key: string, waitingMax: number): boolean {
    if (this.size < waitingMax) return true;
    const [, longest = []] = this.#longest();
    return longest.length > (this.#lines.get(key)?.length ?? 0) + 1;
  }

  /**
   * Adds a waiter. When the class is full, the last waiter of the longest line gives way to one whose line is shorter.
   *
   * @returns the waiter that has no place: the new one, or the one that gave way
   */
  add(waiter: Waiter, waitingMax: number, position: number): Waiter | undefined {
    const { key } = waiter.caller;
    let displaced: Waiter | undefined;
    if (this.size >= waitingMax) {
      const [longestKey, longest] = this.#longest();
      const own = this.#lines.get(key)?.length ?? 0;
      if (longest === undefined || longest.length <= own + 1) return waiter;
      displaced = longest.pop();
      this.size -= 1;
      if (longest.length === 0) this.#lines.delete(longestKey);
    }
    if (this.size === 0) this.position = Math.max(this.position, position);
    const line = this.#lines.get(key);
    if (line === undefined) this.#lines.set(key, [waiter]);
    else line.push(waiter);
    this.size += 1;
    return displaced;
  }

  /** Removes a waiter that has left. */
  remove(waiter: Waiter): void {
    const { key } = waiter.caller;
    const line = this.#lines.get(key);
    const place = line?.indexOf(waiter) ?? -1;
    if (line === undefined || place === -1) return;
    line.splice(place, 1);
    this.size -= 1;
    if (line.length === 0) this.#lines.delete(key);
  }

  shift(): Waiter | undefined {
    const [first] = this.#lines;
    if (first === undefined) return undefined;
    const [key, line] = first;
    const waiter = line.shift();
    this.#lines.delete(key);
    if (line.length > 0) this.#lines.set(key, line);
    this.size -= 1;
    this.position += 1 / this.#share;
    return waiter;
  }

  /** Removes and returns the waiters that joined at this time or before. */
  removeBefore(sinceMs: number): Waiter[] {
    const removed: Waiter[] = [];
    for (const [key, line] of this.#lines) {
      const kept = line.findIndex((waiter) => waiter.sinceMs > sinceMs);
      removed.push(...line.splice(0, kept === -1 ? line.length : kept));
      if (line.length === 0) this.#lines.delete(key);
    }
    this.size -= removed.length;
    return removed;
  }

  #longest(): [key: string, line: Waiter[] | undefined] {
    let longest: [string, Waiter[] | undefined] = ['', undefined];
    for (const entry of this.#lines) {
      if (entry[1].length > (longest[1]?.length ?? 0)) longest = entry;
    }
    return longest;
  }
}

function raise(importance: CallerClass): never {
  throw new TypeError(`there is no class ${importance}`);
}
