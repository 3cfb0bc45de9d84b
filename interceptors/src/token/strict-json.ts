/** JSON as a token may hold it: valid UTF-8, no member twice, not deep. */

import { isUtf8 } from 'node:buffer';

/** How deep objects and arrays may nest. */
export const JSON_DEPTH_MAX = 8;

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: JsonValue | undefined;
}

/**
 * Parses one JSON object.
 *
 * JSON.parse lets the last of two equal members win, while other parsers let the first win: a
 * token could then say one thing to one verifier and another thing to the next (RFC 8725 §2.4,
 * RFC 7519 §4). So members that come twice are refused, as is whatever is not UTF-8.
 *
 * @returns the object, or undefined when the bytes are not such an object
 */
export function parseJsonObject(bytes: Uint8Array): JsonObject | undefined {
  // Asked first: a Buffer puts U+FFFD in the place of what is not UTF-8.
  if (!isUtf8(bytes)) return undefined;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return hasUniqueMembers(text) ? (value as JsonObject) : undefined;
}

/**
 * Walks a text that JSON.parse took, and compares the names within each object. It can rely on the
 * grammar, so it looks only at strings, braces, brackets and commas.
 */
function hasUniqueMembers(text: string): boolean {
  // One set of names for each open object, undefined for each open array.
  const open: (Set<string> | undefined)[] = [];
  let expectsName = false;
  let index = 0;
  while (index < text.length) {
    const character = text.charCodeAt(index);
    if (character === QUOTE) {
      const end = endOfString(text, index);
      const names = open[open.length - 1];
      if (expectsName && names !== undefined) {
        // Decoded before it is compared: "\u0061" and "a" are one name.
        const spelt = text.slice(index + 1, end - 1);
        const name = spelt.includes('\\') ? (JSON.parse(text.slice(index, end)) as string) : spelt;
        if (name === '__proto__' || names.has(name)) return false;
        names.add(name);
        expectsName = false;
      }
      index = end;
      continue;
    }
    if (character === BRACE_OPEN || character === BRACKET_OPEN) {
      if (open.length >= JSON_DEPTH_MAX) return false;
      open.push(character === BRACE_OPEN ? new Set() : undefined);
      expectsName = character === BRACE_OPEN;
    } else if (character === BRACE_CLOSE || character === BRACKET_CLOSE) {
      open.pop();
      expectsName = false;
    } else if (character === COMMA) {
      expectsName = open[open.length - 1] !== undefined;
    }
    index += 1;
  }
  return true;
}

function endOfString(text: string, start: number): number {
  let index = start + 1;
  while (text.charCodeAt(index) !== QUOTE) index += text.charCodeAt(index) === BACKSLASH ? 2 : 1;
  return index + 1;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const BRACE_OPEN = 0x7b;
const BRACE_CLOSE = 0x7d;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const COMMA = 0x2c;
