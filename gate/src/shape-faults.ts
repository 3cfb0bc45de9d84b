/**
 * What is wrong with a file that people write, in words for them: every fault by its place, with the name that was
 * probably meant. Values are never repeated, because files may hold secrets.
 */

import type { z } from 'zod';
import { nearest } from './nearest.js';

/** Where something stands: names of members, and numbers of items. */
export type Place = readonly PropertyKey[];

/** The names that may stand at a place. */
interface KnownNames {
  /** What one of them is called. */
  readonly noun: string;
  readonly names: readonly string[];
}

/** How a file is described. */
export interface Described {
  /** A place in the words of the file. */
  readonly placeOf?: (place: Place) => string;
  /** The names that a table may have; undefined where any may stand. */
  readonly knownAt: (place: Place) => KnownNames | undefined;
}

/** So many names are listed when none is near. */
const LISTED_MAX = 12;

/**
 * Describes why a value does not have its shape.
 *
 * @returns one phrase for each fault, which begins with its place
 */
export function shapeFaults(error: z.ZodError, value: unknown, described: Described): string[] {
  return faultsAt(error.issues, [], value, described);
}

function faultsAt(
  issues: readonly z.core.$ZodIssue[],
  prefix: Place,
  value: unknown,
  described: Described,
): string[] {
  return issues.flatMap((issue) => faultsOf(issue, [...prefix, ...issue.path], value, described));
}

function faultsOf(issue: z.core.$ZodIssue, place: Place, value: unknown, described: Described): string[] {
  const { placeOf = dotted, knownAt } = described;
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map(
        (key) => `${placeOf([...place, key])} ${unknownName(key, knownAt(place) ?? NO_NAMES)}`,
      );
    case 'invalid_union': {
      const fitting = issue.errors.find((branch) => !branch.some(isOfAnotherKind));
      return fitting === undefined
        ? [`${placeOf(place)} ${issue.message}`]
        : faultsAt(fitting, place, value, described);
    }
    case 'invalid_key':
      return [`${placeOf(place)} ${issue.issues[0]?.message ?? issue.message}`];
    default:
      return [`${placeOf(place)} ${problemOf(issue, valueAt(value, place))}`];
  }
}

const NO_NAMES: KnownNames = { noun: 'name', names: [] };

/** What to say about a name that does not exist. */
export function unknownName(wrong: string, { noun, names }: KnownNames): string {
  const meant = nearest(wrong, names);
  if (meant !== undefined) return `is no ${noun}: did you mean ${meant}?`;
  const listed = names.length > 0 && names.length <= LISTED_MAX ? `: expected ${listOf(names)}` : '';
  return `is no ${noun}${listed}`;
}

/** The value is of another kind than this branch of a union is about. */
function isOfAnotherKind({ code, path }: z.core.$ZodIssue): boolean {
  return (
    path.length === 0 && (code === 'invalid_type' || code === 'invalid_value' || code === 'invalid_union')
  );
}

function problemOf(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return value === undefined
        ? 'is missing'
        : `must be ${KINDS[issue.expected] ?? issue.expected}, got ${kindOf(value)}`;
    case 'invalid_value': {
      const names = issue.values.map(String);
      const meant = typeof value === 'string' ? nearest(value, names) : undefined;
      return `must be ${listOf(names)}${meant === undefined ? '' : `: did you mean ${meant}?`}`;
    }
    case 'too_small':
      return issue.origin === 'number'
        ? `must be ${issue.inclusive === false ? 'more than' : 'at least'} ${issue.minimum}`
        : 'must not be empty';
    case 'too_big':
      return `must be at most ${issue.maximum}${issue.origin === 'array' ? ' items' : ''}`;
    default:
      return issue.message;
  }
}

const KINDS: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a table',
  record: 'a table',
};

function kindOf(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'number' && !Number.isInteger(value)) return 'another number';
  return KINDS[typeof value] ?? 'something else';
}

function listOf(names: readonly string[]): string {
  return names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}

function valueAt(value: unknown, place: Place): unknown {
  let at = value;
  for (const key of place) {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined;
    at = Reflect.get(at, key);
  }
  return at;
}

function dotted(place: Place): string {
  return place.length === 0 ? 'the file' : place.map(String).join('.');
}
