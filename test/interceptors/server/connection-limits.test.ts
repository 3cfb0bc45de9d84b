/** How many connections a peer may have, and how long one may stay without a request. */

import type { ClientHttp2Session } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { DEFAULT_LIMITS } from '../../../interceptors/src/server/guard-limits.js';
import { MovableClock } from '../../support/clock.js';
import { type Echo, startEcho } from '../../support/echo.js';
import { TestIssuer } from '../../support/issuer.js';
import { until } from '../../support/waiting.js';
import { connectRaw, frameOf, openRaw } from './raw-calls.js';

describe('limits on connections', () => {
  let issuer: TestIssuer;
  let clock: MovableClock;
  let echo: Echo;
  let limited: string[];
  const sessions: ClientHttp2Session[] = [];
  const sockets: Socket[] = [];

  async function start(limits: Partial<GuardLimits> = {}): Promise<void> {
    issuer = await TestIssuer.create();
    issuer.leaseMs = 600_000;
    clock = new MovableClock();
    limited = [];
    echo = await startEcho(issuer, { clock, limits, observer: { limited: (limit) => limited.push(limit) } });
    await echo.guard.ready;
  }

  afterEach(async () => {
    for (const session of sessions.splice(0)) session.destroy();
    for (const socket of sockets.splice(0)) socket.destroy();
    await echo.stop();
  });

  function connection(localAddress?: string): { session: ClientHttp2Session; closed: Promise<void> } {
    const session = connectRaw(echo.port, localAddress);
    sessions.push(session);
    return { session, closed: new Promise((resolve) => session.on('close', () => resolve())) };
  }

  async function callOn(session: ClientHttp2Session, headers: Record<string, string> = {}): Promise<number> {
    const call = openRaw(session, headers['authorization'] === undefined ? 'Public' : 'Unary', headers);
    call.stream.resume();
    call.stream.end(frameOf(Buffer.from('x')));
    return (await call.ended).code;
  }

  it('refuse more connections of one address, and no other address', async () => {
    await start({ connectionsPerAddress: 3 });
    const first = [connection(), connection(), connection()];
    for (const { session } of first) expect(await callOn(session)).to.equal(status.OK);
    const fourth = connection();
    expect(await callOn(fourth.session)).to.equal(-1);
    expect(await callOn(connection('127.0.0.2').session)).to.equal(status.OK);
    expect(limited).to.deep.equal(['connections_per_address']);
    expect(echo.guard.state().connections).to.equal(4);
    // A closed connection makes room.
    first[0]?.session.destroy();
    await until(() => echo.guard.state().connections === 3);
    expect(await callOn(connection().session)).to.equal(status.OK);
  });

  it('keep a quarter of the connections for networks with a verified token', async () => {
    await start({ connections: 4 });
    const authorization = `Bearer ${await issuer.token()}`;
    const known = connection('127.0.0.2');
    expect(await callOn(known.session, { authorization })).to.equal(status.OK);
    for (let count = 0; count < 2; count += 1) expect(await callOn(connection().session)).to.equal(status.OK);
    expect(await callOn(connection('127.0.0.3').session)).to.equal(-1);
    expect(await callOn(connection('127.0.0.2').session)).to.equal(status.OK);
    expect(limited).to.deep.equal(['connections']);
  });

  it('close a connection that never speaks HTTP/2, and one that never makes a request', async () => {
    await start();
    const silent = connectTcp({ host: '127.0.0.1', port: echo.port });
    sockets.push(silent);
    const silentClosed = new Promise<void>((resolve) => silent.on('close', () => resolve()));
    silent.on('error', () => {});
    silent.resume();
    const idle = connection();
    const used = connection();
    expect(await callOn(used.session)).to.equal(status.OK);
    await until(() => echo.guard.state().connections === 3);
    await new Promise<void>((resolve) => idle.session.ping(() => resolve()));
    clock.pass(DEFAULT_LIMITS.connectionSetupMs);
    await silentClosed;
    expect(limited).to.deep.equal(['connection_setup_seconds']);
    clock.pass(DEFAULT_LIMITS.firstRequestMs);
    await idle.closed;
    expect(limited).to.deep.equal(['connection_setup_seconds', 'first_request_seconds']);
    expect(await callOn(used.session)).to.equal(status.OK);
  });

  it('announce the number of streams, and refuse headers above their size', async () => {
    await start({ streamsPerConnection: 7, headerBytes: 2000 });
    const { session } = connection();
    expect(await callOn(session)).to.equal(status.OK);
    expect(session.remoteSettings).to.include({ maxConcurrentStreams: 7, maxHeaderListSize: 2000 });
    expect(await callOn(session, { 'x-long': 'x'.repeat(2000) })).to.equal(-1);
    expect(await callOn(connection().session)).to.equal(status.OK);
    expect(echo.trace.started).to.equal(2);
  });
});
