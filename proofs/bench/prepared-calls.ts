/**
 * Calls whose bytes are prepared: a grpc-js client costs three times as much as the server, and would dominate the
 * measurement. The bytes are those that Node's HTTP/2 client sends for the headers of grpc-js, including Huffman coding
 * and never-indexed `authorization`.
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
/** An empty SETTINGS frame. */
const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
/** The flow-control window; large enough for a whole run. */
const WINDOW_BYTES = 2 ** 31 - 1;
const WINDOW_UPDATE = Buffer.from([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xfe, 0, 0]);

export interface PreparedCalls {
  /** The first bytes of a connection; they include its first call, on stream 1. */
  readonly opening: Buffer;
  /** One call each: a HEADERS frame, and a DATA frame when there is a message. */
  readonly calls: readonly PreparedCall[];
}

/** A call whose stream number must be filled in. */
export interface PreparedCall {
  readonly bytes: Buffer;
  /** The offsets of the stream number, one a frame. */
  readonly streamAt: readonly number[];
}

/**
 * Prepares one call for each token.
 *
 * @param options.message - the request; `undefined` sends none and keeps the stream open
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

/** Records what Node's HTTP/2 client sends for some requests. */
async function record(requests: readonly Request[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let connected: Socket | undefined;
  let streams = 0;
  const server = createServer((socket) => {
    connected = socket;
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
  connected?.destroy();
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
      // The acknowledgement of the recorder's SETTINGS belongs to that connection only.
      if (type !== 4 || (flags & 1) === 0) opening.push(frame);
      continue;
    }
    // An empty DATA frame that only ends the stream is dropped, and its flag moves to the frame before.
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
