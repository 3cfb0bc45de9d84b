/** Messages out of the bytes of a request, however these are split. */

import { expect } from 'chai';
import fc from 'fast-check';
import { lengthOfOneMessage, RequestReader } from '../../../interceptors/src/wire/request-reader.js';
import { frameOf, headOf } from '../server/raw-calls.js';

const BYTES_MAX = 5000;

describe('a request reader', () => {
  it('finds the same messages in any division of the bytes, in at most twice their memory', () => {
    const sizes = fc.array(fc.integer({ min: 0, max: BYTES_MAX }), { minLength: 1, maxLength: 5 });
    const cuts = fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 50 });
    fc.assert(
      fc.property(sizes, cuts, (lengths, parts) => {
        const messages = lengths.map((length, index) => frameOf(Buffer.alloc(length, index + 1)));
        const bytes = Buffer.concat(messages);
        const reader = new RequestReader(BYTES_MAX);
        const read: Buffer[] = [];
        let at = 0;
        for (const part of [...parts, bytes.length]) {
          const piece = bytes.subarray(at, at + part);
          at += piece.length;
          read.push(...(reader.read(piece) ?? []));
          const arrived = at - Buffer.concat(read).length;
          expect(reader.heldBytes).to.be.at.most(Math.max(2 * arrived, 1024));
        }
        expect(read.map((message) => message.toString('hex'))).to.deep.equal(
          messages.map((message) => message.toString('hex')),
        );
        expect(reader.heldBytes).to.equal(0);
      }),
      { numRuns: 200 },
    );
  });

  it('refuses a length above the maximum as soon as it is declared', () => {
    expect(new RequestReader(BYTES_MAX).read(headOf(BYTES_MAX))).to.deep.equal([]);
    expect(new RequestReader(BYTES_MAX).read(headOf(BYTES_MAX + 1))).to.equal(undefined);
    const reader = new RequestReader(BYTES_MAX);
    const head = headOf(0xffff_ffff);
    for (const byte of head.subarray(0, 4)) expect(reader.read(Buffer.from([byte]))).to.deep.equal([]);
    expect(reader.read(head.subarray(4))).to.equal(undefined);
  });

  it('knows exactly one message from a part, and from more', () => {
    const message = frameOf(Buffer.alloc(10));
    expect(lengthOfOneMessage(message)).to.equal(10);
    expect(lengthOfOneMessage(headOf(0))).to.equal(0);
    for (const other of [Buffer.alloc(0), message.subarray(0, 4), message.subarray(0, 14)]) {
      expect(lengthOfOneMessage(other)).to.equal(-1);
    }
    expect(lengthOfOneMessage(Buffer.concat([message, message]))).to.equal(-1);
  });
});
