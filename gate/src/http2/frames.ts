/** The frames of HTTP/2 (RFC 9113 §4, §6): types, flags, settings, and how they are written. */

import type { Output } from './output.js';

export const FRAME_HEADER_BYTES = 9;

/** The maximum payload that every peer accepts, and the largest that a header block is cut into (RFC 9113 §6.5.2). */
export const FRAME_BYTES_DEFAULT = 16_384;

export const FRAME_BYTES_LIMIT = 0xff_ffff;
export const WINDOW_LIMIT = 0x7fff_ffff;
export const STREAM_ID_MAX = 0x7fff_ffff;

/** The flow-control window of a new connection, and of a stream unless settings say otherwise (RFC 9113 §6.9.2). */
export const WINDOW_DEFAULT = 65_535;

/** What a client sends first (RFC 9113 §3.4). */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

export const DATA = 0x0;
export const HEADERS = 0x1;
export const PRIORITY = 0x2;
export const RST_STREAM = 0x3;
export const SETTINGS = 0x4;
export const PUSH_PROMISE = 0x5;
export const PING = 0x6;
export const GOAWAY = 0x7;
export const WINDOW_UPDATE = 0x8;
export const CONTINUATION = 0x9;
/** RFC 9218 §7.1. */
export const PRIORITY_UPDATE = 0x10;

export const FLAG_END_STREAM = 0x1;
export const FLAG_ACK = 0x1;
export const FLAG_END_HEADERS = 0x4;
export const FLAG_PADDED = 0x8;
export const FLAG_PRIORITY = 0x20;

export const SETTING_HEADER_TABLE_SIZE = 0x1;
export const SETTING_ENABLE_PUSH = 0x2;
export const SETTING_MAX_CONCURRENT_STREAMS = 0x3;
export const SETTING_INITIAL_WINDOW_SIZE = 0x4;
export const SETTING_MAX_FRAME_SIZE = 0x5;
export const SETTING_MAX_HEADER_LIST_SIZE = 0x6;
/** RFC 9218 §2.1. */
export const SETTING_NO_RFC7540_PRIORITIES = 0x9;

export function readUint32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  );
}

/** Reads 31 bits: a stream id, or an increment. The reserved bit is ignored. */
export function readUint31(bytes: Uint8Array, at: number): number {
  return readUint32(bytes, at) & 0x7fff_ffff;
}

export function writeUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** Writes the header of a frame, and makes room for its payload. @returns where the payload begins in `out.buffer` */
function frame(out: Output, length: number, type: number, flags: number, streamId: number): number {
  const at = out.reserve(FRAME_HEADER_BYTES + length);
  const { buffer } = out;
  buffer[at] = length >>> 16;
  buffer[at + 1] = length >>> 8;
  buffer[at + 2] = length;
  buffer[at + 3] = type;
  buffer[at + 4] = flags;
  writeUint32(buffer, at + 5, streamId);
  return at + FRAME_HEADER_BYTES;
}

export function writeRstStream(out: Output, streamId: number, code: number): void {
  const at = frame(out, 4, RST_STREAM, 0, streamId);
  writeUint32(out.buffer, at, code);
}

/** @param increment at least 1; 0 is no frame */
export function writeWindowUpdate(out: Output, streamId: number, increment: number): void {
  if (increment === 0) return;
  const at = frame(out, 4, WINDOW_UPDATE, 0, streamId);
  writeUint32(out.buffer, at, increment);
}

/** @param opaque its 8 bytes */
export function writePing(out: Output, flags: number, opaque: Buffer): void {
  const at = frame(out, 8, PING, flags, 0);
  opaque.copy(out.buffer, at, 0, 8);
}

export function writeGoaway(out: Output, lastStreamId: number, code: number, debug: string): void {
  const at = frame(out, 8 + debug.length, GOAWAY, 0, 0);
  writeUint32(out.buffer, at, lastStreamId);
  writeUint32(out.buffer, at + 4, code);
  out.buffer.write(debug, at + 8, 'latin1');
}

export function writeSettings(
  out: Output,
  settings: readonly (readonly [id: number, value: number])[],
): void {
  let at = frame(out, settings.length * 6, SETTINGS, 0, 0);
  for (const [id, value] of settings) {
    out.buffer[at] = id >>> 8;
    out.buffer[at + 1] = id;
    writeUint32(out.buffer, at + 2, value);
    at += 6;
  }
}

export function writeSettingsAck(out: Output): void {
  frame(out, 0, SETTINGS, FLAG_ACK, 0);
}

/** Writes DATA that this process has made itself. */
export function writeData(out: Output, streamId: number, payload: Buffer, flags: number): void {
  const at = frame(out, payload.length, DATA, flags, streamId);
  payload.copy(out.buffer, at);
}

/** Writes a PRIORITY frame. @param payload its 5 bytes, at `from` */
export function writePriority(
  out: Output,
  streamId: number,
  payload: Buffer,
  from: number,
  dependency: number,
): void {
  const at = frame(out, 5, PRIORITY, 0, streamId);
  writePriorityFields(out.buffer, at, payload, from, dependency);
}

/** Writes a PRIORITY_UPDATE frame. @param value the field value, `bytes[start, end)` */
export function writePriorityUpdate(
  out: Output,
  streamId: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  const at = frame(out, 4 + end - start, PRIORITY_UPDATE, 0, 0);
  writeUint32(out.buffer, at, streamId);
  bytes.copy(out.buffer, at + 4, start, end);
}

function writePriorityFields(
  target: Buffer,
  at: number,
  source: Buffer,
  from: number,
  dependency: number,
): void {
  writeUint32(target, at, (((source[from] ?? 0) & 0x80) !== 0 ? 0x8000_0000 : 0) | dependency);
  target[at + 4] = source[from + 4] ?? 0;
}

/** The parts of a HEADERS frame beside the block. */
export interface HeadersExtras {
  /** The 5 bytes of the priority; undefined when there is none. */
  readonly priority: Buffer | undefined;
  /** The stream on which it depends. */
  readonly dependency: number;
  /** Length of the padding; undefined when the frame is not padded. */
  readonly padding: number | undefined;
}

/**
 * Writes a header block as HEADERS and as many CONTINUATION frames as it takes.
 *
 * @param parts the block, in parts
 */
export function writeHeaders(
  out: Output,
  streamId: number,
  parts: readonly Buffer[],
  isEnd: boolean,
  extras?: HeadersExtras,
): void {
  let length = 0;
  for (const part of parts) length += part.length;
  const padding = extras?.padding;
  const overhead = (padding === undefined ? 0 : padding + 1) + (extras?.priority === undefined ? 0 : 5);
  let flags = isEnd ? FLAG_END_STREAM : 0;
  if (length + overhead <= FRAME_BYTES_DEFAULT) {
    flags |= FLAG_END_HEADERS;
    if (padding !== undefined) flags |= FLAG_PADDED;
    if (extras?.priority !== undefined) flags |= FLAG_PRIORITY;
    let at = frame(out, length + overhead, HEADERS, flags, streamId);
    const { buffer } = out;
    if (padding !== undefined) {
      buffer[at] = padding;
      at += 1;
    }
    if (extras?.priority !== undefined) {
      writePriorityFields(buffer, at, extras.priority, 0, extras.dependency);
      at += 5;
    }
    for (const part of parts) {
      buffer.set(part, at);
      at += part.length;
    }
    if (padding !== undefined) buffer.fill(0, at, at + padding);
    return;
  }
  // Padding and priority are hints: a block of several frames goes without them.
  const block = Buffer.concat(parts, length);
  for (let from = 0; from < length; from += FRAME_BYTES_DEFAULT) {
    const to = Math.min(length, from + FRAME_BYTES_DEFAULT);
    const type = from === 0 ? HEADERS : CONTINUATION;
    const at = frame(
      out,
      to - from,
      type,
      (from === 0 ? flags : 0) | (to === length ? FLAG_END_HEADERS : 0),
      streamId,
    );
    block.copy(out.buffer, at, from, to);
  }
}
