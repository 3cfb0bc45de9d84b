/**
 * Filters of lists (AIP-160, a strict part of it): comparisons of a field with a value, joined by AND.
 *
 * ```text
 * filter     = comparison { "AND" comparison }
 * comparison = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
 * value      = integer | word | '"' characters '"'      with \" and \\ inside
 * ```
 *
 * Each list declares the fields that a caller may compare. Anything else of AIP-160 is rejected, with its position. A
 * filter becomes a condition with parameters: a caller's text never becomes SQL.
 */
import { createHash } from 'node:crypto';
import { invalidField } from '@portcullis/guard/errors';
import { parseUuid } from './identifiers.js';
import type { CursorPattern } from './paging.js';
import { isStoredFaithfully } from './text.js';

/** The longest filter, in UTF-16 units. */
const FILTER_CHARACTERS_MAX = 1_000;
/** Maximum number of comparisons in one filter. */
export const FILTER_COMPARISONS_MAX = 10;

/** The type of a field, and the SQL expression that it stands for. */
type FilterField =
  /** Compared by = and != only. */
  | { readonly type: 'text' | 'uuid'; readonly sql: string }
  /** One of some words; compared by = and != only. */
  | { readonly type: 'word'; readonly sql: string; readonly words: readonly string[] }
  /** A whole number in the range of int8. */
  | { readonly type: 'integer'; readonly sql: string }
  /** A time in the form of RFC 3339, in quotation marks. */
  | { readonly type: 'time'; readonly sql: string };

/** The fields of a list that can be compared, by their names in the schema. */
export type FilterFields = Readonly<Record<string, FilterField>>;

/** A filter in the form that a store uses. */
export interface Filter {
  /** `AND …` for a WHERE clause; empty when nothing is filtered. */
  readonly condition: string;
  /** The values of the condition's parameters. */
  readonly values: readonly (string | bigint)[];
  /** The first member of the list's cursors, so that a page token is valid only with its own filter. */
  readonly fingerprint: string;
  /** The pattern of that member. */
  readonly pattern: CursorPattern;
}

/**
 * Parses a filter.
 *
 * @param parameter - the number of its first parameter, such as 3 for `$3`
 * @throws ServiceError FIELD_INVALID for `filter`, with the fault and its position
 */
export function filterOf(text: string, fields: FilterFields, parameter: number): Filter {
  const fingerprint = createHash('sha256').update(text, 'utf8').digest('base64url').slice(0, 11);
  const pattern = { test: (member: string) => member === fingerprint };
  if (text === '') return { condition: '', values: [], fingerprint, pattern };
  if (text.length > FILTER_CHARACTERS_MAX)
    throw fault(`must have at most ${FILTER_CHARACTERS_MAX} characters`);
  if (!isStoredFaithfully(text)) throw fault('must be UTF-8 without NUL and U+FFFD');
  const comparisons = parse(tokensOf(text), fields);
  return {
    condition: comparisons.map(({ sql }, index) => ` AND ${sql(`$${parameter + index}`)}`).join(''),
    values: comparisons.map(({ value }) => value),
    fingerprint,
    pattern,
  };
}

interface Token {
  readonly kind: 'word' | 'operator' | 'text' | 'end';
  readonly text: string;
  /** Where it begins, counted from 1. */
  readonly at: number;
}

const OPERATORS: ReadonlySet<string> = new Set(['=', '!=', '<', '<=', '>', '>=']);
const TOKEN =
  /\s*(?:(?<text>"(?:[^"\\]|\\["\\])*")|(?<operator>[!<>]=|[=<>])|(?<word>-?[A-Za-z0-9_][A-Za-z0-9_.-]*))/y;

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  const end = text.trimEnd().length;
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < end) {
    const from = TOKEN.lastIndex;
    const match = TOKEN.exec(text);
    if (match?.groups === undefined) {
      const at = from + (/\S/.exec(text.slice(from))?.index ?? 0) + 1;
      throw fault(`cannot be read from character ${at} on`);
    }
    const [kind = 'word', found = ''] =
      Object.entries(match.groups).find(([, group]) => group !== undefined) ?? [];
    tokens.push({ kind: kind as Token['kind'], text: found, at: TOKEN.lastIndex - found.length + 1 });
  }
  tokens.push({ kind: 'end', text: 'its end', at: end + 1 });
  return tokens;
}

interface Comparison {
  readonly sql: (parameter: string) => string;
  readonly value: string | bigint;
}

function parse(tokens: readonly Token[], fields: FilterFields): Comparison[] {
  const comparisons: Comparison[] = [];
  let next = 0;
  const take = (kind: Token['kind'] | 'value', wanted: string): Token => {
    const token = tokens[next++];
    const fits = kind === 'value' ? token?.kind === 'word' || token?.kind === 'text' : token?.kind === kind;
    if (token === undefined || !fits) throw fault(`must have ${wanted} at character ${token?.at ?? 1}`);
    return token;
  };
  for (;;) {
    const name = take('word', 'a field');
    const field = Object.hasOwn(fields, name.text) ? fields[name.text] : undefined;
    if (field === undefined) {
      throw fault(`names ${name.text}, which is none of ${Object.keys(fields).join(', ')}`);
    }
    const operator = take('operator', `one of ${[...OPERATORS].join(' ')}`).text;
    comparisons.push(compare(name.text, field, operator, take('value', 'a value')));
    if (comparisons.length > FILTER_COMPARISONS_MAX) {
      throw fault(`must have at most ${FILTER_COMPARISONS_MAX} comparisons`);
    }
    if (tokens[next]?.kind === 'end') return comparisons;
    if (take('word', 'AND').text !== 'AND') throw fault(`must have AND at character ${tokens[next - 1]?.at}`);
  }
}

function compare(name: string, field: FilterField, operator: string, value: Token): Comparison {
  const text = value.kind === 'text' ? value.text.slice(1, -1).replace(/\\(["\\])/g, '$1') : value.text;
  // NULL differs from every value, so != must not omit it as SQL would.
  const operation = operator === '!=' ? 'IS DISTINCT FROM' : operator;
  const sql = (cast: string) => (parameter: string) => `${field.sql} ${operation} ${parameter}::${cast}`;
  const ordered = field.type === 'integer' || field.type === 'time';
  if (!ordered && operator !== '=' && operator !== '!=') throw fault(`compares ${name} by = and != only`);
  switch (field.type) {
    case 'text':
      if (value.kind !== 'text') throw fault(`must have the value of ${name} in quotation marks`);
      return { sql: sql('text'), value: text };
    case 'uuid':
      if (value.kind !== 'text' || parseUuid(text) === undefined) {
        throw fault(`compares ${name} with a UUID in quotation marks`);
      }
      return { sql: sql('uuid'), value: text };
    case 'word':
      if (!field.words.includes(text)) throw fault(`compares ${name} with one of ${field.words.join(', ')}`);
      return { sql: sql('text'), value: text };
    case 'integer':
      if (value.kind !== 'word' || !isInt64(text)) throw fault(`compares ${name} with a whole number`);
      return { sql: sql('bigint'), value: BigInt(text) };
    case 'time':
      if (value.kind !== 'text' || !isTime(text)) {
        throw fault(`compares ${name} with a time such as "2026-01-31T12:00:00Z"`);
      }
      return { sql: sql('timestamptz'), value: text };
  }
}

const INTEGER = /^-?[0-9]{1,19}$/;
const INT64_MAX = 2n ** 63n - 1n;
const TIME =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])$/;

function isInt64(text: string): boolean {
  return INTEGER.test(text) && BigInt(text) <= INT64_MAX && BigInt(text) >= -INT64_MAX - 1n;
}

/** A day that does not exist would otherwise become one of the next month, or an error of the database. */
function isTime(text: string): boolean {
  if (!TIME.test(text)) return false;
  const day = text.slice(0, 10);
  const begin = new Date(`${day}T00:00:00Z`);
  return !Number.isNaN(Date.parse(text)) && !day.startsWith('0000') && begin.toISOString().startsWith(day);
}

function fault(description: string) {
  return invalidField('filter', description);
}
