/** Thousands of calls, ended in every way that a peer can choose: nothing that was counted for them stays counted. */

import type { ClientHttp2Session } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { MovableClock } from '../../support/clock.js';
import { ECHO_RULES, type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';
import { connectRaw, frameOf, headOf, openRaw, type RawCall } from './raw-calls.js';

const CALLS = 3000;
const AT_ONCE = 20;
const LIMIT = 12;
const HTTP2_CANCEL = 8;
const SUBJECT = 'f6a8b4de-17a6-4c0e-9d5c-3a3f6a1c0b11';

const message = frameOf(Buffer.from('x'));
const partOfLarge = Buffer.concat([headOf(9000), Buffer.alloc(3000)]);

/** What a peer does with a call that it has opened. */
const ENDINGS: Readonly<Record<string, (call: RawCall) => void>> = {
  cancelled: ({ stream }) => stream.close(HTTP2_CANCEL),
  'half-sent, cancelled': ({ stream }) => stream.write(partOfLarge, () => stream.close(HTTP2_CANCEL)),
  whole: ({ stream }) => stream.end(message),
  'whole, cancelled': ({ stream }) => stream.end(message, () => stream.close(HTTP2_CANCEL)),
  empty: ({ stream }) => stream.end(),
  'cut off': ({ stream }) => stream.end(partOfLarge),
  'too large': ({ stream }) => stream.end(headOf(1e6)),
  'two messages': ({ stream }) => stream.end(Buffer.concat([message, message])),
  compressed: ({ stream }) => stream.end(frameOf(gzipSync(Buffer.alloc(9000)), true)),
  'not compressed': ({ stream }) => stream.end(frameOf(Buffer.alloc(100), true)),
};

const HEADERS: readonly Readonly<Record<string, string>>[] = [
  {},
  { 'grpc-encoding': 'gzip' },
  { 'grpc-encoding': 'none' },
  { 'grpc-timeout': '1m' },
  { 'grpc-timeout': 'soon' },
];

describe('the end of a call', () => {
  let echo: Echo;
  let issuer: TestIssuer;
  let sessions: ClientHttp2Session[];

  beforeEach(async () => {
    issuer = await TestIssuer.create();
    issuer.leaseMs = 600_000;
    const limits = {
      callsPerUser: LIMIT,
      streamsPerUser: LIMIT / 2,
      publicCalls: LIMIT,
      publicCallsPerAddress: LIMIT,
      publicRequestBytes: 10_000,
      requestBytes: 10_000,
    };
    const rules = { ...ECHO_RULES, Bidi: { ...ECHO_RULES['Public'] } } as typeof ECHO_RULES;
    echo = await startEcho(issuer, { clock: new MovableClock(), limits }, undefined, rules);
    await echo.guard.ready;
    sessions = [];
  });
  afterEach(async () => {
    for (const session of sessions) session.destroy();
    await echo.stop();
  });

  function connect(localAddress?: string): ClientHttp2Session {
    const session = connectRaw(echo.port, localAddress);
    sessions.push(session);
    return session;
  }

  /** The codes of so many calls of a method at the same time, none of which ends its request before all have begun. */
  async function codesOf(count: number, method: string, headers: Record<string, string>): Promise<number[]> {
    const session = connect();
    const calls = Array.from({ length: count }, () => openRaw(session, method, headers));
    // The last one is refused at once, after the server has seen the others.
    await calls.at(-1)?.ended;
    for (const { stream } of calls) stream.end(message);
    return await Promise.all(calls.map(async ({ ended }) => (await ended).code));
  }

  it('gives back everything that it was counted for, however it ends', async function () {
    this.timeout(60_000);
    const token = `Bearer ${await issuer.token({ sub: SUBJECT })}`;
    const expired = `Bearer ${await issuer.token({ sub: SUBJECT, iat: 1000, exp: 1100 })}`;
    const endings = Object.values(ENDINGS);
    const methods = ['Public', 'Unary', 'ClientStream', 'ServerStream', 'Bidi'];
    let session = connect();
    for (let begun = 0; begun < CALLS; begun += AT_ONCE) {
      const closed = Array.from({ length: AT_ONCE }, async (_, index) => {
        const number = begun + index;
        const method = methods[number % methods.length] ?? '';
        const authorization = [token, token, expired, 'Bearer x'][Math.floor(number / 5) % 4] ?? '';
        const credential = method === 'Public' || method === 'Bidi' ? {} : { authorization };
        const headers = HEADERS[Math.floor(number / 20) % HEADERS.length];
        const call = openRaw(session, method, { ...credential, ...headers });
        call.stream.resume();
        endings[Math.floor(number / 100) % endings.length]?.(call);
        // A stream of responses lasts until its caller leaves.
        const timer = setTimeout(() => call.stream.close(HTTP2_CANCEL), 20);
        await call.closed;
        clearTimeout(timer);
      });
      // Some calls end with their connection.
      if (begun % 200 === 0) {
        session.destroy();
        session = connect();
      }
      await Promise.all(closed);
    }
    for (const each of sessions.splice(0)) each.destroy();
    await until(() => {
      const { publicCalls, bytesInFlight, connections } = echo.guard.state();
      return publicCalls + bytesInFlight + connections === 0;
    });
    const ok = new Array<number>(LIMIT).fill(status.OK);
    const authorization = { authorization: token };
    expect((await codesOf(LIMIT + 1, 'Unary', authorization)).slice(0, LIMIT)).to.deep.equal(ok);
    expect((await codesOf(LIMIT / 2 + 1, 'ClientStream', authorization)).slice(0, LIMIT / 2)).to.deep.equal(
      ok.slice(0, LIMIT / 2),
    );
    expect((await codesOf(LIMIT / 2 + 1, 'Bidi', {})).slice(0, LIMIT / 2)).to.deep.equal(
      ok.slice(0, LIMIT / 2),
    );
  });
});
