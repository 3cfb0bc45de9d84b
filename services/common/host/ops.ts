/** The HTTP port for operators: `/livez`, `/readyz`, `/metrics`, and the routes of a service. */
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
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import type { TlsWatch } from '../tls/tls-files.js';
import type { Log } from './log.js';

/** How long a caller may take to send its request. */
const OPS_REQUEST_TIMEOUT_MS = 5_000;
/** Connections at one time. */
const OPS_CONNECTIONS_MAX = 256;
/** Maximum size of a request's headers, all together. */
export const OPS_HEADER_BYTES_MAX = 8 * 1024;

/** A request as a route sees it; bodies are not read. */
interface OpsRequest {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
}

/** The response of a route. */
export interface OpsAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
  /**
   * Further headers, such as `cache-control`, whose default is `no-store`. With an `etag`, a request that names it in
   * `if-none-match` is answered with 304.
   */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Responds to GET and HEAD of one path. An error that it throws becomes status 500 with a fixed text. */
export type OpsRoute = (request: OpsRequest) => Promise<OpsAnswer> | OpsAnswer;

/** A JSON answer. */
export function jsonAnswer(status: number, body: unknown, headers: OpsAnswer['headers'] = {}): OpsAnswer {
  return { status, contentType: 'application/json', body: `${JSON.stringify(body)}\n`, headers };
}

/** The port, open. */
export interface Ops {
  readonly port: number;
  /** Answers no more requests and closes every connection. */
  close(): Promise<void>;
}

export interface OpsOptions {
  readonly host: string;
  readonly port: number;
  readonly registry: Registry;
  /** What is missing, by name; empty when the process is ready. */
  readonly missing: () => Readonly<Record<string, string>>;
  /** Further routes by path. */
  readonly routes: Readonly<Record<string, OpsRoute>>;
  readonly log: Log;
  /** HTTPS with these certificates; HTTP when undefined. */
  readonly tls?: TlsWatch | undefined;
}

/** Opens the port. Rejects with the error of `listen`. */
export async function startOps(options: OpsOptions): Promise<Ops> {
  const routes = new Map(Object.entries({ ...options.routes, ...standardRoutes(options) }));
  const settings = {
    requestTimeout: OPS_REQUEST_TIMEOUT_MS,
    headersTimeout: OPS_REQUEST_TIMEOUT_MS,
    connectionsCheckingInterval: OPS_REQUEST_TIMEOUT_MS,
    maxHeaderSize: OPS_HEADER_BYTES_MAX,
  };
  const server = createServerFor(options.tls, settings, (request, response) => {
    void respond(routes, options.log, request, response);
  });
  server.maxConnections = OPS_CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port, exclusive: true }, resolve);
  });
  server.on('error', (error) => options.log.warn({ err: error }, 'error on the ops port'));
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
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
    { ...settings, ...tls.current(), handshakeTimeout: OPS_REQUEST_TIMEOUT_MS },
    listener,
  );
  server.once(
    'close',
    tls.onChange((next) => server.setSecureContext(next)),
  );
  return server;
}

function standardRoutes({ registry, missing }: OpsOptions): Record<string, OpsRoute> {
  return {
    '/livez': () => jsonAnswer(200, { status: 'alive' }),
    '/readyz': () => {
      const what = missing();
      const ready = Object.keys(what).length === 0;
      return ready
        ? jsonAnswer(200, { status: 'ready' })
        : jsonAnswer(503, { status: 'not ready', missing: what });
    },
    '/metrics': async () => ({
      status: 200,
      contentType: registry.contentType,
      body: await registry.metrics(),
    }),
  };
}

async function respond(
  routes: ReadonlyMap<string, OpsRoute>,
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
  const bytes = Buffer.from(body, 'utf8');
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

async function answerTo(
  routes: ReadonlyMap<string, OpsRoute>,
  log: Log,
  request: IncomingMessage,
): Promise<OpsAnswer> {
  const [path = '', query = ''] = (request.url ?? '').split('?', 2);
  const route = routes.get(path);
  if (route === undefined) return jsonAnswer(404, { error: 'not found' });
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return jsonAnswer(405, { error: 'method not allowed' }, { allow: 'GET, HEAD' });
  }
  try {
    const { headers } = request;
    return await Promise.resolve(route({ path, query: new URLSearchParams(query), headers }));
  } catch (error) {
    log.error({ err: error, path }, 'a route of the ops port failed');
    return jsonAnswer(500, { error: 'internal error' });
  }
}
