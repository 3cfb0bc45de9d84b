/** The map from ids to streams, compared with JavaScript's own. */

import { getHeapSpaceStatistics } from 'node:v8';
import { expect } from 'chai';
import { IdMap } from '../../../gate/src/relay/id-map.js';
import { createRandom } from '../../../proofs/shared/random.js';
import { collectGarbage } from '../../support/heap.js';

/** Ids that follow one another, and ids that a hash by powers of two would put into one place. */
const SERIES: readonly ((index: number) => number)[] = [
  (index) => 2 * index + 1,
  (index) => (index << 16) | 1,
];

describe('the map of stream ids', () => {
  for (const idAt of SERIES) {
    it(`holds what a Map would: ids such as ${idAt(1)} and ${idAt(2)}`, () => {
      const random = createRandom(7);
      const own = new IdMap<string>();
      const reference = new Map<number, string>();
      for (let step = 0; step < 60_000; step += 1) {
        // It grows and shrinks by turns.
        const removes = random.integer(0, 9) < (Math.floor(step / 10_000) % 2 === 0 ? 4 : 6);
        const id = idAt(random.integer(0, 2_000));
        if (removes) {
          own.delete(id);
          reference.delete(id);
        } else {
          own.set(id, `${id} ${step}`);
          reference.set(id, `${id} ${step}`);
        }
        expect(own.get(id)).to.equal(reference.get(id));
        expect(own.size).to.equal(reference.size);
      }
      for (let index = 0; index <= 2_000; index += 1)
        expect(own.get(idAt(index))).to.equal(reference.get(idAt(index)));
      expect(own.values().sort()).to.deep.equal([...reference.values()].sort());
      for (const id of reference.keys()) own.delete(id);
      expect([own.size, own.values(), own.get(1), own.get(0)]).to.deep.equal([0, [], undefined, undefined]);
    });
  }

  it('leaves nothing for full collections when each call adds an id and removes one', () => {
    const streams = new IdMap<object>();
    for (let id = 1; id < 16; id += 2) streams.set(id, {});
    // What has been there for a while is in the old generation.
    for (let times = 0; times < 3; times += 1) collectGarbage('minor');
    const before = oldBytes();
    for (let id = 17; id < 1_000_000; id += 2) {
      streams.set(id, { id });
      streams.delete(id - 16);
    }
    expect(oldBytes() - before).to.be.below(3e6);
  });
});

function oldBytes(): number {
  return getHeapSpaceStatistics()
    .filter(({ space_name }) => space_name === 'old_space')
    .reduce((sum, { space_used_size }) => sum + space_used_size, 0);
}
