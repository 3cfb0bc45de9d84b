/**
 * Bounds the refreshes of one token that are in progress. They would wait for the session's row one after the other, so more
 * of them only keep other callers from the database.
 */

import { shareError } from '@portcullis/guard/errors';
import { AuthError } from '../errors.js';

/** Default number of refreshes with one token that are in progress at the same time. */
export const REFRESHES_PER_TOKEN_DEFAULT = 8;

/** RetryInfo delay of a refusal, in milliseconds. */
const RETRY_AFTER_MS = 500;

/** The error of a refused refresh. */
export const TOO_MANY_REFRESHES = shareError(
  new AuthError(
    'RATE_LIMITED',
    'too many refreshes with this token are in progress (PORTCULLIS_REFRESHES_PER_TOKEN)',
    { retryAfterMs: RETRY_AFTER_MS },
  ),
);

/** The places of one replica. */
export interface RefreshPlaces {
  /** Takes one of the token's places. @returns what gives it back, once; undefined when all are taken */
  enter(refreshToken: string): (() => void) | undefined;
}

/**
 * Creates places: so many for each token.
 *
 * @param inProgress - the number of places taken, by token; it holds nothing of tokens that have none
 */
export function createRefreshPlaces(
  perToken: number,
  inProgress: Map<string, number> = new Map(),
): RefreshPlaces {
  return {
    enter: (refreshToken) => {
      const count = inProgress.get(refreshToken) ?? 0;
      if (count >= perToken) return undefined;
      inProgress.set(refreshToken, count + 1);
      return () => {
        const left = (inProgress.get(refreshToken) ?? 1) - 1;
        if (left === 0) inProgress.delete(refreshToken);
        else inProgress.set(refreshToken, left);
      };
    },
  };
}
