/** The memory of dropped leaves, which later leaves take. */

import { expect } from 'chai';
import { giveBack, idHash, OpenLeaf } from '../../../interceptors/src/revocation/id-leaf.js';

/** Slots that take a MiB. */
const MIB = 65_536;
const KEPT_MIB_MAX = 12;

/** The memory of a new leaf of so many slots, with one identifier in it. */
function takenBy(slots: number): Uint32Array {
  const leaf = new OpenLeaf(0, slots);
  leaf.add(idHash(1, 2, 3, 4), 1, 2, 3, 4);
  return leaf.words;
}

/** So many leaves' memory; all are in use at once, so that they differ. */
function take(count: number, slots: number): Uint32Array[] {
  return Array.from({ length: count }, () => takenBy(slots));
}

/** How many of the next leaves take memory that is one of these. */
function reused(memory: readonly Uint32Array[], slots: number): number {
  return take(memory.length, slots).filter((words) => memory.includes(words)).length;
}

describe('the memory of dropped leaves', () => {
  it('is taken by leaves of the same size, once each, without what it held', () => {
    const memory = take(2, 777);
    for (const words of memory) giveBack(words);
    const leaf = new OpenLeaf(0, 777);
    leaf.add(idHash(5, 6, 7, 8), 5, 6, 7, 8);
    expect(memory).to.include(leaf.words);
    expect(leaf.has(idHash(1, 2, 3, 4), 1, 2, 3, 4)).to.equal(false);
    expect(leaf.has(idHash(5, 6, 7, 8), 5, 6, 7, 8)).to.equal(true);
    expect(reused(memory, 776)).to.equal(0);
    expect(reused(memory, 777)).to.equal(1);
    expect(reused(memory, 777)).to.equal(0);
  });

  it('is kept up to 12 MiB', () => {
    const memory = take(KEPT_MIB_MAX + 1, MIB);
    for (const words of memory.slice(1)) giveBack(words);
    expect(reused(memory, MIB)).to.equal(KEPT_MIB_MAX);
    for (const words of memory) giveBack(words);
    expect(reused(memory, MIB)).to.equal(KEPT_MIB_MAX);
    expect(reused(memory, MIB)).to.equal(0);
  });

  it('makes room for that of other sizes, those that were not used for the longest time first', () => {
    const [small, large] = [take(6, MIB), take(4, 2 * MIB)];
    for (const words of [...small, ...large.slice(1)]) giveBack(words);
    // Now the small size is the one that was used last.
    expect(small).to.include(takenBy(MIB));
    for (const words of large.slice(0, 1)) giveBack(words);
    expect(reused(small, MIB)).to.equal(5);
    expect(reused(large, 2 * MIB)).to.equal(3);

    const all = take(KEPT_MIB_MAX, MIB);
    for (const words of all) giveBack(words);
    const [whole] = take(1, KEPT_MIB_MAX * MIB);
    if (whole === undefined) throw new Error('expected memory');
    giveBack(whole);
    expect(reused(all, MIB)).to.equal(0);
    expect(reused([whole], KEPT_MIB_MAX * MIB)).to.equal(1);
  });
});
