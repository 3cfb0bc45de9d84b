/** Splits the bytes of a connection into frames (RFC 9113 §4.1). */

import { ConnectionFault, FRAME_SIZE_ERROR } from './errors.js';
import { FRAME_HEADER_BYTES, readUint31 } from './frames.js';

/** Receives frames. */
export interface FrameSink {
  /** Whether no frame can be taken now: the reader keeps what it has until {@link FrameReader.resume}. */
  readonly isBlocked: boolean;
  /**
   * Receives a whole frame: `bytes[start, end)` with its header. The bytes are the sink's: it may change them, and keep
   * them.
   *
   * @throws ConnectionFault when the connection must end
   */
  frame(type: number, flags: number, streamId: number, bytes: Buffer, start: number, end: number): void;
}

/** Reads the frames of one direction of one connection. */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #payloadBytesMax: number;
  /** A frame of which a part has arrived. */
  #partial: Buffer | undefined;
  #partialBytes = 0;
  #frames = 0;
  /** What has arrived while the sink was blocked. */
  #waiting: Buffer[] = [];

  /** @param payloadBytesMax maximum length of a frame's payload, in bytes */
  constructor(sink: FrameSink, payloadBytesMax: number) {
    this.#sink = sink;
    this.#payloadBytesMax = payloadBytesMax;
  }

  /** Whether a frame has begun and not ended. */
  get isWithinFrame(): boolean {
    return this.#partial !== undefined;
  }

  /** Whether bytes have arrived that the sink has not taken. */
  get isWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Number of frames delivered. */
  get frames(): number {
    return this.#frames;
  }

  /** Drops everything. */
  clear(): void {
    this.#partial = undefined;
    this.#waiting = [];
  }

  /**
   * Reads bytes as they arrive.
   *
   * @throws ConnectionFault FRAME_SIZE_ERROR for a frame that is too long, and what the sink throws
   */
  push(chunk: Buffer): void {
    if (this.#waiting.length > 0 || this.#sink.isBlocked) {
      this.#waiting.push(chunk);
      return;
    }
    let at = 0;
    while (at < chunk.length) {
      if (this.#sink.isBlocked) {
        this.#waiting.push(chunk.subarray(at));
        return;
      }
      at = this.#partial === undefined ? this.#read(chunk, at) : this.#complete(this.#partial, chunk, at);
    }
  }

  /** Goes on with what has waited, as far as the sink takes it. */
  resume(): void {
    while (this.#waiting.length > 0 && !this.#sink.isBlocked) {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const chunk of waiting) this.push(chunk);
    }
  }

  /** Reads one frame, or keeps its beginning. @returns where it ends */
  #read(chunk: Buffer, at: number): number {
    const available = chunk.length - at;
    if (available < FRAME_HEADER_BYTES) return this.#keep(Buffer.allocUnsafe(FRAME_HEADER_BYTES), chunk, at);
    const length = FRAME_HEADER_BYTES + this.#payloadLength(chunk, at);
    if (available < length) return this.#keep(Buffer.allocUnsafeSlow(length), chunk, at);
    this.#deliver(chunk, at, at + length);
    return at + length;
  }

  #keep(partial: Buffer, chunk: Buffer, at: number): number {
    this.#partial = partial;
    this.#partialBytes = chunk.copy(partial, 0, at);
    return chunk.length;
  }

  /** Appends to the frame that has begun. @returns where its part ends */
  #complete(partial: Buffer, chunk: Buffer, at: number): number {
    const taken = chunk.copy(partial, this.#partialBytes, at);
    this.#partialBytes += taken;
    if (this.#partialBytes < partial.length) return at + taken;
    if (partial.length === FRAME_HEADER_BYTES) {
      const length = this.#payloadLength(partial, 0);
      if (length > 0) {
        this.#partial = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + length);
        partial.copy(this.#partial);
        return at + taken;
      }
    }
    this.#partial = undefined;
    this.#deliver(partial, 0, partial.length);
    return at + taken;
  }

  #payloadLength(bytes: Buffer, at: number): number {
    const length = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    if (length > this.#payloadBytesMax) throw new ConnectionFault(FRAME_SIZE_ERROR, 'frame too large');
    return length;
  }

  #deliver(bytes: Buffer, start: number, end: number): void {
    this.#frames += 1;
    this.#sink.frame(
      bytes[start + 3] ?? 0,
      bytes[start + 4] ?? 0,
      readUint31(bytes, start + 5),
      bytes,
      start,
      end,
    );
  }
}
