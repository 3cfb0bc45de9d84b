/** Where the header block stands in a HEADERS frame, and the blocks that several frames make up (RFC 9113 §6.2, §6.10). */

import { ConnectionFault, FRAME_SIZE_ERROR, PROTOCOL_ERROR } from '../http2/errors.js';
import { FLAG_PADDED, FLAG_PRIORITY, FRAME_HEADER_BYTES, readUint31 } from '../http2/frames.js';

const PRIORITY_BYTES = 5;

/** The parts of one HEADERS frame: offsets into its bytes. */
export interface HeadersLayout {
  readonly blockStart: number;
  readonly blockEnd: number;
  /** Where the priority begins; 0 when there is none. */
  readonly priorityStart: number;
  /** Length of the padding; -1 when there is none. */
  readonly padding: number;
}

/**
 * Reads a HEADERS frame, `bytes[start, end)`.
 *
 * @throws ConnectionFault when its parts do not fit, or when the stream depends on itself
 */
export function readHeadersLayout(
  flags: number,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): HeadersLayout {
  const isPadded = (flags & FLAG_PADDED) !== 0;
  const hasPriority = (flags & FLAG_PRIORITY) !== 0;
  let at = start + FRAME_HEADER_BYTES;
  if (at + (isPadded ? 1 : 0) + (hasPriority ? PRIORITY_BYTES : 0) > end) {
    throw new ConnectionFault(FRAME_SIZE_ERROR, 'HEADERS frame too short');
  }
  const padding = isPadded ? (bytes[at] ?? 0) : -1;
  if (isPadded) at += 1;
  const priorityStart = hasPriority ? at : 0;
  if (hasPriority) {
    if (readUint31(bytes, at) === streamId)
      throw new ConnectionFault(PROTOCOL_ERROR, 'stream depends on itself');
    at += PRIORITY_BYTES;
  }
  const blockEnd = padding > 0 ? end - padding : end;
  if (blockEnd < at) throw new ConnectionFault(PROTOCOL_ERROR, 'padding exceeds the frame');
  return { blockStart: at, blockEnd, priorityStart, padding };
}

/**
 * Checks the padding of a DATA frame.
 *
 * @throws ConnectionFault PROTOCOL_ERROR when it does not fit (RFC 9113 §6.1)
 */
export function checkDataPadding(flags: number, bytes: Buffer, start: number, end: number): void {
  if ((flags & FLAG_PADDED) === 0) return;
  const length = end - start - FRAME_HEADER_BYTES;
  if (length === 0) throw new ConnectionFault(FRAME_SIZE_ERROR, 'DATA frame too short');
  if ((bytes[start + FRAME_HEADER_BYTES] ?? 0) >= length) {
    throw new ConnectionFault(PROTOCOL_ERROR, 'padding exceeds the frame');
  }
}

/** A header block of which the first frame has arrived, and not the last. */
export class PartialBlock {
  readonly streamId: number;
  /** The flags of the HEADERS frame. */
  readonly flags: number;
  /** The 5 bytes of its priority. */
  readonly priority: Buffer | undefined;
  readonly #fragments: Buffer[] = [];
  #bytes = 0;
  #continuations = 0;

  constructor(streamId: number, flags: number, bytes: Buffer, layout: HeadersLayout) {
    this.streamId = streamId;
    this.flags = flags;
    const { priorityStart } = layout;
    if (priorityStart > 0)
      this.priority = Buffer.from(bytes.subarray(priorityStart, priorityStart + PRIORITY_BYTES));
    this.#add(bytes, layout.blockStart, layout.blockEnd);
  }

  /** Bytes of the block so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of CONTINUATION frames so far. */
  get continuations(): number {
    return this.#continuations;
  }

  /** Appends the payload of a CONTINUATION frame, `bytes[start, end)` being the frame. */
  continue(bytes: Buffer, start: number, end: number): void {
    this.#continuations += 1;
    this.#add(bytes, start + FRAME_HEADER_BYTES, end);
  }

  /** The block as one. */
  join(): Buffer {
    return Buffer.concat(this.#fragments, this.#bytes);
  }

  #add(bytes: Buffer, start: number, end: number): void {
    this.#bytes += end - start;
    this.#fragments.push(Buffer.from(bytes.subarray(start, end)));
  }
}
