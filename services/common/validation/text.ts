/** What every text in a request is checked for. */

/**
 * Whether the text is stored as it was sent. Protobuf turns bytes that are not UTF-8 into U+FFFD, so two different
 * byte strings could become one; PostgreSQL stores no NUL.
 */
export function isStoredFaithfully(text: string): boolean {
  return !/[\0\uFFFD]/.test(text) && text.isWellFormed();
}

/** Whether the text has control characters, which could forge lines where it is listed. */
export function hasControlCharacters(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

/** Code points; UTF-16 units where there are so many that the text is longer than `max` in either unit. */
export function countCharacters(text: string, max: number): number {
  return text.length > 2 * max ? text.length : [...text].length;
}
