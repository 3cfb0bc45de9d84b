/** Follows the lengths of messages in a body, without keeping any of it (gRPC over HTTP/2: Length-Prefixed-Message). */

/** The flag and the length before each message. */
export const PREFIX_BYTES = 5;

/** Counts the messages of one direction of one call. */
export class MessageMeter {
  readonly #bytesMax: number;
  #prefixBytes = 0;
  #length = 0;
  #bodyLeft = 0;
  #complete = 0;

  /** @param bytesMax maximum length of a message, in bytes */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Number of messages that have passed completely. */
  get complete(): number {
    return this.#complete;
  }

  /** Reads the next part. @returns false when a message declares more than the maximum */
  read(bytes: Uint8Array, start: number, end: number): boolean {
    let at = start;
    while (at < end) {
      if (this.#prefixBytes < PREFIX_BYTES) {
        // The first byte of the prefix is the flag of compression.
        if (this.#prefixBytes > 0) this.#length = this.#length * 256 + (bytes[at] ?? 0);
        this.#prefixBytes += 1;
        at += 1;
        if (this.#prefixBytes < PREFIX_BYTES) continue;
        if (this.#length > this.#bytesMax) return false;
        this.#bodyLeft = this.#length;
        this.#length = 0;
      }
      const taken = Math.min(this.#bodyLeft, end - at);
      this.#bodyLeft -= taken;
      at += taken;
      if (this.#bodyLeft > 0) continue;
      this.#prefixBytes = 0;
      this.#complete += 1;
    }
    return true;
  }
}

const ENVELOPED = /^application\/(?:grpc(?!-web-text)|connect\+)/;

/** Whether bodies of a content type consist of messages with a prefix. */
export function isEnveloped(contentType: string): boolean {
  return ENVELOPED.test(contentType);
}
