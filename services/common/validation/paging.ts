/** Pages of a list: their size, and the opaque token for the next page. */
import { invalidField } from '@portcullis/guard/errors';
import { parseUuid } from './identifiers.js';

/** Entries on a page when `page_size` is 0. */
const PAGE_SIZE_DEFAULT = 50;
/** Maximum number of entries on a page; a larger `page_size` is reduced to it. */
const PAGE_SIZE_MAX = 200;
/** The longest page token, in characters. */
export const PAGE_TOKEN_CHARACTERS_MAX = 2048;

/** Patterns for the members of a cursor, so that a forged token is rejected before it reaches the database. */
export const cursorPatterns = {
  /** Any text that PostgreSQL can store. */
  text: /^[^\0]*$/,
  /** A UUID in its canonical form. */
  uuid: { test: (member: string) => parseUuid(member) === member },
  /** A whole number of at most 18 digits, which an int8 holds. */
  integer: /^-?[0-9]{1,18}$/,
  /** A time of this calendar, as `Date.toISOString` and PostgreSQL's microseconds write it. */
  time: { test: (member: string) => TIME.test(member) && !Number.isNaN(Date.parse(member)) },
} as const satisfies { [name: string]: CursorPattern };

/** The form of one member of a cursor, such as a regular expression. */
export interface CursorPattern {
  test(member: string): boolean;
}

const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|\+00(:00)?)$/;

/** A request for one page of a filtered list, as the caller sent it. */
export interface PageRequest {
  readonly pageSize: number;
  readonly pageToken: string;
  readonly filter: string;
}

/** The entries that a request asks for. */
export interface Page {
  /** Maximum number of entries. A store reads one more, to know whether there is a next page. */
  readonly limit: number;
  /** The cursor that {@link pageTokenOf} encoded for the previous page; undefined for the first page. */
  readonly after: string[] | undefined;
}

/**
 * Parses `page_size` and `page_token`.
 *
 * @param cursor - the form of this list's cursors; when absent, any number of members, each any text that PostgreSQL
 *   can store
 * @throws ServiceError FIELD_INVALID for a negative size, and for a token that no page can have carried
 */
export function pageOf(
  request: { pageSize: number; pageToken: string },
  cursor?: readonly CursorPattern[],
): Page {
  const { pageSize, pageToken } = request;
  if (!Number.isInteger(pageSize) || pageSize < 0) throw invalidField('page_size', 'must not be negative');
  const limit = pageSize === 0 ? PAGE_SIZE_DEFAULT : Math.min(pageSize, PAGE_SIZE_MAX);
  return { limit, after: pageToken === '' ? undefined : parsePageToken(pageToken, cursor) };
}

/** The token for the page that begins after the entry with this cursor. */
export function pageTokenOf(cursor: readonly string[]): string {
  return Buffer.from(JSON.stringify(cursor), 'utf8').toString('base64url');
}

/** Cuts a page of `limit` items out of rows, of which one more was read to know whether there is a next page. */
export function cutPage<Row>(
  rows: readonly Row[],
  limit: number,
  cursorOf: (last: Row) => readonly string[],
): { items: readonly Row[]; nextPageToken: string } {
  const items = rows.slice(0, limit);
  const last = items.at(-1);
  const isLastPage = rows.length <= limit || last === undefined;
  return { items, nextPageToken: isLastPage ? '' : pageTokenOf(cursorOf(last)) };
}

function parsePageToken(token: string, patterns: readonly CursorPattern[] | undefined): string[] {
  const cursor = token.length > PAGE_TOKEN_CHARACTERS_MAX ? undefined : decodeCursor(token);
  const good = cursor !== undefined && matches(cursor, patterns) && pageTokenOf(cursor) === token;
  if (!good) throw invalidField('page_token', 'must be the next_page_token of a page of this list');
  return cursor;
}

function decodeCursor(token: string): string[] | undefined {
  try {
    const cursor: unknown = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'));
    return Array.isArray(cursor) && cursor.every((member) => typeof member === 'string') ? cursor : undefined;
  } catch {
    return undefined;
  }
}

function matches(cursor: readonly string[], patterns: readonly CursorPattern[] | undefined): boolean {
  if (patterns === undefined) return cursor.every((member) => cursorPatterns.text.test(member));
  return (
    cursor.length === patterns.length && patterns.every((pattern, index) => pattern.test(cursor[index] ?? ''))
  );
}
