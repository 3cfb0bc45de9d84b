/** The relay once more, on the HTTP/2 of Node: slower, and written by others, so that both must give the same answers. */

import { once } from 'node:events';
import {
  type ClientHttp2Session,
  connect,
  createServer,
  type Http2Session,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { RelayStatus } from '../../../gate/src/relay/judge.js';
import type { TestJudge } from './relay-kit.js';

const CALLER = {
  peer: 'oracle',
  address: '127.0.0.1',
  isPrivate: true,
  certificateThumbprint: undefined,
  retireConnection: () => {},
};

/** Starts it before the server on a port. */
export async function startOracle(
  serverPort: number,
  judge: TestJudge,
): Promise<{ port: number; stop: () => Promise<void> }> {
  const sessions = new Map<Http2Session, ClientHttp2Session>();
  const server = createServer();
  server.on('session', (session) => {
    const upstream = connect(`http://127.0.0.1:${serverPort}`);
    upstream.on('error', () => {});
    sessions.set(session, upstream);
    session.on('close', () => upstream.close());
  });
  server.on('stream', (stream, headers, flags, rawHeaders) => {
    stream.on('error', () => {});
    const session = stream.session;
    const upstream = session === undefined ? undefined : sessions.get(session);
    if (upstream !== undefined) relayStream(stream, headers, rawHeaders, (flags & 1) !== 0, upstream, judge);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    stop: async () => {
      for (const [session, upstream] of sessions) {
        session.destroy();
        upstream.destroy();
      }
      server.close();
      await once(server, 'close');
    },
  };
}

function relayStream(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  rawHeaders: readonly string[],
  isEnd: boolean,
  upstream: ClientHttp2Session,
  judge: TestJudge,
): void {
  const tokens = rawHeaders.filter(
    (_, index) => index % 2 === 1 && rawHeaders[index - 1] === 'authorization',
  );
  const verdict = judge.judge(String(headers[':path']), tokens, CALLER);
  if (verdict instanceof Promise) throw new TypeError('the oracle decides at once');
  if (verdict.kind === 'refused') {
    stream.respond(Object.fromEntries(verdict.status.trailersOnly), { endStream: true });
    return;
  }
  const { call } = verdict;
  const forwarded: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers)) {
    if (name !== 'authorization' && !name.startsWith('x-portcullis-')) forwarded[name] = value;
  }
  const request = upstream.request(forwarded, { endStream: isEnd });
  let trailers: OutgoingHttpHeaders = {};
  call.link({
    cut: (status: RelayStatus) => {
      trailers = Object.fromEntries(status.headers);
      request.close(8);
      stream.end();
    },
  });
  stream.pipe(request);
  request.on('response', (response) => {
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.respond(response, { waitForTrailers: true });
    request.on('trailers', (received) => {
      trailers = received;
    });
    request.pipe(stream);
  });
  request.on('headers', (interim) => stream.additionalHeaders(interim));
  request.on('error', () => {});
  request.on('close', () => {
    call.unlink();
    if (request.rstCode !== 0 && !stream.closed && Object.keys(trailers).length === 0)
      stream.close(request.rstCode);
  });
  stream.on('close', () => request.close(stream.rstCode));
}
