/** Sets of 128-bit identifiers in typed arrays. A Set of strings would take five times the memory. */

import { CompactLeaf, giveBack, idHash, type Leaf, OpenLeaf, SLOTS_MAX, slotsFor } from './id-leaf.js';

const HASH_BITS = 32;

/** Maximum depth of a leaf. Deeper ones grow instead, because splitting does not separate colliding identifiers. */
const DEPTH_MAX = 16;

/** Size of an entry of the directory, in bytes. */
const ENTRY_BYTES = 8;

/** Load of a leaf once it holds as many identifiers as expected. Leaves differ by some percent, and few should grow. */
const FILL_EXPECTED = 0.84;

/** Something was added since the last step of compacting. */
const IN_USE = -1;

/**
 * A set of non-zero 128-bit identifiers: extendible hashing whose leaves use open addressing with linear probing. It
 * grows leaf by leaf, so that neither memory nor pauses grow in large steps. Leaves of a table to which nothing is added
 * can be compacted, one by one.
 */
export class IdTable {
  /** By the first bits of the hash. A leaf of less depth has several entries. */
  #directory: Leaf[];
  #depth: number;
  #size = 0;
  /** The entry of the directory where compacting goes on. */
  #compactNext = IN_USE;

  /** @param expected - about how many identifiers will be added; a table of the right size does not grow */
  constructor(expected = 0) {
    this.#depth = depthFor(expected);
    const leaves = 2 ** this.#depth;
    const slots = slotsFor(expected / leaves, FILL_EXPECTED);
    this.#directory = Array.from({ length: leaves }, () => new OpenLeaf(this.#depth, slots));
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
    for (;;) {
      const leaf = this.#leafOf(hash);
      const added = leaf.add(hash, a, b, c, d);
      if (added === 'known') return false;
      if (added === 'full') {
        this.#makeRoomIn(leaf);
        continue;
      }
      this.#size += 1;
      this.#compactNext = IN_USE;
      return true;
    }
  }

  has(a: number, b: number, c: number, d: number): boolean {
    const hash = idHash(a, b, c, d);
    return this.#leafOf(hash).has(hash, a, b, c, d);
  }

  /** Adds all identifiers to another table. */
  addTo(other: IdTable): void {
    for (const leaf of new Set(this.#directory)) leaf.visit((a, b, c, d) => void other.add(a, b, c, d));
  }

  /**
   * Compacts one leaf, unless something was added since the last call. Compact leaves take less memory, and identifiers can
   * still be added.
   *
   * @returns whether there was a leaf to compact
   */
  compact(): boolean {
    if (this.#compactNext === IN_USE) this.#compactNext = 0;
    else {
      while (this.#compactNext < this.#directory.length) {
        const leaf = this.#directory[this.#compactNext];
        const compacted = leaf instanceof OpenLeaf ? leaf.compacted() : undefined;
        if (leaf !== undefined && compacted !== undefined) {
          this.#replace(leaf, compacted);
          return true;
        }
        this.#compactNext += 1;
      }
    }
    return false;
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
    if (leaf instanceof CompactLeaf) this.#replace(leaf, leaf.opened());
    else if (leaf instanceof OpenLeaf) {
      if (leaf.depth < DEPTH_MAX && leaf.isLarge) this.#split(leaf);
      else leaf.grow();
    }
  }

  #split(leaf: OpenLeaf): void {
    if (leaf.depth === this.#depth) {
      this.#directory = this.#directory.flatMap((each) => [each, each]);
      this.#depth += 1;
    }
    this.#replace(leaf, ...leaf.split());
  }

  /** Puts one leaf in the place of another one, or two that share its place. */
  #replace(leaf: Leaf, first: Leaf, second = first): void {
    const shift = this.#depth - leaf.depth - 1;
    for (const [index, each] of this.#directory.entries()) {
      if (each === leaf) this.#directory[index] = ((index >>> shift) & 1) === 0 ? first : second;
    }
  }
}

/** The depth at which no leaf needs to be split for `size` identifiers. */
function depthFor(size: number): number {
  let depth = 0;
  while (depth < DEPTH_MAX && size / 2 ** depth > SLOTS_MAX * FILL_EXPECTED) depth += 1;
  return depth;
}
