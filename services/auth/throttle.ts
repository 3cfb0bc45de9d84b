/** The limit on guessing: how often a credential may be tried, per name and per peer. */

import { isIPv6 } from 'node:net';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { ServiceError } from '../../interceptors/errors.js';

/** The window in which failures are counted. */
export const THROTTLE_WINDOW_SECONDS = 60;

/** Failures within a window against one name. */
export const FAILURES_PER_NAME_MAX = 30;

/** Failures within a window from one peer. */
export const FAILURES_PER_PEER_MAX = 300;

/** Counts attempts. */
export interface Throttle {
  /**
   * Counts one attempt before it is judged, so that many at once cannot slip past.
   *
   * @throws ServiceError RATE_LIMITED with the time after which to come back
   */
  attempt(name: string | undefined, peer: string): Promise<Attempt>;
}

/** An attempt that was counted. */
export interface Attempt {
  /** Takes the attempt back: it was no guess. */
  succeeded(): Promise<void>;
}

/** A throttle in this process's memory. A name gets a counter only once its peer was within its own limit. */
export function createThrottle(): Throttle {
  const duration = THROTTLE_WINDOW_SECONDS;
  const names = new RateLimiterMemory({ keyPrefix: 'name', points: FAILURES_PER_NAME_MAX, duration });
  const peers = new RateLimiterMemory({ keyPrefix: 'peer', points: FAILURES_PER_PEER_MAX, duration });
  return {
    attempt: async (name, peer) => {
      const network = networkOf(peer);
      await consume(peers, network);
      if (name !== undefined) await consume(names, name);
      return {
        succeeded: async () => {
          await peers.reward(network);
          if (name !== undefined) await names.reward(name);
        },
      };
    },
  };
}

async function consume(limiter: RateLimiterMemory, key: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (refusal) {
    if (!(refusal instanceof RateLimiterRes)) throw refusal;
    throw rateLimited(refusal);
  }
}

function rateLimited(cause: RateLimiterRes): ServiceError {
  return new ServiceError('RATE_LIMITED', 'too many attempts', { retryAfterMs: cause.msBeforeNext, cause });
}

/** A household has a whole /64 of IPv6: one address of it is not one peer. */
function networkOf(peer: string): string {
  const host = peer
    .replace(/:\d+$/, '')
    .replace(/^\[|\]$/g, '')
    .replace(/^::ffff:(?=\d+\.)/, '');
  if (!isIPv6(host)) return host;
  const [head = '', tail = ''] = host.split('::');
  const groups = head.split(':').filter(Boolean);
  const missing = 8 - groups.length - tail.split(':').filter(Boolean).length;
  const full = host.includes('::') ? [...groups, ...Array(missing).fill('0'), ...tail.split(':')] : groups;
  return full.slice(0, 4).join(':');
}
