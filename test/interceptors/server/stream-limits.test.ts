/** How many streams a network may have open before it shows a token, and how many calls begin in one turn of the loop. */

import type { ClientHttp2Session } from 'node:http2';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { CALLS_PER_TURN_MAX } from '../../../interceptors/src/server/stream-limits.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';
import { connectRaw, frameOf, openRaw, type RawCall } from './raw-calls.js';

const STREAMS = 400;

describe('limits on streams', () => {
  let issuer: TestIssuer;
  let echo: Echo;
  let limited: string[];
  const sessions: ClientHttp2Session[] = [];

  async function start(limits: Partial<GuardLimits> = {}): Promise<void> {
    issuer = await TestIssuer.create();
    limited = [];
    echo = await startEcho(issuer, {
      limits: { publicCallsPerAddress: 2 * STREAMS, ...limits },
      observer: { limited: (limit) => limited.push(limit) },
    });
    await echo.guard.ready;
  }

  afterEach(async () => {
    for (const session of sessions.splice(0)) session.destroy();
    await echo.stop();
  });

  /** A connection whose peer knows the settings of the server. */
  async function connection(localAddress?: string): Promise<ClientHttp2Session> {
    const session = connectRaw(echo.port, localAddress);
    sessions.push(session);
    await new Promise((resolve) => session.once('remoteSettings', resolve));
    return session;
  }

  function call(session: ClientHttp2Session, headers: Record<string, string> = {}): RawCall {
    const opened = openRaw(session, headers['authorization'] === undefined ? 'Public' : 'Unary', headers);
    opened.stream.resume();
    opened.stream.end(frameOf(Buffer.from('x')));
    return opened;
  }

  /** Watches how many calls start in each turn of the event loop. @returns a function that ends it, with the largest number */
  function watchTurns(): () => number {
    let [largest, before, isOver] = [0, echo.trace.started, false];
    const look = (): void => {
      largest = Math.max(largest, echo.trace.started - before);
      before = echo.trace.started;
      if (!isOver) setImmediate(look);
    };
    setImmediate(look);
    return () => {
      isOver = true;
      return largest;
    };
  }

  it('spread calls that arrive at once over turns of the event loop', async () => {
    await start();
    const session = await connection();
    const end = watchTurns();
    const ends = await Promise.all(Array.from({ length: STREAMS }, () => call(session).ended));
    expect(ends.filter(({ code }) => code === status.OK)).to.have.lengthOf(STREAMS);
    // A turn can begin the places of two: those that waited, and those of what the sockets then bring.
    expect(end()).to.be.within(1, 2 * CALLS_PER_TURN_MAX);
    expect(echo.guard.state().waitingStreams).to.equal(0);
  });

  it('let a known caller pass while the calls of a stranger wait', async () => {
    await start();
    const authorization = `Bearer ${await issuer.token()}`;
    const known = await connection('127.0.0.1');
    expect((await call(known, { authorization }).ended).code).to.equal(status.OK);
    const strange = await connection('127.0.0.2');
    let answered = 0;
    const flood = Array.from({ length: STREAMS }, async () => {
      await call(strange).ended;
      answered += 1;
    });
    await until(() => echo.guard.state().waitingStreams > 0);
    expect((await call(known, { authorization }).ended).code).to.equal(status.OK);
    expect(answered).to.be.below(STREAMS / 2);
    await Promise.all(flood);
  });

  it('do not begin calls that are cancelled while they wait, and go on serving', async () => {
    await start();
    const session = await connection();
    const calls = Array.from({ length: STREAMS }, () => call(session));
    await until(() => echo.guard.state().waitingStreams > 0);
    for (const { stream } of calls) stream.close(2);
    await Promise.all(calls.map(({ closed }) => closed));
    await until(() => echo.guard.state().waitingStreams === 0);
    expect(echo.trace.started).to.be.below(STREAMS);
    expect((await call(session).ended).code).to.equal(status.OK);
  });

  it('survive a connection that ends while its calls wait', async () => {
    await start();
    const session = await connection();
    for (let count = 0; count < STREAMS; count += 1) call(session);
    await until(() => echo.guard.state().waitingStreams > 0);
    session.destroy();
    await until(() => echo.guard.state().waitingStreams === 0 && echo.guard.state().newStreams === 0);
    expect((await call(await connection()).ended).code).to.equal(status.OK);
  });

  it('close the new connection with most open streams of a network that has too many', async () => {
    await start({ newStreamsPerAddress: 5 });
    const [one, other, elsewhere] = [await connection(), await connection(), await connection('127.0.0.2')];
    const open = (session: ClientHttp2Session, count: number): RawCall[] =>
      Array.from({ length: count }, () => openRaw(session, 'Public'));
    const first = open(one, 4);
    const second = open(other, 1);
    const third = open(elsewhere, 5);
    await until(() => echo.guard.state().newStreams === 10);
    expect((await call(other).ended).code).to.equal(status.OK);
    expect(await Promise.all(first.map(({ closed }) => closed))).to.have.lengthOf(4);
    expect(limited).to.deep.equal(['new_streams_per_address']);
    expect([...second, ...third].filter(({ stream }) => stream.closed)).to.be.empty;
    await until(() => echo.guard.state().newStreams === 6);
  });

  it('do not count the streams of a connection on which a token was accepted', async () => {
    await start({ newStreamsPerAddress: 5 });
    const session = await connection();
    const authorization = `Bearer ${await issuer.token()}`;
    const before = openRaw(session, 'Public');
    expect((await call(session, { authorization }).ended).code).to.equal(status.OK);
    expect(echo.guard.state().newStreams).to.equal(0);
    const calls = Array.from({ length: 8 }, () => openRaw(session, 'Public'));
    await until(() => echo.guard.state().publicCalls + echo.trace.started >= 1);
    expect((await call(session, { authorization }).ended).code).to.equal(status.OK);
    expect([before, ...calls].filter(({ stream }) => stream.closed)).to.be.empty;
    expect(limited).to.be.empty;
  });
});
