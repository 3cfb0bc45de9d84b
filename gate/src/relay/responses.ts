/** What the server answers: checked against the protocol and the decision, and passed on. */

import { FLAG_END_STREAM, FRAME_HEADER_BYTES, writeUint32, writeWindowUpdate } from '../http2/frames.js';
import type { ResponseBlock } from '../http2/response-blocks.js';
import type { Calls } from './calls.js';
import type { ConnectionPort } from './port.js';
import type { RelayStream } from './stream.js';

/** The responses of one connection. */
export class Responses {
  readonly #port: ConnectionPort;
  readonly #calls: Calls;

  constructor(port: ConnectionPort, calls: Calls) {
    this.#port = port;
    this.#calls = calls;
  }

  /**
   * A header block of a response.
   *
   * @returns whether it passes; the stream has ended when it does not
   */
  headers(stream: RelayStream, block: ResponseBlock, isEnd: boolean): boolean {
    const isPlaced = block === 'trailers' ? stream.isResponseBegun && isEnd : !stream.isResponseBegun;
    if (
      block === 'malformed' ||
      !isPlaced ||
      stream.isResponseEnded ||
      (block === 'informational' && isEnd)
    ) {
      this.#port.event('malformed_response');
      this.#calls.finish(stream, this.#port.statuses.malformedResponse);
      return false;
    }
    const denial = stream.call?.denial();
    if (denial !== undefined) {
      this.#calls.cut(stream, denial);
      return false;
    }
    if (block === 'final') stream.isResponseBegun = true;
    return true;
  }

  /** A DATA frame of a response, `bytes[start, end)`. */
  data(stream: RelayStream, flags: number, bytes: Buffer, start: number, end: number): void {
    const port = this.#port;
    const length = end - start - FRAME_HEADER_BYTES;
    if (!stream.isResponseBegun || stream.isResponseEnded) {
      this.drop(length);
      port.event('malformed_response');
      this.#calls.finish(stream, port.statuses.malformedResponse);
      return;
    }
    const denial = stream.call?.denial();
    if (denial !== undefined) {
      this.drop(length);
      this.#calls.cut(stream, denial);
      return;
    }
    if (stream.completesResponse(flags, bytes, start, end)) stream.call?.answered();
    writeUint32(bytes, start + 5, stream.id);
    port.toClient.append(bytes, start, end);
    port.windows.connection -= length;
    stream.windowChange -= length;
    if ((flags & FLAG_END_STREAM) !== 0) this.ended(stream);
  }

  /** Credits the server for DATA that no client receives. */
  drop(length: number): void {
    const { toServer } = this.#port;
    if (toServer !== undefined) writeWindowUpdate(toServer, 0, length);
  }

  /** The server has ended its side. */
  ended(stream: RelayStream): void {
    stream.isResponseEnded = true;
    this.#calls.closeIfEnded(stream);
  }
}
