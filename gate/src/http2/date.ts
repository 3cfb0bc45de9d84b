/** The `date` header (RFC 9110 §6.6.1). */

import { encodeField } from './hpack-encoder.js';

const SECOND_MS = 1000;

let encodedSecond = -1;
let encodedDate: Buffer = Buffer.alloc(0);

/** The field of this second, encoded. */
export function dateField(): Buffer {
  const now = Date.now();
  const second = Math.floor(now / SECOND_MS);
  if (second !== encodedSecond) {
    encodedSecond = second;
    encodedDate = encodeField('date', new Date(now).toUTCString(), false);
  }
  return encodedDate;
}
