import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, Socket } from 'node:net';
import { expect } from 'chai';
import { Budget } from '../../../gate/src/relay/limits.js';
import { MessageMeter } from '../../../gate/src/relay/message-meter.js';
import { until } from '../../support/waiting.js';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo } from '../support/relay-kit.js';

const { frame, requestFields, RawPeer } = raw;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const BIDI = '/test.Echo/Bidi';

describe('gate: limits of a connection', () => {
  let listener: Server;
  let serverPort: number;
  let servers: raw.RawPeer[];
  let running: Awaited<ReturnType<typeof relayTo>>;

  beforeEach(async () => {
    servers = [];
    listener = createServer((socket) => servers.push(RawPeer.server(socket)));
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    serverPort = (listener.address() as AddressInfo).port;
  });

  afterEach(async () => {
    await running.relay.close();
    for (const server of servers) server.destroy();
    listener.close();
    expect(running.events).to.not.include('internal_error');
    expect([...running.judge.live]).to.be.empty;
    expect(running.relay.connections).to.equal(0);
  });

  async function opened(bytes: Buffer): Promise<Socket> {
    const socket = connect(running.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    await once(socket, 'connect');
    socket.write(bytes);
    return socket;
  }

  it('closes a connection that does not begin', async () => {
    running = await relayTo(serverPort, { limits: { setupMs: 100 } });
    await once(await opened(PREFACE.subarray(0, 10)), 'close');
    expect(running.events).to.include('limit_setup');
    expect(servers, 'no connection to the server').to.be.empty;
  });

  it('closes a connection that does not end a frame, or a header block', async () => {
    running = await relayTo(serverPort, { limits: { frameMs: 100 } });
    const halfFrame = await opened(
      Buffer.concat([PREFACE, frame(raw.SETTINGS, 0, 0), Buffer.of(0, 0, 8, 6)]),
    );
    await once(halfFrame, 'close');
    const halfBlock = await opened(
      Buffer.concat([
        PREFACE,
        frame(raw.SETTINGS, 0, 0),
        frame(raw.HEADERS, 1, 1, block(...requestFields(BIDI))),
      ]),
    );
    await once(halfBlock, 'close');
    expect(running.events.filter((event) => event === 'limit_frame_time')).to.have.length(2);
    expect(running.judge.judged).to.be.empty;
  });

  it('closes a client that does not answer PING, and the server learns it', async () => {
    running = await relayTo(serverPort, { limits: { clientPingMs: 100, pingAnswerMs: 100 } });
    const socket = await opened(
      Buffer.concat([
        PREFACE,
        frame(raw.SETTINGS, 0, 0),
        frame(raw.HEADERS, 4, 1, block(...requestFields(BIDI))),
      ]),
    );
    await once(socket, 'close');
    expect(running.events).to.include('limit_ping_answer');
    await servers[0]?.closed();
  });

  it('closes a client that does not read its socket, and does not read the server meanwhile', async () => {
    running = await relayTo(serverPort, { limits: { stalledMs: 500 } });
    const window = Buffer.from('00047fffffff', 'hex');
    const socket = connect(running.port, '127.0.0.1');
    socket.on('error', () => {});
    await once(socket, 'connect');
    socket.pause();
    const more = raw.uint32(0x7000_0000);
    socket.write(
      Buffer.concat([
        PREFACE,
        frame(raw.SETTINGS, 0, 0, window),
        frame(raw.WINDOW_UPDATE, 0, 0, more),
        frame(raw.HEADERS, 4, 1, block(...requestFields(BIDI))),
      ]),
    );
    const closed = once(socket, 'close');
    while (servers.length === 0) await once(listener, 'connection');
    const [server] = servers;
    await server?.find(({ type }) => type === raw.HEADERS);
    server?.send(frame(raw.HEADERS, 4, 1, block([':status', '200'])));
    const data = frame(raw.DATA, 0, 1, Buffer.alloc(16_000));
    const before = process.memoryUsage().external;
    for (let index = 0; index < 4000; index++) server?.send(data);
    let waiting = 0;
    while (!running.events.includes('limit_stalled')) {
      waiting = Math.max(waiting, server?.socket.writableLength ?? 0);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(waiting, 'the server had to wait').to.be.greaterThan(10_000_000);
    expect(process.memoryUsage().external - before).to.be.lessThan(150_000_000);
    socket.resume();
    await closed;
  });

  it('stops reading a client within a turn that writes too much, and goes on when that was written', async () => {
    running = await relayTo(serverPort);
    const text = 'x'.repeat(12_000);
    const status = {
      headers: [],
      trailersOnly: [[':status', '200'] as const, ['grpc-status', '12'] as const, ['x', text] as const],
    };
    running.judge.judge = () => ({ kind: 'refused', status });
    const peer = await RawPeer.client(running.port);
    const { socket } = peer;
    const head = block(...requestFields(BIDI));
    socket.write(
      Buffer.concat(Array.from({ length: 999 }, (_, at) => frame(raw.HEADERS, 5, 2 * at + 1, head))),
    );
    expect(await peer.end(1997), 'every request is answered').to.equal('12');
    peer.destroy();
  });

  it('asks a client without requests to leave', async () => {
    running = await relayTo(serverPort, { limits: { firstRequestMs: 100 } });
    const peer = await RawPeer.client(running.port);
    expect(await peer.closed()).to.equal(0);
    expect(running.events).to.include('limit_first_request');
  });

  it('answers the first call when the server cannot be reached, however late it comes, and then leaves', async () => {
    running = await relayTo(serverPort, {
      connectServer: () => connect({ path: '/nowhere/to.sock' }),
    });
    const peer = await RawPeer.client(running.port);
    await until(() => running.events.includes('server_unreachable'));
    peer.request(1, BIDI);
    expect(await peer.end(1)).to.equal('14');
    expect(await peer.closed()).to.equal(0);
    const idle = await RawPeer.client(running.port);
    expect(await idle.closed(), 'without a call, after a second').to.equal(0);
  });

  it('answers UNAVAILABLE when connecting to the server takes too long', async () => {
    running = await relayTo(serverPort, { limits: { connectMs: 100 }, connectServer: () => new Socket() });
    const peer = await RawPeer.client(running.port);
    peer.request(1, BIDI);
    expect(await peer.end(1)).to.equal('14');
    expect(running.events).to.include.members(['limit_connect', 'server_unreachable']);
  });

  it('refuses connections beyond the limit', async () => {
    running = await relayTo(serverPort, { limits: { connections: 1 } });
    const peer = await RawPeer.client(running.port);
    const second = await opened(PREFACE);
    await once(second, 'close');
    expect(running.events).to.deep.equal(['limit_connections']);
    peer.destroy();
  });

  it('does not read a client whose undecided requests are too large', async () => {
    running = await relayTo(serverPort, { limits: { undecidedBytes: 10_000 } });
    let decide: () => void = () => {};
    running.judge.waiting = new Promise((resolve) => {
      decide = resolve;
    });
    const peer = await RawPeer.client(running.port);
    peer.request(1, BIDI, raw.END_HEADERS);
    for (let index = 0; index < 6; index++) peer.send(frame(raw.DATA, 0, 1, Buffer.alloc(10_000)));
    peer.request(3, BIDI);
    while (running.judge.judged.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(running.judge.judged).to.have.length(1);
    decide();
    await servers[0]?.find(({ type, id }) => type === raw.HEADERS && id === 3);
    expect(servers[0]?.frames.filter(({ type }) => type === raw.DATA)).to.have.length(6);
    peer.destroy();
  });
});

describe('gate: what limits count', () => {
  it('follows messages across parts of any size', () => {
    const message = (length: number): Buffer => {
      const bytes = Buffer.alloc(5 + length);
      bytes.writeUInt32BE(length, 1);
      return bytes;
    };
    const body = Buffer.concat([message(0), message(10), message(300), message(1)]);
    for (let size = 1; size < 40; size++) {
      const meter = new MessageMeter(300);
      for (let at = 0; at < body.length; at += size) {
        expect(meter.read(body, at, Math.min(body.length, at + size))).to.equal(true);
      }
      expect(meter.complete).to.equal(4);
    }
    const small = new MessageMeter(299);
    expect(small.read(body, 0, body.length)).to.equal(false);
  });

  it('refills a budget with time, up to the burst', () => {
    let nowMs = 0;
    const clock = { wallMs: () => 0, monotonicMs: () => nowMs };
    const budget = new Budget({ burst: 2, perSecond: 1 }, 0);
    expect([budget.take(clock), budget.take(clock), budget.take(clock)]).to.deep.equal([true, true, false]);
    nowMs = 1000;
    expect([budget.take(clock), budget.take(clock)]).to.deep.equal([true, false]);
    nowMs = 60_000;
    expect([budget.take(clock), budget.take(clock), budget.take(clock)]).to.deep.equal([true, true, false]);
    budget.refund(1);
    expect(budget.take(clock)).to.equal(true);
  });
});
