/** Turns at work that costs much: so much of it runs at once, of one caller only a part. Callers take turns. */

import { systemTimers, type Timers } from '@portcullis/guard/clock';
import { type ServiceError, shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';

export interface TurnLimits {
  /** Maximum number of turns that are taken at once. */
  readonly atOnceMax: number;
  /** The part of them that one caller may have. */
  readonly atOncePerCallerMax: number;
  /** Maximum number of turns for which one caller waits. */
  readonly waitingPerCallerMax: number;
  /** The error of a caller that waits for too many. */
  readonly refusal: ServiceError;
}

/**
 * The limits of Pulls. The instances of one client wait for each other, and those of other clients do not.
 */
export const PULL_LIMITS: TurnLimits = {
  atOnceMax: 64,
  atOncePerCallerMax: 16,
  waitingPerCallerMax: 1000,
  refusal: new AuthError('RATE_LIMITED', 'too many instances pull the list', { retryAfterMs: 1000 }),
};

/** The turns. */
export interface Turns {
  /**
   * Waits for a turn.
   *
   * @param signal - a caller that leaves gives up its place
   * @returns a function that ends the turn
   * @throws ServiceError the refusal, when the caller waits for too many; the reason of the signal
   */
  take(caller: string, signal: AbortSignal): Promise<() => void>;
}

/** What one caller has. */
interface Line {
  running: number;
  /** In the order of their arrival. */
  readonly waiting: Set<() => void>;
}

/** Creates turns of which none is taken. */
export function createTurns(limits: TurnLimits, timers: Pick<Timers, 'soon'> = systemTimers): Turns {
  const { atOnceMax, atOncePerCallerMax, waitingPerCallerMax } = limits;
  const refusal = shareError(limits.refusal);
  /** In the order in which the callers get the next turn. */
  const lines = new Map<string, Line>();
  let running = 0;
  /** Turns that have ended are about to pass to those that wait. */
  let isPassing = false;

  const begin = (caller: string, line: Line): (() => void) => {
    running += 1;
    line.running += 1;
    return () => {
      running -= 1;
      line.running -= 1;
      if (line.running === 0 && line.waiting.size === 0) lines.delete(caller);
      passOn();
    };
  };
  /** Once everything that ends in this turn of the event loop has ended: callers that leave together begin nothing more. */
  const passOn = (): void => {
    if (isPassing) return;
    isPassing = true;
    timers.soon(() => {
      isPassing = false;
      while (beginNext());
    });
  };
  /** @returns whether a turn has begun */
  const beginNext = (): boolean => {
    if (running >= atOnceMax) return false;
    for (const [caller, line] of lines) {
      const [next] = line.waiting;
      if (next === undefined || line.running >= atOncePerCallerMax) continue;
      line.waiting.delete(next);
      lines.delete(caller);
      lines.set(caller, line);
      next();
      return true;
    }
    return false;
  };

  return {
    take: async (caller, signal) => {
      signal.throwIfAborted();
      const line = lines.get(caller) ?? { running: 0, waiting: new Set() };
      lines.set(caller, line);
      if (!isPassing && running < atOnceMax && line.running < atOncePerCallerMax) return begin(caller, line);
      // As many as there are free turns will begin in a moment, and then wait no longer.
      const passing = isPassing ? Math.min(atOnceMax - running, atOncePerCallerMax - line.running) : 0;
      if (line.waiting.size >= waitingPerCallerMax + passing) throw refusal;
      return await new Promise((resolve, reject) => {
        const start = (): void => {
          signal.removeEventListener('abort', leave);
          resolve(begin(caller, line));
        };
        const leave = (): void => {
          line.waiting.delete(start);
          if (line.running === 0 && line.waiting.size === 0) lines.delete(caller);
          reject(signal.reason);
        };
        line.waiting.add(start);
        signal.addEventListener('abort', leave, { once: true });
      });
    },
  };
}
