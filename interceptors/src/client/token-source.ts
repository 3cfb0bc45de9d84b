/** Where a client's access tokens come from: fetched when needed, shared, renewed before they expire. */

import { type Clock, systemClock } from '../clock.js';

/** A token as its issuer gave it. */
export interface FetchedToken {
  readonly token: string;
  /** When it expires, in milliseconds since the epoch. */
  readonly expireTimeMs: number;
}

/** Access tokens for one purpose. */
export interface TokenSource {
  /** A token that is good for a while; fetched when there is none, and rejects as the fetch does. */
  get(): Promise<string>;
  /** Says that a server refused this token: the next `get` fetches another one. */
  reject(token: string): void;
}

/** A token is renewed when this part of its life is left, and that long before it ends at the most. */
const RENEW_PART = 0.2;
const RENEW_BEFORE_MAX_MS = 30_000;

/**
 * A source that fetches tokens as they are needed.
 *
 * However many callers wait, there is one fetch at a time, and all of them get its token.
 *
 * @param fetch - gets a new token; called again after it has failed, when somebody asks again
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
      // A token is renewed before it must be: while it is good, an issuer that is away harms nobody.
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
