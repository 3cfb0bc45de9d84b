/** Digests of the last entry ids of the log, for any range of them. */

import { HELD_ENTRIES_MAX, ID_BYTES } from '@portcullis/guard/limits';
import type { LogId } from '../records/revocations.js';

/** Ids are moved once for as many new ones, so that adding one costs nearly nothing. */
const CAPACITY = 2 * HELD_ENTRIES_MAX;

/** Number of ids that fit at first. */
const CAPACITY_MIN = 64;

/**
 * The XOR of all ids from the first one up to each of the last {@link HELD_ENTRIES_MAX} entries: that of a range is the
 * difference of two of them. At most 3 MB.
 */
export class IdDigests {
  #length = 0;
  #sequences = new Float64Array(CAPACITY_MIN);
  #sums = Buffer.alloc(CAPACITY_MIN * ID_BYTES);
  /** The sum before the first entry that is remembered. */
  #before = Buffer.alloc(ID_BYTES);
  /** The entries after this sequence are remembered. */
  #after: number;

  /** @param after - the sequence after which every entry will be added */
  constructor(after: bigint) {
    this.#after = Number(after);
  }

  /** Adds the entries that follow, in the order of the log. */
  append(entries: readonly LogId[]): void {
    for (const { sequence, entryId } of entries) {
      if (this.#length === this.#sequences.length) this.#makeRoom();
      const before = this.#sumBefore(this.#length);
      this.#sequences[this.#length] = Number(sequence);
      this.#length += 1;
      writeXor(before, entryId, this.#sumBefore(this.#length));
    }
  }

  /** The XOR of the ids after a sequence up to another one; undefined when they are not all remembered. */
  between(after: bigint, upTo: bigint): Buffer | undefined {
    if (after < this.#after) return undefined;
    const start = this.#sumBefore(this.#indexAfter(Number(after)));
    const end = this.#sumBefore(this.#indexAfter(Number(upTo)));
    return writeXor(start, end, Buffer.alloc(ID_BYTES));
  }

  #sumBefore(index: number): Buffer {
    return index === 0 ? this.#before : this.#sums.subarray((index - 1) * ID_BYTES, index * ID_BYTES);
  }

  /** The index of the first entry after a sequence. */
  #indexAfter(sequence: number): number {
    let [low, high] = [0, this.#length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sequences[middle] ?? 0) > sequence) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Doubles the room, or forgets all but the last ids. */
  #makeRoom(): void {
    const dropped = this.#length < CAPACITY ? 0 : this.#length - HELD_ENTRIES_MAX;
    const sequences = this.#sequences.subarray(dropped, this.#length);
    const sums = this.#sums.subarray(dropped * ID_BYTES, this.#length * ID_BYTES);
    if (dropped > 0) {
      this.#before = Buffer.from(this.#sumBefore(dropped));
      this.#after = this.#sequences[dropped - 1] ?? this.#after;
    }
    const capacity = dropped > 0 ? CAPACITY : this.#length * 2;
    this.#sequences = new Float64Array(capacity);
    this.#sequences.set(sequences);
    this.#sums = Buffer.alloc(capacity * ID_BYTES);
    this.#sums.set(sums);
    this.#length = sequences.length;
  }
}

/** A loop, because the methods of typed arrays take twenty times as long for sixteen bytes. */
function writeXor(left: Uint8Array, right: Uint8Array, to: Buffer): Buffer {
  for (let at = 0; at < ID_BYTES; at += 1) to[at] = (left[at] ?? 0) ^ (right[at] ?? 0);
  return to;
}
