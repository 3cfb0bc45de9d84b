/** The HTTP port for operators: `/livez`, `/readyz`, `/metrics`, and `/jwks.json` with the key of signed identities. */

import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Address } from './addresses.js';
import type { OpenPort } from './ext-authz.js';
import type { Missing } from './health.js';
import type { GateLog } from './log.js';

/** How long a request may take to arrive, in milliseconds. */
const REQUEST_TIMEOUT_MS = 5_000;

const HEADER_BYTES_MAX = 8 * 1024;

/** Maximum number of connections; probes and scrapers need few. */
const CONNECTIONS_MAX = 256;

/** What the port serves. */
export interface OpsContent {
  missing(): Missing;
  /** The metrics, in the text format of Prometheus. */
  metrics(): Promise<string>;
  /** The keys that verify signed identities (RFC 7517); undefined when none are signed. */
  keys(): object | undefined;
}

/** Opens the port. */
export async function openOps(address: Address, content: OpsContent, log: GateLog): Promise<OpenPort> {
  const settings = {
    maxHeaderSize: HEADER_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    headersTimeout: REQUEST_TIMEOUT_MS,
  };
  const server = createServer(settings, (request, response) => {
    request.resume();
    const path = (request.url ?? '').split('?')[0] ?? '';
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      sendJson(response, 405, { status: 'only GET and HEAD' });
      return;
    }
    respond(path, content, response).catch((error: unknown) => {
      log.error({ event: 'ops_failed', path, err: error }, 'a request of the ops port failed');
      if (!response.headersSent) sendJson(response, 500, { status: 'internal error' });
    });
  });
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if (address.kind === 'unix') server.listen(address.path, resolve);
    else server.listen({ host: address.host, port: address.port, exclusive: true }, resolve);
  });
  server.on('error', (error) => log.warn({ event: 'ops_error', err: error }, 'error of the ops port'));
  return {
    address: address.kind === 'unix' ? address : { ...address, port: (server.address() as AddressInfo).port },
    reload: async () => {},
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function respond(path: string, content: OpsContent, response: ServerResponse): Promise<void> {
  switch (path) {
    case '/livez':
      sendJson(response, 200, { status: 'alive' });
      return;
    case '/readyz': {
      const missing = content.missing();
      const isReady = Object.keys(missing).length === 0;
      sendJson(
        response,
        isReady ? 200 : 503,
        isReady ? { status: 'ready' } : { status: 'not ready', missing },
      );
      return;
    }
    case '/metrics':
      response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' });
      response.end(await content.metrics());
      return;
    case '/jwks.json': {
      const keys = content.keys();
      if (keys === undefined) break;
      response.writeHead(200, { 'content-type': 'application/jwk-set+json', 'cache-control': 'max-age=60' });
      response.end(JSON.stringify(keys));
      return;
    }
    default:
  }
  sendJson(response, 404, { status: 'not found' });
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(`${JSON.stringify(body)}\n`);
}
