/** `request_id`: what makes a retry the same request. */
import { invalidField } from '@portcullis/guard/errors';
import { isRandomUuid, parseUuid } from './identifiers.js';
import { countCharacters, isStoredFaithfully } from './text.js';

/** The longest request id, in characters. */
export const REQUEST_ID_CHARACTERS_MAX = 255;

/** Returns the fault of a request id, or undefined. An empty id is not checked. */
export function requestIdFault(requestId: string): string | undefined {
  if (countCharacters(requestId, REQUEST_ID_CHARACTERS_MAX) > REQUEST_ID_CHARACTERS_MAX) {
    return `must have at most ${REQUEST_ID_CHARACTERS_MAX} characters`;
  }
  return isStoredFaithfully(requestId) ? undefined : 'must be UTF-8 without NUL and U+FFFD';
}

/** The canonical form: a UUID in lower case, any other text as it is. */
export function canonicalRequestId(requestId: string): string {
  return parseUuid(requestId) ?? requestId;
}

/**
 * The forms in which a request id may have been stored. Until the canonical form was introduced, in November 2026,
 * ids were stored as they were sent. Auth and inventory keep answers for seven days, payment for as long as the ledger.
 *
 * @param requestId - as it was sent, because a UUID in mixed case may have been stored in that form
 */
export function storedRequestIds(requestId: string): readonly string[] {
  const uuid = parseUuid(requestId);
  return uuid === undefined ? [requestId] : [...new Set([uuid, uuid.toUpperCase(), requestId])];
}

/**
 * The form in which a request id is stored: the canonical one, but a UUID in upper case stays so. During an upgrade, an
 * instance of the version before November 2026 looks for what was sent, letter by letter, and would carry out a retry again.
 *
 * @param requestId - as it was sent
 */
export function requestIdToStore(requestId: string): string {
  const canonical = canonicalRequestId(requestId);
  return requestId === canonical.toUpperCase() ? requestId : canonical;
}

/**
 * The canonical form of a request id; empty when the caller sent none.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseRequestId(requestId: string): string {
  const fault = requestIdFault(requestId);
  if (fault !== undefined) throw invalidField('request_id', fault);
  return canonicalRequestId(requestId);
}

/**
 * The canonical form of a request id that is a proof of being the same caller: with it, a retry receives secrets again.
 * Empty when the caller sent none.
 *
 * @throws ServiceError FIELD_INVALID unless it is empty or a random UUID
 */
export function parseSecretRequestId(requestId: string): string {
  const uuid = parseUuid(requestId);
  if (requestId === '') return '';
  if (uuid === undefined || !isRandomUuid(uuid)) {
    throw invalidField('request_id', 'must be a random UUID (version 4), or empty');
  }
  return uuid;
}

/** A request that takes effect once, however often its caller sends it. */
export interface RepeatableRequest {
  /** The caller; two callers may use the same request id. */
  readonly subject: string;
  /** Request ids of different methods are independent. */
  readonly method: string;
  /** `request_id` as the caller sent it; empty when the caller sent none. */
  readonly requestId: string;
  /** The content of the request, as text that is equal for equal requests only. */
  readonly payload: string;
}

/** The payload of a repeatable request; bigints become strings. */
export function payloadOf(...parts: readonly unknown[]): string {
  return JSON.stringify(parts, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
}
