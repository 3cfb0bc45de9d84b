/** How many log lines a flood of events causes. */

import { expect } from 'chai';
import { LogQuota } from '../../../interceptors/src/server/log-quota.js';
import { SetClock } from '../tokens-support.js';

describe('a log quota', () => {
  it('allows so many lines a second, each with the number of events since the last one', () => {
    const clock = new SetClock();
    clock.monotonic = 0;
    const quota = new LogQuota(2, clock);
    const counts = (events: number) => Array.from({ length: events }, () => quota.count());
    expect(counts(5)).to.deep.equal([1, 1, 0, 0, 0]);
    clock.pass(999);
    expect(counts(1)).to.deep.equal([0]);
    clock.pass(1);
    expect(counts(4)).to.deep.equal([5, 1, 0, 0]);
    clock.pass(60_000);
    expect(counts(3)).to.deep.equal([3, 1, 0]);
  });
});
