/** A raw HTTP/2 client: it sends what no library would send, and returns exactly what the server answers. */

import { connect, type Socket } from 'node:net';
import { decodeFields, encodeFields } from './hpack.js';
import {
  FLAG,
  FRAME,
  FRAME_BYTES_MAX,
  FRAME_HEADER_BYTES,
  frame,
  headerFrames,
  PREFACE,
  uint32,
} from './http2-frames.js';

/** A request without a response for this long counts as silent. */
const ANSWER_TIMEOUT_MS = 15_000;

/**
 * A connection is closed after so many requests: this client ignores flow control, and so many small bodies fit into
 * the initial window.
 */
const REQUESTS_PER_CONNECTION_MAX = 2_000;

const NOTHING = Buffer.alloc(0);

export interface Answer {
  /**
   * `answered`: a complete response; `reset`: the server reset the stream; `closed`: it closed the connection;
   * `silent`: no complete response in time.
   */
  readonly kind: 'answered' | 'reset' | 'closed' | 'silent';
  /** `grpc-status`; -1 without one. */
  readonly status: number;
  /** All headers and trailers but `date`, in order; equal fields mean equal responses. */
  readonly fields: string;
  readonly body: Buffer;
}

interface RawRequest {
  /** The header block; see {@link headersOf}. */
  readonly block: Buffer;
  /** The body; `undefined` ends the stream with the headers. */
  readonly body: Buffer | undefined;
}

/** An empty message with its gRPC frame. */
export const EMPTY_MESSAGE = messageOf(NOTHING);

/** A message with its gRPC frame. */
export function messageOf(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([0]), uint32(bytes.length), bytes]);
}

/** The headers of a gRPC request, without metadata. */
export function headersOf(
  path: string,
  options: { method?: string; contentType?: string | undefined } = {},
): Buffer {
  const contentType = 'contentType' in options ? options.contentType : 'application/grpc';
  return encodeFields([
    [':method', options.method ?? 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'localhost'],
    ['te', 'trailers'],
    ...(contentType === undefined ? [] : ([['content-type', contentType]] as const)),
  ]);
}

/** The connection to one server. */
export interface Peer {
  /** Sends a request and returns the response. Never rejects. */
  send(request: RawRequest): Promise<Answer>;
  close(): void;
}

/**
 * Creates a client of `host:port`. It connects with the first request, and reconnects when necessary.
 *
 * @param from - the local address to connect from; any when absent
 */
export function createPeer(address: string, from?: string): Peer {
  let shared: Connection | undefined;
  const connection = (): Connection => {
    if (shared === undefined || !shared.usable) shared = new Connection(address, from);
    return shared;
  };
  return {
    send: async (request) => {
      const answer = await connection().send(request);
      if (answer.kind !== 'closed') return answer;
      // Another request may have ended the connection: repeated alone, this one shows whether it was the cause.
      const own = new Connection(address, from);
      const again = await own.send(request);
      own.close();
      return again;
    },
    close: () => shared?.close(),
  };
}

interface Exchange {
  readonly sentAtMs: number;
  readonly resolve: (answer: Answer) => void;
  fields: string;
  status: number;
  body: Buffer;
}

class Connection {
  readonly #socket: Socket;
  readonly #exchanges = new Map<number, Exchange>();
  readonly #timeoutTimer: NodeJS.Timeout;
  #nextStream = 1;
  #received: Buffer = NOTHING;
  #block: { stream: number; ends: boolean; parts: Buffer[] } | undefined;
  #open = true;

  constructor(address: string, from: string | undefined) {
    const at = address.lastIndexOf(':');
    this.#socket = connect({
      host: address.slice(0, at),
      port: Number(address.slice(at + 1)),
      noDelay: true,
      ...(from !== undefined && { localAddress: from }),
    });
    this.#socket.on('data', (chunk) => this.#receive(chunk));
    this.#socket.on('error', () => this.close());
    this.#socket.on('close', () => this.close());
    this.#socket.write(PREFACE);
    this.#timeoutTimer = setInterval(() => this.#endSilentRequests(), 1_000);
    this.#timeoutTimer.unref();
  }

  get usable(): boolean {
    return this.#open && this.#nextStream < 2 * REQUESTS_PER_CONNECTION_MAX;
  }

  send({ block, body }: RawRequest): Promise<Answer> {
    if (!this.#open) return Promise.resolve(syncResultFor('closed'));
    const stream = this.#nextStream;
    this.#nextStream += 2;
    return new Promise((resolve) => {
      const exchange = { sentAtMs: Date.now(), resolve, fields: '', status: -1, body: NOTHING };
      this.#exchanges.set(stream, exchange);
      this.#socket.cork();
      this.#socket.write(headerFrames(stream, block, body === undefined));
      for (let start = 0; body !== undefined && start < body.length; start += FRAME_BYTES_MAX) {
        const part = body.subarray(start, start + FRAME_BYTES_MAX);
        const ends = start + FRAME_BYTES_MAX >= body.length;
        this.#socket.write(frame(FRAME.data, ends ? FLAG.endStream : 0, stream, part));
      }
      this.#socket.uncork();
    });
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    clearInterval(this.#timeoutTimer);
    this.#socket.destroy();
    for (const stream of [...this.#exchanges.keys()]) this.#end(stream, 'closed');
  }

  #receive(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    let offset = 0;
    while (this.#received.length - offset >= FRAME_HEADER_BYTES) {
      const length = this.#received.readUIntBE(offset, 3);
      const end = offset + FRAME_HEADER_BYTES + length;
      if (end > this.#received.length) break;
      const type = this.#received.readUInt8(offset + 3);
      const flags = this.#received.readUInt8(offset + 4);
      const stream = this.#received.readUInt32BE(offset + 5) & 0x7fff_ffff;
      this.#handleFrame(type, flags, stream, this.#received.subarray(offset + FRAME_HEADER_BYTES, end));
      offset = end;
    }
    this.#received = this.#received.subarray(offset);
    // A connection that has sent its last request is closed with the last response.
    if (this.#exchanges.size === 0 && !this.usable) this.close();
  }

  #handleFrame(type: number, flags: number, stream: number, payload: Buffer): void {
    switch (type) {
      case FRAME.data: {
        const exchange = this.#exchanges.get(stream);
        if (exchange !== undefined) exchange.body = Buffer.concat([exchange.body, payload]);
        if (flags & FLAG.endStream) this.#end(stream, 'answered');
        break;
      }
      case FRAME.headers:
        this.#block = { stream, ends: (flags & FLAG.endStream) !== 0, parts: [payload] };
        if (flags & FLAG.endHeaders) this.#handleBlock();
        break;
      case FRAME.more:
        this.#block?.parts.push(payload);
        if (flags & FLAG.endHeaders) this.#handleBlock();
        break;
      case FRAME.reset:
        this.#end(stream, 'reset', `http2-error: ${payload.readUInt32BE(0)}`);
        break;
      case FRAME.settings:
        if (!(flags & FLAG.ack)) this.#socket.write(frame(FRAME.settings, FLAG.ack, 0, NOTHING));
        break;
      case FRAME.ping:
        if (!(flags & FLAG.ack)) this.#socket.write(frame(FRAME.ping, FLAG.ack, 0, payload));
        break;
      case FRAME.goaway:
        this.close();
        break;
      default:
        break;
    }
  }

  #handleBlock(): void {
    const block = this.#block;
    this.#block = undefined;
    const exchange = block && this.#exchanges.get(block.stream);
    if (block === undefined || exchange === undefined) return;
    const { fields, status } = decodedBlock(
      block.parts.length === 1 ? (block.parts[0] ?? NOTHING) : Buffer.concat(block.parts),
    );
    exchange.fields += fields;
    if (status !== -1) exchange.status = status;
    if (block.ends) this.#end(block.stream, 'answered');
  }

  #end(stream: number, kind: Answer['kind'], detail = ''): void {
    const exchange = this.#exchanges.get(stream);
    if (exchange === undefined) return;
    this.#exchanges.delete(stream);
    const { fields, status, body } = exchange;
    exchange.resolve({ kind, status, fields: fields + detail, body });
  }

  #endSilentRequests(): void {
    const latest = Date.now() - ANSWER_TIMEOUT_MS;
    for (const [stream, { sentAtMs }] of this.#exchanges) if (sentAtMs < latest) this.#end(stream, 'silent');
  }
}

function syncResultFor(kind: Answer['kind']): Answer {
  return { kind, status: -1, fields: '', body: NOTHING };
}

interface DecodedBlock {
  readonly fields: string;
  readonly status: number;
}

const DECODED_BLOCKS_MAX = 256;
const decodedBlocks = new Map<string, DecodedBlock>();

/** Refusals are the same block for a whole second, until `date` changes, so each block is decoded once. */
function decodedBlock(block: Buffer): DecodedBlock {
  const key = block.toString('latin1');
  const known = decodedBlocks.get(key);
  if (known !== undefined) return known;
  const all = decodeFields(block);
  const status = all.find(([name]) => name === 'grpc-status')?.[1];
  const fields = all.filter(([name]) => name !== 'date').map(([name, value]) => `${name}: ${value}\n`);
  const decoded = { fields: fields.join(''), status: status === undefined ? -1 : Number(status) };
  if (decodedBlocks.size >= DECODED_BLOCKS_MAX) decodedBlocks.clear();
  decodedBlocks.set(key, decoded);
  return decoded;
}
