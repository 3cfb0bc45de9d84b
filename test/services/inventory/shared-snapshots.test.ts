/** Pages of the snapshot that many watchers wait for: read once for all, and never too early for any. */

import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect } from 'chai';
import {
  type ReadSnapshot,
  type SnapshotRange,
  shareSnapshots,
} from '../../../services/inventory/shared-snapshots.js';
import { WATCHERS_PER_TURN } from '../../../services/inventory/turns.js';

const FIRST_PAGE: SnapshotRange = { afterSku: '', skus: undefined, limit: 200, caller: 'alice' };

describe('inventory shared snapshots', () => {
  /** Reads that end when the test says so; each gives its own number, as the id of a change. */
  function startReads() {
    const ranges: SnapshotRange[] = [];
    const ends: { resolve: () => void; reject: (error: Error) => void }[] = [];
    const read: ReadSnapshot = (range) => {
      const changeId = BigInt(ranges.push(range));
      return new Promise((resolve, reject) => {
        const level = { changeId, sku: 'A', onHand: 1n, reserved: 0n, changeTime: new Date(0) };
        ends.push({ resolve: () => resolve([level]), reject });
      });
    };
    return { ranges, ends, shared: shareSnapshots(read) };
  }
  const numberOf = async (page: ReturnType<ReadSnapshot>) => Number((await page)[0]?.changeId);

  it('gives each watcher a page whose read began after it had asked', async () => {
    const { ranges, ends, shared } = startReads();
    const first = numberOf(shared(FIRST_PAGE));
    const later = [numberOf(shared(FIRST_PAGE)), numberOf(shared(FIRST_PAGE))];
    expect(ranges).to.have.length(1);
    ends[0]?.resolve();
    expect(await first).to.equal(1);
    await nextTurn();
    expect(ranges).to.have.length(2);
    const last = numberOf(shared(FIRST_PAGE));
    ends[1]?.resolve();
    expect(await Promise.all(later)).to.deep.equal([2, 2]);
    await nextTurn();
    ends[2]?.resolve();
    expect(await last).to.equal(3);
    await nextTurn();
    const again = numberOf(shared(FIRST_PAGE));
    ends[3]?.resolve();
    expect(await again, 'after all have been served').to.equal(4);
    expect(ranges.map(({ caller }) => caller)).to.deep.equal(Array(4).fill('alice'));
  });

  it('reads other pages, and chosen items, for themselves', async () => {
    const { ranges, shared } = startReads();
    const chosen = { ...FIRST_PAGE, skus: ['A'] };
    const asked = [FIRST_PAGE, { ...FIRST_PAGE, afterSku: 'B' }, chosen, chosen];
    for (const range of asked) void shared(range);
    expect(ranges.map(({ afterSku, skus, caller }) => [afterSku, skus, caller])).to.deep.equal([
      ['', undefined, 'alice'],
      ['B', undefined, 'alice'],
      ['', ['A'], 'alice'],
      ['', ['A'], 'alice'],
    ]);
  });

  it('reads for each user in the turns of that user', async () => {
    const { ranges, ends, shared } = startReads();
    const asked = ['mallory', 'alice', undefined].map((caller) => shared({ ...FIRST_PAGE, caller }));
    expect(ranges.map(({ caller }) => caller)).to.deep.equal(['mallory', 'alice', undefined]);
    ends[0]?.reject(new Error('too many wait'));
    for (const { resolve } of ends.slice(1)) resolve();
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.map(({ status }) => status)).to.deep.equal(['rejected', 'fulfilled', 'fulfilled']);
  });

  it('lets watchers go on in turns of the event loop, also when the read fails', async () => {
    for (const outcome of ['resolve', 'reject'] as const) {
      const { ends, shared } = startReads();
      const opening = shared(FIRST_PAGE).catch(() => {});
      const perTurn = new Map<number, number>();
      let turn = 0;
      let remaining = 5 * WATCHERS_PER_TURN;
      for (let watcher = remaining; watcher > 0; watcher -= 1) {
        const count = () => {
          perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1);
          remaining -= 1;
        };
        void shared(FIRST_PAGE).then(count, count);
      }
      ends[0]?.[outcome](new Error('no database'));
      await opening;
      await nextTurn();
      ends[1]?.[outcome](new Error('no database'));
      while (remaining > 0) {
        await nextTurn();
        turn += 1;
      }
      expect(perTurn.size).to.be.at.least(5);
      expect(Math.max(...perTurn.values())).to.be.at.most(WATCHERS_PER_TURN);
    }
  });
});
