/** A call that the gate answers itself, in the server's place: one request message, and messages that each fit one frame. */

import { dateField } from '../http2/date.js';
import { FLAG_PADDED, FRAME_HEADER_BYTES, writeData } from '../http2/frames.js';
import { encodeFields } from '../http2/hpack-encoder.js';
import type { Header, OwnMethod, OwnResponder, RelayStatus } from './judge.js';
import { PREFIX_BYTES } from './message-meter.js';
import type { ConnectionPort } from './port.js';
import { writeBlock } from './replies.js';
import { plainStatus } from './statuses.js';
import type { OwnAnswer, RelayStream } from './stream.js';

/** Maximum length of a request message, in bytes: the name of a service. */
const REQUEST_BYTES_MAX = 1024;

const INVALID_ARGUMENT = 3;
const UNIMPLEMENTED = 12;

const NOT_ONE_MESSAGE = plainStatus(INVALID_ARGUMENT, 'expected one message as the request');
const COMPRESSED = plainStatus(UNIMPLEMENTED, 'compressed requests are not read here');

const HEADERS: readonly Header[] = [
  [':status', '200'],
  ['content-type', 'application/grpc+proto'],
];

/** What the calls of a connection do for such a call. */
export interface OwnCallHost {
  finish(stream: RelayStream, status: RelayStatus): void;
  /** Its message waits until the client has room: `flush` is to be called when windows have grown. */
  waits(stream: RelayStream): void;
}

export class OwnCall implements OwnResponder, OwnAnswer {
  readonly #port: ConnectionPort;
  readonly #stream: RelayStream;
  readonly #method: OwnMethod;
  readonly #host: OwnCallHost;
  #parts: Buffer[] = [];
  #bytes = 0;
  /** The latest message, if it was not sent yet. */
  #message: Buffer | undefined;
  #status: RelayStatus | undefined;
  #closed: (() => void) | undefined;

  constructor(port: ConnectionPort, stream: RelayStream, method: OwnMethod, host: OwnCallHost) {
    this.#port = port;
    this.#stream = stream;
    this.#method = method;
    this.#host = host;
  }

  requestData(flags: number, bytes: Buffer, start: number, end: number): void {
    const isPadded = (flags & FLAG_PADDED) !== 0;
    const from = start + FRAME_HEADER_BYTES + (isPadded ? 1 : 0);
    const to = isPadded ? end - (bytes[start + FRAME_HEADER_BYTES] ?? 0) : end;
    this.#bytes += to - from;
    if (this.#bytes <= PREFIX_BYTES + REQUEST_BYTES_MAX) {
      // A frame without content would be kept, too, and there may be any number of them.
      if (to > from) this.#parts.push(Buffer.from(bytes.subarray(from, to)));
    } else {
      const { call } = this.#stream;
      if (call !== undefined) this.#host.finish(this.#stream, call.exceeded('request_bytes'));
    }
  }

  requestEnded(): void {
    const body = Buffer.concat(this.#parts);
    this.#parts = [];
    if (body.length < PREFIX_BYTES || body.readUInt32BE(1) !== body.length - PREFIX_BYTES) {
      this.end(NOT_ONE_MESSAGE);
    } else if (body[0] !== 0) {
      this.end(COMPRESSED);
    } else {
      this.#closed = this.#method.open(body.subarray(PREFIX_BYTES), this);
      // It may have ended within.
      if (this.#stream.isClosed) this.close();
    }
  }

  send(message: Buffer): void {
    const framed = Buffer.alloc(PREFIX_BYTES + message.length);
    framed.writeUInt32BE(message.length, 1);
    message.copy(framed, PREFIX_BYTES);
    this.#message = framed;
    this.flush();
  }

  end(status: RelayStatus): void {
    this.#status = status;
    this.flush();
  }

  flush(): void {
    const stream = this.#stream;
    if (stream.isClosed) return;
    const message = this.#message;
    if (message !== undefined && !this.#passes(message)) {
      stream.call?.sending();
      this.#host.waits(stream);
      return;
    }
    if (this.#status !== undefined) this.#host.finish(stream, this.#status);
    this.#port.scheduleFlush();
  }

  #passes(message: Buffer): boolean {
    const port = this.#port;
    const stream = this.#stream;
    if (!stream.isResponseBegun) {
      stream.isResponseBegun = true;
      writeBlock(port, stream.id, Buffer.concat([encodeFields(HEADERS), dateField(port.wallMs())]), false);
    }
    const { windows } = port;
    if (message.length > Math.min(windows.connection, windows.sureStream + stream.windowChange)) return false;
    windows.used(message.length);
    stream.windowChange -= message.length;
    writeData(port.toClient, stream.id, message, 0);
    this.#message = undefined;
    stream.call?.sent();
    return true;
  }

  close(): void {
    this.#closed?.();
    this.#closed = undefined;
  }
}
