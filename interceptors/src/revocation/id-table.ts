/** Sets of 128-bit identifiers in typed arrays. A Set of strings would take five times the memory. */

import { randomInt } from 'node:crypto';

const WORDS = 4;
const HASH_BITS = 32;
const HASH_RANGE = 2 ** HASH_BITS;

/** Minimum size of a leaf, in slots. */
const SLOTS_MIN = 16;

/** Maximum size of a leaf, in slots. A larger one is split, so that growing never takes long. */
const SLOTS_MAX = 2 ** 12;

/** Maximum depth of a leaf. Deeper ones grow instead, because splitting does not separate colliding identifiers. */
const DEPTH_MAX = 16;

/** Maximum load of a leaf, so that probes for absent identifiers stay short. */
const FILL_MAX = 7 / 8;

/** Size of an entry of the directory, in bytes. */
const ENTRY_BYTES = 8;

/** Load of a leaf after it has grown. */
const FILL_GROWN = 0.75;

/** Load of a leaf once it holds as many identifiers as expected. Leaves differ by some percent, and few should grow. */
const FILL_EXPECTED = 0.84;

/** The sizes of larger leaves are multiples of this many slots, so that the memory of one fits another. */
const SLOTS_STEP = 128;

/** Maximum memory of dropped leaves that is kept for new ones, in bytes. */
const SPARE_BYTES_MAX = 8 * 1024 * 1024;

// Random, so that an attacker cannot choose identifiers that collide.
const FACTORS = Array.from({ length: WORDS }, () => randomInt(2 ** 31) * 2 + 1);
const [FACTOR_A = 1, FACTOR_B = 1, FACTOR_C = 1, FACTOR_D = 1] = FACTORS;

/**
 * A set of non-zero 128-bit identifiers: extendible hashing whose leaves use open addressing with linear probing. It
 * grows leaf by leaf, so that neither memory nor pauses grow in large steps.
 */
export class IdTable {
  /** By the first bits of the hash. A leaf of less depth has several entries. */
  #directory: Leaf[];
  #depth: number;
  #size = 0;

  /** @param expected - about how many identifiers will be added; a table of the right size does not grow */
  constructor(expected = 0) {
    this.#depth = depthFor(expected);
    const leaves = 2 ** this.#depth;
    const slots = slotsFor(expected / leaves, FILL_EXPECTED);
    this.#directory = Array.from({ length: leaves }, () => new Leaf(this.#depth, slots));
  }

  get size(): number {
    return this.#size;
  }

  /** Memory held, in bytes. */
  get bytes(): number {
    let bytes = this.#directory.length * ENTRY_BYTES;
    for (const leaf of new Set(this.#directory)) bytes += leaf.words.byteLength;
    return bytes;
  }

  /** Adds an identifier, given as four 32-bit words. @returns whether it is new */
  add(a: number, b: number, c: number, d: number): boolean {
    const hash = idHash(a, b, c, d);
    let leaf = this.#leafOf(hash);
    leaf.open();
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
    const hash = idHash(a, b, c, d);
    const leaf = this.#leafOf(hash);
    return isTaken(leaf.words, leaf.slotOf(hash, a, b, c, d));
  }

  /** Adds all identifiers to another table. */
  addTo(other: IdTable): void {
    for (const { words } of new Set(this.#directory)) {
      for (let slot = 0; slot < words.length; slot += WORDS) {
        if (!isTaken(words, slot)) continue;
        other.add(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
      }
    }
  }

  /** Gives the memory to other tables. The table must not be used afterwards. */
  release(): void {
    for (const { words } of new Set(this.#directory)) giveBack(words);
    this.#directory = [];
  }

  #leafOf(hash: number): Leaf {
    // In JavaScript, a shift by 32 bits shifts by 0.
    const leaf = this.#directory[this.#depth === 0 ? 0 : hash >>> (HASH_BITS - this.#depth)];
    if (leaf === undefined) throw new RangeError('expected a leaf for every hash');
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

const NO_WORDS = new Uint32Array(0);

/** The identifiers whose hashes have the same first `depth` bits. */
class Leaf {
  /** Number of common first bits of the hashes. */
  readonly depth: number;
  readonly #slots: number;
  /** Empty until the first identifier is added. */
  words: Uint32Array = NO_WORDS;
  size = 0;

  constructor(depth: number, slots: number) {
    this.depth = depth;
    this.#slots = slots;
  }

  /** Allocates the memory. */
  open(): void {
    if (this.words.length === 0) this.words = takeWords(this.#slots);
  }

  isFull(): boolean {
    return (this.size + 1) * WORDS > this.words.length * FILL_MAX;
  }

  /** Index of the first word of the identifier's slot, or of the free slot where it belongs. */
  slotOf(hash: number, a: number, b: number, c: number, d: number): number {
    const { words } = this;
    const slots = words.length / WORDS;
    // In the order of the hashes, so that growing reads and writes memory sequentially.
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
    this.words = takeWords(slotsFor(this.size, FILL_GROWN));
    this.size = 0;
    for (let slot = 0; slot < old.length; slot += WORDS) if (isTaken(old, slot)) this.putAgain(old, slot);
  }

  /** Copies an identifier from another leaf. It must not be in this one. */
  putAgain(words: Uint32Array, slot: number): void {
    const a = word(words, slot);
    const b = word(words, slot + 1);
    const c = word(words, slot + 2);
    const d = word(words, slot + 3);
    this.put(this.slotOf(idHash(a, b, c, d), a, b, c, d), a, b, c, d);
  }

  /** Splits the identifiers by the next bit of their hashes. */
  split(): readonly [Leaf, Leaf] {
    const { words } = this;
    const bit = HASH_BITS - this.depth - 1;
    const ones = new Uint8Array(words.length / WORDS);
    let count = 0;
    for (let slot = 0; slot < words.length; slot += WORDS) {
      const one = (hashAt(words, slot) >>> bit) & 1;
      ones[slot / WORDS] = one;
      // The hash of a free slot is zero.
      count += one;
    }
    const zeroLeaf = new Leaf(this.depth + 1, slotsFor(this.size - count, FILL_GROWN));
    const oneLeaf = new Leaf(this.depth + 1, slotsFor(count, FILL_GROWN));
    zeroLeaf.open();
    oneLeaf.open();
    for (let slot = 0; slot < words.length; slot += WORDS) {
      if (isTaken(words, slot)) (ones[slot / WORDS] === 1 ? oneLeaf : zeroLeaf).putAgain(words, slot);
    }
    return [zeroLeaf, oneLeaf];
  }
}

/** The number of slots for `size` identifiers at a load. */
function slotsFor(size: number, fill: number): number {
  const slots = Math.max(SLOTS_MIN, Math.ceil(size / fill));
  return slots < SLOTS_STEP ? slots : Math.ceil(slots / SLOTS_STEP) * SLOTS_STEP;
}

/** The depth at which no leaf needs to be split for `size` identifiers. */
function depthFor(size: number): number {
  let depth = 0;
  while (depth < DEPTH_MAX && size / 2 ** depth > SLOTS_MAX * FILL_EXPECTED) depth += 1;
  return depth;
}

/**
 * The memory of dropped leaves, by its length. Freed memory is reused only after a collection, and then in pieces: at ten
 * thousand identifiers a second, a process would hold half as much again as its tables.
 */
const spare = new Map<number, Uint32Array[]>();
let spareBytes = 0;

function takeWords(slots: number): Uint32Array {
  const words = spare.get(slots * WORDS)?.pop();
  if (words === undefined) return new Uint32Array(slots * WORDS);
  spareBytes -= words.byteLength;
  return words.fill(0);
}

function giveBack(words: Uint32Array): void {
  if (spareBytes + words.byteLength > SPARE_BYTES_MAX) {
    // Of sizes that no table has needed since.
    spare.clear();
    spareBytes = 0;
  }
  spareBytes += words.byteLength;
  const alike = spare.get(words.length);
  if (alike === undefined) spare.set(words.length, [words]);
  else alike.push(words);
}

function hashAt(words: Uint32Array, slot: number): number {
  return idHash(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
}

/** A 32-bit hash whose first bits are the best mixed. */
export function idHash(a: number, b: number, c: number, d: number): number {
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
