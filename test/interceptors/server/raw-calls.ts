/** Calls over raw HTTP/2, for what grpc-js's client never does: requests that stop in the middle. */

import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { Metadata } from '@grpc/grpc-js';
import { errorOf } from '../../../interceptors/src/client.js';

/** A gRPC message: the flag, the length, the bytes. */
export function frameOf(message: Buffer, compressed = false): Buffer {
  return Buffer.concat([headOf(message.length, compressed), message]);
}

/** The head of a message that declares a length. */
export function headOf(length: number, compressed = false): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(Number(compressed), 0);
  head.writeUInt32BE(length, 1);
  return head;
}

/** How a raw call ended. */
interface RawEnd {
  /** The gRPC status; -1 when the stream ended without one. */
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly retryAfterMs: number | undefined;
}

/** A call whose request the test writes piece by piece. */
export interface RawCall {
  readonly stream: ClientHttp2Stream;
  readonly ended: Promise<RawEnd>;
  /** Resolves with the HTTP/2 error code when the stream is closed, on both sides. */
  readonly closed: Promise<number>;
}

/** A raw connection, which the caller destroys. */
export function connectRaw(port: number, localAddress = '127.0.0.1'): ClientHttp2Session {
  const session = connect(`http://127.0.0.1:${port}`, {
    createConnection: () => connectTcp({ host: '127.0.0.1', port, localAddress }),
  });
  session.on('error', () => {});
  session.setMaxListeners(0);
  return session;
}

/** Opens a call and sends nothing but its headers. */
export function openRaw(
  session: ClientHttp2Session,
  method: string,
  headers: Readonly<Record<string, string>> = {},
): RawCall {
  const stream = session.request({
    [constants.HTTP2_HEADER_METHOD]: 'POST',
    [constants.HTTP2_HEADER_PATH]: `/test.v1.EchoService/${method}`,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  const closed = new Promise<number>((resolve) => {
    stream.on('error', () => {});
    stream.on('close', () => resolve(stream.rstCode));
  });
  const ended = new Promise<RawEnd>((resolve) => {
    const read = (received: Readonly<Record<string, unknown>>): void => {
      if (received['grpc-status'] !== undefined) resolve(rawEndOf(received));
    };
    stream.on('response', read);
    stream.on('trailers', read);
    void closed.then(() => resolve({ code: -1, reason: '', message: '', retryAfterMs: undefined }));
  });
  return { stream, ended, closed };
}

function rawEndOf(received: Readonly<Record<string, unknown>>): RawEnd {
  const metadata = new Metadata();
  const details = received['grpc-status-details-bin'];
  if (typeof details === 'string') metadata.set('grpc-status-details-bin', Buffer.from(details, 'base64'));
  const code = Number(received['grpc-status']);
  const { reason, retryAfterMs } = errorOf({ code, details: '', metadata });
  return { code, reason, message: decodeURI(String(received['grpc-message'] ?? '')), retryAfterMs };
}
