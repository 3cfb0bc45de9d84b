/** The limits on guessing: how many attempts with wrong credentials are allowed, per name and per network. */

import { createHmac } from 'node:crypto';
import type { Clock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { networkOfPeer } from '@portcullis/guard/networks';
import { LRUCache } from 'lru-cache';
import { foldUsername } from '../accounts/usernames.js';
import { AuthError } from '../errors.js';

/** Default limit of failures with one name in a window. */
export const FAILURES_PER_NAME_DEFAULT = 20;

/** Default limit of failures from one network in a window. */
export const FAILURES_PER_PEER_DEFAULT = 300;

/** Default length of the window, in seconds. */
export const WINDOW_SECONDS_DEFAULT = 300;

/** How long a network from which a user has logged in stays known, in days. */
export const NETWORK_KEPT_DAYS = 90;

/** How long a rejection is repeated from memory, without a query, in milliseconds. */
export const REFUSAL_REPEATED_MS = 1000;

/** Maximum number of known pairs of name and network that this process remembers, and for how long (one hour). */
const KNOWN_MAX = 10_000;
const KNOWN_KEPT_MS = 3600 * 1000;

/** Maximum number of rejections that this process remembers; beyond it, more queries are sent. */
const REFUSALS_MAX = 10_000;

/** The configured limits. */
export interface ThrottleLimits {
  /** Limit of failures with one name in a window; in each network, the name has the same limit for itself. */
  readonly failuresPerName: number;
  readonly failuresPerPeer: number;
  readonly windowSeconds: number;
}

/** The classes of work to which attempts belong. */
export type AttemptImportance = 'known' | 'unknown';

/** An attempt that was counted, and the end of its window. */
interface CountedAttempt {
  readonly key: Buffer;
  readonly endTime: Date;
}

/** The counters of one attempt. A window begins with its first attempt, and holds at most `limit` attempts. */
interface Counters {
  readonly peer: { readonly key: Buffer; readonly limit: number };
  /** Absent when the attempt names no user. */
  readonly name?: {
    /** The key of the name and this network. */
    readonly networkKey: Buffer;
    /** The key of the name alone; undefined when its counter is known to be exhausted. */
    readonly nameKey: Buffer | undefined;
    readonly limit: number;
  };
}

/** What was counted; a counter without attempts left is absent, and so are those after it. */
interface CountResult {
  readonly peer?: CountedAttempt;
  /** The counter of the name and this network. */
  readonly network?: CountedAttempt;
  readonly name?: CountedAttempt;
  /** Whether the user of this name has logged in from this network before. */
  readonly isKnown: boolean;
}

/** The counters of all replicas. Each call commits by itself, so what was counted stays counted. */
export interface AttemptCounters {
  /** Counts an attempt of the peer; then, if it had one left, of the name in this network; then of the name. */
  count(counters: Counters, windowSeconds: number, importance: AttemptImportance): Promise<CountResult>;
  /** The remaining time of a counter's present window. */
  windowLeftMs(key: Buffer): Promise<number>;
  /** Subtracts one attempt if its window has not ended. */
  subtract(attempt: CountedAttempt, importance: AttemptImportance): Promise<void>;
}

/** Counts attempts. */
export interface Throttle {
  /**
   * Counts one attempt before its credential is checked, so that concurrent attempts cannot exceed the limit.
   *
   * A name that is being guessed is closed, except to networks from which its user has logged in before. Each network
   * has a budget of its own for the name, which attempts from other networks cannot use up.
   *
   * @param scope - divides the budget of the peer: attempts of one scope do not count against those of another
   * @throws ServiceError RATE_LIMITED with the time after which to retry
   */
  attempt(name: string | undefined, peer: string, scope?: string): Promise<Attempt>;
  /**
   * Whether this process has seen within the last hour that the user of this name has logged in from this network before.
   * The attempts of such a pair do not wait for the database behind those of strangers.
   */
  remembers(name: string, peer: string): boolean;
  /** The key under which attempts with this name are counted, from all networks together. */
  nameKeyOf(name: string): Buffer;
  /** The key under which this network of a user is remembered, and attempts with the name from it are counted. */
  networkKeyOf(name: string, peer: string): Buffer;
}

/** An attempt that was counted. */
export interface Attempt {
  /** The key of the name and the network; undefined without a name. */
  readonly networkKey: Buffer | undefined;
  /** The key of the name; undefined without a name. */
  readonly nameKey: Buffer | undefined;
  /** Whether the user of this name has logged in from this network before. */
  readonly isKnown: boolean;
  /** Subtracts the attempt, because the credential was right, or was not checked. */
  uncount(): Promise<void>;
  /**
   * The error for a wrong credential when the name is closed elsewhere: the one that unknown networks get, so that the
   * answer does not reveal that the user logs in from here. Undefined when the name is open.
   */
  refusal(): Promise<ServiceError | undefined>;
}

export interface ThrottleDeps {
  readonly counters: AttemptCounters;
  readonly clock: Clock;
  readonly limits: ThrottleLimits;
  /** Each purpose has its own counters. */
  readonly purpose: 'login' | 'client';
  /** Secret for the hashes of names and addresses; the same on all replicas. */
  readonly key: Buffer;
}

/** Creates a throttle that all replicas share through their database. */
export function createThrottle({ counters, clock, limits, purpose, key }: ThrottleDeps): Throttle {
  const { failuresPerName, failuresPerPeer, windowSeconds } = limits;
  const refusals = new LRUCache<string, { repeatUntilMs: number; overAtMs: number }>({ max: REFUSALS_MAX });
  const known = new LRUCache<string, number>({ max: KNOWN_MAX });
  const isRemembered = (networkKey: Buffer): boolean => {
    const seenMs = known.get(networkKey.toString('base64url'));
    return seenMs !== undefined && clock.monotonicMs() - seenMs < KNOWN_KEPT_MS;
  };
  const keyOf = (...parts: readonly string[]): Buffer =>
    createHmac('sha256', key)
      .update(JSON.stringify([purpose, ...parts]))
      .digest();

  /** How long a counter that was exhausted a moment ago stays so, in milliseconds; undefined when it is not. */
  const refusedMs = (counter: Buffer): number | undefined => {
    const now = clock.monotonicMs();
    const refusal = refusals.get(counter.toString('base64url'));
    return refusal !== undefined && refusal.repeatUntilMs > now ? refusal.overAtMs - now : undefined;
  };
  const refusalOf = async (counter: Buffer): Promise<ServiceError> => {
    // A flood of rejected attempts must not become a flood of queries.
    const repeatedMs = refusedMs(counter);
    if (repeatedMs !== undefined) return rateLimited(repeatedMs);
    const retryAfterMs = await counters.windowLeftMs(counter);
    const now = clock.monotonicMs();
    const repeatUntilMs = now + Math.min(retryAfterMs, REFUSAL_REPEATED_MS);
    refusals.set(counter.toString('base64url'), { repeatUntilMs, overAtMs: now + retryAfterMs });
    return rateLimited(retryAfterMs);
  };
  const isOpen = (counter: Buffer): Buffer | undefined =>
    refusedMs(counter) === undefined ? counter : undefined;

  const nameKeyOf = (name: string): Buffer => keyOf('name', foldUsername(name));
  const networkKeyOf = (name: string, peer: string): Buffer =>
    keyOf('network', foldUsername(name), networkOfPeer(peer));

  return {
    nameKeyOf,
    networkKeyOf,
    remembers: (name, peer) => isRemembered(networkKeyOf(name, peer)),
    attempt: async (name, peer, scope) => {
      const network = networkOfPeer(peer);
      const peerKey = scope === undefined ? keyOf('peer', network) : keyOf('peer', network, scope);
      if (isOpen(peerKey) === undefined) throw await refusalOf(peerKey);
      const forPeer = { key: peerKey, limit: failuresPerPeer };
      if (name === undefined) {
        const taken = await counters.count({ peer: forPeer }, windowSeconds, 'unknown');
        if (taken.peer === undefined) throw await refusalOf(peerKey);
        return attemptOf(counters, taken, 'unknown');
      }
      const [networkKey, nameKey] = [networkKeyOf(name, peer), nameKeyOf(name)];
      if (isOpen(networkKey) === undefined) throw await refusalOf(networkKey);
      const forName = { networkKey, nameKey: isOpen(nameKey), limit: failuresPerName };
      const importance = isRemembered(networkKey) ? 'known' : 'unknown';
      const taken = await counters.count({ peer: forPeer, name: forName }, windowSeconds, importance);
      if (taken.isKnown) known.set(networkKey.toString('base64url'), clock.monotonicMs());
      if (taken.peer === undefined) throw await refusalOf(peerKey);
      if (taken.network === undefined) throw await refusalOf(networkKey);
      const isClosed = taken.name === undefined;
      if (isClosed && !taken.isKnown) throw await refusalOf(nameKey);
      const refusal = async () => (isClosed ? await refusalOf(nameKey) : undefined);
      return { ...attemptOf(counters, taken, importance), networkKey, nameKey, refusal };
    },
  };
}

function attemptOf(
  counters: AttemptCounters,
  { peer, network, name, isKnown }: CountResult,
  importance: AttemptImportance,
): Attempt {
  return {
    networkKey: undefined,
    nameKey: undefined,
    isKnown,
    uncount: () => subtractAll(counters, [peer, network, name], importance),
    refusal: () => Promise.resolve(undefined),
  };
}

/** Ignores failures: a count that is too high by one must not withhold what was granted. */
async function subtractAll(
  counters: AttemptCounters,
  attempts: readonly (CountedAttempt | undefined)[],
  importance: AttemptImportance,
): Promise<void> {
  const given = attempts.map(
    (attempt) => attempt && counters.subtract(attempt, importance).catch(() => undefined),
  );
  await Promise.all(given);
}

function rateLimited(retryAfterMs: number): ServiceError {
  return new AuthError('RATE_LIMITED', 'too many attempts', { retryAfterMs: Math.ceil(retryAfterMs) });
}
