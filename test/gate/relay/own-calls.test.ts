/** Calls that the gate answers itself: their flow control, their requests, and their ends. */

import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import type { OwnResponder, RelayStatus } from '../../../gate/src/relay/judge.js';
import { until } from '../../support/waiting.js';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo } from '../support/relay-kit.js';

const { frame, requestFields, uint32, RawPeer } = raw;
const OWN = '/own.Service/Method';
/** Long enough for a frame that should not come, in milliseconds. */
const PAUSE_MS = 50;
/** SETTINGS_INITIAL_WINDOW_SIZE. */
const windowOf = (bytes: number): Buffer => Buffer.concat([Buffer.of(0, 4), uint32(bytes)]);

function message(text: string, flag = 0): Buffer {
  const body = Buffer.from(text);
  return Buffer.concat([Buffer.of(flag), uint32(body.length), body]);
}

const DONE: RelayStatus = {
  headers: [['grpc-status', '0']],
  trailersOnly: [
    [':status', '200'],
    ['grpc-status', '0'],
  ],
};

describe('gate: calls that the gate answers itself', () => {
  let listener: Server;
  let server: raw.RawPeer;
  let peer: raw.RawPeer;
  let running: Awaited<ReturnType<typeof relayTo>>;
  /** The requests that were opened, and those that have ended. */
  let opened: { readonly request: string; readonly responder: OwnResponder }[];
  let ended: number;

  async function open(window = 65_535): Promise<void> {
    opened = [];
    ended = 0;
    listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    running = await relayTo((listener.address() as AddressInfo).port);
    running.judge.own = {
      open: (request, responder) => {
        opened.push({ request: String(request), responder });
        return () => {
          ended += 1;
        };
      },
    };
    const connected = once(listener, 'connection');
    peer = await RawPeer.client(running.port, windowOf(window));
    const [socket] = await connected;
    server = RawPeer.server(socket);
  }

  afterEach(async () => {
    peer.destroy();
    server.destroy();
    await running.relay.close();
    listener.close();
    expect(running.events).to.not.include('internal_error');
    expect([...running.judge.live]).to.be.empty;
    expect(ended, 'every call that was opened is told of its end').to.equal(opened.length);
  });

  function request(id: number, body = message('hello'), path = OWN): void {
    peer.request(id, path, raw.END_HEADERS);
    peer.send(frame(raw.DATA, raw.END_STREAM, id, body));
  }

  const dataOf = (id: number): string =>
    peer.frames
      .filter(({ type, id: of }) => type === raw.DATA && of === id)
      .map(({ payload }) => String(payload.subarray(5)))
      .join('|');

  it('are answered with messages and a status, and the server receives nothing', async () => {
    await open();
    request(1);
    await until(() => opened.length === 1);
    expect(opened[0]?.request).to.equal('hello');
    opened[0]?.responder.send(Buffer.from('one'));
    await peer.find(({ type }) => type === raw.DATA);
    opened[0]?.responder.send(Buffer.from('two'));
    opened[0]?.responder.end(DONE);
    expect(await peer.end(1)).to.equal('0');
    expect(dataOf(1)).to.equal('one|two');
    expect(server.frames.filter(({ type }) => type === raw.HEADERS || type === raw.DATA)).to.be.empty;
  });

  it('are judged first: a refused one is not opened', async () => {
    await open();
    peer.request(1, OWN, raw.END_HEADERS, 'Bearer bad');
    peer.send(frame(raw.DATA, raw.END_STREAM, 1, message('hello')));
    expect(await peer.end(1)).to.equal('16');
    expect(opened).to.be.empty;
  });

  it('keep what arrives before the decision, and end when their token is revoked', async () => {
    await open();
    let decide: () => void = () => {};
    running.judge.waiting = new Promise((resolve) => {
      decide = resolve;
    });
    request(1);
    await peer.settle();
    expect(opened).to.be.empty;
    decide();
    await until(() => opened.length === 1);
    running.judge.revoke();
    expect(await peer.end(1)).to.equal('16');
    expect(ended).to.equal(1);
  });

  it('send no message for which there is no room, and then the latest alone', async () => {
    await open(0);
    request(1);
    await until(() => opened.length === 1);
    const [call] = [...running.judge.live];
    opened[0]?.responder.send(Buffer.from('one'));
    opened[0]?.responder.send(Buffer.from('two'));
    await delay(PAUSE_MS);
    expect(dataOf(1)).to.equal('');
    expect(call?.room, 'the limits know that it waits').to.deep.equal(['sending']);
    peer.send(frame(raw.WINDOW_UPDATE, 0, 1, uint32(8)));
    await until(() => dataOf(1) === 'two');
    expect(call?.room.at(-1)).to.equal('sent');
    opened[0]?.responder.end(DONE);
    expect(await peer.end(1)).to.equal('0');
  });

  it('count in the window of the connection, whose credit does not reach the server', async () => {
    await open();
    request(1);
    await until(() => opened.length === 1);
    opened[0]?.responder.send(Buffer.from('one'));
    opened[0]?.responder.end(DONE);
    await peer.end(1);
    peer.send(frame(raw.WINDOW_UPDATE, 0, 0, uint32(8)), frame(raw.WINDOW_UPDATE, 0, 0, uint32(2)));
    await peer.settle();
    const credit = server.frames.filter(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credit.map(({ payload }) => payload.readUInt32BE(0))).to.deep.equal([2]);
  });

  it('end with an error when the request is not one message, is compressed, or is too large', async () => {
    await open();
    for (const [id, body, status] of [
      [1, Buffer.alloc(0), '3'],
      [3, Buffer.concat([message('one'), message('two')]), '3'],
      [5, message('one', 1), '12'],
      [7, message('x'.repeat(1025)), '8'],
    ] as const) {
      request(id, body);
      expect(await peer.end(id), String(id)).to.equal(status);
    }
    expect(opened).to.be.empty;
  });

  it('go to the server when they are not gRPC', async () => {
    await open();
    const fields = requestFields(OWN).map(([name, value]) =>
      name === 'content-type' ? ([name, 'application/json'] as const) : ([name, value] as const),
    );
    peer.send(frame(raw.HEADERS, raw.END_STREAM | raw.END_HEADERS, 1, block(...fields)));
    await server.find(({ type }) => type === raw.HEADERS);
    expect(opened).to.be.empty;
  });

  it('go on when the server leaves, and end when the client resets them', async () => {
    await open();
    request(1);
    request(3, message('x'), '/test.Echo/Unary');
    await until(() => opened.length === 1);
    await server.find(({ type }) => type === raw.HEADERS);
    server.send(frame(raw.GOAWAY, 0, 0, Buffer.concat([uint32(0), uint32(0)])));
    const goaway = await peer.find(({ type }) => type === raw.GOAWAY);
    expect(goaway.payload.readUInt32BE(0), 'the last stream that was processed').to.equal(1);
    opened[0]?.responder.send(Buffer.from('still'));
    await until(() => dataOf(1) === 'still');
    peer.send(frame(raw.RST_STREAM, 0, 1, uint32(8)));
    await until(() => ended === 1);
    opened[0]?.responder.send(Buffer.from('late'));
    opened[0]?.responder.end(DONE);
  });

  it('end with UNAVAILABLE when the relay closes', async () => {
    await open();
    request(1);
    await until(() => opened.length === 1);
    await running.relay.close();
    expect(await peer.end(1)).to.equal('14');
  });
});
