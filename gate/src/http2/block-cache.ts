/** Remembers what header blocks meant, because most of them are repeated byte by byte. */

/** Blocks longer than this are not remembered, in bytes. */
const BLOCK_BYTES_MAX = 2048;

/** How many blocks one cache remembers. */
const SLOTS = 8;

interface Remembered<T> {
  readonly block: Buffer;
  readonly version: number;
  readonly meaning: T;
}

/**
 * The meanings of the last blocks. A block is found again only by all of its bytes, and only while the table to which it may
 * refer is the same.
 */
export class BlockCache<T> {
  readonly #slots: (Remembered<T> | undefined)[] = [];

  /** @param version of the dynamic table; the same for ever where there is none */
  get(bytes: Buffer, start: number, end: number, version: number): T | undefined {
    const length = end - start;
    const known = this.#slots[slotOf(bytes, start, end)];
    if (known === undefined || known.version !== version || known.block.length !== length) return undefined;
    return bytes.compare(known.block, 0, length, start, end) === 0 ? known.meaning : undefined;
  }

  set(bytes: Buffer, start: number, end: number, version: number, meaning: T): void {
    if (end - start > BLOCK_BYTES_MAX) return;
    const block = Buffer.from(bytes.subarray(start, end));
    this.#slots[slotOf(bytes, start, end)] = { block, version, meaning };
  }
}

/** Calls differ in their path, which most clients send early, and in the length of the block. */
function slotOf(bytes: Buffer, start: number, end: number): number {
  const length = end - start;
  const early = bytes[start + Math.min(length - 1, 12)] ?? 0;
  const middle = bytes[start + (length >> 1)] ?? 0;
  return (length ^ early ^ (middle >> 3)) & (SLOTS - 1);
}
