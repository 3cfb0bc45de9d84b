/**
 * Guarded calls: step by step between fakes, and live calls of peers that do not cooperate, over raw HTTP/2 because
 * grpc-js's client always reads.
 */

import { type ClientHttp2Stream, connect, constants } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Metadata, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { ServiceError } from '../../../interceptors/src/errors.js';
import { VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import type { Admission, Caller } from '../../../interceptors/src/server/admission.js';
import {
  bearerOf,
  certificateThumbprintOf,
  passFence,
  principalOf,
  signalOf,
  stateOf,
  stillAllowed,
} from '../../../interceptors/src/server/call-state.js';
import { DEFAULT_LIMITS } from '../../../interceptors/src/server/guard-limits.js';
import { CUT_GRACE_MS } from '../../../interceptors/src/server/guarded-call.js';
import { MovableClock } from '../../support/clock.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { codeOf } from '../../support/outcomes.js';
import { until } from '../../support/waiting.js';
import { claims } from '../tokens-support.js';
import {
  BIDI,
  CLIENT_STREAM,
  FakeGuard,
  refusedWith,
  SERVER_STREAM,
  startFakeCall,
  UNARY,
} from './fake-calls.js';
import { frameOf, headOf } from './raw-calls.js';

/** Longer than a test takes, shorter than the life of a test's tokens. */
const LONG_LEASE_MS = 60_000;

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
    stream.end(frameOf(Buffer.alloc(1000)));
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
    stream.write(frameOf(Buffer.from('one')));
    await new Promise((resolve) => stream.once('data', resolve));
    const before = echo.trace.messages;
    issuer.revokeSession(String(claims['sid']));
    echo.guard.syncNow();
    for (let index = 0; index < 200; index += 1) stream.write(frameOf(Buffer.from('more')));
    const appliedBefore = echo.guard.state().applied;
    const end = await trailers;
    expect(end['grpc-status']).to.equal('16');
    const passed = echo.trace.messages - before;
    stream.write(frameOf(Buffer.from('late')), () => {});
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
    stream.write(frameOf(Buffer.from('one')));
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
    stream.write(frameOf(Buffer.alloc(2_000_000)));
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
        stream.end(frameOf(Buffer.from('x')));
      });
      expect(headers['grpc-status'], `${method} ${path}`).to.not.equal('0');
    }
    expect(echo.trace.started).to.equal(0);
    session.destroy();
  });
});

describe('a guarded call', () => {
  let guard: FakeGuard;
  let token: VerifiedToken;

  beforeEach(() => {
    guard = new FakeGuard();
    token = new VerifiedToken('its text', claims());
    guard.admission = admitted();
  });

  const admitted = (requestBytesMax = 1000): Admission => ({
    kind: 'admitted',
    token,
    allowStale: false,
    requestBytesMax,
  });
  const isLive = () => token.liveCalls().length > 0;

  describe('that is admitted', () => {
    it('reaches its handler with the state of the call, and is counted', () => {
      const { metadata, received, inner } = startFakeCall(guard);
      const call = { metadata };
      expect(received).to.deep.equal(['metadata']);
      expect(guard.trusted).to.deep.equal([inner]);
      expect(principalOf(call)).to.equal(token.claims);
      expect(bearerOf(call)).to.equal('its text');
      expect(stillAllowed(call)).to.equal(4321);
      expect(certificateThumbprintOf(call)).to.equal(undefined);
      expect([guard.decisions, guard.reports]).to.deep.equal([['ADMITTED'], ['ADMITTED']]);
      expect(isLive()).to.equal(true);
    });

    it('passes a fence that its list has reached, and only while its token is good', async () => {
      const { metadata } = startFakeCall(guard);
      const pass = () => passFence({ metadata }, () => Promise.resolve({ rows: [] }));
      expect(await pass()).to.equal(4321);
      guard.passes = false;
      expect(await codeOf(pass())).to.equal('REVOCATION_STATE_STALE');
      guard.passes = true;
      guard.denial = 'TOKEN_REVOKED';
      expect(await codeOf(pass())).to.equal('TOKEN_REVOKED');
      expect(guard.fenceRefusals).to.deep.equal(['REVOCATION_STATE_STALE', 'TOKEN_REVOKED']);
    });

    it('counts no refusal at a fence when it fails or checks its token elsewhere', async () => {
      const { metadata } = startFakeCall(guard);
      guard.fences.pass = () => Promise.reject(new Error('the database is gone'));
      const passing = passFence({ metadata }, () => Promise.resolve({ rows: [] }));
      expect(await passing.catch(String)).to.equal('Error: the database is gone');
      guard.denial = 'TOKEN_REVOKED';
      expect(() => stillAllowed({ metadata })).to.throw();
      expect(guard.fenceRefusals).to.deep.equal([]);
    });

    it('has its token checked after the fence is locked, and not before', async () => {
      const { metadata } = startFakeCall(guard);
      guard.fences.pass = () => {
        guard.denial = 'TOKEN_REVOKED';
        return Promise.resolve(true);
      };
      const passing = passFence({ metadata }, () => Promise.resolve({ rows: [] }));
      expect(await codeOf(passing)).to.equal('TOKEN_REVOKED');
    });

    it('has no principal on a public method, and stays allowed without end', () => {
      guard.admission = { kind: 'public', requestBytesMax: 1000 };
      guard.denial = 'TOKEN_REVOKED';
      const { metadata, received, call } = startFakeCall(guard);
      expect(() => principalOf({ metadata })).to.throw(TypeError, 'public');
      expect(() => bearerOf({ metadata })).to.throw(TypeError, 'public');
      expect(stillAllowed({ metadata })).to.equal(Number.POSITIVE_INFINITY);
      call.sendMetadata(new Metadata());
      expect(received).to.deep.equal(['metadata']);
      expect([guard.decisions, guard.reports, guard.trusted]).to.deep.equal([['ADMITTED'], [], []]);
    });

    it('passes everything on, in both directions', () => {
      const { call, inner, below, received } = startFakeCall(guard, BIDI);
      call.startRead();
      below.onReceiveMessage('one');
      below.onReceiveHalfClose();
      call.sendMetadata(new Metadata());
      call.sendMessage('answer', () => {});
      call.sendStatus({ code: status.OK, details: '' });
      expect(received).to.deep.equal(['metadata', 'one', 'end']);
      expect([inner.sent, inner.reads]).to.deep.equal([['metadata', 'answer', 'OK'], 1]);
      expect(call.getPeer()).to.equal(inner.getPeer());
      expect(call.getDeadline()).to.equal(1234);
      expect(startFakeCall(guard, UNARY, 5678).call.getDeadline()).to.equal(5678);
      expect(call.getHost()).to.equal('host.example');
      expect(call.getAuthContext()).to.deep.equal(inner.getAuthContext());
      expect(call.getConnectionInfo()).to.deep.equal(inner.getConnectionInfo());
      expect(() => call.getMetricsRecorder()).to.throw(TypeError, 'no metrics recorder');
    });

    it('reports the failures of its handler with its path', () => {
      const { metadata } = startFakeCall(guard);
      const fault = new Error('a fault');
      stateOf({ metadata })?.reportFailure(fault);
      expect(guard.failures).to.deep.equal([['/test.v1.Test/Call', fault]]);
    });
  });

  describe('that is not admitted', () => {
    it('ends with the refusal, is reported, and does not reach its handler', () => {
      const { error } = refusedWith('SCOPE_MISSING') as Admission & { kind: 'refused' };
      for (const [refused, report] of [
        [refusedWith('SCOPE_MISSING'), 'SCOPE_MISSING'],
        [{ kind: 'refused', error, token } as const, 'SCOPE_MISSING with its token'],
      ] as const) {
        guard.admission = refused;
        guard.reports.length = 0;
        const { inner, received } = startFakeCall(guard);
        expect([inner.sent, received]).to.deep.equal([['PERMISSION_DENIED SCOPE_MISSING'], []]);
        expect(guard.reports).to.deep.equal([report]);
      }
      expect(guard.decisions).to.deep.equal(['SCOPE_MISSING', 'SCOPE_MISSING']);
      expect(isLive()).to.equal(false);
    });

    it('ends with the limit that it exceeds, reported with its token, and holds nothing', () => {
      guard = new FakeGuard({ callsPerUser: 1, publicCallsPerAddress: 1 });
      guard.admission = admitted();
      startFakeCall(guard);
      const second = startFakeCall(guard);
      expect(second.inner.sent).to.deep.equal(['RESOURCE_EXHAUSTED RATE_LIMITED']);
      expect(second.received).to.deep.equal([]);
      guard.admission = { kind: 'public', requestBytesMax: 1000 };
      const { below } = startFakeCall(guard);
      below.onReceiveHalfClose();
      expect(startFakeCall(guard).inner.sent).to.deep.equal(['RESOURCE_EXHAUSTED RATE_LIMITED']);
      expect(guard.limited).to.deep.equal(['calls_per_user', 'public_calls_per_address']);
      expect(guard.decisions).to.deep.equal(['ADMITTED', 'RATE_LIMITED', 'ADMITTED', 'RATE_LIMITED']);
      expect(guard.reports).to.deep.equal(['ADMITTED', 'RATE_LIMITED with its token', 'RATE_LIMITED']);
      expect(token.liveCalls()).to.have.length(1);
    });

    it('ends for a malformed timeout, and holds nothing', () => {
      const { inner, received } = startFakeCall(guard, UNARY, 'malformed');
      expect([inner.sent, received]).to.deep.equal([['INVALID_ARGUMENT FIELD_INVALID'], []]);
      expect([guard.decisions, guard.reports]).to.deep.equal([['FIELD_INVALID'], []]);
      expect(isLive()).to.equal(false);
    });

    it('goes on with a malformed timeout while the guard only observes', () => {
      guard.observes = true;
      guard.admission = {
        kind: 'observed',
        reason: 'TOKEN_MISSING',
        token: undefined,
        requestBytesMax: 1000,
      };
      const { inner, received } = startFakeCall(guard, UNARY, 'malformed');
      expect([inner.sent, received]).to.deep.equal([[], ['metadata']]);
    });

    it('ends as INTERNAL when its decision fails, and the cause is logged', async () => {
      const fault = new Error('a fault');
      guard.admission = Promise.reject(fault);
      const { inner, received } = startFakeCall(guard);
      await sleep(0);
      expect([inner.sent, received]).to.deep.equal([['INTERNAL'], []]);
      expect(guard.failures).to.deep.equal([['/test.v1.Test/Call', fault]]);
    });

    it('is not decided when it ended during the verification, and holds nothing', async () => {
      guard.admission = Promise.resolve(admitted());
      const { below, inner, received } = startFakeCall(guard);
      below.onCancel();
      await sleep(0);
      expect([inner.sent, received, guard.decisions]).to.deep.equal([[], ['cancelled'], []]);
      expect(isLive()).to.equal(false);
    });

    it('is admitted after the verification', async () => {
      guard.admission = Promise.resolve(admitted());
      const { received } = startFakeCall(guard);
      expect(received).to.deep.equal([]);
      await sleep(0);
      expect(received).to.deep.equal(['metadata']);
    });
  });

  describe('whose token must not be used any longer', () => {
    const steps: Record<string, (started: ReturnType<typeof startFakeCall>) => void> = {
      'a message of the caller': ({ below }) => below.onReceiveMessage('late'),
      'the end of the request': ({ below }) => below.onReceiveHalfClose(),
      'the metadata of the response': ({ call }) => call.sendMetadata(new Metadata()),
      'a message of the handler': ({ call }) => call.sendMessage('late', () => {}),
      'the status of the handler': ({ call }) => call.sendStatus({ code: status.OK, details: 'late' }),
      'a check of all live calls': () => {
        for (const live of token.liveCalls()) live.recheck();
      },
    };
    for (const [name, step] of Object.entries(steps)) {
      it(`is cut at ${name}, which does not pass`, () => {
        const started = startFakeCall(guard, BIDI);
        const signal = signalOf(started);
        guard.denial = 'TOKEN_REVOKED';
        step(started);
        expect(started.inner.sent).to.deep.equal(['UNAUTHENTICATED TOKEN_REVOKED']);
        expect(started.received).to.deep.equal(['metadata', 'cancelled']);
        expect(guard.decisions).to.deep.equal(['ADMITTED', 'TOKEN_REVOKED']);
        expect(signal.aborted).to.equal(true);
        // Nothing passes afterwards, even if the token could be used again, and the handler is notified once.
        guard.denial = undefined;
        for (const later of Object.values(steps)) later(started);
        started.below.onCancel();
        expect(started.inner.sent).to.have.length(1);
        expect(started.received).to.deep.equal(['metadata', 'cancelled']);
        expect(guard.decisions).to.have.length(2);
      });
    }

    it('repeats the check on every message of a stream, and not for the only message of a unary request', () => {
      const stream = startFakeCall(guard, CLIENT_STREAM);
      for (let count = 0; count < 3; count += 1) stream.below.onReceiveMessage('one');
      expect(guard.checks).to.equal(3);
      for (const kind of [UNARY, SERVER_STREAM]) {
        guard.checks = 0;
        const { below, received } = startFakeCall(guard, kind);
        below.onReceiveMessage('one');
        expect([guard.checks, received]).to.deep.equal([0, ['metadata', 'one']]);
        below.onReceiveHalfClose();
        expect([guard.checks, received]).to.deep.equal([1, ['metadata', 'one', 'end']]);
      }
    });

    it('is cut before its request reaches the handler, with a message that arrived before', () => {
      const { below, received } = startFakeCall(guard, UNARY);
      guard.denial = 'TOKEN_EXPIRED';
      for (const live of token.liveCalls()) live.recheck();
      below.onReceiveMessage('one');
      below.onReceiveHalfClose();
      expect(received).to.deep.equal(['metadata', 'cancelled']);
    });

    it('makes its handler throw when it asks whether the caller is still allowed', () => {
      const { metadata } = startFakeCall(guard);
      guard.denial = 'REVOCATION_STATE_STALE';
      expect(() => stillAllowed({ metadata }))
        .to.throw(ServiceError)
        .with.property('code', 'REVOCATION_STATE_STALE');
    });

    it('is reset after the grace period unless its status has left', async () => {
      const [stuck, gone] = [startFakeCall(guard), startFakeCall(guard)];
      guard.denial = 'TOKEN_REVOKED';
      for (const live of token.liveCalls()) live.recheck();
      gone.below.onReceiveHalfClose();
      gone.below.onCancel();
      expect(stuck.inner.resets).to.deep.equal([]);
      await sleep(CUT_GRACE_MS + 50);
      expect([stuck.inner.resets, gone.inner.resets]).to.deep.equal([[8], []]);
    });

    it('is not reset when sending the status has already ended it', async () => {
      const { inner, below } = startFakeCall(guard);
      below.onReceiveHalfClose();
      inner.sendStatus = () => below.onCancel();
      guard.denial = 'TOKEN_REVOKED';
      for (const live of token.liveCalls()) live.recheck();
      await sleep(CUT_GRACE_MS + 50);
      expect(inner.resets).to.deep.equal([]);
    });
  });

  describe('that ends', () => {
    it('aborts its signal, notifies its handler once, and holds nothing', () => {
      const started = startFakeCall(guard, BIDI);
      const signal = signalOf(started);
      expect(signal.aborted).to.equal(false);
      for (let count = 0; count < 2; count += 1) started.below.onCancel();
      expect(signal.aborted).to.equal(true);
      expect(signal.reason).to.have.property('name', 'AbortError');
      expect(started.received).to.deep.equal(['metadata', 'cancelled']);
      expect(isLive()).to.equal(false);
    });

    it('gives a handler that asks later a signal that is aborted, for the same reason', () => {
      const [ended, cut] = [startFakeCall(guard), startFakeCall(guard)];
      ended.below.onCancel();
      guard.denial = 'TOKEN_REVOKED';
      for (const live of token.liveCalls()) live.recheck();
      for (const call of [ended, cut]) {
        expect(signalOf(call).aborted).to.equal(true);
        expect(signalOf(call).reason).to.have.property('name', 'AbortError');
      }
    });

    it('passes nothing to its handler or its peer any longer', () => {
      for (const kind of [UNARY, CLIENT_STREAM, SERVER_STREAM, BIDI]) {
        for (const admission of [admitted(), { kind: 'public', requestBytesMax: 1000 } as const]) {
          guard.admission = admission;
          const { call, inner, below, received } = startFakeCall(guard, kind);
          below.onCancel();
          below.onReceiveMessage('late');
          below.onReceiveHalfClose();
          call.sendMetadata(new Metadata());
          call.sendMessage('late', () => {});
          call.sendStatus({ code: status.OK, details: '' });
          expect([inner.sent, received]).to.deep.equal([[], ['metadata', 'cancelled']]);
        }
      }
    });

    it('has its stream closed once if its request has not ended', async () => {
      const [open, half] = [startFakeCall(guard), startFakeCall(guard)];
      half.below.onReceiveHalfClose();
      for (const { below } of [open, half, open]) below.onCancel();
      expect(open.inner.resets).to.deep.equal([]);
      await sleep(CUT_GRACE_MS + 50);
      expect([open.inner.resets, half.inner.resets]).to.deep.equal([[0], []]);
    });
  });

  describe('whose response is not read in time', () => {
    const unread: Record<string, [typeof UNARY, (started: ReturnType<typeof startFakeCall>) => void]> = {
      'an only response': [UNARY, ({ call }) => call.sendMessage('answer', () => {})],
      'a message of a stream': [SERVER_STREAM, ({ call }) => call.sendMessage('one of many', () => {})],
      'a status': [SERVER_STREAM, ({ call }) => call.sendStatus({ code: status.OK, details: '' })],
    };
    for (const [name, [kind, respond]] of Object.entries(unread)) {
      it(`is reset after ${name}, and passes nothing more`, () => {
        const started = startFakeCall(guard, kind);
        started.below.onReceiveHalfClose();
        respond(started);
        const sent = [...started.inner.sent];
        guard.sweepAfter(DEFAULT_LIMITS.responseMs - 1);
        expect([started.inner.resets, guard.limited]).to.deep.equal([[], []]);
        guard.sweepAfter(1);
        expect([started.inner.resets, guard.limited]).to.deep.equal([[8], ['response_seconds']]);
        started.call.sendStatus({ code: status.OK, details: '' });
        expect(started.inner.sent).to.deep.equal(sent);
        expect(guard.decisions).to.deep.equal(['ADMITTED']);
      });
    }

    it('counts the time from the only response on, whatever its status', () => {
      const { call, inner, below } = startFakeCall(guard);
      below.onReceiveHalfClose();
      call.sendMessage('answer', () => {});
      guard.sweepAfter(DEFAULT_LIMITS.responseMs - 1);
      call.sendStatus({ code: status.OK, details: '' });
      guard.sweepAfter(1);
      expect(inner.resets).to.deep.equal([8]);
    });

    it('is not limited between the messages of a stream', () => {
      const { call, inner, below } = startFakeCall(guard, SERVER_STREAM);
      below.onReceiveHalfClose();
      let written = 0;
      for (const message of ['one', 'two', 'three']) {
        call.sendMessage(message, () => {
          written += 1;
        });
        guard.sweepAfter(DEFAULT_LIMITS.responseMs - 1);
        inner.read();
        guard.sweepAfter(DEFAULT_LIMITS.responseMs);
      }
      expect([inner.sent, inner.resets, written]).to.deep.equal([['one', 'two', 'three'], [], 3]);
    });
  });

  describe('whose request does not arrive in time', () => {
    it('ends with the limit, for its handler as if its caller had cancelled', () => {
      const { inner, received, below } = startFakeCall(guard);
      guard.sweepAfter(DEFAULT_LIMITS.requestMs);
      expect(inner.sent).to.deep.equal(['DEADLINE_EXCEEDED REQUEST_TIMEOUT']);
      expect(received).to.deep.equal(['metadata', 'cancelled']);
      expect([guard.limited, guard.decisions]).to.deep.equal([
        ['request_seconds'],
        ['ADMITTED', 'REQUEST_TIMEOUT'],
      ]);
      below.onCancel();
      expect(isLive()).to.equal(false);
    });

    it('holds nothing when sending the status has already ended it', () => {
      const { inner, below, received } = startFakeCall(guard);
      inner.sendStatus = () => below.onCancel();
      guard.sweepAfter(DEFAULT_LIMITS.requestMs);
      expect([received, isLive()]).to.deep.equal([['metadata'], false]);
    });

    it('is not ended again when it has been cut, and no longer counts as a call of its caller', () => {
      guard = new FakeGuard({ callsPerUser: 1 });
      guard.admission = admitted();
      const { inner, received } = startFakeCall(guard);
      guard.denial = 'TOKEN_REVOKED';
      for (const live of token.liveCalls()) live.recheck();
      guard.sweepAfter(DEFAULT_LIMITS.requestMs);
      expect(inner.sent).to.deep.equal(['UNAUTHENTICATED TOKEN_REVOKED']);
      expect(received).to.deep.equal(['metadata', 'cancelled']);
      expect([guard.limited, guard.decisions]).to.deep.equal([[], ['ADMITTED', 'TOKEN_REVOKED']]);
      startFakeCall(guard);
      expect(guard.decisions.at(-1)).to.equal('ADMITTED');
    });

    it('has no such limit after its request has ended', () => {
      const { inner, below } = startFakeCall(guard);
      below.onReceiveHalfClose();
      guard.sweepAfter(DEFAULT_LIMITS.requestMs);
      expect(inner.sent).to.deep.equal([]);
    });
  });

  describe('reads its request', () => {
    const message = (bytes: number) => frameOf(Buffer.alloc(bytes));
    const inFlight = () => guard.limits.state().bytesInFlight;

    it('with a decoder of its own, also after decompression', () => {
      const { inner } = startFakeCall(guard);
      expect(inner.maxReceiveMessageSize).to.equal(1000);
      const bytes = message(10);
      const [copy] = inner.decoder.write(bytes);
      expect(copy).to.deep.equal(bytes);
      // A slice would keep alive everything that was read with it.
      bytes.fill(9);
      expect(copy).to.deep.equal(message(10));
    });

    it('uncounted when its only message is small, whole and not compressed', () => {
      guard.admission = admitted(4000);
      const heldFor = (...frames: Buffer[]) => {
        const { inner, below } = startFakeCall(guard);
        const messages = frames.flatMap((frame) => inner.decoder.write(frame));
        const held = inFlight();
        below.onCancel();
        return { held, messages: messages.length };
      };
      expect(heldFor(message(0))).to.deep.equal({ held: 0, messages: 1 });
      expect(heldFor(message(1024))).to.deep.equal({ held: 0, messages: 1 });
      expect(heldFor(message(1025))).to.deep.equal({ held: 1025 + 5 + 512, messages: 1 });
      expect(heldFor(headOf(10), Buffer.alloc(10))).to.deep.equal({ held: 15 + 512, messages: 1 });
      expect(heldFor(frameOf(Buffer.alloc(10), true))).to.deep.equal({
        held: 15 + 512 + 16 * 1024,
        messages: 1,
      });
    });

    it('counted until its end when it has one message, which the handler receives at the end', () => {
      const { inner, below } = startFakeCall(guard);
      inner.decoder.write(headOf(10));
      inner.decoder.write(Buffer.alloc(10));
      below.onReceiveMessage('one');
      expect(inFlight()).to.equal(15 + 512);
      below.onReceiveHalfClose();
      expect(inFlight()).to.equal(0);
    });

    it('counted when it is a stream, until the handler receives each message', () => {
      const { inner, below, received } = startFakeCall(guard, CLIENT_STREAM);
      inner.decoder.write(Buffer.concat([message(10), message(10)]));
      expect(inFlight()).to.equal(2 * (15 + 512));
      below.onReceiveMessage('one');
      expect(inFlight()).to.equal(15 + 512);
      below.onReceiveMessage('two');
      expect(inFlight()).to.equal(0);
      expect(received).to.deep.equal(['metadata', 'one', 'two']);
    });

    it('and gives back its bytes when it ends', () => {
      for (const end of ['onCancel', 'onReceiveHalfClose'] as const) {
        const { inner, below } = startFakeCall(guard, CLIENT_STREAM);
        inner.decoder.write(message(10));
        expect(inFlight()).to.equal(15 + 512);
        below[end]();
        expect(inFlight()).to.equal(0);
      }
    });

    it('and ends when a message declares more than the maximum, at every size', () => {
      for (const [max, length] of [
        [1000, 1001],
        [10, 11],
        [4000, 4001],
      ] as const) {
        guard.admission = admitted(max);
        for (const kind of [UNARY, CLIENT_STREAM]) {
          const accepted = startFakeCall(guard, kind);
          expect(accepted.inner.decoder.write(message(max))).to.have.length(1);
          expect(accepted.inner.sent).to.deep.equal([]);
          const { inner, received } = startFakeCall(guard, kind);
          expect(inner.decoder.write(message(length))).to.deep.equal([]);
          expect(inner.sent).to.deep.equal(['RESOURCE_EXHAUSTED REQUEST_TOO_LARGE']);
          expect(received).to.deep.equal(['metadata', 'cancelled']);
        }
      }
    });

    it('and ends when it holds more than two messages and some slack', () => {
      const { inner } = startFakeCall(guard, CLIENT_STREAM);
      // Each takes 1005 + 512 bytes, of 2 * 1000 + 65,536.
      const many = Buffer.concat(Array.from({ length: 44 }, () => message(1000)));
      expect(inner.decoder.write(many)).to.have.length(44);
      expect(inner.decoder.write(message(1000))).to.deep.equal([]);
      expect(inner.sent).to.deep.equal(['RESOURCE_EXHAUSTED RATE_LIMITED']);
      expect(guard.limited).to.deep.equal(['bytes_in_flight']);
    });

    it('and ends when its caller has no bytes left', () => {
      guard = new FakeGuard({ bytesInFlight: 8 * 1000 });
      guard.admission = admitted();
      const { inner } = startFakeCall(guard, CLIENT_STREAM);
      expect(inner.decoder.write(message(480))).to.have.length(1);
      expect(inner.decoder.write(message(480))).to.deep.equal([]);
      expect(inner.sent).to.deep.equal(['RESOURCE_EXHAUSTED RATE_LIMITED']);
    });

    it('no longer when it has ended', () => {
      const [over, cut] = [startFakeCall(guard, CLIENT_STREAM), startFakeCall(guard, CLIENT_STREAM)];
      over.below.onCancel();
      guard.denial = 'TOKEN_REVOKED';
      for (const live of token.liveCalls()) live.recheck();
      for (const { inner } of [over, cut]) expect(inner.decoder.write(message(10))).to.deep.equal([]);
      expect(inFlight()).to.equal(0);
    });

    it('as one message after its beginning came alone', () => {
      const { inner } = startFakeCall(guard);
      const bytes = message(20);
      const nested = message(10);
      nested.copy(bytes, 5);
      expect(inner.decoder.write(bytes.subarray(0, 5))).to.deep.equal([]);
      // What follows looks like a message of its own.
      expect(inner.decoder.write(bytes.subarray(5, 20))).to.deep.equal([]);
      expect(inner.decoder.write(bytes.subarray(20))).to.deep.equal([bytes]);
    });

    it('as activity of a public stream, one whole message at a time', () => {
      guard.admission = { kind: 'public', requestBytesMax: 1000 };
      const { inner } = startFakeCall(guard, CLIENT_STREAM);
      guard.sweepAfter(DEFAULT_LIMITS.publicIdleMs - 1);
      inner.decoder.write(message(10));
      guard.sweepAfter(DEFAULT_LIMITS.publicIdleMs - 1);
      expect(inner.sent).to.deep.equal([]);
      // A part of a message is none.
      inner.decoder.write(headOf(10));
      guard.sweepAfter(1);
      expect(inner.sent).to.deep.equal(['DEADLINE_EXCEEDED REQUEST_TIMEOUT']);
    });

    it('and names the limit when a message is too large after decompression, in this case only', () => {
      const { inner } = startFakeCall(guard, CLIENT_STREAM);
      const exhausted = { code: status.RESOURCE_EXHAUSTED, details: 'from grpc-js' };
      inner.decoder.write(message(10));
      inner.sendStatus(exhausted);
      inner.decoder.write(Buffer.concat([message(10), frameOf(Buffer.alloc(10), true)]));
      inner.sendStatus(exhausted);
      const { sendStatus } = inner;
      inner.decoder.write(frameOf(Buffer.alloc(10), true));
      // Further messages add no further layer.
      expect(inner.sendStatus).to.equal(sendStatus);
      // A handler's own status has metadata, which may be null.
      inner.sendStatus({ ...exhausted, metadata: null });
      inner.sendStatus({ ...exhausted, metadata: new Metadata() });
      inner.sendStatus({ code: status.INTERNAL, details: 'from grpc-js' });
      expect(inner.sent).to.deep.equal([
        'RESOURCE_EXHAUSTED',
        'RESOURCE_EXHAUSTED REQUEST_TOO_LARGE',
        'RESOURCE_EXHAUSTED',
        'RESOURCE_EXHAUSTED',
        'INTERNAL',
      ]);
      expect(guard.limited).to.deep.equal(['request_bytes']);
    });
  });

  it('asks the peer to reconnect, and knows whether the connection is private', () => {
    const asked: string[] = [];
    guard.admit = ((_path: string, _metadata: Metadata, caller: Caller) => {
      asked.push(`${caller.isPrivate} ${caller.getPeer()}`);
      caller.retireConnection();
      return guard.admission;
    }) as typeof guard.admit;
    startFakeCall(guard);
    expect(asked).to.deep.equal(['true 192.0.2.1:1234']);
  });
});
