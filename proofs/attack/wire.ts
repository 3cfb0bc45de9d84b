/** A client that speaks HTTP/2 by hand: it sends what no library would, and shows exactly what comes back. */

import { connect, type Socket } from 'node:net';
import { decodeFields, encodeFields } from './hpack.js';

/** Who waits longer than this for an answer gets none. */
export const ANSWER_TIMEOUT_MS = 15_000;

/**
 * A connection is given up after so many requests: the windows that HTTP/2 grants for request bodies are
 * never looked at, and so many small bodies fit in the first one.
 */
const REQUESTS_PER_CONNECTION_MAX = 2_000;

const FRAME_HEADER_BYTES = 9;
const FRAME_BYTES_MAX = 16_384;
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, window: 8, more: 9 } as const;
const FLAG = { ack: 1, endStream: 1, endHeaders: 4 } as const;
const NOTHING = Buffer.alloc(0);

const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1'),
  // No dynamic table for answers (1), no pushes (2), a window (4) that no answer fills.
  frame(FRAME.settings, 0, 0, settings([1, 0], [2, 0], [4, 0x3fff_ffff])),
  frame(FRAME.window, 0, 0, uint32(0x3fff_0000)),
]);

/** What came back. */
export interface Answer {
  /**
   * `answered` with a complete response; `reset` when HTTP/2 ended the stream; `closed` when it ended the
   * connection; `silent` when nothing came in time.
   */
  readonly kind: 'answered' | 'reset' | 'closed' | 'silent';
  /** `grpc-status`; -1 when there was none. */
  readonly status: number;
  /** Every header and trailer but `date`, in their order: two answers are the same when these are. */
  readonly fields: string;
  /** The body, as it came. */
  readonly body: Buffer;
}

/** A request, ready to be sent. */
export interface RawRequest {
  /** The headers' block; see {@link headersOf}. */
  readonly block: Buffer;
  /** The body; none at all when undefined. */
  readonly body: Buffer | undefined;
}

/** An empty message, as gRPC frames it. */
export const EMPTY_MESSAGE = messageOf(NOTHING);

/** A message, as gRPC frames it. */
export function messageOf(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([0]), uint32(bytes.length), bytes]);
}

/** What stands before the metadata in a gRPC request. */
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

/** One server, as seen by whoever attacks it. */
export interface Peer {
  /** Sends a request and returns what came back. Never rejects. */
  send(shot: RawRequest): Promise<Answer>;
  close(): void;
}

/**
 * Connects to `host:port` when something is sent, and again when it must.
 *
 * @param from - the address of this machine to connect from; any when absent
 */
export function createPeer(address: string, from?: string): Peer {
  let shared: Connection | undefined;
  const connection = (): Connection => {
    if (shared === undefined || !shared.usable) shared = new Connection(address, from);
    return shared;
  };
  return {
    send: async (shot) => {
      const answer = await connection().send(shot);
      if (answer.kind !== 'closed') return answer;
      // Another request may have ended the connection: only alone does it show which one it was.
      const own = new Connection(address, from);
      const again = await own.send(shot);
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
  readonly #patience: NodeJS.Timeout;
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
    this.#patience = setInterval(() => this.#giveUpOnTheSilent(), 1_000);
    this.#patience.unref();
  }

  get usable(): boolean {
    return this.#open && this.#nextStream < 2 * REQUESTS_PER_CONNECTION_MAX;
  }

  send({ block, body }: RawRequest): Promise<Answer> {
    if (!this.#open) return Promise.resolve(answerOf('closed'));
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
    clearInterval(this.#patience);
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
      this.#take(type, flags, stream, this.#received.subarray(offset + FRAME_HEADER_BYTES, end));
      offset = end;
    }
    this.#received = this.#received.subarray(offset);
    // A connection that is through with its requests goes when the last of them has been answered.
    if (this.#exchanges.size === 0 && !this.usable) this.close();
  }

  #take(type: number, flags: number, stream: number, payload: Buffer): void {
    switch (type) {
      case FRAME.data: {
        const exchange = this.#exchanges.get(stream);
        if (exchange !== undefined) exchange.body = Buffer.concat([exchange.body, payload]);
        if (flags & FLAG.endStream) this.#end(stream, 'answered');
        break;
      }
      case FRAME.headers:
        this.#block = { stream, ends: (flags & FLAG.endStream) !== 0, parts: [payload] };
        if (flags & FLAG.endHeaders) this.#takeBlock();
        break;
      case FRAME.more:
        this.#block?.parts.push(payload);
        if (flags & FLAG.endHeaders) this.#takeBlock();
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

  #takeBlock(): void {
    const taken = this.#block;
    this.#block = undefined;
    const exchange = taken && this.#exchanges.get(taken.stream);
    if (taken === undefined || exchange === undefined) return;
    const { fields, status } = decodedBlock(
      taken.parts.length === 1 ? (taken.parts[0] ?? NOTHING) : Buffer.concat(taken.parts),
    );
    exchange.fields += fields;
    if (status !== -1) exchange.status = status;
    if (taken.ends) this.#end(taken.stream, 'answered');
  }

  #end(stream: number, kind: Answer['kind'], detail = ''): void {
    const exchange = this.#exchanges.get(stream);
    if (exchange === undefined) return;
    this.#exchanges.delete(stream);
    const { fields, status, body } = exchange;
    exchange.resolve({ kind, status, fields: fields + detail, body });
  }

  #giveUpOnTheSilent(): void {
    const latest = Date.now() - ANSWER_TIMEOUT_MS;
    for (const [stream, { sentAtMs }] of this.#exchanges) if (sentAtMs < latest) this.#end(stream, 'silent');
  }
}

function answerOf(kind: Answer['kind']): Answer {
  return { kind, status: -1, fields: '', body: NOTHING };
}

interface DecodedBlock {
  readonly fields: string;
  readonly status: number;
}

const DECODED_BLOCKS_MAX = 256;
const decodedBlocks = new Map<string, DecodedBlock>();

/** Refusals are the same block for a whole second, until their date changes: each is decoded once. */
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

function headerFrames(stream: number, block: Buffer, endsStream: boolean): Buffer {
  const endStream = endsStream ? FLAG.endStream : 0;
  if (block.length <= FRAME_BYTES_MAX) {
    return frame(FRAME.headers, FLAG.endHeaders | endStream, stream, block);
  }
  const frames = [frame(FRAME.headers, endStream, stream, block.subarray(0, FRAME_BYTES_MAX))];
  for (let start = FRAME_BYTES_MAX; start < block.length; start += FRAME_BYTES_MAX) {
    const last = start + FRAME_BYTES_MAX >= block.length;
    const part = block.subarray(start, start + FRAME_BYTES_MAX);
    frames.push(frame(FRAME.more, last ? FLAG.endHeaders : 0, stream, part));
  }
  return Buffer.concat(frames);
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, FRAME_HEADER_BYTES);
  return bytes;
}

function settings(...pairs: readonly (readonly [id: number, value: number])[]): Buffer {
  const bytes = Buffer.alloc(6 * pairs.length);
  pairs.forEach(([id, value], index) => {
    bytes.writeUInt16BE(id, 6 * index);
    bytes.writeUInt32BE(value, 6 * index + 2);
  });
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
