/** Checks of request fields that more than one domain file needs. */

import { invalidField } from '@portcullis/guard/errors';

/** The most scopes, audiences or roles in one request. */
export const LIST_LENGTH_MAX = 32;

/** The longest scope, audience, role or client id, in characters. */
export const WORD_LENGTH_MAX = 100;

/** The longest request id, in UTF-16 units. */
export const REQUEST_ID_LENGTH_MAX = 255;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const WORD = /^[a-z0-9][a-z0-9._-]*$/;

/** Whether the text is a UUID as we write it. Anything else must not reach the database. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/**
 * The request id; empty when the caller sent none. U+FFFD stands for bytes that were not UTF-8: two
 * different ids could become one.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseRequestId(text: string): string {
  if (text.length > REQUEST_ID_LENGTH_MAX) {
    throw invalidField('request_id', `must have at most ${REQUEST_ID_LENGTH_MAX} characters`);
  }
  if (/[\p{Cc}\uFFFD]/u.test(text) || !text.isWellFormed()) {
    throw invalidField('request_id', 'must be valid UTF-8 without control characters');
  }
  return text;
}

/**
 * The words of a list, each once.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseWords(field: string, words: readonly string[]): readonly string[] {
  if (words.length > LIST_LENGTH_MAX)
    throw invalidField(field, `must have at most ${LIST_LENGTH_MAX} members`);
  for (const [index, word] of words.entries()) {
    if (word.length > WORD_LENGTH_MAX || !WORD.test(word)) {
      throw invalidField(
        `${field}[${index}]`,
        'must be lower-case letters, digits, dots, underscores and hyphens',
      );
    }
  }
  return [...new Set(words)];
}
