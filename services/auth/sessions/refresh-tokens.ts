/** Refresh tokens: their text, their hash, their successors and their lifetime. */

import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { Session } from '../records/sessions.js';
import type { AuthTransaction } from '../transaction.js';

/** Maximum time between two uses of a session's refresh tokens, in seconds (7 days). */
export const REFRESH_IDLE_SECONDS_MAX = 7 * 24 * 3600;

/** Default time within which a refresh may be retried, in seconds. */
export const REFRESH_RETRY_SECONDS_DEFAULT = 10;

/** Random bytes of a refresh token. */
const REFRESH_TOKEN_BYTES = 32;

// Lets secret scanners recognize a leaked token.
const REFRESH_TOKEN_PREFIX = 'pcr_';

/** The random bytes of a new refresh token. */
export function newRefreshSecret(): Buffer {
  return randomBytes(REFRESH_TOKEN_BYTES);
}

/** The token's text, as the client receives it. */
export function formatRefreshToken(secret: Buffer): string {
  return REFRESH_TOKEN_PREFIX + secret.toString('base64url');
}

/** Whether the text looks like a refresh token of this issuer, complete or not. */
export function isRefreshToken(text: string): boolean {
  return text.startsWith(REFRESH_TOKEN_PREFIX);
}

/** The random bytes of a refresh token; undefined unless the text is the token's one canonical form. */
export function parseRefreshToken(text: string): Buffer | undefined {
  if (text.length > 2 * REFRESH_TOKEN_BYTES || !text.startsWith(REFRESH_TOKEN_PREFIX)) return undefined;
  const secret = Buffer.from(text.slice(REFRESH_TOKEN_PREFIX.length), 'base64url');
  return secret.length === REFRESH_TOKEN_BYTES && formatRefreshToken(secret) === text ? secret : undefined;
}

/** The hash under which the database stores the token. */
export function hashRefreshToken(refreshToken: string): Buffer {
  return createHash('sha256').update(refreshToken, 'utf8').digest();
}

/**
 * Derives the successor's random bytes from the token, the request id and this issuer's secret. A retried request
 * gets the same successor although only its hash is stored, and the holder of an old token cannot compute it.
 */
export function deriveSuccessor(refreshKey: Buffer, secret: Buffer, requestId: string): Buffer {
  return createHmac('sha256', refreshKey).update(secret).update(requestId, 'utf8').digest();
}

/** Stores the token's hash and returns when the token expires: never later than its session. */
export async function storeRefreshToken(
  tx: AuthTransaction,
  session: Session,
  refreshToken: string,
  now: Date,
): Promise<Date> {
  const idleEndMs = now.getTime() + REFRESH_IDLE_SECONDS_MAX * 1000;
  const expireTime = new Date(Math.min(idleEndMs, session.expireTime.getTime()));
  await tx.sessions.insertRefreshToken({
    hash: hashRefreshToken(refreshToken),
    sessionId: session.sessionId,
    expireTime,
  });
  return expireTime;
}
