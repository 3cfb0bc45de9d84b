/** Frames of HTTP/2 (RFC 9113), byte by byte: also those that no library would send. */

export const FRAME_HEADER_BYTES = 9;
/** The largest payload that a peer accepts unless its settings say otherwise (RFC 9113 §4.2). */
export const FRAME_BYTES_MAX = 16_384;
export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  window: 8,
  more: 9,
} as const;
export const FLAG = { ack: 1, endStream: 1, endHeaders: 4 } as const;

/** What a client sends first: its preface, its settings, and a connection window that no response fills. */
export const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'),
  // No dynamic table for responses (1), no push (2), a window (4) that no response fills.
  frame(FRAME.settings, 0, 0, settings([1, 0], [2, 0], [4, 0x3fff_ffff])),
  frame(FRAME.window, 0, 0, uint32(0x3fff_0000)),
]);

/** The frames of one header block: HEADERS, and CONTINUATION where it is long. */
export function headerFrames(stream: number, block: Buffer, endsStream: boolean): Buffer {
  const endStream = endsStream ? FLAG.endStream : 0;
  if (block.length <= FRAME_BYTES_MAX) {
    return frame(FRAME.headers, FLAG.endHeaders | endStream, stream, block);
  }
  const frames = [frame(FRAME.headers, endStream, stream, block.subarray(0, FRAME_BYTES_MAX))];
  for (let start = FRAME_BYTES_MAX; start < block.length; start += FRAME_BYTES_MAX) {
    const last = start + FRAME_BYTES_MAX >= block.length;
    const part = block.subarray(start, start + FRAME_BYTES_MAX);
    frames.push(frame(FRAME.more, last ? FLAG.endHeaders : 0, stream, part));
  }
  return Buffer.concat(frames);
}

/** One frame with its header. */
export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}

/** The payload of SETTINGS. */
export function settings(...pairs: readonly (readonly [id: number, value: number])[]): Buffer {
  const bytes = Buffer.alloc(6 * pairs.length);
  pairs.forEach(([id, value], index) => {
    bytes.writeUInt16BE(id, 6 * index);
    bytes.writeUInt32BE(value, 6 * index + 2);
  });
  return bytes;
}

/** Four bytes, big endian. */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
