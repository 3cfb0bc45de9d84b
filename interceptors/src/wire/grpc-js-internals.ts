/**
 * The only file that relies on what grpc-js does not document: private fields, methods with an underscore, and the
 * structure of its objects. Every function documents why it is needed and what it relies on. All of it was seen with grpc-js
 * 1.14.7; test/interceptors/wire/grpc-js-internals.test.ts fails when another version differs.
 */

import type { IncomingHttpHeaders } from 'node:http2';
import {
  type ChannelCredentials,
  Metadata,
  type Server,
  type ServerInterceptingCall,
  type ServerInterceptingCallInterface,
} from '@grpc/grpc-js';

// grpc-js uses these types in exported signatures without exporting them.

/** Receives the events of a server call. */
export type ServerCallListener = Parameters<ServerInterceptingCall['start']>[0];

/** The status that ends a server call. */
export type ServerCallStatus = Parameters<ServerInterceptingCall['sendStatus']>[0];

/**
 * Whether a channel with these credentials is encrypted. grpc-js has no public method for it; relies on
 * `ChannelCredentials._isSecure`.
 */
export function isSecure(credentials: ChannelCredentials): boolean {
  return credentials._isSecure();
}

/**
 * Presents an object with the methods of a server call as a `ServerInterceptingCall`. A subclass would carry fields
 * that the guard does not use, and its callbacks can hold back a status for ever. Relies on grpc-js calling the methods
 * of the interface and reading no field of the class.
 */
export function asServerInterceptingCall(call: ServerInterceptingCallInterface): ServerInterceptingCall {
  return call as ServerInterceptingCall;
}

/** The HTTP/2 session of Node under a call, as far as the library uses it. */
export interface Http2Session {
  readonly encrypted?: boolean;
  readonly socket?: { readonly remoteAddress?: string };
  goaway?(code: number, lastStreamId: number): void;
  close?(): void;
}

/** The HTTP/2 stream of Node under a call. */
interface Http2Stream {
  readonly session?: Http2Session;
  close?(code: number): void;
}

/** Maximum number of interceptors of one call. A longer chain counts as a loop. */
const CALL_LAYERS_MAX = 16;

/**
 * The HTTP/2 session under a call; undefined when it cannot be found. grpc-js exposes neither whether a connection is
 * encrypted nor the peer's address without its port: `getAuthContext` is empty unless the peer showed a certificate.
 * Relies on the fields `nextCall` of `ServerInterceptingCall`, and `stream` of the innermost call.
 */
export function sessionUnder(call: ServerInterceptingCallInterface): Http2Session | undefined {
  return streamUnder(call)?.session;
}

/**
 * Resets the HTTP/2 stream under a call, with an error code of RFC 9113 §7. grpc-js ends a call by its status alone,
 * which a peer that does not read never lets leave. Relies on the same fields as {@link sessionUnder}.
 */
export function resetStream(call: ServerInterceptingCallInterface, code: number): void {
  streamUnder(call)?.close?.(code);
}

function streamUnder(call: ServerInterceptingCallInterface): Http2Stream | undefined {
  let layer: unknown = call;
  for (let depth = 0; depth < CALL_LAYERS_MAX && typeof layer === 'object' && layer !== null; depth += 1) {
    const { stream, nextCall } = layer as { readonly stream?: Http2Stream; readonly nextCall?: unknown };
    if (stream !== undefined) return stream;
    layer = nextCall;
  }
  return undefined;
}

/** Inspects the headers of a new stream. `rawHeaders` are names and values in turn, as they were sent. */
export type InspectHeaders = (headers: IncomingHttpHeaders, rawHeaders: readonly string[]) => void;

/**
 * Inspects the headers of every request before grpc-js reads them; what it changes in `headers` is what grpc-js reads.
 * grpc-js passes no raw headers on. Relies on the field `http2Servers` of `Server`, a map whose keys are Node's servers,
 * and on grpc-js reading the headers in its own listener for `stream`.
 *
 * @throws TypeError when this version of grpc-js keeps its servers elsewhere
 */
export function inspectHeadersOf(server: Server, inspect: InspectHeaders): void {
  const servers: unknown = Reflect.get(server, 'http2Servers');
  if (!(servers instanceof Map)) {
    throw new TypeError(
      'expected grpc-js to keep its HTTP/2 servers in Server.http2Servers, found no map there',
    );
  }
  for (const http2Server of servers.keys()) listenFirst(http2Server, inspect);
  const set = servers.set.bind(servers);
  servers.set = (http2Server: unknown, info: unknown) => {
    listenFirst(http2Server, inspect);
    return set(http2Server, info);
  };
}

interface EmitsStreams {
  prependListener(
    event: 'stream',
    listener: (
      stream: unknown,
      headers: IncomingHttpHeaders,
      flags: number,
      rawHeaders: readonly string[] | undefined,
    ) => void,
  ): unknown;
}

function listenFirst(http2Server: unknown, inspect: InspectHeaders): void {
  (http2Server as EmitsStreams).prependListener('stream', (_stream, headers, _flags, rawHeaders = []) =>
    inspect(headers, rawHeaders),
  );
}

/** A place on `Metadata` objects for a value of this process. */
export interface MetadataSlot<Value extends object> {
  set(metadata: Metadata, value: Value): void;
  get(metadata: Metadata): Value | undefined;
}

/**
 * Creates a place on `Metadata` for a value that is never sent, that no peer can set, and that a clone does not have.
 * `Metadata.setOpaque` would be that too, but creates a Map for every call. Relies on the handler receiving, as
 * `call.metadata`, the very object that the interceptor passed on.
 */
export function createMetadataSlot<Value extends object>(name: string): MetadataSlot<Value> {
  const slot: unique symbol = Symbol(name);
  type Carrier = Metadata & { [slot]?: Value };
  return {
    set: (metadata, value) => {
      (metadata as Carrier)[slot] = value;
    },
    get: (metadata) => (metadata as Carrier)[slot],
  };
}

/**
 * The same metadata, with its HTTP/2 headers computed once, because thousands of calls may end with it at a time. Relies
 * on grpc-js sending a `clone` of what it is given, and on `toHttp2Headers` being what it sends.
 */
export function withComputedHeaders(metadata: Metadata): Metadata {
  return ComputedMetadata.of(metadata);
}

class ComputedMetadata extends Metadata {
  #headers: ReturnType<Metadata['toHttp2Headers']> | undefined;

  static of(metadata: Metadata): ComputedMetadata {
    const computed = new ComputedMetadata();
    computed.merge(metadata);
    computed.#headers = metadata.toHttp2Headers();
    return computed;
  }

  override clone(): Metadata {
    const copy = new ComputedMetadata();
    copy.merge(this);
    copy.#headers = this.#headers;
    return copy;
  }

  override toHttp2Headers(): ReturnType<Metadata['toHttp2Headers']> {
    return this.#headers ?? super.toHttp2Headers();
  }

  override set(...of: Parameters<Metadata['set']>): void {
    this.#headers = undefined;
    super.set(...of);
  }

  override add(...of: Parameters<Metadata['add']>): void {
    this.#headers = undefined;
    super.add(...of);
  }

  override remove(...of: Parameters<Metadata['remove']>): void {
    this.#headers = undefined;
    super.remove(...of);
  }

  override merge(...of: Parameters<Metadata['merge']>): void {
    this.#headers = undefined;
    super.merge(...of);
  }
}
