/** Remembers what header blocks meant, because most of them are repeated byte by byte. */

/** Blocks longer than this are not remembered, in bytes. */
const BLOCK_BYTES_MAX = 2048;

/** How many blocks one cache remembers. */
const PLACES = 8;

/** At how many points a block is looked at before all of its bytes are compared. */
const POINTS = 8;

interface Remembered<T> {
  readonly block: Buffer;
  readonly version: number;
  readonly meaning: T;
}

/**
 * The meanings of the last blocks. A block is found again only by all of its bytes, and only while the table to which it may
 * refer is the same. Each block may have any place: a server repeats two or three blocks, and with one place for each hash
 * they could displace one another at every call.
 */
export class BlockCache<T> {
  readonly #places: Remembered<T>[] = [];
  /** The digest of each place. */
  readonly #digests: number[] = [];
  #next = 0;

  /** @param version of the dynamic table; the same for ever where there is none */
  get(bytes: Buffer, start: number, end: number, version: number): T | undefined {
    const digest = digestOf(bytes, start, end);
    const digests = this.#digests;
    for (let place = 0; place < digests.length; place += 1) {
      if (digests[place] !== digest) continue;
      const { block, version: itsVersion, meaning } = this.#places[place] as Remembered<T>;
      const length = end - start;
      if (itsVersion !== version || block.length !== length) continue;
      if (bytes.compare(block, 0, length, start, end) === 0) return meaning;
    }
    return undefined;
  }

  /** Remembers the meaning of a block that was not found, in place of the oldest one. */
  set(bytes: Buffer, start: number, end: number, version: number, meaning: T): void {
    if (end - start > BLOCK_BYTES_MAX) return;
    const block = Buffer.from(bytes.subarray(start, end));
    this.#places[this.#next] = { block, version, meaning };
    this.#digests[this.#next] = digestOf(bytes, start, end);
    this.#next = (this.#next + 1) % PLACES;
  }
}

/** A small number that differs for most blocks: from the length, and bytes at even distances up to the last. */
function digestOf(bytes: Buffer, start: number, end: number): number {
  const length = end - start;
  let digest = length;
  for (let point = 1; point <= POINTS; point += 1) {
    const at = start + Math.max(0, ((length * point) >> 3) - 1);
    digest = (Math.imul(digest, 31) + (bytes[at] ?? 0)) | 0;
  }
  return digest;
}
