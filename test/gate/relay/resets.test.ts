/** Calls that the client has reset, by itself or by a violation of the protocol, are bounded (CVE-2025-8671). */

import { once } from 'node:events';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { expect } from 'chai';
import * as h2 from '../../../gate/src/http2/errors.js';
import { block } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { relayTo } from '../support/relay-kit.js';

const { frame, uint32, RawPeer } = raw;
const BIDI = '/test.Echo/Bidi';
const BURST = 20;
const LAST_ID = 2 * BURST + 1;

describe('gate: resets that a client causes', () => {
  let listener: Server;
  let server: raw.RawPeer;
  let peer: raw.RawPeer;
  let running: Awaited<ReturnType<typeof relayTo>>;

  beforeEach(async () => {
    listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    running = await relayTo((listener.address() as AddressInfo).port, {
      limits: { resets: { burst: BURST, perSecond: 0.001 } },
    });
    const connected = once(listener, 'connection');
    peer = await RawPeer.client(running.port);
    const [socket] = await connected;
    server = RawPeer.server(socket);
  });

  afterEach(async () => {
    peer.destroy();
    server.destroy();
    await running.relay.close();
    listener.close();
    expect([...running.judge.live]).to.be.empty;
  });

  async function expectEnd(): Promise<void> {
    expect(await peer.closed()).to.equal(h2.ENHANCE_YOUR_CALM);
    expect(running.events).to.include.members(['limit_resets', 'client_fault']);
    expect(running.events).to.not.include.members(['server_fault']);
  }

  const violations: readonly (readonly [title: string, provoke: (id: number) => Buffer])[] = [
    ['RST_STREAM', (id) => frame(raw.RST_STREAM, 0, id, uint32(8))],
    ['a window update of 0', (id) => frame(raw.WINDOW_UPDATE, 0, id, uint32(0))],
    ['trailers that do not end it', (id) => frame(raw.HEADERS, raw.END_HEADERS, id, block(['x', 'y']))],
    [
      'DATA after its end',
      (id) =>
        Buffer.concat([
          frame(raw.DATA, raw.END_STREAM, id, Buffer.alloc(5)),
          frame(raw.DATA, 0, id, Buffer.alloc(5)),
        ]),
    ],
  ];
  for (const [title, provoke] of violations) {
    it(`ends a connection that resets streams without end, by ${title}`, async () => {
      for (let id = 1; id <= LAST_ID; id += 2) {
        peer.request(id, BIDI, raw.END_HEADERS);
        peer.send(provoke(id));
      }
      await expectEnd();
    });
  }

  it('ends a connection whose streams overflow their windows before the decision', async () => {
    running.judge.waiting = new Promise(() => {});
    const most = uint32(0x7fff_ffff);
    for (let id = 1; id <= LAST_ID; id += 2) {
      peer.request(id, BIDI, raw.END_HEADERS);
      peer.send(frame(raw.WINDOW_UPDATE, 0, id, most), frame(raw.WINDOW_UPDATE, 0, id, most));
    }
    await expectEnd();
  });

  it('ends a connection whose streams the server resets because of it', async () => {
    for (let id = 1; id <= LAST_ID; id += 2) {
      peer.request(id, BIDI, raw.END_HEADERS);
      await server.find(({ type, id: streamId }) => type === raw.HEADERS && streamId === id);
      server.send(frame(raw.RST_STREAM, 0, id, uint32(h2.FLOW_CONTROL_ERROR)));
    }
    await expectEnd();
  });

  it('does not count what the server resets by its own will', async () => {
    for (let id = 1; id <= 2 * LAST_ID; id += 2) {
      peer.request(id, BIDI, raw.END_HEADERS);
      await server.find(({ type, id: streamId }) => type === raw.HEADERS && streamId === id);
      const code = id % 4 === 1 ? h2.NO_ERROR : h2.REFUSED_STREAM;
      server.send(frame(raw.RST_STREAM, 0, id, uint32(code)));
      expect(await peer.end(id)).to.equal(`reset ${code}`);
    }
    expect(running.events).to.be.empty;
  });
});
