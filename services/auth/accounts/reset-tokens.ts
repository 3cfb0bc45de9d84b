/** Reset tokens: their text, their signature and their hash. */

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { parseUuid } from '../../common/validation/identifiers.js';

/** Default lifetime of a reset token, in seconds. */
export const RESET_SECONDS_DEFAULT = 3600;

/** Maximum lifetime of a reset token, in seconds (7 days). */
export const RESET_SECONDS_MAX = 7 * 24 * 3600;

// Lets secret scanners and log filters recognize the token.
const PREFIX = 'pcp_';

const ID_BYTES = 16;
const SIGNATURE_BYTES = 32;

/** A reset token, and the hash under which the database stores it. */
export interface ResetToken {
  readonly text: string;
  readonly hash: Buffer;
}

/**
 * The token of one reset: the id and its HMAC under this issuer's secret. A retried request gets the same token although
 * only its hash is stored, and a forged one is rejected without the database.
 *
 * @param resetId - a UUID
 */
export function resetTokenOf(resetKey: Buffer, resetId: string): ResetToken {
  const id = bytesOf(resetId);
  return tokenOf(Buffer.concat([id, sign(resetKey, id)]));
}

/** The token of this text; undefined unless this issuer made it. */
export function parseResetToken(resetKey: Buffer, text: string): ResetToken | undefined {
  if (text.length > 2 * (ID_BYTES + SIGNATURE_BYTES) || !text.startsWith(PREFIX)) return undefined;
  const bytes = Buffer.from(text.slice(PREFIX.length), 'base64url');
  if (bytes.length !== ID_BYTES + SIGNATURE_BYTES) return undefined;
  const token = tokenOf(bytes);
  const expected = sign(resetKey, bytes.subarray(0, ID_BYTES));
  return token.text === text && timingSafeEqual(expected, bytes.subarray(ID_BYTES)) ? token : undefined;
}

function tokenOf(bytes: Buffer): ResetToken {
  const text = PREFIX + bytes.toString('base64url');
  return { text, hash: createHash('sha256').update(text, 'utf8').digest() };
}

function sign(resetKey: Buffer, id: Buffer): Buffer {
  return createHmac('sha256', resetKey).update(id).digest();
}

function bytesOf(resetId: string): Buffer {
  const uuid = parseUuid(resetId);
  if (uuid === undefined) throw new TypeError('expected the UUID of a reset');
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}
