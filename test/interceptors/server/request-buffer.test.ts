/** What the part of a request that its handler has not received counts as. */

import { expect } from 'chai';
import { RequestBuffer } from '../../../interceptors/src/server/request-buffer.js';
import { frameOf, headOf } from './raw-calls.js';

/** What a waiting message takes beside its bytes, and what decompressing one takes. */
const OVERHEAD_BYTES = 512;
const DECOMPRESSION_BYTES = 16 * 1024;

describe('a request buffer', () => {
  const message = (bytes: number, compressed = false) => frameOf(Buffer.alloc(bytes), compressed);

  it('counts an incomplete message as the memory that it takes', () => {
    const buffer = new RequestBuffer(5000, true);
    expect(buffer.read(headOf(3000))).to.deep.equal([]);
    buffer.read(Buffer.alloc(2999));
    expect(buffer.bytes).to.be.within(3004, 2 * 3005);
    expect(buffer.read(Buffer.alloc(1))).to.have.length(1);
    expect(buffer.bytes).to.equal(3005 + OVERHEAD_BYTES);
  });

  it('counts each complete message until it is delivered, on average', () => {
    const buffer = new RequestBuffer(5000, true);
    buffer.read(Buffer.concat([message(95), message(195, true), message(295)]));
    const all = 600 + 3 * OVERHEAD_BYTES + DECOMPRESSION_BYTES;
    expect(buffer.bytes).to.equal(all);
    buffer.delivered();
    expect(buffer.bytes).to.be.closeTo((all * 2) / 3, 0.001);
    buffer.delivered();
    buffer.delivered();
    expect(buffer.bytes).to.be.closeTo(0, 0.001);
    // One more than arrived changes nothing.
    buffer.delivered();
    buffer.read(message(95));
    expect(buffer.bytes).to.be.closeTo(100 + OVERHEAD_BYTES, 0.001);
  });

  it('keeps two messages of a request that must have one, and all of a stream', () => {
    const three = Buffer.concat([message(1), message(2), message(3)]);
    const single = new RequestBuffer(5000, false);
    expect(single.read(three)).to.deep.equal([message(1), message(2)]);
    expect(single.bytes).to.equal(6 + 7 + 2 * OVERHEAD_BYTES);
    expect(new RequestBuffer(5000, true).read(three)).to.have.length(3);
  });

  it('rejects a message that declares more than the maximum', () => {
    expect(new RequestBuffer(10, true).read(message(10))).to.have.length(1);
    expect(new RequestBuffer(10, true).read(headOf(11))).to.equal(undefined);
  });

  it('is overfull above two messages of the maximum size and 64 KiB', () => {
    const max = 2 * 100_000 + 64 * 1024;
    const buffer = new RequestBuffer(100_000, true);
    buffer.read(Buffer.concat([message(100_000 - 5), message(100_000 - 5)]));
    buffer.read(message(max - buffer.bytes - OVERHEAD_BYTES - 5));
    expect([buffer.bytes, buffer.isOverfull]).to.deep.equal([max, false]);
    buffer.read(message(0));
    expect(buffer.isOverfull).to.equal(true);
  });
});
