/**
 * The only file that relies on what grpc-js does not document: private fields, methods with an underscore, and the
 * structure of its objects. Every function documents why it is needed and what it relies on. All of it was seen with grpc-js
 * 1.14.7; test/interceptors/wire/grpc-js-internals.test.ts fails when another version differs.
 */

import type { IncomingHttpHeaders } from 'node:http2';
import {
  ChannelCredentials,
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

type Connector = ReturnType<ChannelCredentials['_createSecureConnector']>;
type ConnectorArguments = Parameters<ChannelCredentials['_createSecureConnector']>;

/**
 * Secure credentials that may change: every new connection of a channel uses those that the function returns then. Relies
 * on the method with which a channel makes the connector of a subchannel, once for all its connections.
 */
export function changingCredentials(current: () => ChannelCredentials): ChannelCredentials {
  return new ChangingCredentials(current);
}

class ChangingCredentials extends ChannelCredentials {
  readonly #current: () => ChannelCredentials;

  constructor(current: () => ChannelCredentials) {
    super();
    this.#current = current;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(...given: ConnectorArguments): Connector {
    const first = this.#current()._createSecureConnector(...given);
    return {
      connect: (socket) =>
        this.#current()
          ._createSecureConnector(...given)
          .connect(socket),
      waitForReady: () => first.waitForReady(),
      getCallCredentials: () => first.getCallCredentials(),
      destroy: () => first.destroy(),
    };
  }
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
  readonly socket?: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined };
  goaway?(code: number, lastStreamId: number): void;
  close?(): void;
  destroy?(): void;
  once?(event: 'remoteSettings' | 'close', listener: () => void): unknown;
}

/** The HTTP/2 stream of Node under a call. */
interface Http2Stream {
  readonly session?: Http2Session;
  readonly destroyed?: boolean;
  close?(code: number): void;
}

/** Splits the bytes of a request into messages, each with its head of five bytes. */
export interface RequestDecoder {
  write(data: Buffer): Buffer[];
}

/** The innermost call of grpc-js. */
interface BaseCall {
  readonly stream?: Http2Stream;
  decoder: RequestDecoder;
  /** Maximum size of a message after decompression, in bytes. */
  maxReceiveMessageSize: number;
  sendStatus(status: ServerCallStatus): void;
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

/** HTTP/2 error code NO_ERROR (RFC 9113 §7). */
const HTTP2_NO_ERROR = 0;

/**
 * Closes the stream of an ended call whose peer has not ended its request, after `graceMs` milliseconds (RFC 9113 §8.1).
 * grpc-js leaves such a stream open until the peer or the connection ends. Relies on the same fields as
 * {@link sessionUnder}.
 */
export function closeStreamLater(call: ServerInterceptingCallInterface, graceMs: number): void {
  const stream = streamUnder(call);
  if (stream === undefined || stream.destroyed === true) return;
  // The timer references the stream alone, so that it keeps nothing else of the call alive.
  setTimeout(() => {
    if (stream.destroyed !== true) stream.close?.(HTTP2_NO_ERROR);
  }, graceMs).unref();
}

/**
 * Reads the messages of a call with another decoder, and limits their size after decompression. grpc-js has one limit for
 * all methods, and counts no bytes. Relies on the fields `decoder` and `maxReceiveMessageSize` of the innermost call, which
 * it reads whenever data arrive.
 *
 * @returns false when the innermost call cannot be found
 */
export function decodeRequestWith(
  call: ServerInterceptingCallInterface,
  decoder: RequestDecoder,
  messageBytesMax: number,
): boolean {
  const base = baseUnder(call);
  if (base?.decoder === undefined) return false;
  base.decoder = decoder;
  base.maxReceiveMessageSize = messageBytesMax;
  return true;
}

/**
 * Changes the statuses with which grpc-js itself ends a call, which pass no interceptor: those of a message that cannot be
 * decompressed. Relies on the innermost call sending them by its own `sendStatus`.
 */
export function mapStatusesOf(
  call: ServerInterceptingCallInterface,
  map: (status: ServerCallStatus) => ServerCallStatus,
): void {
  const base = baseUnder(call);
  if (base === undefined) return;
  const send = base.sendStatus;
  base.sendStatus = (status) => send.call(base, map(status));
}

function streamUnder(call: ServerInterceptingCallInterface): Http2Stream | undefined {
  return baseUnder(call)?.stream;
}

function baseUnder(call: ServerInterceptingCallInterface): BaseCall | undefined {
  let layer: unknown = call;
  for (let depth = 0; depth < CALL_LAYERS_MAX && typeof layer === 'object' && layer !== null; depth += 1) {
    if ((layer as BaseCall).stream !== undefined) return layer as BaseCall;
    layer = (layer as { readonly nextCall?: unknown }).nextCall;
  }
  return undefined;
}

/** Inspects the headers of a new stream. `rawHeaders` are names and values in turn, as they were sent. */
export type InspectHeaders = (
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
  stream: object,
) => void;

/**
 * Inspects the headers of every request before grpc-js reads them; what it changes in `headers` is what grpc-js reads.
 * grpc-js passes no raw headers on. Relies on the field `http2Servers` of `Server`, a map whose keys are Node's servers,
 * and on grpc-js reading the headers in its own listener for `stream`.
 *
 * @throws TypeError when this version of grpc-js keeps its servers elsewhere
 */
export function inspectHeadersOf(server: Server, inspect: InspectHeaders): void {
  onHttp2Servers(server, (http2Server) => {
    (http2Server as EmitsStreams).prependListener('stream', (stream, headers, _flags, rawHeaders = []) =>
      inspect(headers, rawHeaders, stream),
    );
  });
}

/**
 * The server that has accepted a connection, from a message of Node's channel `net.server.socket`; undefined when there is
 * none. Relies on the field `server` of accepted sockets, which Node sets before it reports them.
 */
export function serverThatAccepted(message: unknown): EmitsStreams | undefined {
  const { socket } = message as { readonly socket?: { readonly server?: Partial<EmitsStreams> } };
  const server = socket?.server;
  return typeof server?.prependListener === 'function' ? (server as EmitsStreams) : undefined;
}

/** A deadline that grpc-js does not handle: in wall-clock milliseconds, or a value that is none. */
export type RequestDeadline = number | 'malformed';

const REQUEST_DEADLINE = Symbol('deadline');

/** Keeps a deadline with the stream of a request. */
export function setRequestDeadline(stream: object, deadline: RequestDeadline): void {
  (stream as { [REQUEST_DEADLINE]?: RequestDeadline })[REQUEST_DEADLINE] = deadline;
}

/** The deadline that was kept with the stream under a call. Relies on the same fields as {@link sessionUnder}. */
export function requestDeadlineUnder(call: ServerInterceptingCallInterface): RequestDeadline | undefined {
  return (streamUnder(call) as { [REQUEST_DEADLINE]?: RequestDeadline } | undefined)?.[REQUEST_DEADLINE];
}

/** A TCP connection, as far as the library uses it. */
export interface AcceptedSocket {
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  readonly destroyed: boolean;
  destroy(): unknown;
  once(event: 'close', listener: () => void): unknown;
}

/** Observes the connections of a server. */
export interface ConnectionListener {
  /** A TCP connection was accepted, before TLS. The listener may destroy it. */
  accepted(socket: AcceptedSocket): void;
  /** The peer of a connection speaks HTTP/2: its first SETTINGS frame has arrived. */
  established(session: Http2Session): void;
  /** A request has arrived. */
  requested(session: Http2Session): void;
}

interface EmitsConnections {
  prependListener(event: 'connection', listener: (socket: AcceptedSocket) => void): unknown;
  prependListener(event: 'stream', listener: (stream: Http2Stream) => void): unknown;
  on(event: 'session', listener: (session: EmitsSettings) => void): unknown;
}

interface EmitsSettings extends Http2Session {
  once(event: 'remoteSettings' | 'close', listener: () => void): unknown;
}

/**
 * Observes the connections of a server. Relies on what {@link inspectHeadersOf} relies on, and on Node's servers tolerating
 * that a connection is destroyed by a listener that runs before their own.
 *
 * @throws TypeError when this version of grpc-js keeps its servers elsewhere
 */
export function observeConnectionsOf(server: Server, listener: ConnectionListener): void {
  onHttp2Servers(server, (http2Server) => {
    const server = http2Server as EmitsConnections;
    server.prependListener('connection', (socket) => listener.accepted(socket));
    server.on('session', (session) => session.once('remoteSettings', () => listener.established(session)));
    server.prependListener('stream', ({ session }) => {
      if (session !== undefined) listener.requested(session);
    });
  });
}

/** A stream that has arrived, before grpc-js sees it. */
export interface ObservedStream {
  readonly session: Http2Session;
  onceClosed(listener: () => void): void;
  /** Passes the stream on to grpc-js, unless it is closed. @returns whether it was passed on */
  begin(): boolean;
}

/** What the class below needs of a stream of Node. */
interface ArrivingStream extends Http2Stream {
  readonly closed: boolean;
  once(event: 'close', listener: () => void): unknown;
  on(event: 'error', listener: () => void): unknown;
}

interface EmitsEvents {
  emit(event: string, ...values: readonly unknown[]): boolean;
}

const ignoreError = (): void => {};

class DeferrableStream implements ObservedStream {
  readonly session: Http2Session;
  readonly #stream: ArrivingStream;
  readonly #pass: () => void;

  constructor(session: Http2Session, stream: ArrivingStream, pass: () => void) {
    this.session = session;
    this.#stream = stream;
    this.#pass = pass;
    // Until grpc-js listens, the error of a stream that the peer resets would end the process.
    stream.on('error', ignoreError);
  }

  onceClosed(listener: () => void): void {
    this.#stream.once('close', listener);
  }

  begin(): boolean {
    if (this.#stream.closed || this.#stream.destroyed === true) return false;
    this.#pass();
    return true;
  }
}

/**
 * Decides when grpc-js sees a new stream: `arrived` begins it at once or later. Node keeps what the peer sends meanwhile,
 * within the flow-control window. grpc-js handles every stream in the turn of the event loop in which it arrives. Relies on
 * what {@link inspectHeadersOf} relies on, and on Node's HTTP/2 sessions passing streams to their server by its `emit`.
 *
 * @throws TypeError when this version of grpc-js keeps its servers elsewhere
 */
export function scheduleStreamsOf(server: Server, arrived: (stream: ObservedStream) => void): void {
  onHttp2Servers(server, (http2Server) => {
    const emitter = http2Server as EmitsEvents;
    const emit = emitter.emit.bind(emitter);
    emitter.emit = (event, ...values) => {
      const stream = event === 'stream' ? (values[0] as ArrivingStream) : undefined;
      const session = stream?.session;
      if (stream === undefined || session === undefined) return emit(event, ...values);
      arrived(new DeferrableStream(session, stream, () => void emit(event, ...values)));
      return true;
    };
  });
}

/** The HTTP/2 settings that a server announces (RFC 9113 §6.5.2). */
export interface Http2Settings {
  readonly maxConcurrentStreams: number;
  readonly maxHeaderListSize: number;
}

/**
 * Sets the HTTP/2 settings of a server that listens later. What the server's own options set wins. Relies on grpc-js
 * passing `commonServerOptions` to Node for each address that it binds.
 *
 * @throws TypeError when this version of grpc-js keeps its options elsewhere
 */
export function setHttp2SettingsOf(server: Server, settings: Http2Settings): void {
  const options: unknown = Reflect.get(server, 'commonServerOptions');
  if (typeof options !== 'object' || options === null) {
    throw new TypeError('expected grpc-js to keep options in Server.commonServerOptions, found none there');
  }
  const own = (options as { settings?: Partial<Http2Settings> }).settings;
  (options as { settings?: Partial<Http2Settings> }).settings = { ...settings, ...own };
}

/** Calls `visit` with every HTTP/2 server of a grpc-js server, those that begin to listen later included. */
function onHttp2Servers(server: Server, visit: (http2Server: unknown) => void): void {
  const servers: unknown = Reflect.get(server, 'http2Servers');
  if (!(servers instanceof Map)) {
    throw new TypeError(
      'expected grpc-js to keep its HTTP/2 servers in Server.http2Servers, found no map there',
    );
  }
  for (const http2Server of servers.keys()) visit(http2Server);
  const set = servers.set.bind(servers);
  servers.set = (http2Server: unknown, info: unknown) => {
    visit(http2Server);
    return set(http2Server, info);
  };
}

export interface EmitsStreams {
  prependListener(
    event: 'stream',
    listener: (
      stream: object,
      headers: IncomingHttpHeaders,
      flags: number,
      rawHeaders: readonly string[] | undefined,
    ) => void,
  ): unknown;
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
