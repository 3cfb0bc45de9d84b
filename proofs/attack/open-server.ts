/** A server that guards nothing: it answers every request with OK, so that what a gate lets through is seen. */

import {
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { status } from '@grpc/grpc-js';
import { EMPTY_MESSAGE } from '../shared/wire.js';

const HEALTH_PATHS: readonly string[] = ['/grpc.health.v1.Health/Check', '/grpc.health.v1.Health/Watch'];

/** The header by which a request is known at both ends. */
export const NUMBER_HEADER = 'x-attempt';

/** The server. */
export interface OpenServer {
  readonly address: string;
  /** The number of requests that have reached it, by path. */
  readonly reached: ReadonlyMap<string, number>;
  /** The number of requests without a number. */
  readonly unnumbered: number;
  /** Whether a request with this number has reached it. */
  hasReached(number: string): boolean;
  close(): void;
}

/** Opens the server on a free port of 127.0.0.1. */
export async function openOpenServer(): Promise<OpenServer> {
  const reached = new Map<string, number>();
  const numbers = new Set<string>();
  let unnumbered = 0;
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer();
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => {});
    session.on('close', () => sessions.delete(session));
  });
  server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
    const path = String(headers[':path']);
    stream.on('error', () => {});
    // The gate asks by itself; a server without a health service answers this.
    if (HEALTH_PATHS.includes(path)) {
      stream.respond(
        { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': String(status.UNIMPLEMENTED) },
        { endStream: true },
      );
      return;
    }
    reached.set(path, (reached.get(path) ?? 0) + 1);
    const number = headers[NUMBER_HEADER];
    if (typeof number === 'string') numbers.add(number);
    else unnumbered += 1;
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.end(EMPTY_MESSAGE);
    stream.resume();
  });
  await new Promise<void>((resolve) => server.listen({ host: '127.0.0.1', port: 0 }, resolve));
  const { port } = server.address() as AddressInfo;
  return {
    address: `127.0.0.1:${port}`,
    reached,
    get unnumbered() {
      return unnumbered;
    },
    hasReached: (number) => numbers.has(number),
    close: () => {
      for (const session of sessions) session.destroy();
      server.close();
    },
  };
}
