/** How connections are counted and how long they may be silent, event by event, without sockets. */

import { EventEmitter } from 'node:events';
import { Server } from '@grpc/grpc-js';
import { expect } from 'chai';
import { ConnectionLimits } from '../../../interceptors/src/server/connection-limits.js';
import { DEFAULT_LIMITS, type GuardLimits } from '../../../interceptors/src/server/guard-limits.js';
import { observeConnectionsOf } from '../../../interceptors/src/wire/grpc-js-internals.js';

/** A TCP connection, from its acceptance to its end. */
class FakeSocket extends EventEmitter {
  destroyed = false;
  readonly remoteAddress: string | undefined;
  readonly remotePort: number | undefined;

  constructor(remoteAddress: string | undefined, remotePort: number | undefined) {
    super();
    this.remoteAddress = remoteAddress;
    this.remotePort = remotePort;
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit('close');
  }
}

describe('the counts of connections', () => {
  let limits: ConnectionLimits;
  let nowMs: number;
  let known: Set<string>;
  let limited: string[];
  let http2Server: EventEmitter;
  let nextPort: number;

  beforeEach(() => start());

  function start(over: Partial<GuardLimits> = {}): void {
    nowMs = 1000;
    nextPort = 1;
    known = new Set();
    limited = [];
    limits = new ConnectionLimits({
      limits: { ...DEFAULT_LIMITS, ...over },
      nowMs: () => nowMs,
      isKnownNetwork: (network) => known.has(network),
      onLimit: (limit) => limited.push(limit),
    });
    const server = new Server();
    http2Server = new EventEmitter();
    observeConnectionsOf(server, limits);
    // As grpc-js does when the server begins to listen.
    (Reflect.get(server, 'http2Servers') as Map<unknown, unknown>).set(http2Server, {});
  }

  function accept(address: string | undefined, port: number | undefined = nextPort): FakeSocket {
    nextPort += 1;
    const socket = new FakeSocket(address, port);
    http2Server.emit('connection', socket);
    return socket;
  }

  /** The first frames of the peer. */
  function establish(socket: FakeSocket): EventEmitter {
    const session = Object.assign(new EventEmitter(), { socket });
    http2Server.emit('session', session);
    session.emit('remoteSettings');
    return session;
  }

  function sweepAfter(ms: number): void {
    nowMs += ms;
    limits.sweep();
  }

  it('refuse more than the limit of one network, until one closes', () => {
    start({ connectionsPerAddress: 2 });
    const sockets = ['192.0.2.1', '192.0.2.1', '192.0.2.1', '192.0.2.2'].map((address) => accept(address));
    expect(sockets.map(({ destroyed }) => destroyed)).to.deep.equal([false, false, true, false]);
    expect([limited, limits.count]).to.deep.equal([['connections_per_address'], 3]);
    sockets[0]?.destroy();
    expect(limits.count).to.equal(2);
    expect([accept('192.0.2.1').destroyed, accept('192.0.2.1').destroyed]).to.deep.equal([false, true]);
    // Two addresses of one /64 are one network.
    expect(
      ['2001:db8::1', '2001:db8::2', '2001:db8::3'].map((address) => accept(address).destroyed),
    ).to.deep.equal([false, false, true]);
  });

  it('keep a quarter of all for known networks', () => {
    start({ connections: 4 });
    const strangers = [1, 2, 3, 4].map((index) => accept(`192.0.2.${index}`));
    expect(strangers.map(({ destroyed }) => destroyed)).to.deep.equal([false, false, false, true]);
    known.add('192.0.2.9');
    expect([accept('192.0.2.9').destroyed, accept('192.0.2.9').destroyed]).to.deep.equal([false, true]);
    expect([limited, limits.count]).to.deep.equal([['connections', 'connections'], 4]);
    for (const socket of strangers) socket.destroy();
    expect(limits.count).to.equal(1);
    expect(accept('192.0.2.1').destroyed).to.equal(false);
  });

  it('leave out Unix sockets, whose peers have no address', () => {
    start({ connections: 1, connectionsPerAddress: 1 });
    const sockets = [1, 2, 3].map(() => accept(undefined, undefined));
    expect(sockets.some(({ destroyed }) => destroyed)).to.equal(false);
    sweepAfter(1e9);
    expect([limits.count, limited, sockets.some(({ destroyed }) => destroyed)]).to.deep.equal([0, [], false]);
  });

  it('close a connection that is not set up in time, and one that makes no request in time', () => {
    const { connectionSetupMs, firstRequestMs } = DEFAULT_LIMITS;
    const [mute, idle, busy] = [accept('192.0.2.1'), accept('192.0.2.1'), accept('192.0.2.1')];
    establish(idle);
    http2Server.emit('stream', { session: establish(busy) });
    sweepAfter(connectionSetupMs - 1);
    expect(mute.destroyed).to.equal(false);
    sweepAfter(1);
    expect([mute, idle, busy].map(({ destroyed }) => destroyed)).to.deep.equal([true, false, false]);
    sweepAfter(firstRequestMs - 1);
    expect(idle.destroyed).to.equal(false);
    sweepAfter(1);
    expect([idle, busy].map(({ destroyed }) => destroyed)).to.deep.equal([true, false]);
    sweepAfter(1e9);
    expect(busy.destroyed).to.equal(false);
    expect(limited).to.deep.equal(['connection_setup_seconds', 'first_request_seconds']);
    expect(limits.count).to.equal(1);
  });

  it('tell connections of one address apart by their ports, and know none that has closed', () => {
    const [one, two] = [accept('192.0.2.1', 7), accept('192.0.2.1', 8)];
    establish(one);
    // A session or a request of a connection that is not known changes nothing.
    const stranger = new FakeSocket('192.0.2.1', 9);
    http2Server.emit('stream', { session: establish(stranger) });
    http2Server.emit('stream', {});
    // The session of a connection that was destroyed has no socket.
    http2Server.emit('stream', { session: {} });
    one.destroy();
    sweepAfter(DEFAULT_LIMITS.connectionSetupMs);
    expect([two.destroyed, limited]).to.deep.equal([true, ['connection_setup_seconds']]);
    http2Server.emit('stream', { session: establish(stranger) });
    expect(limits.count).to.equal(0);
  });
});
