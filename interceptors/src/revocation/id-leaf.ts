/** The leaves of a table of identifiers: one form to add to, and one that takes less memory. */

import { randomInt } from 'node:crypto';

const WORDS = 4;
const HASH_BITS = 32;
const HASH_RANGE = 2 ** HASH_BITS;

/** Minimum size of an open leaf, in slots. */
const SLOTS_MIN = 16;

/** Maximum size of an open leaf, in slots. A larger one is split, so that growing never takes long. */
export const SLOTS_MAX = 2 ** 12;

/** Maximum load of an open leaf, so that probes for absent identifiers stay short. */
const FILL_MAX = 7 / 8;

/** Load of an open leaf after it has grown. */
const FILL_GROWN = 0.75;

/** The sizes of larger open leaves are multiples of this many slots, so that the memory of one fits another. */
const SLOTS_STEP = 128;

/** The same for compact leaves. What is left over takes identifiers that are late. */
const COMPACT_STEP = 64;

/** Average number of identifiers in a bucket of a compact leaf. */
const BUCKET_SIZE = 12;

/** Maximum memory of dropped leaves that is kept for new ones, in bytes: two tables at ten thousand entries a second. */
const SPARE_BYTES_MAX = 12 * 1024 * 1024;

// Random, so that an attacker cannot choose identifiers that collide.
const FACTORS = Array.from({ length: WORDS }, () => randomInt(2 ** 31) * 2 + 1);
const [FACTOR_A = 1, FACTOR_B = 1, FACTOR_C = 1, FACTOR_D = 1] = FACTORS;

const NO_WORDS = new Uint32Array(0);

/** Result of adding an identifier to a leaf. */
export type Added = 'added' | 'known' | 'full';

/** The identifiers whose hashes have the same first `depth` bits. */
export interface Leaf {
  /** Number of common first bits of the hashes. */
  readonly depth: number;
  readonly words: Uint32Array;
  readonly size: number;
  has(hash: number, a: number, b: number, c: number, d: number): boolean;
  /** Adds an identifier, unless the leaf has no room for it. */
  add(hash: number, a: number, b: number, c: number, d: number): Added;
  /** Calls back with each identifier. */
  visit(each: (a: number, b: number, c: number, d: number) => void): void;
}

/** A leaf to add to: open addressing with linear probing. */
export class OpenLeaf implements Leaf {
  readonly depth: number;
  readonly #slots: number;
  /** Empty until the first identifier is added. */
  words: Uint32Array = NO_WORDS;
  size = 0;

  /** @param slots - the size to begin with */
  constructor(depth: number, slots: number) {
    this.depth = depth;
    this.#slots = slots;
  }

  has(hash: number, a: number, b: number, c: number, d: number): boolean {
    return isTaken(this.words, this.#slotOf(hash, a, b, c, d));
  }

  add(hash: number, a: number, b: number, c: number, d: number): Added {
    if (this.words.length === 0) this.words = takeWords(this.#slots * WORDS);
    const slot = this.#slotOf(hash, a, b, c, d);
    if (isTaken(this.words, slot)) return 'known';
    if ((this.size + 1) * WORDS > this.words.length * FILL_MAX) return 'full';
    this.#put(slot, a, b, c, d);
    return 'added';
  }

  visit(each: (a: number, b: number, c: number, d: number) => void): void {
    const { words } = this;
    for (let slot = 0; slot < words.length; slot += WORDS) {
      if (!isTaken(words, slot)) continue;
      each(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
    }
  }

  /** Whether the leaf is so large that it should be split instead of grow. */
  get isLarge(): boolean {
    return this.size >= SLOTS_MAX * FILL_MAX;
  }

  grow(): void {
    const old = this.words;
    this.words = takeWords(slotsFor(this.size, FILL_GROWN) * WORDS);
    this.size = 0;
    for (let slot = 0; slot < old.length; slot += WORDS) if (isTaken(old, slot)) this.putAgain(old, slot);
  }

  /** Copies an identifier from other memory. It must not be in this leaf. */
  putAgain(words: Uint32Array, slot: number): void {
    const a = word(words, slot);
    const b = word(words, slot + 1);
    const c = word(words, slot + 2);
    const d = word(words, slot + 3);
    this.#put(this.#slotOf(idHash(a, b, c, d), a, b, c, d), a, b, c, d);
  }

  /** Splits the identifiers by the next bit of their hashes. */
  split(): readonly [OpenLeaf, OpenLeaf] {
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
    const zeroLeaf = openLeafFor(this.depth + 1, this.size - count);
    const oneLeaf = openLeafFor(this.depth + 1, count);
    for (let slot = 0; slot < words.length; slot += WORDS) {
      if (isTaken(words, slot)) (ones[slot / WORDS] === 1 ? oneLeaf : zeroLeaf).putAgain(words, slot);
    }
    return [zeroLeaf, oneLeaf];
  }

  /** The same identifiers in less memory, or nothing when they would not take less. This leaf must not be used then. */
  compacted(): CompactLeaf | undefined {
    if (compactWords(this.size) >= this.words.length) return undefined;
    const leaf = new CompactLeaf(this.depth, this.words, this.size);
    giveBack(this.words);
    return leaf;
  }

  #put(slot: number, a: number, b: number, c: number, d: number): void {
    const { words } = this;
    words[slot] = a;
    words[slot + 1] = b;
    words[slot + 2] = c;
    words[slot + 3] = d;
    this.size += 1;
  }

  /** Index of the first word of the identifier's slot, or of the free slot where it belongs. */
  #slotOf(hash: number, a: number, b: number, c: number, d: number): number {
    const { words } = this;
    // In the order of the hashes, so that growing reads and writes memory sequentially.
    let slot = shareOf(hash << this.depth, words.length / WORDS) * WORDS;
    while (
      isTaken(words, slot) &&
      !(words[slot] === a && words[slot + 1] === b && words[slot + 2] === c && words[slot + 3] === d)
    ) {
      slot += WORDS;
      if (slot === words.length) slot = 0;
    }
    return slot;
  }
}

/**
 * A leaf to which little is added any more: buckets of identifiers without gaps, after a word for each bucket that counts
 * the identifiers before it.
 */
export class CompactLeaf implements Leaf {
  readonly depth: number;
  readonly words: Uint32Array;
  size: number;
  readonly #buckets: number;

  /** @param open - the memory of an open leaf with `size` identifiers */
  constructor(depth: number, open: Uint32Array, size: number) {
    this.depth = depth;
    this.size = size;
    this.#buckets = bucketsFor(size);
    this.words = takeWords(compactWords(size));
    this.#fill(open);
  }

  has(hash: number, a: number, b: number, c: number, d: number): boolean {
    const { words } = this;
    const bucket = this.#bucketOf(hash);
    const first = idsFrom(this.#buckets);
    const end = first + word(words, bucket + 1) * WORDS;
    for (let slot = first + word(words, bucket) * WORDS; slot < end; slot += WORDS) {
      // The last word is random in identifiers of every version.
      if (words[slot + 3] === d && words[slot] === a && words[slot + 1] === b && words[slot + 2] === c) {
        return true;
      }
    }
    return false;
  }

  add(hash: number, a: number, b: number, c: number, d: number): Added {
    if (this.has(hash, a, b, c, d)) return 'known';
    const { words } = this;
    const first = idsFrom(this.#buckets);
    const end = first + this.size * WORDS;
    if (end + WORDS > words.length) return 'full';
    const bucket = this.#bucketOf(hash);
    const slot = first + word(words, bucket + 1) * WORDS;
    words.copyWithin(slot + WORDS, slot, end);
    words[slot] = a;
    words[slot + 1] = b;
    words[slot + 2] = c;
    words[slot + 3] = d;
    for (let later = bucket + 1; later <= this.#buckets; later += 1) words[later] = word(words, later) + 1;
    this.size += 1;
    return 'added';
  }

  visit(each: (a: number, b: number, c: number, d: number) => void): void {
    const { words } = this;
    const first = idsFrom(this.#buckets);
    const end = first + this.size * WORDS;
    for (let slot = first; slot < end; slot += WORDS) {
      each(word(words, slot), word(words, slot + 1), word(words, slot + 2), word(words, slot + 3));
    }
  }

  /** The same identifiers with room for more. This leaf must not be used then. */
  opened(): OpenLeaf {
    const leaf = openLeafFor(this.depth, this.size);
    const first = idsFrom(this.#buckets);
    const end = first + this.size * WORDS;
    for (let slot = first; slot < end; slot += WORDS) leaf.putAgain(this.words, slot);
    giveBack(this.words);
    return leaf;
  }

  /** Sorts the identifiers by bucket, by counting. */
  #fill(open: Uint32Array): void {
    const { words } = this;
    for (let slot = 0; slot < open.length; slot += WORDS) {
      if (!isTaken(open, slot)) continue;
      const bucket = this.#bucketOf(hashAt(open, slot));
      words[bucket] = word(words, bucket) + 1;
    }
    let before = 0;
    for (let bucket = 0; bucket <= this.#buckets; bucket += 1) {
      before += word(words, bucket);
      words[bucket] = before;
    }
    const first = idsFrom(this.#buckets);
    for (let slot = 0; slot < open.length; slot += WORDS) {
      if (!isTaken(open, slot)) continue;
      const bucket = this.#bucketOf(hashAt(open, slot));
      // From the end of the bucket to its beginning, so that its word is right in the end.
      const place = word(words, bucket) - 1;
      words[bucket] = place;
      const to = first + place * WORDS;
      words[to] = word(open, slot);
      words[to + 1] = word(open, slot + 1);
      words[to + 2] = word(open, slot + 2);
      words[to + 3] = word(open, slot + 3);
    }
  }

  #bucketOf(hash: number): number {
    return shareOf(hash << this.depth, this.#buckets);
  }
}

/** An empty leaf with room for `size` identifiers and some more. */
function openLeafFor(depth: number, size: number): OpenLeaf {
  const leaf = new OpenLeaf(depth, slotsFor(size, FILL_GROWN));
  leaf.words = takeWords(slotsFor(size, FILL_GROWN) * WORDS);
  return leaf;
}

/** The number of slots for `size` identifiers at a load. */
export function slotsFor(size: number, fill: number): number {
  const slots = Math.max(SLOTS_MIN, Math.ceil(size / fill));
  return slots < SLOTS_STEP ? slots : Math.ceil(slots / SLOTS_STEP) * SLOTS_STEP;
}

function bucketsFor(size: number): number {
  return Math.ceil(size / BUCKET_SIZE);
}

/** Index of the first identifier's first word, after the words of the buckets and one for the end. */
function idsFrom(buckets: number): number {
  return buckets + 1;
}

/** Number of words of a compact leaf. */
function compactWords(size: number): number {
  const words = idsFrom(bucketsFor(size)) + size * WORDS;
  return Math.ceil(words / (COMPACT_STEP * WORDS)) * COMPACT_STEP * WORDS;
}

/** Which of `count` equal parts of the range of hashes a hash is in. */
function shareOf(hash: number, count: number): number {
  return Math.trunc(((hash >>> 0) * count) / HASH_RANGE);
}

/**
 * The memory of dropped leaves, by its length. Freed memory is reused only after a collection, and then in pieces: at ten
 * thousand identifiers a second, a process would hold half as much again as its tables.
 */
const spare = new Map<number, Uint32Array[]>();
let spareBytes = 0;

function takeWords(length: number): Uint32Array {
  const alike = spare.get(length);
  const words = alike?.pop();
  if (alike === undefined || words === undefined) return new Uint32Array(length);
  // Last in the order of the map: the lengths that are in use are kept longest.
  spare.delete(length);
  if (alike.length > 0) spare.set(length, alike);
  spareBytes -= words.byteLength;
  return words.fill(0);
}

/** Keeps the memory of a leaf that is not used any longer. */
export function giveBack(words: Uint32Array): void {
  const alike = spare.get(words.length);
  if (alike === undefined) spare.set(words.length, [words]);
  else alike.push(words);
  spareBytes += words.byteLength;
  for (const [length, others] of spare) {
    while (spareBytes > SPARE_BYTES_MAX && others.length > 0) spareBytes -= others.pop()?.byteLength ?? 0;
    if (spareBytes <= SPARE_BYTES_MAX) return;
    spare.delete(length);
  }
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
