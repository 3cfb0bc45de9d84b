/** Refusals with a body: the flow control of the client holds for what the gate itself sends, too. */

import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import { until } from '../../support/waiting.js';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo } from '../support/relay-kit.js';

const { frame, uint32, RawPeer } = raw;
/** Long enough for a frame that should not come, in milliseconds. */
const PAUSE_MS = 50;
const BODY = Buffer.alloc(1000, 'x');
const OK = block([':status', '200'], ['content-type', 'application/grpc']);
/** SETTINGS_INITIAL_WINDOW_SIZE. */
const windowOf = (bytes: number): Buffer => Buffer.concat([Buffer.of(0, 4), uint32(bytes)]);
const json = (path: string): Buffer =>
  block(
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', path],
    [':authority', 'localhost'],
    ['content-type', 'application/json'],
  );

describe('gate: refusals with a body', () => {
  let listener: Server;
  let server: raw.RawPeer;
  let peer: raw.RawPeer;
  let running: Awaited<ReturnType<typeof relayTo>>;

  async function open(window: number, wrap = (socket: Socket) => RawPeer.server(socket)): Promise<void> {
    listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    running = await relayTo((listener.address() as AddressInfo).port);
    running.judge.foreign = {
      status: 200,
      bareStatus: 401,
      headers: [
        ['content-type', 'application/json'],
        ['content-length', String(BODY.length)],
      ],
      body: BODY,
    };
    const connected = once(listener, 'connection');
    peer = await RawPeer.client(running.port, windowOf(window));
    const [socket] = await connected;
    server = wrap(socket);
  }

  afterEach(async () => {
    peer.destroy();
    server.destroy();
    await running.relay.close();
    listener.close();
    expect(running.events).to.not.include('internal_error');
  });

  const refused = (id: number): void =>
    peer.send(frame(raw.HEADERS, raw.END_STREAM | raw.END_HEADERS, id, json('/a/Unary')));
  const head = (id: number) => peer.find(({ type, id: of }) => type === raw.HEADERS && of === id);
  const bytesOf = (matches: (id: number) => boolean): number =>
    peer.frames
      .filter(({ type, id }) => type === raw.DATA && matches(id))
      .reduce((bytes, { payload }) => bytes + payload.length, 0);

  it('have it where the client has room', async () => {
    await open(BODY.length);
    refused(1);
    expect((await head(1)).fields.get(':status')).to.equal('200');
    await peer.end(1);
    expect(bytesOf((id) => id === 1)).to.equal(BODY.length);
  });

  it('are sent at once without it, and with a status that says more, where the client has none', async () => {
    await open(BODY.length - 1);
    refused(1);
    const { flags, fields } = await head(1);
    expect(flags & raw.END_STREAM).to.equal(raw.END_STREAM);
    expect([fields.get(':status'), fields.get('content-length')]).to.deep.equal(['401', undefined]);
    expect(bytesOf(() => true)).to.equal(0);
  });

  it('count what the client has added to the window of the stream', async () => {
    await open(0);
    let decide: () => void = () => {};
    running.judge.waiting = new Promise((resolve) => {
      decide = resolve;
    });
    refused(1);
    peer.send(frame(raw.WINDOW_UPDATE, 0, 1, uint32(BODY.length)));
    await peer.settle();
    decide();
    await peer.end(1);
    expect(bytesOf((id) => id === 1)).to.equal(BODY.length);
  });

  it('count a larger window for new streams from the acknowledgement on', async () => {
    // A server that acknowledges nothing.
    await open(0, (socket) => {
      socket.write(frame(raw.SETTINGS, 0, 0));
      return new RawPeer(socket.pause());
    });
    peer.send(frame(raw.SETTINGS, 0, 0, windowOf(BODY.length)));
    refused(1);
    await peer.end(1);
    expect(bytesOf((id) => id === 1)).to.equal(0);
  });

  it('do not make the server send more than the connection has room for', async () => {
    await open(1_000_000);
    peer.request(1, '/a/Stream', raw.END_HEADERS);
    await server.find(({ type }) => type === raw.HEADERS);
    refused(3);
    await peer.end(3);
    expect(bytesOf((id) => id === 3)).to.equal(BODY.length);
    const part = Buffer.alloc(13_107);
    server.send(
      frame(raw.HEADERS, raw.END_HEADERS, 1, OK),
      ...Array.from({ length: 5 }, () => frame(raw.DATA, 0, 1, part)),
    );
    await until(() => bytesOf((id) => id === 1) >= 4 * part.length);
    await delay(PAUSE_MS);
    expect(bytesOf(() => true)).to.be.at.most(65_535);
    peer.send(frame(raw.WINDOW_UPDATE, 0, 0, uint32(BODY.length)));
    await peer.settle();
    expect(bytesOf((id) => id === 1)).to.equal(65_535);
    const credit = server.frames.filter(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credit, 'the credit for the refusal is not that of the server').to.be.empty;
  });

  it('end as before when the stream whose data waits was reset', async () => {
    await open(1_000_000);
    peer.request(1, '/a/Stream', raw.END_HEADERS);
    await server.find(({ type }) => type === raw.HEADERS);
    refused(3);
    await peer.end(3);
    const part = Buffer.alloc(13_107);
    server.send(
      frame(raw.HEADERS, raw.END_HEADERS, 1, OK),
      ...Array.from({ length: 5 }, () => frame(raw.DATA, 0, 1, part)),
    );
    await until(() => bytesOf((id) => id === 1) >= 4 * part.length);
    peer.send(frame(raw.RST_STREAM, 0, 1, uint32(8)));
    const credit = await server.find(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credit.payload.readUInt32BE(0)).to.equal(part.length);
    peer.request(5, '/a/Stream');
    await server.find(({ type, id }) => type === raw.HEADERS && id === 3);
  });

  it('leave a server that ignores the window its fault', async () => {
    await open(1_000_000);
    peer.request(1, '/a/Stream', raw.END_HEADERS);
    await server.find(({ type }) => type === raw.HEADERS);
    server.send(
      frame(raw.HEADERS, raw.END_HEADERS, 1, OK),
      ...Array.from({ length: 6 }, () => frame(raw.DATA, 0, 1, Buffer.alloc(13_107))),
    );
    expect(await peer.end(1)).to.equal('14');
    expect(await server.closed()).to.equal(3);
    expect(bytesOf(() => true)).to.equal(65_535);
    expect(running.events).to.include('server_fault');
  });
});
