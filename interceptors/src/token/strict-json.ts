/** JSON as a token may contain it: valid UTF-8, no duplicate members, limited depth. */

import { isUtf8 } from 'node:buffer';

/** Maximum nesting of objects and arrays. */
export const JSON_DEPTH_MAX = 8;

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: JsonValue | undefined;
}

/**
 * Parses one JSON object.
 *
 * Of two members with the same name, JSON.parse keeps the last, other parsers the first. A token with both would mean
 * different things to different verifiers (RFC 7519 §4, RFC 8725 §2.4), so duplicates are rejected. So are bytes that are
 * not UTF-8.
 *
 * @returns undefined when the bytes are not such an object
 */
export function parseJsonObject(bytes: Uint8Array): JsonObject | undefined {
  // Checked before decoding, which would replace invalid bytes with U+FFFD.
  if (!isUtf8(bytes)) return undefined;
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isJsonObject(value) && hasUniqueMembers(text) ? value : undefined;
}

/** Whether a value from {@link parseJsonObject} is an object, neither null nor a list. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Compares the member names within each object of a text that JSON.parse has accepted. The grammar is known to hold, so
 * only strings, braces, brackets and commas matter.
 */
function hasUniqueMembers(text: string): boolean {
  // The names of each open object; undefined for each open array.
  const open: (Set<string> | undefined)[] = [];
  // Whether the next string is a name, if it stands in an object. A brace is the first to say so.
  let expectsName: boolean | undefined;
  let index = 0;
  while (index < text.length) {
    const character = text.charCodeAt(index);
    if (character === QUOTE) {
      const end = endOfString(text, index);
      const names = expectsName ? open[open.length - 1] : undefined;
      if (names !== undefined) {
        // Decoded before comparison: "\u0061" and "a" are the same name.
        const raw = text.slice(index + 1, end - 1);
        const name = raw.includes('\\') ? (JSON.parse(text.slice(index, end)) as string) : raw;
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
      expectsName = true;
    } else if (character === BRACE_CLOSE || character === BRACKET_CLOSE) {
      // A comma or another end follows.
      open.pop();
    } else if (character === COMMA) {
      expectsName = true;
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
