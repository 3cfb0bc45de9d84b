/** RFC 9113 and RFC 7541 at both sides of the relay, in the order of h2spec's cases. */

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { expect } from 'chai';
import * as h2 from '../../../gate/src/http2/errors.js';
import { block, indexed } from '../support/hpack-writer.js';
import * as raw from '../support/raw-peer.js';
import { type Relayed, relayTo, startRelayed } from '../support/relay-kit.js';

const { frame, uint32, requestFields, RawPeer } = raw;
const END = raw.END_STREAM | raw.END_HEADERS;
const UNARY = '/test.Echo/Unary';
const BIDI = '/test.Echo/Bidi';

/** An empty message of gRPC. */
const MESSAGE = Buffer.alloc(5);

function setting(id: number, value: number): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt16BE(id);
  bytes.writeUInt32BE(value, 2);
  return bytes;
}

describe('gate: frames of clients that violate HTTP/2', () => {
  let relayed: Relayed;
  let peer: raw.RawPeer;

  beforeEach(async () => {
    relayed = await startRelayed({ limits: { streams: 10 } });
    peer = await RawPeer.client(relayed.port);
  });

  afterEach(async () => {
    peer.destroy();
    await relayed.stop();
    expect(relayed.events).to.not.include('internal_error');
  });

  /** Each ends the connection with a code (RFC 9113 section). */
  const faults: readonly (readonly [title: string, code: number, bytes: readonly Buffer[]])[] = [
    [
      '4.2 a frame larger than SETTINGS_MAX_FRAME_SIZE',
      h2.FRAME_SIZE_ERROR,
      [frame(raw.DATA, 0, 1, Buffer.alloc(0), 16_385)],
    ],
    [
      '4.3 a block that cannot be decoded',
      h2.COMPRESSION_ERROR,
      [frame(raw.HEADERS, END, 1, Buffer.of(0xff))],
    ],
    [
      '4.3 a frame of another stream within a block',
      h2.PROTOCOL_ERROR,
      [frame(raw.HEADERS, 1, 1, block(...requestFields(UNARY))), frame(raw.PRIORITY, 0, 3, Buffer.alloc(5))],
    ],
    [
      '4.3 HEADERS within a block',
      h2.PROTOCOL_ERROR,
      [
        frame(raw.HEADERS, 1, 1, block(...requestFields(UNARY))),
        frame(raw.HEADERS, END, 3, block(...requestFields(UNARY))),
      ],
    ],
    ['5.1 DATA on an idle stream', h2.PROTOCOL_ERROR, [frame(raw.DATA, 1, 1, MESSAGE)]],
    ['5.1 RST_STREAM on an idle stream', h2.PROTOCOL_ERROR, [frame(raw.RST_STREAM, 0, 1, uint32(8))]],
    ['5.1 WINDOW_UPDATE on an idle stream', h2.PROTOCOL_ERROR, [frame(raw.WINDOW_UPDATE, 0, 1, uint32(1))]],
    [
      '5.1 CONTINUATION without a block',
      h2.PROTOCOL_ERROR,
      [frame(raw.CONTINUATION, END, 1, block(...requestFields(UNARY)))],
    ],
    [
      '5.1.1 an even stream id',
      h2.PROTOCOL_ERROR,
      [frame(raw.HEADERS, END, 2, block(...requestFields(UNARY)))],
    ],
    [
      '5.3.1 a stream that depends on itself',
      h2.PROTOCOL_ERROR,
      [frame(raw.PRIORITY, 0, 3, Buffer.concat([uint32(3), Buffer.of(1)]))],
    ],
    ['6.1 DATA without a stream', h2.PROTOCOL_ERROR, [frame(raw.DATA, 0, 0, MESSAGE)]],
    [
      '6.2 HEADERS without a stream',
      h2.PROTOCOL_ERROR,
      [frame(raw.HEADERS, END, 0, block(...requestFields(UNARY)))],
    ],
    [
      '6.2 padding larger than HEADERS',
      h2.PROTOCOL_ERROR,
      [frame(raw.HEADERS, END | raw.PADDED, 1, Buffer.of(200, 0x82))],
    ],
    ['6.3 PRIORITY without a stream', h2.PROTOCOL_ERROR, [frame(raw.PRIORITY, 0, 0, Buffer.alloc(5))]],
    ['6.3 PRIORITY of 4 bytes', h2.FRAME_SIZE_ERROR, [frame(raw.PRIORITY, 0, 1, Buffer.alloc(4))]],
    ['6.4 RST_STREAM without a stream', h2.PROTOCOL_ERROR, [frame(raw.RST_STREAM, 0, 0, uint32(8))]],
    ['6.4 RST_STREAM of 3 bytes', h2.FRAME_SIZE_ERROR, [frame(raw.RST_STREAM, 0, 1, Buffer.alloc(3))]],
    ['6.5 SETTINGS on a stream', h2.PROTOCOL_ERROR, [frame(raw.SETTINGS, 0, 1)]],
    ['6.5 SETTINGS of 3 bytes', h2.FRAME_SIZE_ERROR, [frame(raw.SETTINGS, 0, 0, Buffer.alloc(3))]],
    [
      '6.5 an acknowledgement with a payload',
      h2.FRAME_SIZE_ERROR,
      [frame(raw.SETTINGS, raw.ACK, 0, setting(3, 1))],
    ],
    [
      '6.5 acknowledgements that were not asked for',
      h2.PROTOCOL_ERROR,
      Array(20).fill(frame(raw.SETTINGS, raw.ACK, 0)),
    ],
    ['6.5.2 SETTINGS_ENABLE_PUSH of 2', h2.PROTOCOL_ERROR, [frame(raw.SETTINGS, 0, 0, setting(2, 2))]],
    [
      '6.5.2 SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1',
      h2.FLOW_CONTROL_ERROR,
      [frame(raw.SETTINGS, 0, 0, setting(4, 0x8000_0000))],
    ],
    [
      '6.5.2 SETTINGS_MAX_FRAME_SIZE below 16,384',
      h2.PROTOCOL_ERROR,
      [frame(raw.SETTINGS, 0, 0, setting(5, 16_383))],
    ],
    [
      '6.5.2 SETTINGS_MAX_FRAME_SIZE above 2^24-1',
      h2.PROTOCOL_ERROR,
      [frame(raw.SETTINGS, 0, 0, setting(5, 0x100_0000))],
    ],
    ['6.6 PUSH_PROMISE', h2.PROTOCOL_ERROR, [frame(raw.PUSH_PROMISE, 4, 1, Buffer.alloc(8))]],
    ['6.7 PING on a stream', h2.PROTOCOL_ERROR, [frame(raw.PING, 0, 1, Buffer.alloc(8))]],
    ['6.7 PING of 7 bytes', h2.FRAME_SIZE_ERROR, [frame(raw.PING, 0, 0, Buffer.alloc(7))]],
    ['6.8 GOAWAY on a stream', h2.PROTOCOL_ERROR, [frame(raw.GOAWAY, 0, 1, Buffer.alloc(8))]],
    ['6.9 WINDOW_UPDATE of 0', h2.PROTOCOL_ERROR, [frame(raw.WINDOW_UPDATE, 0, 0, uint32(0))]],
    ['6.9 WINDOW_UPDATE of 3 bytes', h2.FRAME_SIZE_ERROR, [frame(raw.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))]],
    [
      '6.9.1 a window above 2^31-1',
      h2.FLOW_CONTROL_ERROR,
      [frame(raw.WINDOW_UPDATE, 0, 0, uint32(0x7fff_ffff))],
    ],
    [
      'RFC 7541 2.3.3 an index beyond the tables',
      h2.COMPRESSION_ERROR,
      [frame(raw.HEADERS, END, 1, Buffer.of(0xbe))],
    ],
    [
      'RFC 7541 4.2 a size update at the end of a block',
      h2.COMPRESSION_ERROR,
      [frame(raw.HEADERS, END, 1, Buffer.concat([block(...requestFields(UNARY)), Buffer.of(0x20)]))],
    ],
    [
      'RFC 7541 6.3 a size update above the setting',
      h2.COMPRESSION_ERROR,
      [
        frame(
          raw.HEADERS,
          END,
          1,
          Buffer.concat([Buffer.from('3fe21f', 'hex'), block(...requestFields(UNARY))]),
        ),
      ],
    ],
  ];
  for (const [title, code, bytes] of faults) {
    it(`ends the connection at ${title}`, async () => {
      peer.send(...bytes);
      expect(await peer.closed()).to.equal(code);
      expect(relayed.received).to.be.empty;
      expect(relayed.judge.admitted).to.equal(0);
    });
  }

  it('ends the connection at the preface of another protocol', async () => {
    const socket = connect(relayed.port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
    socket.resume();
    await once(socket, 'close');
  });

  it('ends the connection at a stream id that is not higher than the last (5.1.1)', async () => {
    peer.request(5, UNARY);
    await peer.end(5);
    peer.request(3, UNARY);
    expect(await peer.closed()).to.equal(h2.STREAM_CLOSED);
  });

  it('ends the connection at DATA on a stream that has ended (5.1)', async () => {
    peer.send(
      frame(raw.HEADERS, raw.END_HEADERS, 1, block(...requestFields(BIDI))),
      frame(raw.DATA, 1, 1, MESSAGE),
    );
    expect(await peer.end(1)).to.equal('0');
    peer.send(frame(raw.DATA, 1, 1, MESSAGE));
    expect(await peer.closed()).to.equal(h2.STREAM_CLOSED);
  });

  /** Each resets only its stream (RFC 9113 §8.1.1). */
  const malformed: readonly (readonly [title: string, fields: readonly (readonly [string, string])[]])[] = [
    ['8.2 a name in upper case', [...requestFields(UNARY), ['X-Upper', '1']]],
    ['8.2 a name with a space', [...requestFields(UNARY), ['x y', '1']]],
    ['8.2 an empty name', [...requestFields(UNARY), ['', '1']]],
    ['8.2.1 a value with LF', [...requestFields(UNARY), ['x-a', 'a\nb: c']]],
    ['8.2.1 a value with CR', [...requestFields(UNARY), ['x-a', 'a\r']]],
    ['8.2.1 a value with NUL', [...requestFields(UNARY), ['x-a', 'a\u0000']]],
    ['8.2.2 connection', [...requestFields(UNARY), ['connection', 'close']]],
    ['8.2.2 transfer-encoding', [...requestFields(UNARY), ['transfer-encoding', 'chunked']]],
    [
      '8.2.2 te other than trailers',
      requestFields(UNARY).map(([name, value]) => [name, name === 'te' ? 'gzip' : value]),
    ],
    ['8.3 an unknown pseudo-header', [[':test', '1'], ...requestFields(UNARY)]],
    ['8.3 a pseudo-header of responses', [[':status', '200'], ...requestFields(UNARY)]],
    ['8.3 a pseudo-header after others', [...requestFields(UNARY), [':path', '/public.Other/Method']]],
    ['8.3.1 two paths', [[':path', '/public.Other/Method'], ...requestFields(UNARY)]],
    ['8.3.1 two methods', [[':method', 'POST'], ...requestFields(UNARY)]],
    ['8.3.1 two schemes', [[':scheme', 'http'], ...requestFields(UNARY)]],
    ['8.3.1 two authorities', [[':authority', 'other'], ...requestFields(UNARY)]],
    ['8.3.1 host and authority that differ', [...requestFields(UNARY), ['host', 'other']]],
    ['8.3.1 an empty path', requestFields('')],
    ['8.3.1 a path without a slash', requestFields('test.Echo/Unary')],
    ['8.3.1 a path with a space', requestFields('/test.Echo/Unary x')],
    ['8.3.1 no path', requestFields(UNARY).filter(([name]) => name !== ':path')],
    ['8.3.1 no method', requestFields(UNARY).filter(([name]) => name !== ':method')],
    ['8.3.1 no scheme', requestFields(UNARY).filter(([name]) => name !== ':scheme')],
    [
      '8.5 CONNECT',
      [
        [':method', 'CONNECT'],
        [':authority', 'localhost:1'],
      ],
    ],
    [
      '8.5 CONNECT with a path',
      requestFields(UNARY).map(([name, value]) => [name, name === ':method' ? 'CONNECT' : value]),
    ],
    ['RFC 8441 extended CONNECT', [...requestFields(UNARY).slice(0, 4), [':protocol', 'websocket']]],
    ['two content types', [...requestFields(UNARY), ['content-type', 'text/plain']]],
    ['two content lengths', [...requestFields(UNARY), ['content-length', '5'], ['content-length', '6']]],
  ];
  for (const [title, fields] of malformed) {
    it(`resets a request with ${title}`, async () => {
      peer.send(frame(raw.HEADERS, END, 1, block(...fields)));
      expect(await peer.end(1)).to.equal(`reset ${h2.PROTOCOL_ERROR}`);
      peer.request(3, UNARY);
      expect(await peer.end(3), 'the connection goes on').to.match(/^\d+$/);
      expect(relayed.judge.judged).to.have.length(1);
      expect(relayed.received).to.have.length.at.most(1);
    });
  }

  it('resets trailers with pseudo-headers or without an end, and passes others without what it strips', async () => {
    for (const [id, flags, fields] of [
      [1, END, [[':path', '/public.X/Y']]],
      [3, raw.END_HEADERS, [['x-a', '1']]],
    ] as const) {
      peer.request(id, BIDI, raw.END_HEADERS);
      peer.send(
        frame(raw.HEADERS, flags, id, block(...fields.map(([name, value]) => [name, value] as const))),
      );
      expect(await peer.end(id)).to.equal(`reset ${h2.PROTOCOL_ERROR}`);
    }
  });

  it('hands every authorization value to the judge, as it was sent', async () => {
    peer.send(frame(raw.HEADERS, END, 1, block(...requestFields(UNARY), ['authorization', 'Bearer second'])));
    expect(await peer.end(1)).to.equal('16');
    expect(relayed.judge.judged[0]?.authorizations).to.deep.equal(['Bearer good', 'Bearer second']);
  });

  it('refuses more streams than it admits, and no admitted one', async () => {
    for (let id = 1; id <= 21; id += 2) peer.request(id, BIDI, raw.END_HEADERS);
    expect(await peer.end(21)).to.equal(`reset ${h2.REFUSED_STREAM}`);
    expect(relayed.judge.admitted).to.equal(10);
  });

  it('answers header lists that are too large with RESOURCE_EXHAUSTED, and decodes what follows', async () => {
    const big: [string, string][] = Array.from({ length: 200 }, (_, index) => [`x-${index}`, 'y'.repeat(60)]);
    const table = indexed('x-kept', 'in the table');
    const bytes = Buffer.concat([block(...requestFields(UNARY), ...big), table]);
    peer.send(
      frame(raw.HEADERS, 1, 1, bytes.subarray(0, 10_000)),
      frame(raw.CONTINUATION, 4, 1, bytes.subarray(10_000)),
    );
    expect(await peer.end(1)).to.equal('8');
    const again = Buffer.concat([block(...requestFields(BIDI)), Buffer.of(0xbe)]);
    peer.send(frame(raw.HEADERS, END, 3, again));
    await peer.find(({ id, type }) => id === 3 && type === raw.HEADERS);
    expect(relayed.received[0]?.get('x-kept')).to.deep.equal(['in the table']);
  });

  it('finds a repeated block again only while the table is the same', async () => {
    const path = (name: string): Buffer => indexed('x-which', name);
    const reference = Buffer.concat([block(...requestFields(BIDI)), Buffer.of(0xbe)]);
    peer.send(frame(raw.HEADERS, END, 1, Buffer.concat([block(...requestFields(BIDI)), path('one')])));
    peer.send(frame(raw.HEADERS, END, 3, reference), frame(raw.HEADERS, END, 5, reference));
    peer.send(frame(raw.HEADERS, END, 7, Buffer.concat([block(...requestFields(BIDI)), path('two')])));
    peer.send(frame(raw.HEADERS, END, 9, reference));
    await peer.find(({ id, type }) => id === 9 && type === raw.HEADERS);
    expect(relayed.received.map((metadata) => metadata.get('x-which')[0])).to.deep.equal([
      'one',
      'one',
      'one',
      'two',
      'two',
    ]);
  });

  it('credits the windows for data that it drops', async () => {
    peer.request(1, BIDI, raw.END_HEADERS, 'Bearer bad');
    expect(await peer.end(1)).to.equal('16');
    peer.send(
      frame(raw.DATA, 0, 1, Buffer.alloc(1000)),
      frame(raw.DATA, raw.PADDED, 1, Buffer.alloc(500, 0)),
    );
    await peer.find(
      ({ type, id, payload }) => type === raw.WINDOW_UPDATE && id === 0 && payload.readUInt32BE(0) === 500,
    );
    const credited = peer.frames.filter(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credited.reduce((sum, { payload }) => sum + payload.readUInt32BE(0), 0)).to.equal(1500);
  });

  /** Each is a flood: bounded, not merely survived. */
  const floods: readonly (readonly [title: string, event: string, unit: () => Buffer])[] = [
    ['PING', 'limit_pings', () => frame(raw.PING, 0, 0, Buffer.alloc(8))],
    ['SETTINGS', 'limit_settings', () => frame(raw.SETTINGS, 0, 0)],
    ['PRIORITY', 'limit_hints', () => frame(raw.PRIORITY, 0, 1, Buffer.alloc(5))],
    ['unknown frames', 'limit_hints', () => frame(0x42, 0, 1, Buffer.alloc(5))],
    ['WINDOW_UPDATE', 'limit_window_updates', () => frame(raw.WINDOW_UPDATE, 0, 0, uint32(1))],
    ['empty DATA', 'limit_empty_data', () => frame(raw.DATA, 0, 1)],
  ];
  for (const [title, event, unit] of floods) {
    it(`ends a connection that floods with ${title}`, async () => {
      peer.request(1, BIDI, raw.END_HEADERS);
      const bytes = Buffer.concat(Array(30_000).fill(unit()));
      peer.send(bytes);
      expect(await peer.closed()).to.be.oneOf([h2.ENHANCE_YOUR_CALM, undefined]);
      expect(relayed.events).to.include(event);
    });
  }

  it('ends a connection that opens and resets streams without end (CVE-2023-44487)', async () => {
    for (let id = 1; id < 6000; id += 2) {
      peer.request(id, BIDI, raw.END_HEADERS);
      peer.send(frame(raw.RST_STREAM, 0, id, uint32(8)));
    }
    expect(await peer.closed()).to.be.oneOf([h2.ENHANCE_YOUR_CALM, undefined]);
    expect(relayed.events).to.include('limit_resets');
  });

  it('ends a connection with endless CONTINUATION frames (CVE-2024-27316)', async () => {
    peer.send(frame(raw.HEADERS, 1, 1, block(...requestFields(UNARY))));
    for (let index = 0; index < 20; index++) peer.send(frame(raw.CONTINUATION, 0, 1));
    expect(await peer.closed()).to.equal(h2.ENHANCE_YOUR_CALM);
    expect(relayed.events).to.include('limit_continuation_frames');
  });
});

describe('gate: frames of servers that violate HTTP/2', () => {
  let listener: Server;
  let running: Awaited<ReturnType<typeof relayTo>>;
  let peer: raw.RawPeer;
  let server: raw.RawPeer;

  beforeEach(async () => {
    listener = createServer();
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    running = await relayTo((listener.address() as AddressInfo).port);
    const connected = once(listener, 'connection');
    peer = await RawPeer.client(running.port);
    const [socket] = await connected;
    server = RawPeer.server(socket);
    await server.find(({ type, flags }) => type === raw.SETTINGS && flags === raw.ACK);
    peer.request(1, BIDI, raw.END_HEADERS);
    await server.find(({ type }) => type === raw.HEADERS);
  });

  afterEach(async () => {
    peer.destroy();
    server.destroy();
    await running.relay.close();
    listener.close();
    expect(running.events).to.not.include('internal_error');
    expect([...running.judge.live]).to.be.empty;
  });

  const OK = block([':status', '200'], ['content-type', 'application/grpc']);

  it('tells the server to use no dynamic table and no push, and announces its own empty table', async () => {
    const settings = await server.find(({ type, flags }) => type === raw.SETTINGS && flags === 0);
    expect(settings.payload.subarray(0, 12).toString('hex')).to.equal('000100000000000200000000');
    const headers = await server.find(({ type }) => type === raw.HEADERS);
    expect(headers.payload[0]).to.equal(0x20);
    expect(headers.fields.get(':path')).to.equal(BIDI);
    expect(headers.fields.has('authorization')).to.equal(false);
  });

  const faults: readonly (readonly [title: string, bytes: Buffer])[] = [
    ['refers to a dynamic table', frame(raw.HEADERS, 4, 1, Buffer.of(0x88, 0xbe))],
    ['enlarges its dynamic table', frame(raw.HEADERS, 4, 1, Buffer.of(0x3f, 0xe1, 0x1f, 0x88))],
    ['sends a frame that is too large', frame(raw.DATA, 0, 1, Buffer.alloc(0), 20_000)],
    ['pushes', frame(raw.PUSH_PROMISE, 4, 1, Buffer.concat([uint32(2), OK]))],
    ['answers a stream that was not opened', frame(raw.HEADERS, 4, 3, OK)],
    ['acknowledges what was not sent', frame(raw.SETTINGS, raw.ACK, 0)],
  ];
  for (const [title, bytes] of faults) {
    it(`ends calls with UNAVAILABLE when the server ${title}`, async () => {
      server.send(bytes);
      expect(await peer.end(1)).to.equal('14');
      expect(running.events).to.include('server_fault');
    });
  }

  const malformed: readonly (readonly [title: string, bytes: readonly Buffer[]])[] = [
    ['without a status', [frame(raw.HEADERS, 4, 1, block(['x', 'y']))]],
    ['with two statuses', [frame(raw.HEADERS, 4, 1, block([':status', '200'], [':status', '200']))]],
    ['with DATA before its headers', [frame(raw.DATA, 0, 1, MESSAGE)]],
    ['with a value with LF', [frame(raw.HEADERS, 4, 1, block([':status', '200'], ['x', 'a\nb']))]],
    [
      'with trailers that do not end it',
      [frame(raw.HEADERS, 4, 1, OK), frame(raw.HEADERS, 4, 1, block(['x', 'y']))],
    ],
    ['with a status in its trailers', [frame(raw.HEADERS, 4, 1, OK), frame(raw.HEADERS, 5, 1, OK)]],
  ];
  for (const [title, bytes] of malformed) {
    it(`replaces a response ${title} by INTERNAL`, async () => {
      server.send(...bytes);
      expect(await peer.end(1)).to.equal('13');
      expect(running.events).to.include('malformed_response');
    });
  }

  it('passes interim responses, padding, trailers-only and the codes of resets', async () => {
    server.send(frame(raw.HEADERS, 4, 1, block([':status', '103'], ['link', 'x'])));
    server.send(frame(raw.HEADERS, 4 | raw.PADDED, 1, Buffer.concat([Buffer.of(3), OK, Buffer.alloc(3)])));
    server.send(frame(raw.DATA, raw.PADDED, 1, Buffer.concat([Buffer.of(2), MESSAGE, Buffer.alloc(2)])));
    server.send(frame(raw.HEADERS, 5, 1, block(['grpc-status', '0'])));
    expect(await peer.end(1)).to.equal('0');
    const [interim, final] = peer.frames.filter(({ type, id }) => type === raw.HEADERS && id === 1);
    expect(interim?.fields.get(':status')).to.equal('103');
    expect([final?.flags, final?.payload[0]]).to.deep.equal([4 | raw.PADDED, 3]);
    const data = peer.frames.find(({ type, id }) => type === raw.DATA && id === 1);
    expect(data?.payload).to.have.length(8);
    peer.request(3, UNARY);
    await server.find(({ type, id }) => type === raw.HEADERS && id === 3);
    server.send(frame(raw.RST_STREAM, 0, 3, uint32(0xb)));
    expect(await peer.end(3)).to.equal('reset 11');
    peer.request(5, UNARY);
    await server.find(({ type, id }) => type === raw.HEADERS && id === 5);
    server.send(frame(raw.HEADERS, 5, 5, block([':status', '200'], ['grpc-status', '7'])));
    expect(await peer.end(5)).to.equal('7');
  });

  it('joins header blocks of several frames', async () => {
    server.send(frame(raw.HEADERS, 0, 1, OK.subarray(0, 3)), frame(raw.CONTINUATION, 4, 1, OK.subarray(3)));
    const headers = await peer.find(({ type, id }) => type === raw.HEADERS && id === 1);
    expect(headers.fields.get('content-type')).to.equal('application/grpc');
  });

  it('maps the last stream of GOAWAY, and refuses what the server has not processed', async () => {
    let decide: () => void = () => {};
    running.judge.waiting = new Promise((resolve) => {
      decide = resolve;
    });
    peer.request(3, BIDI, raw.END_HEADERS);
    await peer.settle();
    running.judge.waiting = undefined;
    peer.request(5, BIDI, raw.END_HEADERS);
    await server.find(({ type, id }) => type === raw.HEADERS && id === 3);
    // The client's streams 1 and 5 are the server's 1 and 3; 3 still waits for its decision.
    server.send(frame(raw.GOAWAY, 0, 0, Buffer.concat([uint32(3), uint32(0)])));
    const goaway = await peer.find(({ type }) => type === raw.GOAWAY);
    expect(goaway.payload.readUInt32BE(0)).to.equal(5);
    expect(await peer.end(3)).to.equal('reset 7');
    decide();
    server.send(frame(raw.HEADERS, 5, 1, block([':status', '200'], ['grpc-status', '0'])));
    expect(await peer.end(1)).to.equal('0');
    expect(server.frames.filter(({ type }) => type === raw.HEADERS)).to.have.length(2);
  });

  it('credits the server for data of a call that was cut', async () => {
    server.send(frame(raw.HEADERS, 4, 1, OK));
    await peer.find(({ type, id }) => type === raw.HEADERS && id === 1);
    running.judge.revoke();
    expect(await peer.end(1)).to.equal('16');
    await server.find(({ type, id }) => type === raw.RST_STREAM && id === 1);
    server.send(frame(raw.DATA, 0, 1, Buffer.alloc(700)));
    const credit = await server.find(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credit.payload.readUInt32BE(0)).to.equal(700);
    expect(peer.frames.some(({ type }) => type === raw.DATA)).to.equal(false);
  });

  it('keeps the credit for a body of its own from the server', async () => {
    running.judge.foreign = { status: 401, headers: [['content-length', '4']], body: Buffer.from('none') };
    peer.send(
      frame(
        raw.HEADERS,
        END,
        3,
        block(
          ...requestFields('/a', 'Bearer bad').map(
            ([name, value]) => [name, name === 'content-type' ? 'application/json' : value] as const,
          ),
        ),
      ),
    );
    const body = await peer.find(({ type, id }) => type === raw.DATA && id === 3);
    expect(String(body.payload)).to.equal('none');
    peer.send(frame(raw.WINDOW_UPDATE, 0, 0, uint32(10)));
    const credit = await server.find(({ type, id }) => type === raw.WINDOW_UPDATE && id === 0);
    expect(credit.payload.readUInt32BE(0)).to.equal(6);
  });

  it('does not cut a unary call between its response and its status', async () => {
    peer.request(3, UNARY);
    await server.find(({ type, id }) => type === raw.HEADERS && id === 3);
    server.send(frame(raw.HEADERS, 4, 3, OK), frame(raw.DATA, 0, 3, MESSAGE));
    await peer.find(({ type, id }) => type === raw.DATA && id === 3);
    running.judge.isRevoked = true;
    server.send(frame(raw.HEADERS, 5, 3, block(['grpc-status', '0'])));
    expect(await peer.end(3)).to.equal('0');
    server.send(frame(raw.HEADERS, 4, 1, OK));
    expect(await peer.end(1), 'a stream is cut').to.equal('16');
  });

  it('resets a stream with DATA after the end of its request (5.1)', async () => {
    peer.request(3, BIDI);
    peer.send(frame(raw.DATA, 1, 3, MESSAGE));
    expect(await peer.end(3)).to.equal(`reset ${h2.STREAM_CLOSED}`);
    await server.find(({ type, id }) => type === raw.RST_STREAM && id === 3);
    expect(server.frames.some(({ type }) => type === raw.DATA)).to.equal(false);
  });

  it('sends nothing of a message after the token was revoked, in either direction', async () => {
    server.send(frame(raw.HEADERS, 4, 1, OK));
    await peer.find(({ type, id }) => type === raw.HEADERS && id === 1);
    // No cut is called: the relay asks before every message.
    running.judge.isRevoked = true;
    peer.send(frame(raw.DATA, 0, 1, MESSAGE));
    expect(await peer.end(1)).to.equal('16');
    expect(server.frames.some(({ type }) => type === raw.DATA)).to.equal(false);
  });

  it('owes a client that has reduced its table a size update, and pays with the next block', async () => {
    peer.send(frame(raw.SETTINGS, 0, 0, setting(1, 0)));
    await peer.settle().catch(() => {});
    peer.request(3, UNARY, END, 'Bearer bad');
    await peer.end(3);
    const headers = peer.frames.find(({ type, id }) => type === raw.HEADERS && id === 3);
    expect(headers?.payload[0]).to.equal(0x20);
  });
});
