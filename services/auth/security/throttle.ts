/** The limits on guessing: how often a credential may be tried in vain, per name and per network. */

import { createHmac } from 'node:crypto';
import { isIPv6 } from 'node:net';
import type { Clock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { LRUCache } from 'lru-cache';
import { AuthError } from '../errors.js';

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

/** An attempt that was counted, and when the window ends in which it was. */
export interface CountedAttempt {
  readonly key: Buffer;
  readonly endTime: Date;
}

/** What an attempt is counted against. A window begins with its first attempt, and has so many at most. */
export interface Counters {
  readonly peer: { readonly key: Buffer; readonly limit: number };
  /** Nothing is counted against a name when absent. */
  readonly name?: {
    /** The name from this network. */
    readonly networkKey: Buffer;
    /** The counter where the network is known for the name, and where it is not; undefined: it has nothing left. */
    readonly known: Buffer | undefined;
    readonly unknown: Buffer | undefined;
    readonly limit: number;
  };
}

/** What came of it: what was counted, and nothing where no attempt was left. */
export interface Taken {
  readonly peer?: CountedAttempt;
  readonly name?: CountedAttempt;
  /** Whether a user has logged in with this name from this network. */
  readonly isKnown: boolean;
}

/** The counters of all replicas. Each call commits by itself, as a whole: what was counted stays counted. */
export interface AttemptCounters {
  /** Counts an attempt against the peer, and when it had one left, against the name. */
  take(counters: Counters, windowSeconds: number): Promise<Taken>;
  /** How long the present window of a counter still lasts. */
  windowLeftMs(key: Buffer): Promise<number>;
  /** Takes one attempt back if its window has not ended. */
  giveBack(attempt: CountedAttempt): Promise<void>;
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

  /** For how long a counter that was refused a moment ago is refused again, in milliseconds; undefined when it is not. */
  const refusedMs = (counter: Buffer): number | undefined => {
    const now = clock.monotonicMs();
    const refusal = refusals.get(counter.toString('base64url'));
    return refusal !== undefined && refusal.repeatUntilMs > now ? refusal.overAtMs - now : undefined;
  };
  const refuse = async (counter: Buffer): Promise<never> => {
    // A flood of refused attempts must not become a flood of writes.
    const repeatedMs = refusedMs(counter);
    if (repeatedMs !== undefined) throw rateLimited(repeatedMs);
    const retryAfterMs = await counters.windowLeftMs(counter);
    const now = clock.monotonicMs();
    const repeatUntilMs = now + Math.min(retryAfterMs, REFUSAL_REPEATED_MS);
    refusals.set(counter.toString('base64url'), { repeatUntilMs, overAtMs: now + retryAfterMs });
    throw rateLimited(retryAfterMs);
  };
  const isOpen = (counter: Buffer): Buffer | undefined =>
    refusedMs(counter) === undefined ? counter : undefined;

  return {
    attempt: async (name, peer) => {
      const network = networkOf(peer);
      const peerKey = keyOf('peer', network);
      if (isOpen(peerKey) === undefined) return await refuse(peerKey);
      const forPeer = { key: peerKey, limit: failuresPerPeer };
      if (name === undefined) {
        const taken = await counters.take({ peer: forPeer }, windowSeconds);
        if (taken.peer === undefined) return await refuse(peerKey);
        return { networkKey: undefined, succeeded: () => giveBack(counters, [taken.peer]) };
      }
      const networkKey = keyOf('network', name, network);
      const nameKey = keyOf('name', name);
      // Where the network is known, its own counter has the same key: the tables differ.
      const forName = { networkKey, known: isOpen(networkKey), unknown: isOpen(nameKey) };
      const taken = await counters.take(
        { peer: forPeer, name: { ...forName, limit: failuresPerName } },
        windowSeconds,
      );
      if (taken.peer === undefined) return await refuse(peerKey);
      if (taken.name === undefined) return await refuse(taken.isKnown ? networkKey : nameKey);
      return { networkKey, succeeded: () => giveBack(counters, [taken.peer, taken.name]) };
    },
  };
}

/** One attempt too many on the count is no reason to withhold what was granted. */
async function giveBack(
  counters: AttemptCounters,
  attempts: readonly (CountedAttempt | undefined)[],
): Promise<void> {
  const given = attempts.map((attempt) => attempt && counters.giveBack(attempt).catch(() => undefined));
  await Promise.all(given);
}

function rateLimited(retryAfterMs: number): ServiceError {
  return new AuthError('RATE_LIMITED', 'too many attempts', { retryAfterMs: Math.ceil(retryAfterMs) });
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
