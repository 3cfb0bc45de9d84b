/** Requests with several `authorization` headers: made visible, because Node passes on the first one only. */

import { subscribe } from 'node:diagnostics_channel';
import type { IncomingHttpHeaders } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { inspectHeadersOf, serverThatAccepted } from './grpc-js-internals.js';

const HEADER = 'authorization';

const inspected = new WeakSet<Server>();

/**
 * Joins several `authorization` headers of a request into one value, which is then rejected as no valid token.
 *
 * Node keeps the first and drops the others. A proxy in front of the server may have authenticated another one, so two
 * parties would disagree about the caller.
 *
 * @throws TypeError when the HTTP/2 servers of this version of grpc-js cannot be found
 */
export function exposeRepeatedCredentials(server: Server): void {
  if (inspected.has(server)) return;
  inspectHeadersOf(server, joinRepeated);
  inspected.add(server);
}

/** The channel on which Node reports every TCP connection that a server of this process has accepted. */
const ACCEPTED = 'net.server.socket';

/** The methods whose servers are not at hand, because a framework owns them. */
const exposedPaths = new Set<string>();
const watched = new WeakSet<object>();

/**
 * Does the same for calls of these methods at whatever server of this process receives them. The server is found when it
 * accepts its first connection, so this comes before. A server that is handed its connections by other code is not found.
 */
export function exposeRepeatedCredentialsOf(paths: Iterable<string>): void {
  if (exposedPaths.size === 0) subscribe(ACCEPTED, watchServerOf);
  for (const path of paths) exposedPaths.add(path);
}

function watchServerOf(message: unknown): void {
  const server = serverThatAccepted(message);
  if (server === undefined || watched.has(server)) return;
  watched.add(server);
  // Servers of others in this process may have the same listener: it changes nothing for methods that no guard protects.
  server.prependListener('stream', (_stream, headers, _flags, rawHeaders = []) => {
    if (exposedPaths.has(headers[':path'] ?? '')) joinRepeated(headers, rawHeaders);
  });
}

function joinRepeated(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): void {
  const first = nextValueAt(rawHeaders, 0);
  const second = first < 0 ? -1 : nextValueAt(rawHeaders, first + 1);
  if (second < 0) return;
  const values: string[] = [];
  for (let at = first; at >= 0; at = nextValueAt(rawHeaders, at + 1)) values.push(rawHeaders[at] ?? '');
  headers[HEADER] = values.join(', ');
}

/** The index of the next value of the header, or -1. Runs on every call, so it allocates nothing. */
function nextValueAt(rawHeaders: readonly string[], from: number): number {
  for (let index = from; index + 1 < rawHeaders.length; index += 2) {
    if (rawHeaders[index] === HEADER) return index + 1;
  }
  return -1;
}
