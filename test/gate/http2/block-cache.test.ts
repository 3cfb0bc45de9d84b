/** The memory of header blocks. */

import { expect } from 'chai';
import { BlockCache } from '../../../gate/src/http2/block-cache.js';
import { createRandom } from '../../../proofs/shared/random.js';

describe('the memory of header blocks', () => {
  const random = createRandom(11);
  const blockOf = (length: number): Buffer =>
    Buffer.from(Array.from({ length }, () => random.integer(0, 255)));

  it('finds the last eight blocks, whatever they are', () => {
    for (let times = 0; times < 500; times += 1) {
      const cache = new BlockCache<number>();
      const blocks = Array.from({ length: 8 }, () => blockOf(random.integer(1, 120)));
      for (const [meaning, block] of blocks.entries()) cache.set(block, 0, block.length, 0, meaning);
      for (const [meaning, block] of blocks.entries()) {
        const within = Buffer.concat([Buffer.from('..'), block, Buffer.from('.')]);
        const found = cache.get(within, 2, 2 + block.length, 0);
        expect(blocks[found ?? -1]).to.deep.equal(block);
        if (found !== meaning) expect(blocks.findIndex((one) => one.equals(block))).to.equal(found);
      }
    }
  });

  it('finds no block that differs in a byte, in its length, or in the table that it refers to', () => {
    const cache = new BlockCache<string>();
    const block = blockOf(100);
    cache.set(block, 0, block.length, 3, 'known');
    expect(cache.get(block, 0, block.length, 3)).to.equal('known');
    expect(cache.get(block, 0, block.length, 4)).to.equal(undefined);
    expect(cache.get(block, 0, block.length - 1, 3)).to.equal(undefined);
    for (let at = 0; at < block.length; at += 1) {
      const other = Buffer.from(block);
      other[at] = (other[at] ?? 0) ^ 1;
      expect(cache.get(other, 0, other.length, 3), `byte ${at}`).to.equal(undefined);
    }
  });

  it('forgets the oldest block', () => {
    const cache = new BlockCache<number>();
    const blocks = Array.from({ length: 9 }, (_, index) => blockOf(40 + index));
    for (const [meaning, block] of blocks.entries()) cache.set(block, 0, block.length, 0, meaning);
    const found = blocks.map((block) => cache.get(block, 0, block.length, 0));
    expect(found).to.deep.equal([undefined, 1, 2, 3, 4, 5, 6, 7, 8]);
  });
});
