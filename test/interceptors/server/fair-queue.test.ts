/** In which order a fair queue serves its networks, and which job it drops. */

import { expect } from 'chai';
import { FairQueue } from '../../../interceptors/src/server/fair-queue.js';

describe('a fair queue', () => {
  let queue: FairQueue<string>;

  beforeEach(() => {
    queue = new FairQueue();
  });

  it('counts what waits, in all and of each network', () => {
    expect([queue.waiting, queue.waitingOf('a')]).to.deep.equal([0, 0]);
    queue.push('a', '1', 'a1');
    queue.push('a', '2', 'a2');
    queue.push('b', '1', 'b1');
    expect([queue.waiting, queue.waitingOf('a'), queue.waitingOf('b')]).to.deep.equal([3, 2, 1]);
    queue.shift();
    queue.dropNewest('b');
    expect([queue.waiting, queue.waitingOf('a'), queue.waitingOf('b')]).to.deep.equal([1, 1, 0]);
  });

  it('returns nothing when nothing waits, in all or of the network', () => {
    expect(queue.shift()).to.equal(undefined);
    expect(queue.dropNewest()).to.equal(undefined);
    queue.push('a', '1', 'a1');
    expect(queue.dropNewest('b')).to.equal(undefined);
    expect(queue.waiting).to.equal(1);
  });

  it('gives a network that has waited with nothing no earlier turn', () => {
    queue.push('a', '1', 'a1');
    expect(queue.shift()).to.equal('a1');
    queue.push('b', '1', 'b1');
    queue.push('a', '1', 'a2');
    expect([queue.shift(), queue.shift()]).to.deep.equal(['b1', 'a2']);
  });
});
