/** Splits the bytes of a request into messages, within a maximum size, in memory proportional to what has arrived. */

/** Length of the head of a message: a flag and the length of the rest. */
const HEAD_BYTES = 5;

/** The smallest buffer for a message that arrives in parts. */
const BUFFER_BYTES_MIN = 1024;

/**
 * The messages of one request. grpc-js keeps every frame of a message as a buffer of its own, which costs a hundred times
 * the size of a frame of one byte, and may keep alive the 64 KiB that the frame arrived in. This reader copies the parts of
 * a message into one buffer, at most twice as large as what has arrived.
 */
export class RequestReader {
  readonly #messageBytesMax: number;
  #buffer: Buffer | undefined;
  #filled = 0;
  /** The size of the message in the buffer, with its head; undefined until the head is complete. */
  #size: number | undefined;

  constructor(messageBytesMax: number) {
    this.#messageBytesMax = messageBytesMax;
  }

  /** Bytes of memory that an incomplete message takes. */
  get heldBytes(): number {
    return this.#buffer?.length ?? 0;
  }

  /**
   * Reads bytes as they arrive.
   *
   * @returns the messages that are now complete, each with its head; undefined when a message declares more than the
   * maximum
   */
  read(data: Buffer): Buffer[] | undefined {
    const messages: Buffer[] = [];
    let at = 0;
    while (at < data.length) {
      at = this.#append(data, at);
      if (this.#size === undefined && this.#filled >= HEAD_BYTES && !this.#readHead()) return undefined;
      if (this.#filled === this.#size) messages.push(this.#take());
    }
    return messages;
  }

  /** Copies bytes up to the end of the head, or of the message. @returns where the next bytes begin */
  #append(data: Buffer, at: number): number {
    const wanted = (this.#size ?? HEAD_BYTES) - this.#filled;
    const count = Math.min(wanted, data.length - at);
    data.copy(this.#reserve(this.#filled + count), this.#filled, at, at + count);
    this.#filled += count;
    return at + count;
  }

  /** The buffer, with room for so many bytes. */
  #reserve(bytes: number): Buffer {
    const capacity = this.#buffer?.length ?? 0;
    if (this.#buffer !== undefined && capacity >= bytes) return this.#buffer;
    const grown = Math.max(bytes, 2 * capacity, BUFFER_BYTES_MIN);
    // A buffer from Node's pool would keep the pool alive.
    const buffer = Buffer.allocUnsafeSlow(Math.min(grown, Math.max(this.#size ?? BUFFER_BYTES_MIN, bytes)));
    this.#buffer?.copy(buffer, 0, 0, this.#filled);
    this.#buffer = buffer;
    return buffer;
  }

  #readHead(): boolean {
    const length = this.#buffer?.readUInt32BE(1) ?? 0;
    this.#size = HEAD_BYTES + length;
    return length <= this.#messageBytesMax;
  }

  #take(): Buffer {
    const message = this.#buffer?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    this.#buffer = undefined;
    this.#filled = 0;
    this.#size = undefined;
    return message;
  }
}

/** The length of the message that these bytes are, without its head; -1 when they are not exactly one message. */
export function lengthOfOneMessage(data: Buffer): number {
  if (data.length < HEAD_BYTES) return -1;
  const length = data.readUInt32BE(1);
  return HEAD_BYTES + length === data.length ? length : -1;
}

/** Whether a message with its head is compressed. */
export function isCompressed(message: Buffer): boolean {
  return message[0] === 1;
}
