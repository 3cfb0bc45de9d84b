/** The admission to the connections of one lane. */

import { expect } from 'chai';
import {
  type Admitted,
  Lane,
  type LaneOptions,
  type LaneRejection,
  ROW_CONNECTIONS_MAX,
} from '../../../../services/common/database/lane.js';
import { rejectionOf } from '../../../support/outcomes.js';

/** Runs every promise callback that is due. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('a lane', () => {
  let rejections: LaneRejection[];
  beforeEach(() => {
    rejections = [];
  });

  function open(limits: Partial<LaneOptions> = {}) {
    const lane = new Lane({
      connections: 1,
      queue: 10,
      rowQueue: 10,
      waitMs: 60_000,
      reject: (limit) => {
        rejections.push(limit);
        return new Error(limit);
      },
      ...limits,
    });
    const order: string[] = [];
    const leaving: (() => void)[] = [];
    /** Enters, notes the admission in `order`, and leaves when `leaveFirst` says so. */
    const enter = (name: string, admitted: Admitted = {}): Promise<void> =>
      lane.enter(admitted).then((leave) => {
        order.push(name);
        leaving.push(leave);
      });
    const leaveFirst = async (): Promise<void> => {
      leaving.shift()?.();
      await settle();
    };
    return { lane, order, enter, leaveFirst };
  }

  it('admits as many as it has connections, and the others in their order as places become free', async () => {
    const { order, enter, leaveFirst, lane } = open({ connections: 2 });
    for (const name of ['a', 'b', 'c', 'd']) void enter(name);
    await settle();
    expect(order).to.deep.equal(['a', 'b']);
    expect(lane.state()).to.include({ inUse: 2, waiting: 2 });
    await leaveFirst();
    expect(order).to.deep.equal(['a', 'b', 'c']);
    await leaveFirst();
    expect(order).to.deep.equal(['a', 'b', 'c', 'd']);
  });

  it('counts a place that is given back twice once', async () => {
    const { lane } = open();
    const leave = await lane.enter({});
    leave();
    leave();
    expect(lane.state().inUse).to.equal(0);
  });

  it('rejects what does not fit into its queue, and counts it', async () => {
    const { enter, lane } = open({ queue: 1 });
    await enter('a');
    void enter('b');
    expect(await rejectionOf(enter('c'))).to.have.property('message', 'queue');
    expect(rejections).to.deep.equal(['queue']);
    expect(lane.state().rejected.get('queue')).to.equal(1);
  });

  it('rejects what waits for too long, and never admits it', async () => {
    const { order, enter, leaveFirst, lane } = open({ waitMs: 1 });
    await enter('a');
    expect(await rejectionOf(enter('b'))).to.have.property('message', 'time');
    await leaveFirst();
    expect(order).to.deep.equal(['a']);
    expect(lane.state()).to.include({ inUse: 0, waiting: 0 });
  });

  it('rejects everything once it is closed', async () => {
    const { enter, lane } = open();
    await enter('a');
    const waiting = rejectionOf(enter('b'));
    lane.close(new Error('closed'));
    expect(await waiting).to.have.property('message', 'closed');
    expect(await rejectionOf(enter('c'))).to.have.property('message', 'closed');
  });

  describe('with a contended row', () => {
    it('admits a bounded number that lock it, and others past those that wait for it', async () => {
      const { order, enter, leaveFirst } = open({ connections: 10 });
      const row = { contends: ['row 1'] };
      for (let i = 0; i < ROW_CONNECTIONS_MAX + 2; i += 1) void enter(`locks ${i}`, row);
      void enter('other', { contends: ['row 2'] });
      void enter('none');
      await settle();
      expect(order).to.deep.equal(['locks 0', 'locks 1', 'locks 2', 'other', 'none']);
      await leaveFirst();
      expect(order.slice(5)).to.deep.equal(['locks 3']);
    });

    it('rejects what would make too many of one caller wait for it', async () => {
      const { enter } = open({ connections: 10, rowQueue: 1 });
      const row = { contends: ['row 1'], caller: 'one' };
      for (let i = 0; i < ROW_CONNECTIONS_MAX; i += 1) await enter(`${i}`, row);
      void enter('c', row);
      expect(await rejectionOf(enter('d', row))).to.have.property('message', 'row');
      void enter('e', { ...row, caller: 'another' });
      await enter('other row');
      expect(rejections).to.deep.equal(['row']);
    });

    it('lets no later one overtake one that waits for several rows', async () => {
      const { order, enter, leaveFirst } = open({ connections: 10 });
      for (const name of ['1a', '1b', '1c']) await enter(name, { contends: ['row 1'] });
      void enter('both', { contends: ['row 1', 'row 2'] });
      void enter('2a', { contends: ['row 2'] });
      await settle();
      expect(order).to.deep.equal(['1a', '1b', '1c']);
      await leaveFirst();
      expect(order).to.deep.equal(['1a', '1b', '1c', 'both', '2a']);
    });
  });

  describe('with several callers', () => {
    it('gives them turns, however many requests one of them has waiting', async () => {
      const { order, enter, leaveFirst } = open();
      await enter('first');
      for (const name of ['a1', 'a2', 'a3']) void enter(name, { caller: 'a' });
      for (const name of ['b1', 'b2']) void enter(name, { caller: 'b' });
      for (let i = 0; i < 5; i += 1) await leaveFirst();
      expect(order).to.deep.equal(['first', 'a1', 'b1', 'a2', 'b2', 'a3']);
    });

    it('takes a place in a full queue from the caller that has most of them', async () => {
      const { order, enter, leaveFirst } = open({ queue: 3 });
      await enter('first');
      void enter('a1', { caller: 'a' });
      void enter('a2', { caller: 'a' });
      const last = rejectionOf(enter('a3', { caller: 'a' }));
      void enter('b1', { caller: 'b' });
      expect(await last).to.have.property('message', 'queue');
      // As many as the other has: nothing is taken from it.
      expect(await rejectionOf(enter('b2', { caller: 'b' }))).to.have.property('message', 'queue');
      for (let i = 0; i < 3; i += 1) await leaveFirst();
      expect(order).to.deep.equal(['first', 'a1', 'b1', 'a2']);
    });
  });
});
