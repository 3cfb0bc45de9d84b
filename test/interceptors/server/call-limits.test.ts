/** What a peer can make a guarded server hold: sizes, times and counts, over real sockets. */

import { once } from 'node:events';
import type { ClientHttp2Session } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { DEFAULT_LIMITS, type GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { CUT_GRACE_MS } from '../../../interceptors/src/server/guarded-call.js';
import { MovableClock } from '../../support/clock.js';
import { ECHO_RULES, type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';
import { connectRaw, frameOf, headOf, openRaw, type RawCall } from './raw-calls.js';

/** Longer than every limit in time, so that no lease ends first. */
const LEASE_MS = 600_000;

const PUBLIC_BIDI = { ...ECHO_RULES, Bidi: { ...ECHO_RULES['Public'] } } as typeof ECHO_RULES;

describe('limits on calls', () => {
  let issuer: TestIssuer;
  let clock: MovableClock;
  let echo: Echo;
  let limited: string[];
  let admitted: number;
  const sessions: ClientHttp2Session[] = [];

  async function start(limits: Partial<GuardLimits> = {}, rules = ECHO_RULES): Promise<void> {
    issuer = await TestIssuer.create();
    issuer.leaseMs = LEASE_MS;
    clock = new MovableClock();
    limited = [];
    admitted = 0;
    const observer = {
      limited: (limit: string) => limited.push(limit),
      decided: (_: string, outcome: string) => {
        if (outcome === 'ADMITTED') admitted += 1;
      },
    };
    echo = await startEcho(issuer, { clock, limits, observer }, undefined, rules);
    await echo.guard.ready;
  }

  afterEach(async () => {
    for (const session of sessions.splice(0)) session.destroy();
    await echo.stop();
  });

  function connection(localAddress?: string): ClientHttp2Session {
    const session = connectRaw(echo.port, localAddress);
    sessions.push(session);
    return session;
  }

  async function withToken(claims: Readonly<Record<string, unknown>> = {}): Promise<Record<string, string>> {
    return { authorization: `Bearer ${await issuer.token(claims)}` };
  }

  async function open(session: ClientHttp2Session, method: string, headers = {}): Promise<RawCall> {
    const before = admitted;
    const call = openRaw(session, method, headers);
    let hasEnded = false;
    void call.ended.then(() => {
      hasEnded = true;
    });
    await until(() => admitted > before || hasEnded);
    return call;
  }

  async function finish(call: RawCall): Promise<number> {
    call.stream.resume();
    call.stream.end(frameOf(Buffer.from('x')));
    return (await call.ended).code;
  }

  describe('on the size of a request', () => {
    it('refuse a message by the length that it declares, before it arrives', async () => {
      await start();
      const session = connection();
      const tooLarge = DEFAULT_LIMITS.publicRequestBytes + 1;
      const publicCall = await open(session, 'Public');
      publicCall.stream.write(headOf(tooLarge));
      expect(await publicCall.ended).to.include({
        code: status.RESOURCE_EXHAUSTED,
        reason: 'REQUEST_TOO_LARGE',
        retryAfterMs: undefined,
      });
      // A caller with a token may send as much.
      const call = await open(session, 'Unary', await withToken());
      call.stream.resume();
      call.stream.end(frameOf(Buffer.alloc(tooLarge)));
      expect((await call.ended).code).to.equal(status.OK);
      const huge = await open(session, 'ClientStream', await withToken());
      huge.stream.write(headOf(DEFAULT_LIMITS.requestBytes + 1));
      expect((await huge.ended).reason).to.equal('REQUEST_TOO_LARGE');
      expect(limited).to.deep.equal(['request_bytes', 'request_bytes']);
      expect(echo.trace).to.include({ messages: 0 });
    });

    it('accept a public message of exactly the maximum, in one frame and byte by byte', async () => {
      await start({ publicRequestBytes: 2000 });
      const message = frameOf(Buffer.alloc(2000, 7));
      const whole = openRaw(connection(), 'Public');
      whole.stream.resume();
      whole.stream.end(message);
      expect((await whole.ended).code).to.equal(status.OK);
      const parts = openRaw(connection(), 'Public');
      const received: Buffer[] = [];
      parts.stream.on('data', (data: Buffer) => received.push(data));
      for (const byte of message) parts.stream.write(Buffer.from([byte]));
      parts.stream.end();
      expect((await parts.ended).code).to.equal(status.OK);
      expect(Buffer.concat(received)).to.deep.equal(message);
    });

    it('hold for a message after decompression', async () => {
      await start();
      const call = openRaw(connection(), 'Public', { 'grpc-encoding': 'gzip' });
      call.stream.end(frameOf(gzipSync(Buffer.alloc(DEFAULT_LIMITS.publicRequestBytes + 1)), true));
      expect(await call.ended).to.include({ code: status.RESOURCE_EXHAUSTED, reason: 'REQUEST_TOO_LARGE' });
      expect(limited).to.deep.equal(['request_bytes']);
      expect(echo.trace.started).to.equal(0);
    });

    it('follow the rule of the method', async () => {
      const Unary = { ...ECHO_RULES['Unary'], maxRequestBytes: 100 };
      await start({}, { ...ECHO_RULES, Unary } as typeof ECHO_RULES);
      const call = openRaw(connection(), 'Unary', await withToken());
      call.stream.end(frameOf(Buffer.alloc(101)));
      expect((await call.ended).reason).to.equal('REQUEST_TOO_LARGE');
    });
  });

  describe('on time', () => {
    it('end calls whose request has not arrived in full, and free their streams and bytes', async () => {
      await start();
      const session = connection();
      const calls = [
        await open(session, 'Public'),
        await open(session, 'Unary', await withToken()),
        await open(session, 'ServerStream', await withToken()),
      ];
      for (const { stream } of calls) {
        stream.write(headOf(10_000));
        stream.write(Buffer.alloc(9_000));
      }
      await until(() => echo.guard.state().bytesInFlight >= 27_000);
      clock.pass(DEFAULT_LIMITS.requestMs + 1);
      for (const { ended, closed } of calls) {
        expect(await ended).to.include({ code: status.DEADLINE_EXCEEDED, reason: 'REQUEST_TIMEOUT' });
        expect(await closed).to.equal(0);
      }
      expect(limited).to.deep.equal(new Array(3).fill('request_seconds'));
      expect(echo.guard.state()).to.include({ bytesInFlight: 0, publicCalls: 0 });
      expect(echo.trace.started).to.equal(0);
    });

    it('leave a call alone whose request has arrived, and a stream of requests with a token', async () => {
      await start();
      const session = connection();
      const answers = await open(session, 'ServerStream', await withToken());
      answers.stream.resume();
      answers.stream.end(frameOf(Buffer.from('x')));
      const requests = await open(session, 'ClientStream', await withToken());
      requests.stream.resume();
      await until(() => echo.trace.started === 2);
      clock.pass(DEFAULT_LIMITS.requestMs + DEFAULT_LIMITS.publicIdleMs + 1);
      // A later call that does end proves that the limits were enforced meanwhile.
      const late = await open(session, 'Public');
      clock.pass(DEFAULT_LIMITS.requestMs + 1);
      expect((await late.ended).reason).to.equal('REQUEST_TIMEOUT');
      expect(await finish(requests)).to.equal(status.OK);
      expect(limited).to.deep.equal(['request_seconds']);
    });

    it('end a public stream of requests that is idle, and not one whose caller sends', async () => {
      await start({}, PUBLIC_BIDI);
      const session = connection();
      const [idle, busy] = [await open(session, 'Bidi'), await open(session, 'Bidi')];
      for (const { stream } of [idle, busy]) stream.resume();
      clock.pass(DEFAULT_LIMITS.publicIdleMs / 2);
      await until(() => echo.trace.started === 2);
      busy.stream.write(frameOf(Buffer.from('x')));
      await until(() => echo.trace.messages === 1);
      clock.pass(DEFAULT_LIMITS.publicIdleMs / 2 + 1);
      expect((await idle.ended).reason).to.equal('REQUEST_TIMEOUT');
      expect(await finish(busy)).to.equal(status.OK);
    });

    it('reset a call whose peer does not read the response', async () => {
      await start();
      const session = connectRaw(echo.port);
      sessions.push(session);
      await new Promise<void>((resolve) => session.settings({ initialWindowSize: 0 }, () => resolve()));
      const call = await open(session, 'Unary', await withToken());
      call.stream.end(frameOf(Buffer.alloc(1000)));
      await until(() => echo.trace.started === 1);
      clock.pass(DEFAULT_LIMITS.responseMs + 1000);
      expect(await call.closed).to.equal(8);
      expect(limited).to.deep.equal(['response_seconds']);
    });

    it('reset a stream of responses whose peer does not read them', async () => {
      await start();
      const session = connectRaw(echo.port);
      sessions.push(session);
      await new Promise<void>((resolve) => session.settings({ initialWindowSize: 0 }, () => resolve()));
      const call = await open(session, 'ServerStream', await withToken());
      call.stream.end(frameOf(Buffer.alloc(1000)));
      await once(call.stream, 'response');
      clock.pass(DEFAULT_LIMITS.responseMs + 1000);
      expect(await call.closed).to.equal(8);
      expect(limited).to.deep.equal(['response_seconds']);
    });

    it('close the stream of a refused call whose request never ends', async () => {
      await start();
      const session = connection();
      const calls = Array.from({ length: 50 }, () => openRaw(session, 'Unary'));
      for (const { stream } of calls) stream.write(headOf(10_000));
      const closedAt = performance.now();
      for (const { ended, closed } of calls) {
        expect(await ended).to.include({ code: status.UNAUTHENTICATED, reason: 'TOKEN_MISSING' });
        expect(await closed).to.equal(0);
      }
      expect(performance.now() - closedAt).to.be.lessThan(CUT_GRACE_MS + 10_000);
    });
  });

  describe('on the bytes in flight', () => {
    it('refuse a caller that takes more than its share, and no other caller', async () => {
      await start({ bytesInFlight: 800_000 });
      const session = connection();
      const sub = 'f6a8b4de-17a6-4c0e-9d5c-3a3f6a1c0b11';
      const calls: RawCall[] = [];
      for (let count = 0; count < 3; count += 1) {
        const call = await open(session, 'Unary', await withToken({ sub }));
        call.stream.write(headOf(60_000));
        call.stream.write(Buffer.alloc(50_000));
        calls.push(call);
      }
      const end = await Promise.race(calls.map(({ ended }) => ended));
      expect(end).to.include({ code: status.RESOURCE_EXHAUSTED, reason: 'RATE_LIMITED', retryAfterMs: 1000 });
      expect(end.message).to.include('bytes_in_flight');
      const other = await open(session, 'Unary', await withToken());
      other.stream.resume();
      other.stream.end(frameOf(Buffer.alloc(50_000)));
      expect((await other.ended).code).to.equal(status.OK);
    });

    it('count frames of one byte as what they take', async () => {
      await start({ bytesInFlight: 1_000_000 });
      const call = await open(connection(), 'Unary', await withToken());
      call.stream.write(headOf(5000));
      for (let count = 0; count < 3000; count += 1) call.stream.write(Buffer.alloc(1));
      await until(() => echo.guard.state().bytesInFlight >= 3000);
      expect(echo.guard.state().bytesInFlight).to.be.within(3000, 6100);
    });

    it('make room for the newest request of strangers by ending their oldest', async () => {
      await start({ bytesInFlight: 100_000, publicRequestBytes: 11_000 });
      const first = await open(connection('127.0.0.2'), 'Public');
      const second = await open(connection('127.0.0.3'), 'Public');
      const third = await open(connection('127.0.0.4'), 'Public');
      for (const { stream } of [first, second, third]) {
        stream.write(headOf(11_000));
        stream.write(Buffer.alloc(9_000));
        await until(() => echo.guard.state().bytesInFlight >= 9_000);
      }
      expect(await first.ended).to.include({ reason: 'RATE_LIMITED' });
      third.stream.resume();
      third.stream.end(Buffer.alloc(2_000));
      expect((await third.ended).code).to.equal(status.OK);
    });
  });

  describe('on the number of calls', () => {
    it('refuse more streams and more calls of one user, whatever its token, and no other user', async () => {
      await start({ callsPerUser: 3, streamsPerUser: 2 });
      const session = connection();
      const sub = 'f6a8b4de-17a6-4c0e-9d5c-3a3f6a1c0b11';
      const calls: RawCall[] = [];
      for (const method of ['ServerStream', 'ClientStream']) {
        calls.push(await open(session, method, await withToken({ sub })));
      }
      const third = openRaw(session, 'ServerStream', await withToken({ sub }));
      expect(await third.ended).to.include({
        code: status.RESOURCE_EXHAUSTED,
        reason: 'RATE_LIMITED',
        retryAfterMs: 1000,
        message: 'too many streams of this user are open (limit streams_per_user)',
      });
      await open(session, 'Unary', await withToken({ sub }));
      const fifth = openRaw(session, 'Unary', await withToken({ sub }));
      expect((await fifth.ended).message).to.include('calls_per_user');
      expect(await finish(await open(session, 'Unary', await withToken()))).to.equal(status.OK);
      expect(limited).to.deep.equal(['streams_per_user', 'calls_per_user']);
      // An ended call makes room.
      const [ended] = calls;
      ended?.stream.close(8);
      await until(async () => {
        const again = openRaw(session, 'ServerStream', await withToken({ sub }));
        again.stream.resume();
        again.stream.end(frameOf(Buffer.from('x')));
        const outcome = await Promise.race([
          again.ended,
          new Promise((resolve) => again.stream.once('data', () => resolve('open'))),
        ]);
        return outcome === 'open';
      });
    });

    it('count a service apart from users', async () => {
      await start({ callsPerUser: 1, callsPerService: 2 });
      const session = connection();
      const service = { sub: 'direct', sid: undefined, gen: undefined, auth_time: undefined, amr: undefined };
      const headers = () => withToken({ ...service, roles: undefined });
      for (let count = 0; count < 2; count += 1) await open(session, 'Unary', await headers());
      const third = openRaw(session, 'Unary', await headers());
      expect((await third.ended).message).to.include('calls_per_service');
    });

    it('let short calls pass, however many half-sent calls one address has open', async () => {
      await start({ publicCallsPerAddress: 5 });
      const session = connection();
      const calls: RawCall[] = [];
      for (let count = 0; count < 5; count += 1) calls.push(await open(session, 'Public'));
      expect(await finish(await open(session, 'Public'))).to.equal(status.OK);
      expect((await calls[0]?.ended)?.message).to.include('public_calls_per_address');
    });

    it('let short calls of other addresses pass, however many half-sent calls strangers have open', async () => {
      await start({ publicCalls: 5 });
      const session = connection('127.0.0.2');
      const calls: RawCall[] = [];
      for (let count = 0; count < 5; count += 1) calls.push(await open(session, 'Public'));
      expect(await finish(await open(connection('127.0.0.3'), 'Public'))).to.equal(status.OK);
      expect((await calls[0]?.ended)?.message).to.include('public_calls');
    });

    it('refuse public streams above half of the public calls', async () => {
      await start({ publicCalls: 4 }, PUBLIC_BIDI);
      const session = connection();
      for (let count = 0; count < 2; count += 1) await open(session, 'Bidi');
      expect((await openRaw(session, 'Bidi').ended).message).to.include('public_calls');
      expect(await finish(await open(session, 'Public'))).to.equal(status.OK);
    });

    it('leave half of the public calls of one network to short calls, known or not', async () => {
      await start({ publicCallsPerAddress: 4 }, PUBLIC_BIDI);
      const session = connection();
      for (const isKnown of [false, true]) {
        if (isKnown)
          expect(await finish(await open(session, 'Unary', await withToken()))).to.equal(status.OK);
        const streams = [await open(session, 'Bidi'), await open(session, 'Bidi')];
        expect((await openRaw(session, 'Bidi').ended).message).to.include('public_calls_per_address');
        expect(await finish(await open(session, 'Public'))).to.equal(status.OK);
        for (const { stream, closed } of streams) {
          stream.close(8);
          await closed;
        }
        await until(() => echo.guard.state().publicCalls === 0);
      }
    });

    it('do not count the public calls of a network with a verified token among those of strangers', async () => {
      await start({ publicCalls: 1 });
      const session = connection();
      expect(await finish(await open(session, 'Unary', await withToken()))).to.equal(status.OK);
      const calls = [await open(session, 'Public'), await open(session, 'Public')];
      for (const call of calls) expect(await finish(call)).to.equal(status.OK);
      expect(limited).to.deep.equal([]);
    });
  });

  it('are logged once a second at most, with the number of cases', async () => {
    const lines: object[] = [];
    const log = { info: () => {}, error: () => {}, warn: (fields: object) => lines.push(fields) };
    issuer = await TestIssuer.create();
    clock = new MovableClock();
    echo = await startEcho(issuer, { clock, log, limits: { publicRequestBytes: 1 } });
    const session = connection();
    for (let count = 0; count < 20; count += 1) {
      const call = openRaw(session, 'Public');
      call.stream.end(frameOf(Buffer.alloc(2)));
      expect((await call.ended).reason).to.equal('REQUEST_TOO_LARGE');
    }
    expect(lines.length).to.be.within(1, 4);
    clock.pass(1000);
    const last = openRaw(session, 'Public');
    last.stream.end(frameOf(Buffer.alloc(2)));
    await last.ended;
    const counts = lines.map((line) => (line as { count: number }).count);
    expect(counts.reduce((sum, count) => sum + count, 0)).to.equal(21);
  });

  it('are rejected at start when one is not a positive number', async () => {
    await start();
    let fault = '';
    await startEcho(issuer, { limits: { requestBytes: 0, callsPerUser: Number.NaN } }).catch(
      (error: Error) => {
        fault = error.message;
      },
    );
    expect(fault).to.equal('expected positive limits, but requestBytes is 0, callsPerUser is NaN');
  });
});
