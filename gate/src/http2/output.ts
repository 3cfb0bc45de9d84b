/** Collects what one turn writes to a socket, so that it becomes one write. */

import type { Duplex } from 'node:stream';

/** Size of the memory that outputs share for what they copy, in bytes. */
const SLAB_BYTES = 64 * 1024;

/** Runs of received bytes up to this length are copied: joining them costs less than one more buffer in a write. */
const COPIED_BYTES_MAX = 2048;

/** What may wait in a socket before its output counts as blocked, in bytes. */
const WAITING_BYTES_MAX = 64 * 1024;

/** How many times as much is too much in any case. */
const OVERFULL_FACTOR = 4;

/** The current slab. A used part is never written again, so that sockets may hold it for as long as they need. */
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
let slabUsed = 0;

/** What is to be written to one socket. */
export class Output {
  readonly #socket: Duplex;
  readonly #waitingBytesMax: number;
  readonly #chunks: Buffer[] = [];
  #chunkBytes = 0;
  /** The open run of own bytes: it ends the output, unless received bytes follow. */
  #own: Buffer = slab;
  #ownStart = 0;
  #ownEnd = 0;
  /** The open run of received bytes; it follows the own bytes. */
  #received: Buffer | undefined;
  #receivedStart = 0;
  #receivedEnd = 0;

  constructor(socket: Duplex) {
    this.#socket = socket;
    // Below the mark of the socket there would be no event when it has drained.
    this.#waitingBytesMax = Math.max(WAITING_BYTES_MAX, socket.writableHighWaterMark);
  }

  /** Where {@link Output.reserve} has made room. */
  get buffer(): Buffer {
    return this.#own;
  }

  /** Whether the peer reads more slowly than its data arrives. */
  get isBlocked(): boolean {
    return this.#waiting > this.#waitingBytesMax;
  }

  /**
   * Whether far more waits than the other side can have caused, because that is not read while this is blocked: the peer makes
   * this process answer, and does not read the answers.
   */
  get isOverfull(): boolean {
    return this.#waiting > OVERFULL_FACTOR * this.#waitingBytesMax;
  }

  /** What waits in the socket and here: what one turn writes must be bounded as well, in bytes. */
  get #waiting(): number {
    const own = this.#ownEnd - this.#ownStart;
    const received = this.#received === undefined ? 0 : this.#receivedEnd - this.#receivedStart;
    return this.#socket.writableLength + this.#chunkBytes + own + received;
  }

  /** Makes room for `length` bytes at the end. @returns their offset in {@link Output.buffer}, valid until the next call */
  reserve(length: number): number {
    if (this.#received !== undefined) this.#closeReceived();
    if (this.#own !== slab || this.#ownEnd !== slabUsed || slabUsed + length > slab.length)
      this.#openOwn(length);
    const at = this.#ownEnd;
    this.#ownEnd += length;
    slabUsed = this.#ownEnd;
    return at;
  }

  /** Appends `bytes[start, end)`, which must not change before the socket has written them. */
  append(bytes: Buffer, start: number, end: number): void {
    if (this.#received === bytes && this.#receivedEnd === start) {
      this.#receivedEnd = end;
      return;
    }
    if (this.#received !== undefined) this.#closeReceived();
    this.#received = bytes;
    this.#receivedStart = start;
    this.#receivedEnd = end;
  }

  /** Writes everything collected. */
  flush(): void {
    const chunks = this.#chunks;
    const received = this.#received;
    if (received !== undefined && chunks.length === 0 && this.#ownEnd === this.#ownStart) {
      this.#received = undefined;
      this.#socket.write(received.subarray(this.#receivedStart, this.#receivedEnd));
      return;
    }
    if (received !== undefined) this.#closeReceived();
    this.#closeOwn();
    const [first] = chunks;
    if (first === undefined) return;
    if (chunks.length === 1) {
      this.#socket.write(first);
    } else {
      this.#socket.cork();
      for (const chunk of chunks) this.#socket.write(chunk);
      this.#socket.uncork();
    }
    chunks.length = 0;
    this.#chunkBytes = 0;
  }

  #openOwn(length: number): void {
    this.#closeOwn();
    if (slabUsed + length > slab.length) {
      slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length));
      slabUsed = 0;
    }
    this.#own = slab;
    this.#ownStart = slabUsed;
    this.#ownEnd = slabUsed;
  }

  #closeOwn(): void {
    if (this.#ownEnd > this.#ownStart) this.#push(this.#own.subarray(this.#ownStart, this.#ownEnd));
    this.#ownStart = this.#ownEnd;
  }

  #closeReceived(): void {
    const received = this.#received as Buffer;
    const start = this.#receivedStart;
    const end = this.#receivedEnd;
    this.#received = undefined;
    if (end - start <= COPIED_BYTES_MAX) {
      const at = this.reserve(end - start);
      received.copy(this.#own, at, start, end);
      return;
    }
    this.#closeOwn();
    this.#push(received.subarray(start, end));
  }

  #push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#chunkBytes += chunk.length;
  }
}
