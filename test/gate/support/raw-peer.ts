/** A peer that sends any bytes it likes, and shows the frames that it receives. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Field } from '../../../gate/src/http2/field.js';
import { HpackDecoder } from '../../../gate/src/http2/hpack-decoder.js';
import { block } from './hpack-writer.js';

export const DATA = 0;
export const HEADERS = 1;
export const PRIORITY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PUSH_PROMISE = 5;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 1;
export const ACK = 1;
export const END_HEADERS = 4;
export const PADDED = 8;

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const WAIT_MS = 5000;

/** A frame as received. */
interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
  /** The fields of a HEADERS frame. */
  readonly fields: ReadonlyMap<string, string>;
}

/** The bytes of a frame; the length may be given to lie about it. */
export function frame(
  type: number,
  flags: number,
  id: number,
  payload: Buffer = Buffer.alloc(0),
  length?: number,
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length ?? payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, payload]);
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** The fields of a well-formed request. */
export function requestFields(
  path: string,
  token: string | undefined = 'Bearer good',
): (readonly [name: string, value: string])[] {
  return [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'localhost'],
    ['te', 'trailers'],
    ['content-type', 'application/grpc'],
    ...(token === undefined ? [] : [['authorization', token] as const]),
  ];
}

/** A connection, of a client or of a server, frame by frame. */
export class RawPeer {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  isClosed = false;
  readonly #decoder = new HpackDecoder({ tableBytesMax: 4096, listBytesMax: 1 << 20, fieldsMax: 10_000 });
  #bytes: Buffer = Buffer.alloc(0);
  #skip: number;
  #changed: (() => void)[] = [];

  /** @param skip bytes before the first frame: the preface of a client */
  constructor(socket: Socket, skip = 0) {
    this.socket = socket;
    this.#skip = skip;
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('close', () => {
      this.isClosed = true;
      this.#notify();
    });
  }

  /** Connects as a client, and exchanges settings. */
  static async client(port: number, settings: Buffer = Buffer.alloc(0)): Promise<RawPeer> {
    return await RawPeer.clientOn(connect(port, '127.0.0.1'), settings);
  }

  /** The same on a socket that is connecting. */
  static async clientOn(socket: Socket, settings: Buffer = Buffer.alloc(0)): Promise<RawPeer> {
    socket.setNoDelay(true);
    await once(socket, 'connect');
    const peer = new RawPeer(socket);
    peer.send(Buffer.from(PREFACE), frame(SETTINGS, 0, 0, settings));
    await peer.find(({ type, flags }) => type === SETTINGS && flags === 0);
    return peer;
  }

  /** Wraps a connection that a client has opened, and sends empty settings. */
  static server(socket: Socket): RawPeer {
    const peer = new RawPeer(socket, PREFACE.length);
    peer.send(frame(SETTINGS, 0, 0));
    return peer;
  }

  send(...parts: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Sends a request, complete unless it says otherwise. */
  request(id: number, path: string, flags = END_STREAM | END_HEADERS, token?: string): void {
    this.send(frame(HEADERS, flags, id, block(...requestFields(path, token))));
  }

  /** Waits for a frame, which may have arrived already. */
  async find(wanted: (frame: Frame) => boolean): Promise<Frame> {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
      const found = this.frames.find(wanted);
      if (found !== undefined) return found;
      if (this.isClosed) throw new Error(`closed after ${this.describe()}`);
      if (Date.now() > deadline) throw new Error(`no such frame among ${this.describe()}`);
      await this.#change(deadline);
    }
  }

  /** Waits for the end of a call. @returns its `grpc-status`, or the code of its reset */
  async end(id: number): Promise<string> {
    const last = await this.find(
      ({ type, flags, id: streamId }) =>
        streamId === id &&
        (type === RST_STREAM || ((type === HEADERS || type === DATA) && (flags & END_STREAM) !== 0)),
    );
    return last.type === RST_STREAM
      ? `reset ${last.payload.readUInt32BE(0)}`
      : (last.fields.get('grpc-status') ?? 'ended');
  }

  /** Waits until the connection is closed. @returns the code of the GOAWAY frame before, or undefined */
  async closed(): Promise<number | undefined> {
    const deadline = Date.now() + WAIT_MS;
    while (!this.isClosed) {
      if (Date.now() > deadline) throw new Error(`not closed after ${this.describe()}`);
      await this.#change(deadline);
    }
    return this.frames.findLast(({ type }) => type === GOAWAY)?.payload.readUInt32BE(4);
  }

  /** Waits until everything sent before was received by the other end of the relay. */
  async settle(): Promise<void> {
    const before = this.frames.length;
    const mark = Buffer.from(`mark${String(before).padStart(4, '0')}`.slice(0, 8));
    this.send(frame(PING, 0, 0, mark));
    await this.find(({ type, flags, payload }) => type === PING && flags === ACK && payload.equals(mark));
  }

  describe(): string {
    return this.frames.map(({ type, flags, id }) => `${type}/${flags}/${id}`).join(' ');
  }

  destroy(): void {
    this.socket.destroy();
  }

  async #change(deadline: number): Promise<void> {
    const wait = new AbortController();
    await Promise.race([
      new Promise<void>((resolve) => this.#changed.push(resolve)),
      delay(Math.max(1, deadline - Date.now()), undefined, { signal: wait.signal }).catch(() => {}),
    ]);
    wait.abort();
  }

  #notify(): void {
    const waiting = this.#changed;
    this.#changed = [];
    for (const resolve of waiting) resolve();
  }

  #read(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const skipped = Math.min(this.#skip, this.#bytes.length);
    this.#skip -= skipped;
    this.#bytes = this.#bytes.subarray(skipped);
    while (this.#bytes.length >= 9) {
      const length = this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < 9 + length) break;
      this.#receive(this.#bytes.subarray(0, 9 + length));
      this.#bytes = this.#bytes.subarray(9 + length);
    }
    this.#notify();
  }

  #receive(bytes: Buffer): void {
    const type = bytes[3] ?? 0;
    const payload = bytes.subarray(9);
    // What every peer answers.
    if (type === PING && bytes[4] === 0) this.send(frame(PING, ACK, 0, payload));
    if (type === SETTINGS && bytes[4] === 0) this.send(frame(SETTINGS, ACK, 0));
    let fields: Field[] = [];
    if (type === HEADERS) {
      const skip = ((bytes[4] ?? 0) & 0x8 ? 1 : 0) + ((bytes[4] ?? 0) & 0x20 ? 5 : 0);
      const padding = (bytes[4] ?? 0) & 0x8 ? (payload[0] ?? 0) : 0;
      fields = this.#decoder.decode(payload, skip, payload.length - padding) ?? [];
    }
    this.frames.push({
      type,
      flags: bytes[4] ?? 0,
      id: bytes.readUInt32BE(5),
      payload,
      fields: new Map(fields.map(({ name, value }) => [name, value])),
    });
  }
}
