/** Identifiers and times of a world, as the protocol has them. In states they are small numbers; 0 stands for none. */

import { ID_BYTES } from '@portcullis/guard/limits';

/**
 * The length of a tick, in milliseconds: that of the spans by which the list groups its entries, so that each keep_until is
 * the end of a span.
 */
export const TICK_MS = 30_000;

/** The present, in ticks of the database's clock, when times are relative to it. */
export const ORIGIN_TICK = 1000;

/** A call or a message is later than every request of the same tick; in milliseconds. */
export const LATER_MS = 100;

/** The name of the service that the instance belongs to. */
export const SERVICE = 'inventory';

/** The instance's id. */
export const INSTANCE = Buffer.alloc(ID_BYTES, 0x7f);

/** The clocks at one moment. */
export interface Present {
  readonly databaseMs: number;
  readonly monotonicMs: number;
  readonly wallMs: number;
}

/** Identifiers of epochs and key sets are a byte, repeated. */
const IDS = Array.from({ length: 256 }, (_, byte) =>
  byte === 0 ? Buffer.alloc(0) : Buffer.alloc(ID_BYTES, byte),
);
const EPOCH_BYTE = 0x80;
/** Maximum number of entries in a world. */
const ENTRIES_MAX = 8;
/** Each has a bit of its own, so that the XOR of some is never that of others, as with random ids. */
const ENTRY_IDS = Array.from({ length: ENTRIES_MAX }, (_, index) => Buffer.alloc(ID_BYTES, 1 << index));
const EMPTY = Buffer.alloc(0);

/** @param number - the index plus one; 0 for none */
export function entryIdOf(number: number): Buffer {
  return ENTRY_IDS[number - 1] ?? EMPTY;
}

/** @returns the index plus one; 0 for none */
export function entryIndexOf(id: Uint8Array): number {
  return 32 - Math.clz32(id[0] ?? 0);
}

/** The XOR of the ids of entries, one bit each; empty for none. */
export function digestOf(entries: number): Buffer {
  return entries === 0 ? EMPTY : Buffer.alloc(ID_BYTES, entries);
}

/** @returns the entries whose ids are in a digest, one bit each */
export function entriesInDigest(digest: Uint8Array): number {
  return digest[0] ?? 0;
}

export function epochIdOf(number: number): Buffer {
  return number === 0 ? EMPTY : (IDS[EPOCH_BYTE + number] ?? EMPTY);
}

export function epochIndexOf(id: Uint8Array): number {
  return id[0] === undefined ? 0 : id[0] - EPOCH_BYTE;
}

export function keysIdOf(number: number): Buffer {
  return IDS[number] ?? EMPTY;
}

export function keysIndexOf(id: Uint8Array): number {
  return id[0] ?? 0;
}

/** A fourth of the identifier of the token that an entry revokes. */
export function wordOf(index: number): number {
  return (0x01010101 * (1 << index)) >>> 0;
}
