/** Lists of words in requests: scopes, audiences, roles. */
import { type FieldViolation, GuardError, invalidField } from '@portcullis/guard/errors';

/** Maximum number of scopes, audiences or roles in one request. */
export const LIST_LENGTH_MAX = 32;
/** The longest scope, audience, role or client id, in characters. */
export const WORD_LENGTH_MAX = 100;

const WORD = /^[a-z0-9][a-z0-9._-]*$/;

/** Whether a text can be a scope, an audience or a role. */
export function isWord(text: string): boolean {
  return text.length <= WORD_LENGTH_MAX && WORD.test(text);
}

/**
 * The words of a list, each once.
 *
 * @throws ServiceError FIELD_INVALID
 */
export function parseWords(field: string, words: readonly string[]): readonly string[] {
  if (words.length > LIST_LENGTH_MAX) {
    throw invalidField(field, `must have at most ${LIST_LENGTH_MAX} members`);
  }
  for (const [index, word] of words.entries()) {
    if (!isWord(word)) {
      const description = 'must be lower-case letters, digits, dots, underscores and hyphens';
      throw invalidField(`${field}[${index}]`, description);
    }
  }
  return [...new Set(words)];
}

/**
 * Requires that every word of a list is known, so that a misspelt word does not pass for one that was not granted.
 *
 * @param kind - what a word names, such as `scope`
 * @throws ServiceError FIELD_INVALID with every unknown word
 */
export function requireKnownWords(
  field: string,
  words: readonly string[],
  { kind, isKnown }: { readonly kind: string; readonly isKnown: (word: string) => boolean },
): void {
  const violations: readonly FieldViolation[] = words
    .filter((word) => !isKnown(word))
    .map((word) => ({ field, description: `there is no ${kind} "${word}"` }));
  const [first] = violations;
  if (first === undefined) return;
  throw new GuardError('FIELD_INVALID', `${first.field}: ${first.description}`, { violations });
}
