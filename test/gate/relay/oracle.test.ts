import { once } from 'node:events';
import {
  connect,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { startOracle } from '../support/oracle.js';
import { relayTo, TestJudge } from '../support/relay-kit.js';

/** What one side has received, without what differs from run to run. */
interface Received {
  readonly headers: Record<string, unknown>;
  readonly body: string;
  readonly trailers: Record<string, unknown>;
  readonly interim: number;
  readonly reset: number;
}

interface Case {
  readonly title: string;
  readonly path?: string;
  readonly headers?: Record<string, string | string[]>;
  readonly body?: Buffer;
}

const CASES: readonly Case[] = [
  { title: 'echo', body: Buffer.from('hello') },
  { title: 'an empty request' },
  { title: 'a body of many frames', body: Buffer.alloc(300_000, 'xyz') },
  { title: 'repeated metadata', headers: { 'x-a': ['1', '2', '1'] }, body: Buffer.from('m') },
  { title: 'binary metadata', headers: { 'x-a-bin': 'AAEC/w' }, body: Buffer.from('m') },
  { title: 'long metadata', headers: { 'x-long': 'v'.repeat(5000) } },
  { title: 'compression', headers: { 'grpc-encoding': 'gzip', 'grpc-accept-encoding': 'identity,gzip' } },
  { title: 'trailers only', headers: { 'x-do': 'trailers-only' } },
  { title: 'interim', headers: { 'x-do': 'interim' } },
  { title: 'a reset', headers: { 'x-do': 'reset' } },
  { title: 'an early answer', headers: { 'x-do': 'early' }, body: Buffer.alloc(1000) },
  { title: 'a big answer', headers: { 'x-do': 'big' } },
  { title: 'an HTTP error', headers: { 'x-do': 'http-error' } },
  {
    title: 'what claims to come from the gate',
    headers: { 'x-portcullis-subject': 'mallory', 'x-kept': 'yes' },
  },
  { title: 'a bad token', headers: { authorization: 'Bearer bad' } },
  { title: 'a public path', path: '/public.Service/Method', headers: { authorization: 'Bearer bad' } },
  { title: 'a query', path: '/test.Echo/Unary?x=1' },
];

describe('gate: relay and oracle', () => {
  let server: Http2Server;
  let seen: Received[];

  beforeEach(async () => {
    seen = [];
    server = createServer();
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      const chunks: Buffer[] = [];
      const todo = headers['x-do'];
      if (todo === 'early') answer(stream, Buffer.from('early'));
      if (todo === 'reset') stream.close(11);
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const body = Buffer.concat(chunks);
        seen.push({
          headers: clean(headers),
          body: body.toString('base64'),
          trailers: {},
          interim: 0,
          reset: 0,
        });
        if (todo === 'trailers-only') {
          stream.respond({ ':status': 200, 'grpc-status': '5', 'grpc-message': 'no' }, { endStream: true });
        } else if (todo === 'http-error') {
          stream.respond({ ':status': 503, 'content-type': 'text/plain' });
          stream.end('down');
        } else if (todo === 'interim') {
          stream.additionalHeaders({ ':status': 103, link: 'x' });
          answer(stream, body);
        } else if (todo === 'big') {
          answer(stream, Buffer.alloc(500_000, 'abc'));
        } else if (todo === undefined) {
          answer(stream, body);
        }
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  afterEach(async () => {
    server.close();
    await once(server, 'close');
  });

  for (const { title, path = '/test.Echo/Unary', headers = {}, body } of CASES) {
    it(`give the same answers: ${title}`, async () => {
      const { port: serverPort } = server.address() as AddressInfo;
      const relay = await relayTo(serverPort);
      const relayed = await call(relay.port, path, headers, body);
      await relay.relay.close();
      const seenOfRelay = seen;
      seen = [];
      const judge = new TestJudge();
      const oracle = await startOracle(serverPort, judge);
      const expected = await call(oracle.port, path, headers, body);
      await oracle.stop();
      expect(relayed).to.deep.equal(expected);
      expect(seenOfRelay).to.deep.equal(seen);
      expect(relay.judge.judged).to.deep.equal(judge.judged);
    });
  }
});

function answer(stream: ServerHttp2Stream, body: Buffer): void {
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-t': 'yes' }));
  stream.respond(
    { ':status': 200, 'content-type': 'application/grpc', 'x-h': ['1', '2'] },
    { waitForTrailers: true },
  );
  stream.end(body);
}

async function call(
  port: number,
  path: string,
  headers: Record<string, string | string[]>,
  body: Buffer | undefined,
): Promise<Received> {
  const session = connect(`http://127.0.0.1:${port}`);
  session.on('error', () => {});
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': path,
      ':authority': 'localhost',
      te: 'trailers',
      'content-type': 'application/json',
      authorization: 'Bearer good',
      ...headers,
    },
    { endStream: body === undefined },
  );
  stream.on('error', () => {});
  if (body !== undefined) stream.end(body);
  const chunks: Buffer[] = [];
  let response: Record<string, unknown> = {};
  let trailers: Record<string, unknown> = {};
  let interim = 0;
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('response', (received) => {
    response = clean(received);
  });
  stream.on('headers', () => {
    interim += 1;
  });
  stream.on('trailers', (received) => {
    trailers = clean(received);
  });
  await once(stream, 'close');
  session.destroy();
  return {
    headers: response,
    body: Buffer.concat(chunks).toString('base64'),
    trailers,
    interim,
    reset: stream.rstCode ?? 0,
  };
}

function clean(headers: IncomingHttpHeaders): Record<string, unknown> {
  const { date: _date, ...rest } = headers;
  return { ...rest };
}
