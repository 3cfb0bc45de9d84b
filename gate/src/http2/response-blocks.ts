/** Checks the header blocks of a server that was told to use no dynamic table (RFC 9113 §8.3.2, RFC 7541 §4.2). */

import { BlockCache } from './block-cache.js';
import type { Field } from './field.js';
import { HpackDecoder } from './hpack-decoder.js';
import { EMPTY_TABLE } from './hpack-encoder.js';

/** What a header block of a response is. A block without `:status` can only be trailers. */
export type ResponseBlock = 'informational' | 'final' | 'trailers' | 'malformed';

/** Reads the header blocks of one server. They can be dropped and added to, because none refers to another. */
export class ResponseBlocks {
  readonly #decoder: HpackDecoder;
  readonly #cache = new BlockCache<ResponseBlock>();

  /** @param listBytesMax maximum size of a header list, in bytes */
  constructor(listBytesMax: number, fieldsMax: number) {
    this.#decoder = new HpackDecoder({ tableBytesMax: 0, listBytesMax, fieldsMax });
  }

  /**
   * Reads `bytes[start, end)`, a complete block.
   *
   * @throws ConnectionFault COMPRESSION_ERROR when it refers to a dynamic table, or changes its size to more than 0
   */
  read(bytes: Buffer, start: number, end: number): ResponseBlock {
    const known = this.#cache.get(bytes, start, end, 0);
    if (known !== undefined) return known;
    const fields = this.#decoder.decode(bytes, start, end);
    const block = fields === undefined ? 'malformed' : kindOf(fields);
    this.#cache.set(bytes, start, end, 0, block);
    return block;
  }
}

/** Whether a block begins with the size update that tells a peer to use no dynamic table. */
export function emptiesTable(bytes: Buffer, start: number): boolean {
  return bytes[start] === EMPTY_TABLE;
}

const STATUS = /^[1-9][0-9][0-9]$/;

function kindOf(fields: readonly Field[]): ResponseBlock {
  let status: string | undefined;
  let isRegular = false;
  for (const { name, value, isValid } of fields) {
    if (!isValid) return 'malformed';
    if (name.charCodeAt(0) !== 0x3a) {
      isRegular = true;
    } else if (isRegular || name !== ':status' || status !== undefined || !STATUS.test(value)) {
      return 'malformed';
    } else {
      status = value;
    }
  }
  if (status === undefined) return 'trailers';
  return status.startsWith('1') ? 'informational' : 'final';
}
