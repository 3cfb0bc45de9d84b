/** Live calls of peers that do not cooperate; over raw HTTP/2, because grpc-js's client always reads. */

import { type ClientHttp2Stream, connect, constants } from 'node:http2';
import { expect } from 'chai';
import { CUT_GRACE_MS } from '../../../interceptors/src/server/guarded-call.js';
import { MovableClock } from '../../support/clock.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';

/** Longer than a test takes, shorter than the life of a test's tokens. */
const LONG_LEASE_MS = 60_000;

/** A gRPC message: no compression, length, bytes. */
function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function closeOf(stream: ClientHttp2Stream): Promise<number> {
  return new Promise((resolve) => {
    stream.on('error', () => {});
    stream.on('close', () => resolve(stream.rstCode));
  });
}

describe('live call', () => {
  let issuer: TestIssuer;
  let echo: Echo;

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    echo = await startEcho(issuer);
    await echo.guard.ready;
  });

  afterEach(async () => {
    await echo.stop();
  });

  it('resets the stream of a peer whose window has no room for the status', async () => {
    const claims = issuer.claims();
    const token = await issuer.sign(claims);
    // No window: the server cannot send any data, and the trailers wait behind the data.
    const session = connect(`http://127.0.0.1:${echo.port}`, { settings: { initialWindowSize: 0 } });
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/test.v1.EchoService/ServerStream',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
    });
    const closed = closeOf(stream);
    stream.end(frame(Buffer.alloc(1000)));
    await new Promise((resolve) => stream.once('response', resolve));
    issuer.revokeSession(String(claims['sid']));
    const revokedAt = performance.now();
    echo.guard.syncNow();
    expect(await closed).to.equal(constants.NGHTTP2_CANCEL);
    expect(performance.now() - revokedAt).to.be.within(CUT_GRACE_MS * 0.9, CUT_GRACE_MS + 5000);
    session.destroy();
  });

  it('passes no message of a revoked caller, even before the call is cut', async () => {
    const claims = issuer.claims();
    const token = await issuer.sign(claims);
    const session = connect(`http://127.0.0.1:${echo.port}`);
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/test.v1.EchoService/Bidi',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
    });
    const trailers = new Promise<Record<string, unknown>>((resolve) => stream.on('trailers', resolve));
    stream.on('data', () => {});
    stream.write(frame(Buffer.from('one')));
    await new Promise((resolve) => stream.once('data', resolve));
    const before = echo.trace.messages;
    issuer.revokeSession(String(claims['sid']));
    echo.guard.syncNow();
    for (let index = 0; index < 200; index += 1) stream.write(frame(Buffer.from('more')));
    const appliedBefore = echo.guard.state().applied;
    const end = await trailers;
    expect(end['grpc-status']).to.equal('16');
    const passed = echo.trace.messages - before;
    stream.write(frame(Buffer.from('late')), () => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(echo.trace.messages - before).to.equal(passed);
    expect(appliedBefore).to.equal(0n);
    expect(echo.guard.state().applied).to.equal(1n);
    session.destroy();
  });

  it('repeats the check when the request is complete, before a unary handler starts', async () => {
    await echo.stop();
    const clock = new MovableClock();
    const outcomes: string[] = [];
    // No timer may end the call first, so the lease is long, and only the clock ends it.
    issuer.leaseMs = LONG_LEASE_MS;
    echo = await startEcho(issuer, {
      clock,
      observer: { decided: (_, outcome) => outcomes.push(outcome) },
    });
    await echo.guard.ready;
    const session = connect(`http://127.0.0.1:${echo.port}`);
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/test.v1.EchoService/Unary',
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${await issuer.token()}`,
    });
    const end = new Promise<unknown>((resolve) =>
      stream.on('response', (headers) => resolve(headers['grpc-status'])),
    );
    stream.write(frame(Buffer.from('one')));
    await until(() => outcomes.length > 0);
    clock.pass(LONG_LEASE_MS);
    stream.end();
    expect(await end).to.equal('14');
    expect(outcomes).to.deep.equal(['ADMITTED', 'REVOCATION_STATE_STALE']);
    expect(echo.trace.started).to.equal(0);
    session.destroy();
  });

  it('does not read the body of a rejected call', async () => {
    const session = connect(`http://127.0.0.1:${echo.port}`);
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/test.v1.EchoService/ClientStream',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const status = new Promise<unknown>((resolve) =>
      stream.on('response', (headers) => resolve(headers['grpc-status'])),
    );
    stream.on('error', () => {});
    // More than a window: it can only be sent completely if the server reads it.
    stream.write(frame(Buffer.alloc(2_000_000)));
    expect(await status).to.equal('16');
    expect(echo.trace.started).to.equal(0);
    session.destroy();
  });

  it('runs no handler without a token for other spellings of the HTTP method and path', async () => {
    const session = connect(`http://127.0.0.1:${echo.port}`);
    const paths = [
      '/test.v1.EchoService/unary',
      '//test.v1.EchoService/Unary',
      '/test.v1.EchoService/Unary/',
      '/test.v1.EchoService/%55nary',
      '/TEST.v1.EchoService/Unary',
    ];
    for (const [method, path] of [
      ...['PUT', 'OPTIONS', 'GET'].map((verb) => [verb, '/test.v1.EchoService/Unary']),
      ...paths.map((other) => ['POST', other]),
    ]) {
      const stream = session.request({
        ':method': method,
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      stream.on('error', () => {});
      const headers = await new Promise<Record<string, unknown>>((resolve) => {
        stream.on('response', resolve);
        stream.on('close', () => resolve({}));
        stream.end(frame(Buffer.from('x')));
      });
      expect(headers['grpc-status'], `${method} ${path}`).to.not.equal('0');
    }
    expect(echo.trace.started).to.equal(0);
    session.destroy();
  });
});
