/** How streams are counted and when they begin, event by event, without sockets. */

import { EventEmitter } from 'node:events';
import { Server } from '@grpc/grpc-js';
import { expect } from 'chai';
import { DEFAULT_LIMITS } from '../../../interceptors/src/server/guard-limits.js';
import { CALLS_PER_TURN_MAX, StreamLimits } from '../../../interceptors/src/server/stream-limits.js';

/** The streams of strangers that begin in one turn without waiting. */
const STRANGERS = (CALLS_PER_TURN_MAX * 3) / 4;
const STREAMS_MAX = 5;

class FakeSession extends EventEmitter {
  destroyed = false;
  readonly encrypted = false;
  readonly socket?: { readonly remoteAddress: string | undefined; readonly remotePort: number };

  constructor(socket?: NonNullable<FakeSession['socket']>) {
    super();
    if (socket !== undefined) this.socket = socket;
  }

  destroy(): void {
    this.destroyed = true;
    this.emit('close');
  }
}

class FakeStream extends EventEmitter {
  readonly closed = false;
  readonly session: FakeSession;

  constructor(session: FakeSession) {
    super();
    this.session = session;
  }
}

describe('the counts of streams', () => {
  let limits: StreamLimits;
  let known: Set<string>;
  let limited: string[];
  let http2Server: EventEmitter;
  let begun: FakeStream[];
  let nextPort: number;

  beforeEach(() => start());

  function start(newStreamsPerAddress = 1000): void {
    known = new Set();
    limited = [];
    begun = [];
    nextPort = 1;
    limits = new StreamLimits({
      limits: { ...DEFAULT_LIMITS, newStreamsPerAddress },
      isKnownNetwork: (network) => known.has(network),
      onLimit: (limit) => limited.push(limit),
    });
    const server = new Server();
    http2Server = new EventEmitter();
    http2Server.on('stream', (stream: FakeStream) => begun.push(stream));
    limits.watch(server);
    (Reflect.get(server, 'http2Servers') as Map<unknown, unknown>).set(http2Server, {});
  }

  function connect(remoteAddress: string | undefined): FakeSession {
    nextPort += 1;
    return new FakeSession({ remoteAddress, remotePort: nextPort });
  }

  /** @returns whether the stream began at once */
  function open(session: FakeSession): boolean {
    const stream = new FakeStream(session);
    http2Server.emit('stream', stream);
    return begun.includes(stream);
  }

  const openMany = (session: FakeSession, count: number): boolean[] =>
    Array.from({ length: count }, () => open(session));
  const trust = (session: FakeSession | undefined): void => limits.trust(session);

  it('leave places of a turn to connections with a token, and to networks with one, alone', () => {
    const [stranger, trusted, neighbour] = [connect('192.0.2.1'), connect('192.0.2.2'), connect('192.0.2.3')];
    known.add('192.0.2.3');
    expect(open(trusted)).to.equal(true);
    trust(trusted);
    expect(openMany(stranger, STRANGERS).lastIndexOf(true)).to.equal(STRANGERS - 2);
    expect([open(stranger), open(trusted), open(neighbour)]).to.deep.equal([false, true, true]);
  });

  it('are none for a peer without an address, whose connection may be gone already', () => {
    start(STREAMS_MAX);
    const [local, gone] = [connect(undefined), new FakeSession()];
    for (const session of [local, gone]) {
      expect(openMany(session, STREAMS_MAX + 1)).to.not.include(false);
      expect(session.destroyed).to.equal(false);
    }
    expect(limits.open).to.equal(0);
    trust(local);
    trust(undefined);
    expect(limited).to.deep.equal([]);
  });

  it('close the connection of the newest stream when others have as many, and do not begin that stream', () => {
    start(STREAMS_MAX);
    const [first, second] = [connect('192.0.2.1'), connect('192.0.2.1')];
    openMany(second, 1);
    openMany(first, 3);
    openMany(second, 1);
    expect([open(second), first.destroyed, second.destroyed]).to.deep.equal([false, false, true]);
    expect(limited).to.deep.equal(['new_streams_per_address']);
    expect(limits.open).to.equal(3);
  });

  it('count streams until they close, or their connection does', () => {
    const [first, second] = [connect('192.0.2.1'), connect('192.0.2.2')];
    openMany(first, 2);
    openMany(second, 1);
    expect(limits.open).to.equal(3);
    begun[0]?.emit('close');
    expect(limits.open).to.equal(2);
    first.destroy();
    begun[1]?.emit('close');
    expect(limits.open).to.equal(1);
  });
});
