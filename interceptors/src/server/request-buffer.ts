/** The part of a call's request that its handler has not received, and the memory that it takes. */

import { isCompressed, RequestReader } from '../wire/request-reader.js';

/** What a waiting message takes beside its bytes, and what decompressing one takes, in bytes. */
const MESSAGE_OVERHEAD_BYTES = 512;
const DECOMPRESSION_BYTES = 16 * 1024;

/** What a request may hold beside two messages of the maximum size, in bytes. */
const SLACK_BYTES = 64 * 1024;

/** A call with one request fails at the second message, so that further ones need not be kept. */
const MESSAGES_OF_ONE_REQUEST_MAX = 2;

/** Splits the bytes of one request into messages, and counts what it holds until the handler receives them. */
export class RequestBuffer {
  readonly #messageBytesMax: number;
  readonly #messagesMax: number;
  readonly #reader: RequestReader;
  #waitingMessages = 0;
  #waitingBytes = 0;

  constructor(messageBytesMax: number, isStream: boolean) {
    this.#messageBytesMax = messageBytesMax;
    this.#messagesMax = isStream ? Number.POSITIVE_INFINITY : MESSAGES_OF_ONE_REQUEST_MAX;
    this.#reader = new RequestReader(messageBytesMax);
  }

  /** Bytes of memory that it takes. */
  get bytes(): number {
    return this.#reader.heldBytes + this.#waitingBytes;
  }

  /** Whether the caller sends faster than the handler receives, by more than the buffer may hold. */
  get isOverfull(): boolean {
    return this.bytes > 2 * this.#messageBytesMax + SLACK_BYTES;
  }

  /**
   * Reads bytes as they arrive.
   *
   * @returns the messages that are now complete; undefined when a message declares more than the maximum
   */
  read(data: Buffer): Buffer[] | undefined {
    const messages = this.#reader.read(data)?.slice(0, this.#messagesMax);
    if (messages === undefined) return undefined;
    for (const message of messages) {
      this.#waitingMessages += 1;
      this.#waitingBytes += message.length + MESSAGE_OVERHEAD_BYTES;
      if (isCompressed(message)) this.#waitingBytes += DECOMPRESSION_BYTES;
    }
    return messages;
  }

  /** The handler has received a message. */
  delivered(): void {
    if (this.#waitingMessages === 0) return;
    // The average: the sizes of the single messages are not kept.
    this.#waitingBytes -= this.#waitingBytes / this.#waitingMessages;
    this.#waitingMessages -= 1;
  }
}
