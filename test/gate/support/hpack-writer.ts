/** Writes header blocks as clients do: with a dynamic table and Huffman code, through the encoder of node:http2. */

import { encodeField } from '../../../gate/src/http2/hpack-encoder.js';

type Pair = readonly [name: string, value: string];

/** A block without a dynamic table. Nothing is checked, so that faulty blocks can be written as well. */
export function block(...fields: readonly Pair[]): Buffer {
  return Buffer.concat(fields.map(([name, value]) => encodeField(name, value, false)));
}

/** A literal that enters the dynamic table. */
export function indexed(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.of(0x40), text(name), text(value)]);
}

function text(value: string): Buffer {
  if (value.length > 126) throw new RangeError('too long for one byte');
  return Buffer.concat([Buffer.of(value.length), Buffer.from(value, 'latin1')]);
}
