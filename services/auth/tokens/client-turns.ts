/** Whose turn a client's authentication is in the queues for assertions and secrets. */

import type { Clock } from '@portcullis/guard/clock';
import { LRUCache } from 'lru-cache';
import type { QueueCaller } from '../security/fair-queue.js';

/** How long a client stays known in a network after it has authenticated there, in milliseconds (one day). */
const KNOWN_MS = 24 * 3600 * 1000;

/** Maximum number of pairs of client and network that are remembered; beyond it, the oldest are forgotten. */
const KNOWN_PAIRS_MAX = 10_000;

/** Assigns authentications of clients to the classes of a queue. */
export interface ClientTurns {
  callerOf(clientId: string, network: string): QueueCaller;
  /** Remembers that the client has authenticated in this network. */
  succeeded(clientId: string, network: string): void;
}

/** The pairs are kept in this process alone. */
export function createClientTurns(clock: Clock): ClientTurns {
  const known = new LRUCache<string, number>({ max: KNOWN_PAIRS_MAX });
  return {
    callerOf: (clientId, network) => {
      const pair = `${clientId} ${network}`;
      const succeededMs = known.get(pair) ?? Number.NEGATIVE_INFINITY;
      const isKnown = clock.monotonicMs() - succeededMs < KNOWN_MS;
      return isKnown ? { importance: 'known', key: pair } : { importance: 'unknown', key: network };
    },
    succeeded: (clientId, network) => void known.set(`${clientId} ${network}`, clock.monotonicMs()),
  };
}
