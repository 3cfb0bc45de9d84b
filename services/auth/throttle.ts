/** The limits on guessing: how often a credential may be tried in vain, per name and per network. */

import { createHmac } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../../interceptors/clock.js';
import { ServiceError } from '../../interceptors/errors.js';

/** Failures within a window against one name, unless configured otherwise. */
export const FAILURES_PER_NAME_DEFAULT = 20;

/** Failures within a window from one network, unless configured otherwise. */
export const FAILURES_PER_PEER_DEFAULT = 300;

/** The window in which failures are counted, unless configured otherwise, in seconds. */
export const WINDOW_SECONDS_DEFAULT = 300;

/** For how long it is remembered from where a user has logged in, in days. */
export const NETWORK_KEPT_DAYS = 90;

/** For how long a refusal is repeated without asking the database again, in milliseconds. */
export const REFUSAL_REPEATED_MS = 1000;

/** Most refusals that are remembered in this process; beyond, the database is asked more often. */
export const REFUSALS_MAX = 10_000;

/** How much may fail. */
export interface ThrottleLimits {
  /** Failures within a window against one name; the same again from each network where the name is known. */
  readonly failuresPerName: number;
  readonly failuresPerPeer: number;
  readonly windowSeconds: number;
}

/** The counters of all replicas. Each call commits by itself: what was counted stays counted. */
export interface AttemptCounters {
  /** Counts an attempt unless there were `limit` in the present window, which begins with its first attempt. */
  take(
    key: Buffer,
    limit: number,
    windowSeconds: number,
  ): Promise<{ admitted: true; endTime: Date } | { admitted: false; retryAfterMs: number }>;
  /** Takes one attempt back if its window has not ended. */
  giveBack(key: Buffer, endTime: Date): Promise<void>;
  /** Whether a user has logged in with this name from this network. */
  isKnownNetwork(key: Buffer): Promise<boolean>;
}

/** From where users have logged in, inside a transaction. */
export interface LoginNetworkRows {
  remember(network: { key: Buffer; userId: string }): Promise<void>;
  /** Forgets them all: whoever logged in with a password that is no longer right may have been somebody else. */
  forgetAllOf(userId: string): Promise<void>;
}

/** Counts attempts. */
export interface Throttle {
  /**
   * Counts one attempt before it is judged, so that many at once cannot slip past.
   *
   * A name that is being guessed is closed to everybody but those networks from which its user has
   * logged in before: each of them has its own budget, which nobody elsewhere can use up.
   *
   * @throws ServiceError RATE_LIMITED with the time after which to come back
   */
  attempt(name: string | undefined, peer: string): Promise<Attempt>;
}

/** An attempt that was counted. */
export interface Attempt {
  /** By which the network is known for this name; undefined without a name. */
  readonly networkKey: Buffer | undefined;
  /** Takes the attempt back: it was no guess. */
  succeeded(): Promise<void>;
}

/** What {@link createThrottle} needs. */
export interface ThrottleDeps {
  readonly counters: AttemptCounters;
  readonly clock: Clock;
  readonly limits: ThrottleLimits;
  /** What is tried; another purpose is counted apart. */
  readonly purpose: 'login' | 'client';
  /** Secret under which names and addresses are hashed; the same on all replicas. */
  readonly key: Buffer;
}

/** A throttle that all replicas share through their database. */
export function createThrottle({ counters, clock, limits, purpose, key }: ThrottleDeps): Throttle {
  const { failuresPerName, failuresPerPeer, windowSeconds } = limits;
  const refusals = new LRUCache<string, { repeatUntilMs: number; overAtMs: number }>({ max: REFUSALS_MAX });
  const keyOf = (...parts: readonly string[]): Buffer =>
    createHmac('sha256', key)
      .update(JSON.stringify([purpose, ...parts]))
      .digest();

  /** Counts one attempt; answers how to take it back. */
  const take = async (counter: Buffer, limit: number): Promise<() => Promise<void>> => {
    const id = counter.toString('base64url');
    const now = clock.monotonicMs();
    // A flood of refused attempts must not become a flood of writes.
    const refusal = refusals.get(id);
    if (refusal !== undefined && refusal.repeatUntilMs > now) throw rateLimited(refusal.overAtMs - now);
    const taken = await counters.take(counter, limit, windowSeconds);
    if (taken.admitted) {
      // One attempt too many on the count is no reason to withhold what was granted.
      return () => counters.giveBack(counter, taken.endTime).catch(() => undefined);
    }
    const { retryAfterMs } = taken;
    const repeatUntilMs = now + Math.min(retryAfterMs, REFUSAL_REPEATED_MS);
    refusals.set(id, { repeatUntilMs, overAtMs: now + retryAfterMs });
    throw rateLimited(retryAfterMs);
  };

  return {
    attempt: async (name, peer) => {
      const network = networkOf(peer);
      const returnPeers = await take(keyOf('peer', network), failuresPerPeer);
      if (name === undefined) return { networkKey: undefined, succeeded: returnPeers };
      const networkKey = keyOf('network', name, network);
      // Its counter has the key of the network too: the tables differ.
      const isKnown = await counters.isKnownNetwork(networkKey);
      const returnNames = await take(isKnown ? networkKey : keyOf('name', name), failuresPerName);
      return {
        networkKey,
        succeeded: async () => {
          await returnPeers();
          await returnNames();
        },
      };
    },
  };
}

function rateLimited(retryAfterMs: number): ServiceError {
  return new ServiceError('RATE_LIMITED', 'too many attempts', { retryAfterMs: Math.ceil(retryAfterMs) });
}

/** The network of a peer, as grpc-js names it: an address and a port, with or without brackets. */
export function networkOf(peer: string): string {
  return networkOfAddress(peer.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''));
}

/**
 * The network of an IP address: itself, or its /64 when it is one of IPv6. A household has a whole /64: one address of
 * it is not one peer.
 */
export function networkOfAddress(address: string): string {
  const host = address.replace(/^::ffff:(?=\d+\.)/, '');
  if (!isIPv6(host)) return host;
  const [head = '', tail = ''] = host.split('::');
  const groups = head.split(':').filter(Boolean);
  const missing = 8 - groups.length - tail.split(':').filter(Boolean).length;
  const full = host.includes('::') ? [...groups, ...Array(missing).fill('0'), ...tail.split(':')] : groups;
  return full.slice(0, 4).join(':');
}
