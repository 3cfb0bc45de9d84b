/** A minimal HTTP/2 client connection: it sends prepared calls and counts the responses. */

import { connect, type Socket } from 'node:net';
import type { PreparedCall, PreparedCalls } from './prepared-calls.js';

const FRAME_HEADER_BYTES = 9;
const TYPE = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7 } as const;
const FLAG_END_STREAM = 1;
const FLAG_ACK = 1;
const PING_BYTES = 8;
const SETTINGS_ACK = Buffer.from([0, 0, 0, 4, 1, 0, 0, 0, 0]);
const PING_ACK_HEADER = Buffer.from([0, 0, 8, 6, 1, 0, 0, 0, 0]);
/** Where a server listens: a port of this machine, or a unix socket. */
export type ServerAddress = { readonly port: number } | { readonly socketPath: string };

/** The largest number of streams of one connection that are open at once; a power of two. */
const STREAMS_OPEN_MAX = 2 ** 15;

interface CallListener {
  /**
   * Called when a call has ended.
   *
   * @param answered - whether there was a response message
   * @param ms - the time from sending to the end
   */
  ended(connection: Connection, answered: boolean, ms: number, stream: number): void;
}

export class Connection {
  listener: CallListener | undefined;
  /** The number of open calls. */
  open = 0;
  /** The number of DATA frames received. */
  messages = 0;
  /** When the last call ended (`performance.now()`). */
  lastEndMs = 0;
  readonly #socket: Socket;
  #nextStream = 3;
  #rest: Buffer | undefined;
  /** Payload bytes still to be skipped. */
  #skip = 0;
  #replies: Buffer[] = [];
  readonly #sentAt = new Float64Array(STREAMS_OPEN_MAX);
  readonly #answered = new Uint8Array(STREAMS_OPEN_MAX);
  #outgoing: Buffer[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => {});
  }

  /** Connects, makes the first call, and waits for its end. */
  static async connect(to: ServerAddress, { opening }: PreparedCalls): Promise<Connection> {
    const socket = connect('port' in to ? { host: '127.0.0.1', port: to.port } : { path: to.socketPath });
    const connection = new Connection(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('the server has closed the connection')));
      connection.listener = { ended: () => resolve() };
      connection.open = 1;
      socket.write(opening);
    });
    connection.listener = undefined;
    return connection;
  }

  /** Queues a call for the next {@link flush}. @returns the number of its stream */
  send(call: PreparedCall): number {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const bytes = Buffer.from(call.bytes);
    for (const at of call.streamAt) bytes.writeUInt32BE(stream, at);
    const slot = (stream >> 1) & (STREAMS_OPEN_MAX - 1);
    this.#sentAt[slot] = performance.now();
    this.#answered[slot] = 0;
    this.open += 1;
    this.#outgoing.push(bytes);
    return stream;
  }

  flush(): void {
    if (this.#outgoing.length === 0) return;
    const bytes = this.#outgoing.length === 1 ? this.#outgoing[0] : Buffer.concat(this.#outgoing);
    this.#outgoing = [];
    if (bytes !== undefined) this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    let at = 0;
    let bytes = chunk;
    if (this.#skip > 0) {
      at = Math.min(this.#skip, bytes.byteLength);
      this.#skip -= at;
    } else if (this.#rest !== undefined) {
      bytes = Buffer.concat([this.#rest, chunk]);
    }
    this.#rest = undefined;
    while (at < bytes.byteLength) {
      if (bytes.byteLength - at < FRAME_HEADER_BYTES) {
        this.#rest = bytes.subarray(at);
        break;
      }
      const length = bytes.readUIntBE(at, 3);
      const type = bytes[at + 3] ?? 0;
      const end = at + FRAME_HEADER_BYTES + length;
      if (type === TYPE.ping && end > bytes.byteLength) {
        this.#rest = bytes.subarray(at);
        break;
      }
      this.#frame(bytes, at, type);
      if (end > bytes.byteLength) this.#skip = end - bytes.byteLength;
      at = end;
    }
    if (this.#replies.length > 0) {
      this.#outgoing.push(...this.#replies);
      this.#replies = [];
    }
    this.flush();
  }

  #frame(bytes: Buffer, at: number, type: number): void {
    const flags = bytes[at + 4] ?? 0;
    const stream = bytes.readUInt32BE(at + 5);
    switch (type) {
      case TYPE.data:
        this.messages += 1;
        this.#answered[(stream >> 1) & (STREAMS_OPEN_MAX - 1)] = 1;
        if ((flags & FLAG_END_STREAM) !== 0) this.#end(stream);
        return;
      case TYPE.headers:
        if ((flags & FLAG_END_STREAM) !== 0) this.#end(stream);
        return;
      case TYPE.reset:
        this.#answered[(stream >> 1) & (STREAMS_OPEN_MAX - 1)] = 0;
        this.#end(stream);
        return;
      case TYPE.settings:
        if ((flags & FLAG_ACK) === 0) this.#replies.push(SETTINGS_ACK);
        return;
      case TYPE.ping:
        if ((flags & FLAG_ACK) === 0) {
          const body = bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + PING_BYTES);
          this.#replies.push(Buffer.concat([PING_ACK_HEADER, body]));
        }
        return;
      case TYPE.goaway:
        this.#socket.destroy(new Error('the server sent GOAWAY'));
        return;
      default:
    }
  }

  #end(stream: number): void {
    this.open -= 1;
    const slot = (stream >> 1) & (STREAMS_OPEN_MAX - 1);
    this.lastEndMs = performance.now();
    const ms = this.lastEndMs - (this.#sentAt[slot] ?? 0);
    this.listener?.ended(this, this.#answered[slot] === 1, ms, stream);
  }
}
