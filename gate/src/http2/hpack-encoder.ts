/** Encodes header fields without a dynamic table (RFC 7541 §6.1, §6.2.2, §6.2.3), so that every block stands alone. */

import type { Field } from './field.js';
import { STATIC_TABLE } from './static-table.js';

/** A dynamic table size update to 0 (RFC 7541 §6.3): the first block that a peer receives begins with it. */
export const EMPTY_TABLE = 0x20;

const NEVER_INDEXED = 0x10;
const INDEXED = 0x80;

/** Index of the first entry of each name. */
const indexOfName = new Map<string, number>();
/** Index of each entry with a value. */
const indexOfField = new Map<string, number>();
STATIC_TABLE.forEach(([name, value], position) => {
  if (!indexOfName.has(name)) indexOfName.set(name, position + 1);
  if (value !== '') indexOfField.set(`${name}\n${value}`, position + 1);
});

/** Encodes a field. Characters above U+00FF are cut to their low byte. */
export function encodeField(name: string, value: string, isSensitive: boolean): Buffer {
  const whole = isSensitive ? undefined : indexOfField.get(`${name}\n${value}`);
  if (whole !== undefined) return Buffer.of(INDEXED | whole);
  const index = indexOfName.get(name) ?? 0;
  const buffer = Buffer.allocUnsafe(name.length + value.length + 3 * INTEGER_BYTES_MAX);
  let at = writeInteger(buffer, 0, isSensitive ? NEVER_INDEXED : 0, 4, index);
  if (index === 0) at = writeText(buffer, at, name);
  at = writeText(buffer, at, value);
  return buffer.subarray(0, at);
}

/** The encoded form of a field, which is kept with it. */
export function wireOf(field: Field): Buffer {
  field.wire ??= encodeField(field.name, field.value, field.isSensitive);
  return field.wire;
}

/** Encodes a list of fields. */
export function encodeFields(fields: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => encodeField(name, value, false)));
}

/** Maximum length of an encoded integer of 32 bits. */
const INTEGER_BYTES_MAX = 6;

/** Writes an integer with a prefix (RFC 7541 §5.1). @returns where it ends */
function writeInteger(target: Buffer, at: number, flags: number, prefixBits: number, value: number): number {
  const max = (1 << prefixBits) - 1;
  if (value < max) {
    target[at] = flags | value;
    return at + 1;
  }
  target[at] = flags | max;
  let rest = value - max;
  let next = at + 1;
  while (rest >= 128) {
    target[next] = (rest & 127) | 128;
    rest >>>= 7;
    next += 1;
  }
  target[next] = rest;
  return next + 1;
}

function writeText(target: Buffer, at: number, text: string): number {
  const from = writeInteger(target, at, 0, 7, text.length);
  return from + target.write(text, from, 'latin1');
}
