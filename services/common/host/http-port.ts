/**
 * An HTTP port that strangers may reach. Whatever they have open there, a new request is answered: when there are too
 * many connections, the oldest one of the network that has the most is closed, not the new one refused.
 */
import type {
  Server as HttpServer,
  IncomingHttpHeaders,
  IncomingMessage,
  RequestListener,
  ServerOptions,
  ServerResponse,
} from 'node:http';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { type Clock, systemClock } from '@portcullis/guard';
import type { TlsWatch } from '@portcullis/guard/tls';
import { HttpConnections } from './http-connections.js';
import { type HttpLimit, HttpLimits, requestClassOf } from './http-limits.js';
import type { Log } from './log.js';

/** How long a caller may take to send its request, and to read the response, in milliseconds. */
const TRANSFER_TIMEOUT_MS = 5_000;
/** How often Node looks for requests that take too long, in milliseconds. */
const CHECK_INTERVAL_MS = 1_000;
/**
 * How long requests under way may take to be answered when a port closes, unless configured, in milliseconds. It is part
 * of the time that a process has beyond its drain.
 */
const DRAIN_MS_DEFAULT = 2_000;
/** Connections at one time, unless configured. */
const CONNECTIONS_MAX_DEFAULT = 256;
/** Requests of one network that are answered in a second, unless configured. */
const REQUESTS_PER_ADDRESS_DEFAULT = 50;
/** Maximum size of a request's headers, all together. */
export const HTTP_HEADER_BYTES_MAX = 8 * 1024;

/** A request as a route sees it; bodies are not read. */
interface HttpRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
}

/** The response of a route. */
export interface HttpAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string | Buffer;
  /**
   * Further headers, such as `cache-control`, whose default is `no-store`. With an `etag`, a request that names it in
   * `if-none-match` is answered with 304.
   */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Responds to GET and HEAD of one path. An error that it throws becomes status 500 with a fixed text. */
export type HttpRoute = (request: HttpRequest) => Promise<HttpAnswer> | HttpAnswer;

/** Routes by path. */
export type HttpRoutes = { readonly [path: string]: HttpRoute };

/** A JSON answer. */
export function jsonAnswer(status: number, body: unknown, headers: HttpAnswer['headers'] = {}): HttpAnswer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(body)}\n`, headers };
}

/** The port, open. */
export interface HttpPort {
  readonly port: number;
  /** Connections closed so far because there were too many. */
  readonly evicted: number;
  /** Requests refused so far, by limit. */
  readonly refused: Readonly<Record<HttpLimit, number>>;
  /**
   * Accepts no more connections and requests, waits for the answers to requests under way, then closes every connection.
   * May be called twice.
   */
  close(): Promise<void>;
}

/** What every HTTP port has. */
export interface HttpListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly log: Log;
  /** HTTPS with these certificates; HTTP when undefined. */
  readonly tls?: TlsWatch | undefined;
  readonly connectionsMax?: number | undefined;
  /** Requests of one network that are answered in a second: an IPv4 address, or a /64 of IPv6. */
  readonly requestsPerAddress?: number | undefined;
  /** Paths that are answered however many requests their network has sent. */
  readonly probes?: ReadonlySet<string> | undefined;
  readonly clock?: Clock | undefined;
  /** For sending a request and for reading the response, in milliseconds. */
  readonly transferTimeoutMs?: number | undefined;
  /** For answering requests under way when the port closes, in milliseconds. */
  readonly drainMs?: number | undefined;
  /** The answer to a request beyond the limit of its network. Default: a text for a person. */
  readonly tooMany?: Pick<HttpAnswer, 'contentType' | 'body'> | undefined;
}

export interface HttpPortOptions extends HttpListenerOptions {
  readonly routes: HttpRoutes;
}

/** Opens a port with routes. Rejects with the error of `listen`. */
export async function openHttpPort(options: HttpPortOptions): Promise<HttpPort> {
  const { log, transferTimeoutMs = TRANSFER_TIMEOUT_MS } = options;
  const routes = new Map(Object.entries(options.routes));
  return await openHttpListener({ tooMany: TOO_MANY_JSON, ...options }, (request, response) => {
    endIfUnread(response, transferTimeoutMs);
    void respond(routes, log, request, response);
  });
}

/**
 * Opens a port whose requests, within the limits, are passed on to `answer`. Rejects with the error of `listen`.
 *
 * A connection that its peer has already reset has no address any more, although what the peer has sent can be read.
 * Such a connection is closed and its requests are dropped: their network is unknown, so no limit would count them.
 */
export async function openHttpListener(
  options: HttpListenerOptions,
  answer: RequestListener,
): Promise<HttpPort> {
  const { log, transferTimeoutMs = TRANSFER_TIMEOUT_MS, connectionsMax = CONNECTIONS_MAX_DEFAULT } = options;
  const { requestsPerAddress = REQUESTS_PER_ADDRESS_DEFAULT, probes, clock = systemClock } = options;
  const underWay = new RequestsUnderWay();
  const limits = new HttpLimits(requestsPerAddress, clock);
  const settings = {
    requestTimeout: transferTimeoutMs,
    headersTimeout: transferTimeoutMs,
    connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, transferTimeoutMs),
    maxHeaderSize: HTTP_HEADER_BYTES_MAX,
    IncomingMessage: requestClassOf(limits),
  };
  const server = createServerFor(options.tls, settings, (request, response) => {
    const { socket } = request;
    const { remoteAddress: address } = socket;
    if (address === undefined || underWay.isClosing) return void socket.destroy();
    underWay.add(response);
    limits.enter(socket);
    response.once('close', () => limits.leave(socket));
    const isAllowed = probes?.has(pathOf(request)) === true || limits.allows(address);
    if (isAllowed) return answer(request, response);
    endIfUnread(response, transferTimeoutMs);
    refuse(response, options.tooMany);
  });
  server.on('upgrade', (_, socket) => {
    limits.refused.pipelined += 1;
    socket.destroy();
  });
  const connections = new HttpConnections(connectionsMax);
  server.on('connection', (socket: Socket) => {
    const { remoteAddress: address } = socket;
    if (address === undefined) return void socket.destroy();
    if (connections.add(socket, address))
      log.warn({ connectionsMax }, 'closed an HTTP connection: there are too many');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port, exclusive: true }, resolve);
  });
  server.on('error', (error) => log.warn({ err: error }, 'error on an HTTP port'));
  const closePort = async (): Promise<void> => {
    const ended = new Promise<void>((resolve) => server.close(() => resolve()));
    await underWay.drain(options.drainMs ?? DRAIN_MS_DEFAULT);
    server.closeAllConnections();
    connections.closeAll();
    await ended;
  };
  let closed: Promise<void> | undefined;
  return {
    port: (server.address() as AddressInfo).port,
    get evicted() {
      return connections.evicted;
    },
    refused: limits.refused,
    close: () => {
      closed ??= closePort();
      return closed;
    },
  };
}

/** The requests that wait for their answers. */
class RequestsUnderWay {
  readonly #responses = new Set<ServerResponse>();
  #onEmpty = (): void => {};
  isClosing = false;

  add(response: ServerResponse): void {
    this.#responses.add(response);
    response.once('close', () => {
      this.#responses.delete(response);
      if (this.#responses.size === 0) this.#onEmpty();
    });
  }

  /** Takes no more requests. Resolves when all have been answered, or after the time. */
  async drain(timeoutMs: number): Promise<void> {
    this.isClosing = true;
    if (this.#responses.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Closes the connection of a caller that does not read its response. */
export function endIfUnread(response: ServerResponse, timeoutMs: number): void {
  const timer = setTimeout(() => response.socket?.destroy(), timeoutMs).unref();
  response.once('close', () => clearTimeout(timer));
}

/**
 * Client certificates are not requested: probes have none, and the responses are not secret from callers that can
 * reach the port.
 */
function createServerFor(
  tls: TlsWatch | undefined,
  settings: ServerOptions,
  listener: RequestListener,
): HttpServer | HttpsServer {
  if (tls === undefined) return createHttpServer(settings, listener);
  const server = createHttpsServer(
    { ...settings, ...tls.current(), handshakeTimeout: TRANSFER_TIMEOUT_MS },
    listener,
  );
  server.once(
    'close',
    tls.onChange((next) => server.setSecureContext(next)),
  );
  return server;
}

/** Answers that the network has sent too many requests (RFC 6585 §4), and ends the connection. */
function refuse(response: ServerResponse, { contentType, body } = TOO_MANY_TEXT): void {
  response.on('error', () => {});
  response.writeHead(429, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'retry-after': '1',
    connection: 'close',
  });
  response.end(body);
}

const TOO_MANY_JSON = jsonAnswer(429, { error: 'too many requests (PORTCULLIS_OPS_REQUESTS_PER_ADDRESS)' });

/** Names no setting: the reader may be a stranger. */
const TOO_MANY_TEXT: Pick<HttpAnswer, 'contentType' | 'body'> = {
  contentType: 'text/plain; charset=utf-8',
  body: 'Too many requests from your network. Try again in a second.\n',
};

async function respond(
  routes: ReadonlyMap<string, HttpRoute>,
  log: Log,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // A caller may disconnect before the response is complete.
  response.on('error', () => {});
  const { status, contentType, body, headers } = await answerTo(routes, log, request);
  if (status === 200 && isKnownTo(request, headers?.['etag'])) {
    response.writeHead(304, { 'cache-control': 'no-store', ...headers });
    response.end();
    return;
  }
  const bytes = typeof body === 'string' ? Buffer.from(body, 'utf8') : body;
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': bytes.length,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(request.method === 'HEAD' ? undefined : bytes);
}

/** Whether the caller already has this response, by its entity tag (RFC 9110 §13.1.2). */
function isKnownTo(request: IncomingMessage, tag: string | undefined): boolean {
  const condition = request.headers['if-none-match'];
  if (tag === undefined || condition === undefined) return false;
  const known = condition.split(',').map((one) => one.trim().replace(/^W\//, ''));
  return known.includes(tag) || condition.trim() === '*';
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] ?? '';
}

async function answerTo(
  routes: ReadonlyMap<string, HttpRoute>,
  log: Log,
  request: IncomingMessage,
): Promise<HttpAnswer> {
  const path = pathOf(request);
  const [, query = ''] = (request.url ?? '').split('?', 2);
  const route = routes.get(path);
  if (route === undefined) return jsonAnswer(404, { error: 'not found' });
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return jsonAnswer(405, { error: 'method not allowed' }, { allow: 'GET, HEAD' });
  }
  try {
    const { headers } = request;
    return await Promise.resolve(route({ path, query: new URLSearchParams(query), headers }));
  } catch (error) {
    log.error({ err: error, path }, 'a route of an HTTP port failed');
    return jsonAnswer(500, { error: 'internal error' });
  }
}
