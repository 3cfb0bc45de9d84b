/**
 * The fingerprints of all states that were visited, shared by all workers: a hash table of 64-bit fingerprints in shared
 * memory, each with the fingerprint of the state from which it was first reached.
 */

/** Words of a slot: the fingerprint, and that of the predecessor. */
const WORDS = 4;

/** Load above which a table should be replaced by a larger one. */
const LOAD_MAX = 0.6;

/** A fingerprint: two 32-bit numbers, neither of which is zero. */
export interface Fingerprint {
  low: number;
  high: number;
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

/** The table. Several threads may add at a time. */
export class FingerprintTable {
  readonly words: Int32Array;
  readonly #mask: number;

  /** @param memory - from {@link createTable} */
  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    this.#mask = this.words.length / WORDS - 1;
  }

  get slots(): number {
    return this.#mask + 1;
  }

  /** Adds a fingerprint. @returns whether it is new */
  add(state: Fingerprint, from: Fingerprint): boolean {
    const { words } = this;
    let slot = (state.high ^ (state.low >>> 5)) & this.#mask;
    for (;;) {
      const at = slot * WORDS;
      let low = Atomics.load(words, at);
      if (low === 0) {
        low = Atomics.compareExchange(words, at, 0, state.low);
        if (low === 0) {
          words[at + 2] = from.low;
          words[at + 3] = from.high;
          Atomics.store(words, at + 1, state.high);
          return true;
        }
      }
      if (low === state.low) {
        // Another thread has taken the slot and writes the second half next.
        let high = Atomics.load(words, at + 1);
        while (high === 0) high = Atomics.load(words, at + 1);
        if (high === state.high) return false;
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  /** The predecessor of a state; undefined when it is not in the table. */
  predecessorOf(state: Fingerprint): Fingerprint | undefined {
    const { words } = this;
    let slot = (state.high ^ (state.low >>> 5)) & this.#mask;
    for (;;) {
      const at = slot * WORDS;
      if (words[at] === 0) return undefined;
      if (words[at] === state.low && words[at + 1] === state.high) {
        return { low: words[at + 2] ?? 0, high: words[at + 3] ?? 0 };
      }
      slot = (slot + 1) & this.#mask;
    }
  }

  /** Copies all fingerprints into another table. */
  copyTo(other: FingerprintTable): void {
    const { words } = this;
    for (let at = 0; at < words.length; at += WORDS) {
      const low = words[at] ?? 0;
      if (low === 0) continue;
      other.add({ low, high: words[at + 1] ?? 0 }, { low: words[at + 2] ?? 0, high: words[at + 3] ?? 0 });
    }
  }
}

/** Memory for a table. @param slots - a power of two */
export function createTable(slots: number): SharedArrayBuffer {
  return new SharedArrayBuffer(slots * WORDS * Int32Array.BYTES_PER_ELEMENT);
}

/** The number of slots that `states` states need. */
export function slotsFor(states: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(1024, states / LOAD_MAX)));
}
