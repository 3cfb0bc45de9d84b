/** Access tokens of a client: fetched when needed, shared by all calls, renewed before they expire. */

import { type Clock, systemClock } from '../clock.js';

/** A token that the issuer returned. */
export interface FetchedToken {
  readonly token: string;
  /** When it expires, in milliseconds since the epoch. */
  readonly expireTimeMs: number;
}

/** Access tokens for one purpose. */
export interface TokenSource {
  /** A token that is not about to expire, fetched when necessary. Rejects when the fetch does. */
  get(): Promise<string>;
  /** Reports that a server rejected this token: the next `get` fetches another one. */
  reject(token: string): void;
}

/** A token is renewed when this part of its lifetime is left, and at most this long before it expires. */
const RENEW_PART = 0.2;
const RENEW_BEFORE_MAX_MS = 30_000;

/**
 * Creates a source that fetches tokens when they are needed. Concurrent callers share one fetch.
 *
 * @param fetch - fetches a new token. After a failure, the next `get` calls it again
 */
export function createTokenSource(
  fetch: () => Promise<FetchedToken>,
  clock: Clock = systemClock,
): TokenSource {
  let held: { token: string; renewAtMs: number; expireTimeMs: number } | undefined;
  let fetching: Promise<string> | undefined;

  const fetchOrKeep = async (): Promise<FetchedToken> => {
    try {
      return await fetch();
    } catch (error) {
      // Renewal begins before expiry, so the old token still serves while the issuer is unreachable.
      if (held !== undefined && clock.wallMs() < held.expireTimeMs) return held;
      throw error;
    }
  };

  const renew = async (): Promise<string> => {
    const fetched = await fetchOrKeep();
    if (fetched === held) return fetched.token;
    const { token, expireTimeMs } = fetched;
    const nowMs = clock.wallMs();
    const beforeMs = Math.min(RENEW_BEFORE_MAX_MS, (expireTimeMs - nowMs) * RENEW_PART);
    held = { token, expireTimeMs, renewAtMs: expireTimeMs - beforeMs };
    return token;
  };

  return {
    get: () => {
      if (held !== undefined && clock.wallMs() < held.renewAtMs) return Promise.resolve(held.token);
      fetching ??= renew().finally(() => {
        fetching = undefined;
      });
      return fetching;
    },
    reject: (token) => {
      if (held?.token === token) held = undefined;
    },
  };
}
