/**
 * The table of all states that were found, shared by the threads of a search: for each the fingerprint and, unless the
 * table is a bare one, that of the state from which it was first reached.
 *
 * It consists of segments that grow one by one, so that growing needs little more memory than the table has.
 */

/** Words of a fingerprint. */
const FINGERPRINT_WORDS = 2;

/** The segments; the highest bits of a fingerprint say in which one it is. */
const SEGMENT_BITS = 4;

/** Slots of a new segment. */
const SLOTS_MIN = 256;

/** Load above which a segment grows, and by how much it grows. */
const LOAD_MAX = 0.85;
const GROWTH = 1.25;

/** A fingerprint: two 32-bit numbers, neither of which is zero. */
export interface Fingerprint {
  low: number;
  high: number;
}

/** The memory of a table; threads can share it. */
export interface TableMemory {
  /** Words of a slot. */
  readonly words: number;
  readonly segments: readonly SharedArrayBuffer[];
}

/** Computes a fingerprint of 64 bits. @param words - a packed state */
export function fingerprintOf(words: Uint32Array, into: Fingerprint): void {
  let a = 0x9e3779b9;
  let b = 0x85ebca6b;
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? 0;
    a = Math.imul(a ^ word, 0xcc9e2d51);
    a = (a << 15) | (a >>> 17);
    b = Math.imul(b + word, 0x1b873593) ^ (b >>> 13);
    b = Math.imul(b, 0xe6546b64 | 1) + a;
  }
  into.low = mix(a ^ Math.imul(b, 5)) || 1;
  into.high = mix(b ^ (a >>> 7)) || 1;
}

function mix(value: number): number {
  let mixed = value;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** Memory for an empty table. @param isBare - it keeps no predecessors, and needs half of the memory */
export function createTable(isBare = false): TableMemory {
  const words = isBare ? FINGERPRINT_WORDS : 2 * FINGERPRINT_WORDS;
  return {
    words,
    segments: Array.from({ length: 2 ** SEGMENT_BITS }, () => createSegment(SLOTS_MIN, words)),
  };
}

function createSegment(slots: number, words: number): SharedArrayBuffer {
  return new SharedArrayBuffer(slots * words * Int32Array.BYTES_PER_ELEMENT);
}

/** Memory of a table with room for more states, of which there are so many now. The memory that still fits is kept. */
export function withRoomFor(memory: TableMemory, states: number, more: number): TableMemory {
  const { words, segments } = memory;
  // Fingerprints are spread evenly.
  const needed = Math.ceil((states + more) / segments.length / LOAD_MAX);
  const slotsOf = (segment: SharedArrayBuffer): number =>
    segment.byteLength / (words * Int32Array.BYTES_PER_ELEMENT);
  if (segments.every((segment) => slotsOf(segment) >= needed)) return memory;
  const slots = Math.ceil(needed * GROWTH);
  return { words, segments: segments.map((segment) => grown(segment, slots, words)) };
}

function grown(segment: SharedArrayBuffer, slots: number, words: number): SharedArrayBuffer {
  const larger = createSegment(slots, words);
  const from = new Int32Array(segment);
  const to = new Int32Array(larger);
  for (let at = 0; at < from.length; at += words) {
    const low = from[at] ?? 0;
    if (low === 0) continue;
    let target = slotOf(low, slots) * words;
    while (to[target] !== 0) target = target + words === to.length ? 0 : target + words;
    for (let word = 0; word < words; word += 1) to[target + word] = from[at + word] ?? 0;
  }
  return larger;
}

/** Where the search for a fingerprint begins. */
function slotOf(low: number, slots: number): number {
  return Math.floor(((low >>> 0) * slots) / 2 ** 32);
}

/** The table. Several threads may add at a time. */
export class FingerprintTable {
  readonly #segments: readonly Int32Array[];
  readonly #words: number;

  /** @param memory - from {@link createTable} */
  constructor({ words, segments }: TableMemory) {
    this.#words = words;
    this.#segments = segments.map((segment) => new Int32Array(segment));
  }

  /** Adds a fingerprint. @returns whether it is new */
  add(state: Fingerprint, from: Fingerprint): boolean {
    const words = this.#words;
    const segment = this.#segmentOf(state);
    let at = slotOf(state.low, segment.length / words) * words;
    for (;;) {
      let low = Atomics.load(segment, at);
      if (low === 0) {
        low = Atomics.compareExchange(segment, at, 0, state.low);
        if (low === 0) {
          if (words > FINGERPRINT_WORDS) {
            segment[at + 2] = from.low;
            segment[at + 3] = from.high;
          }
          Atomics.store(segment, at + 1, state.high);
          return true;
        }
      }
      if (low === state.low) {
        // Another thread has taken the slot and writes the second half next.
        let high = Atomics.load(segment, at + 1);
        while (high === 0) high = Atomics.load(segment, at + 1);
        if (high === state.high) return false;
      }
      at += words;
      if (at === segment.length) at = 0;
    }
  }

  /** The predecessor of a state; undefined when it is not in the table, or the table is a bare one. */
  predecessorOf(state: Fingerprint): Fingerprint | undefined {
    const words = this.#words;
    if (words === FINGERPRINT_WORDS) return undefined;
    const segment = this.#segmentOf(state);
    let at = slotOf(state.low, segment.length / words) * words;
    while (segment[at] !== 0) {
      if (segment[at] === state.low && segment[at + 1] === state.high) {
        return { low: segment[at + 2] ?? 0, high: segment[at + 3] ?? 0 };
      }
      at += words;
      if (at === segment.length) at = 0;
    }
    return undefined;
  }

  #segmentOf({ high }: Fingerprint): Int32Array {
    const segment = this.#segments[high >>> (32 - SEGMENT_BITS)];
    if (segment === undefined) throw new RangeError('the table has too few segments');
    return segment;
  }
}

/** The size of a table, in bytes. */
export function bytesOf({ segments }: TableMemory): number {
  return segments.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
