/** Sets of 128-bit identifiers in typed arrays: a Map of strings would take five times the memory. */

import { randomInt } from 'node:crypto';

const WORDS = 4;
const HASH_BITS = 32;
const HASH_RANGE = 2 ** HASH_BITS;

/** The smallest leaf, in slots. */
const SLOTS_MIN = 16;

/** A leaf that would become larger is split in two, so that no growth of a table takes long. */
const SLOTS_MAX = 2 ** 12;

/** The deepest leaves; beyond that they grow instead, because identifiers chosen to collide cannot be split. */
const DEPTH_MAX = 16;

/** At most seven eighths of a leaf are filled, so that a probe for what is absent stays short. */
const FILL_MAX = 7 / 8;

/** How full a leaf is after it has grown. */
const FILL_GROWN = 0.64;

// Random, so that nobody can choose identifiers that collide.
const FACTORS = Array.from({ length: WORDS }, () => randomInt(2 ** 31) * 2 + 1);
const [FACTOR_A = 1, FACTOR_B = 1, FACTOR_C = 1, FACTOR_D = 1] = FACTORS;

/**
 * A set of non-zero 128-bit identifiers: extendible hashing, in whose leaves identifiers lie by open
 * addressing with linear probing. It grows leaf by leaf, in steps small enough for both the memory
 * and the pause.
 */
export class IdTable {
  /** By the first bits of the hash; a leaf that is less deep stands here several times. */
  #directory: Leaf[] = [new Leaf(0, SLOTS_MIN)];
  #depth = 0;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    let bytes = 0;
    for (const leaf of new Set(this.#directory)) bytes += leaf.words.byteLength;
    return bytes;
  }

  /** @returns whether it was not there yet */
  add(a: number, b: number, c: number, d: number): boolean {
    const hash = hashOf(a, b, c, d);
    let leaf = this.#leafOf(hash);
    let slot = leaf.slotOf(hash, a, b, c, d);
    if (isTaken(leaf.words, slot)) return false;
    while (leaf.isFull()) {
      this.#makeRoomIn(leaf);
      leaf = this.#leafOf(hash);
      slot = leaf.slotOf(hash, a, b, c, d);
    }
    leaf.put(slot, a, b, c, d);
    this.#size += 1;
    return true;
  }

  has(a: number, b: number, c: number, d: number): boolean {
    const hash = hashOf(a, b, c, d);
    const leaf = this.#leafOf(hash);
    return isTaken(leaf.words, leaf.slotOf(hash, a, b, c, d));
  }

  /** Adds all of its identifiers to another table. */
  addTo(other: IdTable): void {
    for (const { words } of new Set(this.#directory)) {
      for (let slot = 0; slot < words.length; slot += WORDS) {
        if (!isTaken(words, slot)) continue;
        other.add(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
      }
    }
  }

  #leafOf(hash: number): Leaf {
    // A shift by 32 bits shifts by none.
    const leaf = this.#directory[this.#depth === 0 ? 0 : hash >>> (HASH_BITS - this.#depth)];
    if (leaf === undefined) throw new RangeError('a directory without leaves');
    return leaf;
  }

  #makeRoomIn(leaf: Leaf): void {
    if (leaf.depth < DEPTH_MAX && leaf.size > SLOTS_MAX * FILL_MAX) this.#split(leaf);
    else leaf.grow();
  }

  #split(leaf: Leaf): void {
    if (leaf.depth === this.#depth) {
      this.#directory = this.#directory.flatMap((each) => [each, each]);
      this.#depth += 1;
    }
    const halves = leaf.split();
    const shift = this.#depth - leaf.depth - 1;
    for (const [index, each] of this.#directory.entries()) {
      if (each === leaf) this.#directory[index] = halves[(index >>> shift) & 1] ?? leaf;
    }
  }
}

/** The identifiers whose hashes begin with the same bits. */
class Leaf {
  /** How many bits those are. */
  readonly depth: number;
  words: Uint32Array;
  size = 0;

  constructor(depth: number, slots: number) {
    this.depth = depth;
    this.words = new Uint32Array(slots * WORDS);
  }

  isFull(): boolean {
    return (this.size + 1) * WORDS > this.words.length * FILL_MAX;
  }

  /** The first word of the slot that holds the identifier, or of the free one where it belongs. */
  slotOf(hash: number, a: number, b: number, c: number, d: number): number {
    const { words } = this;
    const slots = words.length / WORDS;
    // In the order of the hashes, so that growing reads and writes memory from its beginning to its end.
    let slot = Math.trunc((((hash << this.depth) >>> 0) * slots) / HASH_RANGE) * WORDS;
    while (
      isTaken(words, slot) &&
      !(words[slot] === a && words[slot + 1] === b && words[slot + 2] === c && words[slot + 3] === d)
    ) {
      slot += WORDS;
      if (slot === words.length) slot = 0;
    }
    return slot;
  }

  put(slot: number, a: number, b: number, c: number, d: number): void {
    const { words } = this;
    words[slot] = a;
    words[slot + 1] = b;
    words[slot + 2] = c;
    words[slot + 3] = d;
    this.size += 1;
  }

  grow(): void {
    const old = this.words;
    this.words = new Uint32Array(slotsFor(this.size) * WORDS);
    this.size = 0;
    for (let slot = 0; slot < old.length; slot += WORDS) if (isTaken(old, slot)) this.putAgain(old, slot);
  }

  /** Puts in what lies in another leaf; it is not here yet. */
  putAgain(words: Uint32Array, slot: number): void {
    const a = word(words, slot);
    const b = word(words, slot + 1);
    const c = word(words, slot + 2);
    const d = word(words, slot + 3);
    this.put(this.slotOf(hashOf(a, b, c, d), a, b, c, d), a, b, c, d);
  }

  /** Two leaves that hold the same, by the next bit of the hash. */
  split(): readonly [Leaf, Leaf] {
    const { words } = this;
    const bit = HASH_BITS - this.depth - 1;
    const ones = new Uint8Array(words.length / WORDS);
    let count = 0;
    for (let slot = 0; slot < words.length; slot += WORDS) {
      const one = (hashAt(words, slot) >>> bit) & 1;
      ones[slot / WORDS] = one;
      if (isTaken(words, slot)) count += one;
    }
    const zeroLeaf = new Leaf(this.depth + 1, slotsFor(this.size - count));
    const oneLeaf = new Leaf(this.depth + 1, slotsFor(count));
    for (let slot = 0; slot < words.length; slot += WORDS) {
      if (isTaken(words, slot)) (ones[slot / WORDS] === 1 ? oneLeaf : zeroLeaf).putAgain(words, slot);
    }
    return [zeroLeaf, oneLeaf];
  }
}

/** Slots for so many identifiers and some more. */
function slotsFor(size: number): number {
  return Math.max(SLOTS_MIN, Math.ceil(size / FILL_GROWN));
}

function hashAt(words: Uint32Array, slot: number): number {
  return hashOf(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
}

/** 32 bits of which the first are the best. */
function hashOf(a: number, b: number, c: number, d: number): number {
  return (
    (Math.imul(a, FACTOR_A) + Math.imul(b, FACTOR_B) + Math.imul(c, FACTOR_C) + Math.imul(d, FACTOR_D)) >>> 0
  );
}

function isTaken(words: Uint32Array, slot: number): boolean {
  return (word(words, slot) | word(words, slot + 1) | word(words, slot + 2) | word(words, slot + 3)) !== 0;
}

function word(words: Uint32Array, index: number): number {
  return words[index] ?? 0;
}
