/** Unary gRPC calls of the console to the service of its own process, each on behalf of the browser that asks. */

import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { Metadata, type MethodDefinition, status } from '@grpc/grpc-js';
import { networkOf } from '@portcullis/guard/networks';
import type { LocalConnections } from '../../common/host/local-connections.js';

/** Deadline of a call, in milliseconds. */
const CALL_TIMEOUT_MS = 20_000;

/** Maximum size of a response, in bytes. */
const RESPONSE_BYTES_MAX = 4 * 1024 * 1024;

/** Maximum number of networks with an open connection; beyond it, the oldest one is closed once its calls have ended. */
const CONNECTIONS_MAX = 64;

/** Length of what stands before each message: whether it is compressed, and its length. */
const PREFIX_BYTES = 5;

/** A method of a generated service. */
export type Method<Request, Response> = Pick<
  MethodDefinition<Request, Response>,
  'path' | 'requestSerialize' | 'responseDeserialize'
>;

/** Who calls. */
interface Caller {
  /** The address of the browser. */
  readonly peer: string;
  /** The access token; none for public methods. */
  readonly token?: string | undefined;
}

/** A call that ended with another status than OK. `errorOf` of the library reads its details. */
export class CallError extends Error {
  readonly code: status;
  readonly details: string;
  readonly metadata: Metadata;

  constructor(code: status, details: string, metadata = new Metadata()) {
    super(details);
    this.name = 'CallError';
    this.code = code;
    this.details = details;
    this.metadata = metadata;
  }
}

/** Calls the service of this process. */
export interface Calls {
  /** @throws CallError */
  call<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    caller: Caller,
  ): Promise<Response>;
  /** Closes each connection once its calls have ended. */
  close(): void;
}

/** Connections are opened as they are needed, one for each network that browsers are in. */
export function createCalls(local: Pick<LocalConnections, 'connect'>): Calls {
  const sessions = new Map<string, Promise<ClientHttp2Session>>();

  const open = async (peer: string): Promise<ClientHttp2Session> => {
    const socket = await local.connect(peer);
    const session = connect('http://console.invalid', { createConnection: () => socket });
    session.on('error', () => {});
    session.unref();
    return session;
  };

  const sessionFor = (peer: string): Promise<ClientHttp2Session> => {
    const network = networkOf(peer);
    const known = sessions.get(network);
    if (known !== undefined) return known;
    const opening = open(peer);
    sessions.set(network, opening);
    const forget = (): void => {
      if (sessions.get(network) === opening) sessions.delete(network);
    };
    opening.then((session) => {
      session.once('goaway', forget);
      session.once('close', forget);
    }, forget);
    const [oldest] = sessions;
    if (sessions.size > CONNECTIONS_MAX && oldest !== undefined) {
      sessions.delete(oldest[0]);
      oldest[1].then(
        (session) => session.close(),
        () => undefined,
      );
    }
    return opening;
  };

  return {
    call: async (method, request, { peer, token }) => {
      const session = await sessionFor(peer).catch((error: unknown) => {
        throw new CallError(status.UNAVAILABLE, String(error));
      });
      const { message, trailers } = await exchange(session, method.path, {
        body: method.requestSerialize(request),
        token,
      });
      if (message !== undefined && trailers['grpc-status'] === '0')
        return method.responseDeserialize(message);
      throw errorFrom(trailers);
    },
    close: () => {
      for (const opening of sessions.values()) {
        opening.then(
          (session) => session.close(),
          () => undefined,
        );
      }
      sessions.clear();
    },
  };
}

/** What a call has returned. */
interface Exchanged {
  readonly message: Buffer | undefined;
  readonly trailers: IncomingHttpHeaders;
}

function exchange(
  session: ClientHttp2Session,
  path: string,
  { body, token }: { readonly body: Buffer; readonly token: string | undefined },
): Promise<Exchanged> {
  return new Promise((resolve, reject) => {
    const headers: OutgoingHttpHeaders = {
      ':method': 'POST',
      ':path': path,
      te: 'trailers',
      'content-type': 'application/grpc',
      'grpc-timeout': `${CALL_TIMEOUT_MS}m`,
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    };
    let stream: ClientHttp2Stream;
    try {
      stream = session.request(headers);
    } catch (error) {
      // The connection has closed since it was opened, or is about to.
      reject(new CallError(status.UNAVAILABLE, String(error)));
      return;
    }
    const chunks: Buffer[] = [];
    let length = 0;
    let trailers: IncomingHttpHeaders = {};
    const keep = (received: IncomingHttpHeaders): void => {
      trailers = { ...trailers, ...received };
    };
    stream.on('response', keep);
    stream.on('trailers', keep);
    stream.on('data', (chunk: Buffer) => {
      chunks.push(chunk);
      length += chunk.length;
      if (length > RESPONSE_BYTES_MAX) stream.close(constants.NGHTTP2_CANCEL);
    });
    stream.setTimeout(CALL_TIMEOUT_MS, () => stream.close(constants.NGHTTP2_CANCEL));
    stream.once('error', (error) => reject(new CallError(status.UNAVAILABLE, error.message)));
    stream.once('close', () => resolve({ message: messageOf(Buffer.concat(chunks)), trailers }));
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(body.length, 1);
    stream.end(Buffer.concat([prefix, body]));
  });
}

/** The one message of a response; undefined when it is missing, incomplete or compressed. */
function messageOf(bytes: Buffer): Buffer | undefined {
  if (bytes.length < PREFIX_BYTES || bytes.readUInt8(0) !== 0) return undefined;
  const message = bytes.subarray(PREFIX_BYTES);
  return message.length === bytes.readUInt32BE(1) ? message : undefined;
}

function errorFrom(trailers: IncomingHttpHeaders): CallError {
  const code = Number(trailers['grpc-status'] ?? status.UNAVAILABLE);
  if (!(code in status) || code === status.OK) return new CallError(status.UNAVAILABLE, 'no response');
  const { 'grpc-message': message } = trailers;
  const plain = Object.fromEntries(Object.entries(trailers).filter(([name]) => !name.startsWith(':')));
  return new CallError(code, decodeText(String(message ?? '')), Metadata.fromHttp2Headers(plain));
}

/** The text of a status, whose bytes are percent-encoded. */
function decodeText(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
