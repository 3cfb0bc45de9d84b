/** The raw HTTP/2 client against a server of Node. */

import { createServer, type Http2Server, type IncomingHttpHeaders } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { encodeField } from '../../../proofs/shared/hpack.js';
import { createPeer, EMPTY_MESSAGE, headersOf, type Peer } from '../../../proofs/shared/wire.js';

/** Printable ASCII without the backslash, whose Huffman code is longer than the decoder supports. */
const PRINTABLE = Array.from({ length: 0x7e - 0x20 }, (_, index) => String.fromCharCode(0x21 + index))
  .join('')
  .replace('\\', '');

describe('the raw HTTP/2 client', () => {
  let server: Http2Server;
  let peer: Peer;
  let received: IncomingHttpHeaders;

  before(async () => {
    server = createServer();
    server.on('stream', (stream, headers) => {
      received = headers;
      stream.respond({ ':status': 200, 'x-text': PRINTABLE, 'grpc-status': '7' });
      stream.end('body');
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    peer = createPeer(`127.0.0.1:${(server.address() as AddressInfo).port}`);
  });

  after(() => {
    peer.close();
    server.close();
  });

  it('sends headers unchanged, and returns the response', async () => {
    const long = 'a'.repeat(40_000);
    const block = Buffer.concat([
      headersOf('/x/y'),
      encodeField('x-own', PRINTABLE),
      encodeField('x-long', long),
    ]);
    const answer = await peer.send({ block, body: EMPTY_MESSAGE });
    expect(answer.kind).to.equal('answered');
    expect(answer.status).to.equal(7);
    expect(answer.fields).to.equal(`:status: 200\nx-text: ${PRINTABLE}\ngrpc-status: 7\n`);
    expect(answer.body.toString()).to.equal('body');
    expect(received).to.include({ ':path': '/x/y', 'x-own': PRINTABLE, 'x-long': long });
  });

  it('returns the response of each request, over many connections', async () => {
    const answers = await Promise.all(
      Array.from({ length: 5_000 }, () => peer.send({ block: headersOf('/x/y'), body: EMPTY_MESSAGE })),
    );
    expect(new Set(answers.map(({ fields }) => fields))).to.have.property('size', 1);
    expect(answers.every(({ kind }) => kind === 'answered')).to.equal(true);
  });

  it('identifies the request that made the server close the connection, and completes the others', async () => {
    const broken = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    const [bad, good] = await Promise.all([
      peer.send({ block: broken, body: undefined }),
      peer.send({ block: headersOf('/x/y'), body: undefined }),
    ]);
    expect(bad.kind).to.be.oneOf(['closed', 'reset']);
    expect(good.kind).to.equal('answered');
  });
});
