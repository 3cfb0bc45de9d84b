/** Several `authorization` headers in one request: made visible, because Node shows the first one alone. */

import type { IncomingHttpHeaders } from 'node:http2';
import type { Server } from '@grpc/grpc-js';

const HEADER = 'authorization';

const watched = new WeakSet<object>();

/**
 * Lets the guard see every `authorization` of a request, as one value, which is then no token.
 *
 * Node keeps the first and drops the others without a word. A proxy in front may have looked at another one:
 * then two parties would believe in two different callers. grpc-js offers no way to the raw headers, hence the look
 * behind its private names; a test pins them, and a server that has them no longer does not start.
 *
 * @throws TypeError when the HTTP/2 servers of this version of grpc-js cannot be found
 */
export function exposeRepeatedCredentials(server: Server): void {
  if (watched.has(server)) return;
  const servers: unknown = Reflect.get(server, 'http2Servers');
  if (!(servers instanceof Map))
    throw new TypeError('the HTTP/2 servers of this grpc-js are not where they were');
  watched.add(server);
  for (const http2Server of servers.keys()) watch(http2Server);
  const set = servers.set.bind(servers);
  servers.set = (http2Server: unknown, info: unknown) => {
    watch(http2Server);
    return set(http2Server, info);
  };
}

interface EmitsStreams {
  prependListener(event: 'stream', listener: StreamListener): unknown;
}

type StreamListener = (
  stream: unknown,
  headers: IncomingHttpHeaders,
  flags: number,
  rawHeaders: readonly string[] | undefined,
) => void;

function watch(http2Server: unknown): void {
  (http2Server as EmitsStreams).prependListener('stream', (_stream, headers, _flags, rawHeaders = []) => {
    const first = nextValueAt(rawHeaders, 0);
    const second = first < 0 ? -1 : nextValueAt(rawHeaders, first + 1);
    if (second < 0) return;
    const values: string[] = [];
    for (let at = first; at >= 0; at = nextValueAt(rawHeaders, at + 1)) values.push(rawHeaders[at] ?? '');
    // grpc-js reads the same object right afterwards.
    headers[HEADER] = values.join(', ');
  });
}

/** Where the next value of the header stands, or -1. Raw headers are names and values in turn; this is asked of every call. */
function nextValueAt(rawHeaders: readonly string[], from: number): number {
  for (let index = from; index + 1 < rawHeaders.length; index += 2) {
    if (rawHeaders[index] === HEADER) return index + 1;
  }
  return -1;
}
