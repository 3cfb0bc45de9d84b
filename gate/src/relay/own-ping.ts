/** The PING frames of the gate itself: to find dead peers, and to learn what a client sent before it read a GOAWAY. */

import { randomBytes } from 'node:crypto';

/** What they carry. Random, so that no peer's own PING is taken for one. */
export const OWN_PING: Buffer = randomBytes(8);

/** Whether `bytes` from `at` on are the payload of such a PING. */
export function isOwnPing(bytes: Buffer, at: number): boolean {
  return bytes.compare(OWN_PING, 0, 8, at, at + 8) === 0;
}
