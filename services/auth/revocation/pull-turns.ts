/** The turns of Pulls: so many lists are sent at once, and to one client only a part of them. Clients take turns. */

import { shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';

/** Maximum number of Pulls that are answered at once. */
export const PULLS_MAX = 64;

/** The part of them that one client may have: its instances wait for each other, and those of other clients do not. */
export const PULLS_PER_CLIENT_MAX = 16;

/** Maximum number of Pulls of one client that wait. */
export const WAITING_PULLS_PER_CLIENT_MAX = 1000;

const TOO_MANY_PULLS = shareError(
  new AuthError('RATE_LIMITED', 'too many instances pull the list', { retryAfterMs: 1000 }),
);

/** The turns. */
export interface PullTurns {
  /**
   * Waits for a turn.
   *
   * @param signal - a caller that leaves gives up its place
   * @returns a function that ends the turn
   * @throws ServiceError RATE_LIMITED when too many Pulls of the client wait; the reason of the signal
   */
  take(client: string, signal: AbortSignal): Promise<() => void>;
}

/** What one client has. */
interface Line {
  running: number;
  /** In the order of their arrival. */
  readonly waiting: Set<() => void>;
}

/** Creates turns of which none is taken. */
export function createPullTurns(): PullTurns {
  /** In the order in which the clients get the next turn. */
  const lines = new Map<string, Line>();
  let running = 0;

  const begin = (client: string, line: Line): (() => void) => {
    running += 1;
    line.running += 1;
    return () => {
      running -= 1;
      line.running -= 1;
      if (line.running === 0 && line.waiting.size === 0) lines.delete(client);
      beginNext();
    };
  };
  const beginNext = (): void => {
    if (running >= PULLS_MAX) return;
    for (const [client, line] of lines) {
      const [next] = line.waiting;
      if (next === undefined || line.running >= PULLS_PER_CLIENT_MAX) continue;
      line.waiting.delete(next);
      lines.delete(client);
      lines.set(client, line);
      next();
      return;
    }
  };

  return {
    take: async (client, signal) => {
      signal.throwIfAborted();
      const line = lines.get(client) ?? { running: 0, waiting: new Set() };
      lines.set(client, line);
      if (running < PULLS_MAX && line.running < PULLS_PER_CLIENT_MAX) return begin(client, line);
      if (line.waiting.size >= WAITING_PULLS_PER_CLIENT_MAX) throw TOO_MANY_PULLS;
      return await new Promise((resolve, reject) => {
        const start = (): void => {
          signal.removeEventListener('abort', leave);
          resolve(begin(client, line));
        };
        const leave = (): void => {
          line.waiting.delete(start);
          if (line.running === 0 && line.waiting.size === 0) lines.delete(client);
          reject(signal.reason);
        };
        line.waiting.add(start);
        signal.addEventListener('abort', leave, { once: true });
      });
    },
  };
}
