/** Pages of a list: how many entries a caller gets, and the opaque token with which the next page begins. */
import { invalidField } from '@portcullis/guard/errors';
import { parseUuid } from './identifiers.js';

/** Entries on a page when the caller does not say. */
export const PAGE_SIZE_DEFAULT = 50;
/** Entries on a page at most; more are asked for in vain, not refused. */
export const PAGE_SIZE_MAX = 200;
/** The longest page token that is looked at. */
export const PAGE_TOKEN_CHARACTERS_MAX = 2048;

/** Patterns for the members of a cursor, so that a forged token is refused before it reaches the database. */
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

/** What one member of a cursor looks like; a regular expression is one. */
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

/** Which entries are asked for. */
export interface Page {
  /** How many entries at most. Ask the store for one more, to know whether there is a next page. */
  readonly limit: number;
  /** The cursor given to {@link pageTokenOf} with the page before; undefined for the first page. */
  readonly after: string[] | undefined;
}

/**
 * What `page_size` and `page_token` of a request mean. `cursor` says what the members of this list's cursors look
 * like; without it, a cursor has any number of members, each any text that PostgreSQL can store.
 *
 * @throws ServiceError FIELD_INVALID for a negative size, and for a token that no page carried
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
