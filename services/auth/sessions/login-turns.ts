/** Whose turn a login is in the queue for password hashes. */

import type { Clock } from '@portcullis/guard/clock';
import { LRUCache } from 'lru-cache';
import type { QueueCaller } from '../security/fair-queue.js';
import type { Attempt } from '../security/throttle.js';

/** How long a name counts as recent after a login, in milliseconds (one day). */
const RECENT_LOGIN_MS = 24 * 3600 * 1000;

/** Maximum number of recent names; beyond it, the oldest are forgotten. */
const RECENT_NAMES_MAX = 10_000;

/** Assigns logins to the classes of the queue. */
export interface LoginTurns {
  /** @param network - the peer's network */
  callerOf(attempt: Pick<Attempt, 'nameKey' | 'isKnown'>, network: string): QueueCaller;
  /** Remembers the name of a successful login. */
  succeeded(attempt: Attempt): void;
}

/** The names are kept as keyed hashes, in this process alone. */
export function createLoginTurns(clock: Clock): LoginTurns {
  const recent = new LRUCache<string, number>({ max: RECENT_NAMES_MAX });
  return {
    callerOf: ({ nameKey, isKnown }, network) => {
      const name = nameKey?.toString('base64url');
      if (name === undefined) return { importance: 'unknown', key: network };
      // By name: a user with many known networks has the same share as any other.
      if (isKnown) return { importance: 'known', key: name };
      const loginMs = recent.get(name) ?? Number.NEGATIVE_INFINITY;
      const isRecent = clock.monotonicMs() - loginMs < RECENT_LOGIN_MS;
      return isRecent ? { importance: 'recent', key: name } : { importance: 'unknown', key: network };
    },
    succeeded: ({ nameKey }) => {
      if (nameKey !== undefined) recent.set(nameKey.toString('base64url'), clock.monotonicMs());
    },
  };
}
