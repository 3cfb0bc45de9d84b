/** The `date` header (RFC 9110 §6.6.1). */

import { encodeField } from './hpack-encoder.js';

const SECOND_MS = 1000;

let encodedSecond = -1;
let encodedDate: Buffer = Buffer.alloc(0);

/** The field of a second, encoded. @param wallMs milliseconds since the Unix epoch */
export function dateField(wallMs: number): Buffer {
  const second = Math.floor(wallMs / SECOND_MS);
  if (second !== encodedSecond) {
    encodedSecond = second;
    encodedDate = encodeField('date', new Date(wallMs).toUTCString(), false);
  }
  return encodedDate;
}
