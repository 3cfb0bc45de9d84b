/**
 * Calls whose bytes are prepared: a grpc-js client costs three times what the server does, and would be what is
 * measured. The bytes are those that Node's HTTP/2 client sends for the headers of grpc-js, Huffman coding and
 * never-indexed `authorization` included.
 */

import { connect } from 'node:http2';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { waitUntil } from '../shared/waiting.js';

const FRAME_HEADER_BYTES = 9;
const PREFACE_BYTES = 24;
const TYPE_DATA = 0;
const TYPE_HEADERS = 1;
const FLAG_END_STREAM = 1;
const RECORDING_MS_MAX = 60_000;
const RECORDING_POLL_MS = 20;
/** A server's SETTINGS without any. */
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
/** Bytes of messages that the server may send before it is granted more: enough for a whole run. */
const WINDOW_BYTES = 2 ** 31 - 1;
const WINDOW_UPDATE = Buffer.from([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xfe, 0, 0]);

/** Calls to one method, ready to be sent. */
export interface PreparedCalls {
  /** What a connection begins with; its first call is part of it, on stream 1. */
  readonly opening: Buffer;
  /** One call each: a HEADERS frame, and a DATA frame when there is a message. */
  readonly calls: readonly PreparedCall[];
}

/** One call, on a stream whose number is to be put in. */
export interface PreparedCall {
  readonly bytes: Buffer;
  /** Where the number of the stream stands, in each of its frames. */
  readonly streamAt: readonly number[];
}

/**
 * Prepares one call for each token.
 *
 * @param options.message - the request; undefined keeps the stream open and sends none
 */
export async function prepareCalls(options: {
  readonly path: string;
  readonly tokens: readonly string[];
  readonly message: Buffer | undefined;
}): Promise<PreparedCalls> {
  const { path, tokens, message } = options;
  const [first = ''] = tokens;
  const bytes = await record(
    [first, ...tokens].map((token) => ({
      path,
      token,
      message: message === undefined ? undefined : framed(message),
    })),
  );
  return split(bytes, tokens.length + 1);
}

function framed(message: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([prefix, message]);
}

interface Request {
  readonly path: string;
  readonly token: string;
  readonly message: Buffer | undefined;
}

/** What Node's own client sends for some requests. */
async function record(requests: readonly Request[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let heard: Socket | undefined;
  let streams = 0;
  const server = createServer((socket) => {
    heard = socket;
    socket.write(Buffer.concat([EMPTY_SETTINGS, WINDOW_UPDATE]));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => {
    server.listen({ host: '127.0.0.1', port: 0 }, resolve);
  });
  const { port } = server.address() as AddressInfo;
  const session = connect(`http://127.0.0.1:${port}`, {
    settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
  });
  session.on('error', () => {});
  await new Promise<void>((resolve) => {
    session.once('remoteSettings', () => resolve());
  });
  for (const { path, token, message } of requests) {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      authorization: `Bearer ${token}`,
      'grpc-accept-encoding': 'identity,deflate,gzip',
      'accept-encoding': 'identity',
      'user-agent': 'grpc-node-js/1.14.7',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', () => {});
    if (message !== undefined) stream.end(message);
    streams += 1;
  }
  const expected = { streams, withData: requests.some(({ message }) => message !== undefined) };
  await waitUntil(() => isWhole(Buffer.concat(chunks), expected), {
    timeoutMs: RECORDING_MS_MAX,
    pollMs: RECORDING_POLL_MS,
    failure: 'the calls could not be recorded in time',
  });
  session.destroy();
  heard?.destroy();
  server.close();
  return Buffer.concat(chunks);
}

function isWhole(bytes: Buffer, expected: { streams: number; withData: boolean }): boolean {
  let headers = 0;
  let ended = 0;
  for (const { type, flags } of framesOf(bytes)) {
    if (type === TYPE_HEADERS) headers += 1;
    if ((flags & FLAG_END_STREAM) !== 0 && (type === TYPE_DATA || type === TYPE_HEADERS)) ended += 1;
  }
  return headers === expected.streams && (!expected.withData || ended === expected.streams);
}

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly bytes: Buffer;
}

function* framesOf(bytes: Buffer): Iterable<Frame> {
  let at = PREFACE_BYTES;
  while (at + FRAME_HEADER_BYTES <= bytes.byteLength) {
    const end = at + FRAME_HEADER_BYTES + bytes.readUIntBE(at, 3);
    if (end > bytes.byteLength) return;
    const [type = 0, flags = 0] = [bytes[at + 3], bytes[at + 4]];
    yield { type, flags, stream: bytes.readUInt32BE(at + 5), bytes: bytes.subarray(at, end) };
    at = end;
  }
}

function split(bytes: Buffer, streams: number): PreparedCalls {
  const opening: Buffer[] = [bytes.subarray(0, PREFACE_BYTES)];
  const byStream = new Map<number, Buffer[]>();
  for (const { type, flags, stream, bytes: frame } of framesOf(bytes)) {
    if (stream === 0) {
      // The answer to the recorder's SETTINGS belongs to that connection alone.
      if (type !== 4 || (flags & 1) === 0) opening.push(frame);
      continue;
    }
    // An empty DATA frame that only ends the stream is what a client may send too; its flag goes to the one before.
    const frames = byStream.get(stream) ?? [];
    const last = frames.at(-1);
    if (frame.byteLength === FRAME_HEADER_BYTES && last !== undefined && type === TYPE_DATA) {
      last[4] = (last[4] ?? 0) | flags;
    } else frames.push(Buffer.from(frame));
    byStream.set(stream, frames);
  }
  const all = [...byStream.values()].map((frames) => ({
    bytes: Buffer.concat(frames),
    streamAt: startsOf(frames).map((start) => start + 5),
  }));
  const [first, ...calls] = all;
  if (first === undefined || all.length !== streams) throw new Error('not all calls were recorded');
  return { opening: Buffer.concat([...opening, WINDOW_UPDATE, first.bytes]), calls };
}

function startsOf(frames: readonly Buffer[]): number[] {
  let at = 0;
  return frames.map((frame) => {
    const start = at;
    at += frame.byteLength;
    return start;
  });
}
