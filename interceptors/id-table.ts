/** Sets of 128-bit identifiers in typed arrays: a Map of strings would take five times the memory. */

const WORDS = 4;

/** The smallest table, in slots. */
const SLOTS_MIN = 16;

/** A set of non-zero 128-bit identifiers; open addressing with linear probing. */
export class IdTable {
  #words = new Uint32Array(SLOTS_MIN * WORDS);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    return this.#words.byteLength;
  }

  /** @returns whether it was not there yet */
  add(a: number, b: number, c: number, d: number): boolean {
    // At most seven eighths are filled, so that a probe for what is absent stays short.
    if ((this.#size + 1) * 8 > (this.#words.length / WORDS) * 7) this.#grow();
    const slot = this.#slotOf(a, b, c, d);
    const words = this.#words;
    if (isTaken(words, slot)) return false;
    words[slot] = a;
    words[slot + 1] = b;
    words[slot + 2] = c;
    words[slot + 3] = d;
    this.#size += 1;
    return true;
  }

  has(a: number, b: number, c: number, d: number): boolean {
    return isTaken(this.#words, this.#slotOf(a, b, c, d));
  }

  /** The first word of the slot that holds the identifier, or of the free one where it belongs. */
  #slotOf(a: number, b: number, c: number, d: number): number {
    const words = this.#words;
    const mask = words.length - 1;
    // The identifiers are random, so their own bits serve as the hash.
    let slot = (Math.imul(a ^ c, WORDS) & mask) >>> 0;
    while (
      isTaken(words, slot) &&
      !(words[slot] === a && words[slot + 1] === b && words[slot + 2] === c && words[slot + 3] === d)
    ) {
      slot = (slot + WORDS) & mask;
    }
    return slot;
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    for (let slot = 0; slot < old.length; slot += WORDS) {
      if (!isTaken(old, slot)) continue;
      const target = this.#slotOf(
        word(old, slot),
        word(old, slot + 1),
        word(old, slot + 2),
        word(old, slot + 3),
      );
      this.#words.set(old.subarray(slot, slot + WORDS), target);
    }
  }
}

function isTaken(words: Uint32Array, slot: number): boolean {
  return (word(words, slot) | word(words, slot + 1) | word(words, slot + 2) | word(words, slot + 3)) !== 0;
}

function word(words: Uint32Array, index: number): number {
  return words[index] ?? 0;
}
