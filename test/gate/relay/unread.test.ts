/** What the relay reports of clients that leave no room for a response: flow control is theirs, and end to end. */

import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { expect } from 'chai';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo, TestJudge } from '../support/relay-kit.js';

const { frame, uint32, RawPeer } = raw;
const OK = block([':status', '200'], ['content-type', 'application/grpc']);
const DONE = block(['grpc-status', '0']);
/** SETTINGS_INITIAL_WINDOW_SIZE. */
const windowOf = (bytes: number): Buffer => Buffer.concat([Buffer.of(0, 4), uint32(bytes)]);

/** A message of gRPC with a body of 15 bytes. */
const MESSAGE = Buffer.concat([Buffer.of(0, 0, 0, 0, 15), Buffer.alloc(15)]);

/** Sees when a report arrives. */
class WatchingJudge extends TestJudge {
  /** Waits for so many reports. @returns the last of them */
  async reports(path: string, count: number): Promise<string | undefined> {
    const call = [...this.live].find((each) => each.path === path);
    for (let wait = 0; wait < 500 && (call?.room.length ?? 0) < count; wait++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return call?.room[count - 1];
  }

  room(path: string): readonly string[] | undefined {
    return [...this.live].find((each) => each.path === path)?.room;
  }
}

describe('gate: responses for which the client leaves no room', () => {
  let listener: Server;
  let server: raw.RawPeer;
  let peer: raw.RawPeer;
  let judge: WatchingJudge;
  let running: Awaited<ReturnType<typeof relayTo>>;

  async function open(window: number): Promise<void> {
    listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    judge = new WatchingJudge();
    running = await relayTo((listener.address() as AddressInfo).port, { judge });
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
  });

  async function request(id: number, path: string): Promise<void> {
    peer.request(id, path);
    await server.find(({ type, id: streamId }) => type === raw.HEADERS && streamId === id);
  }

  it('are reported once they have begun, until they have passed as a whole', async () => {
    await open(0);
    await request(1, '/a/Unary');
    await request(3, '/b/Unary');
    server.send(frame(raw.HEADERS, raw.END_HEADERS, 1, OK));
    expect(await judge.reports('/a/Unary', 1)).to.equal('sending');
    expect(judge.room('/b/Unary'), 'no response yet').to.be.empty;
    // Byte by byte is not read.
    peer.send(frame(raw.WINDOW_UPDATE, 0, 1, uint32(6)));
    server.send(frame(raw.DATA, 0, 1, MESSAGE.subarray(0, 6)));
    server.send(frame(raw.HEADERS, raw.END_HEADERS, 3, OK));
    expect(await judge.reports('/b/Unary', 1)).to.equal('sending');
    expect(judge.room('/a/Unary')).to.deep.equal(['sending']);
    peer.send(frame(raw.WINDOW_UPDATE, 0, 1, uint32(14)));
    server.send(frame(raw.DATA, 0, 1, MESSAGE.subarray(6)));
    expect(await judge.reports('/a/Unary', 2)).to.equal('sent');
    server.send(frame(raw.HEADERS, 5, 1, DONE));
    expect(await peer.end(1)).to.equal('0');
  });

  it('are reported of streams anew for each message, and not when the window opens', async () => {
    await open(20);
    await request(1, '/a/Stream');
    server.send(frame(raw.HEADERS, raw.END_HEADERS, 1, OK), frame(raw.DATA, 0, 1, MESSAGE));
    expect(await judge.reports('/a/Stream', 1)).to.equal('sending');
    peer.send(frame(raw.WINDOW_UPDATE, 0, 1, uint32(20)));
    server.send(frame(raw.DATA, 0, 1, MESSAGE));
    expect(await judge.reports('/a/Stream', 3)).to.equal('sending');
    peer.send(frame(raw.SETTINGS, 0, 0, windowOf(1000)));
    expect(await judge.reports('/a/Stream', 4)).to.equal('sent');
    expect(judge.room('/a/Stream')).to.deep.equal(['sending', 'sent', 'sending', 'sent']);
  });

  it('are reported when the window of the connection is used up by another stream', async () => {
    await open(0x7fff_ffff);
    await request(1, '/a/Stream');
    await request(3, '/b/Unary');
    server.send(
      frame(raw.HEADERS, raw.END_HEADERS, 1, OK),
      ...Array.from({ length: 5 }, () => frame(raw.DATA, 0, 1, Buffer.alloc(13_107))),
      frame(raw.HEADERS, raw.END_HEADERS, 3, OK),
    );
    expect(await judge.reports('/b/Unary', 1)).to.equal('sending');
    peer.send(frame(raw.WINDOW_UPDATE, 0, 0, uint32(1000)));
    expect(await judge.reports('/b/Unary', 2)).to.equal('sent');
  });
});
