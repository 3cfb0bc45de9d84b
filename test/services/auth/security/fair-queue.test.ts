/** Tests of the queue for work that costs much, with a clock in hand. */

import { systemClock } from '@portcullis/guard/clock';
import type { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import {
  type CallerClass,
  createFairQueue,
  type QueueLimits,
} from '../../../../services/auth/security/fair-queue.js';

describe('the fair queue', () => {
  /** A queue whose work runs until the test finishes it. */
  function openQueue(limits: Partial<QueueLimits> = {}) {
    let nowMs = 0;
    const begun: string[] = [];
    const finishing: (() => void)[] = [];
    const refused: string[] = [];
    const queue = createFairQueue({
      name: 'passwords',
      limits: { atOnceMax: 1, waitingMax: 100, waitMaxMs: 1000, ...limits },
      clock: { ...systemClock, monotonicMs: () => nowMs },
      onRefused: ({ importance, key }, limit) => refused.push(`${importance} ${key} ${limit}`),
    });
    const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
    return {
      queue,
      begun,
      refused,
      settle,
      pass: (milliseconds: number): void => {
        nowMs += milliseconds;
      },
      run: (importance: CallerClass, key: string): Promise<string> =>
        queue
          .run({ importance, key }, async () => {
            begun.push(`${importance} ${key}`);
            await new Promise<void>((resolve) => finishing.push(resolve));
            return 'done';
          })
          .catch((error: ServiceError) => `${error.code} ${error.retryAfterMs}`),
      finish: async (count = 1) => {
        for (let done = 0; done < count; done += 1) {
          await settle();
          finishing.shift()?.();
          await settle();
        }
      },
    };
  }

  it('gives up the place of a caller that leaves, and never begins its work', async () => {
    const { queue, begun, refused, run, finish, settle } = openQueue({ waitingMax: 2 });
    const first = run('unknown', 'a');
    await settle();
    const leaving = new AbortController();
    const caller = { importance: 'unknown', key: 'b' } as const;
    const left = queue.run(caller, () => Promise.resolve('begun'), leaving.signal).catch((error) => error);
    const others = [run('unknown', 'c')];
    expect(queue.waiting('unknown')).to.equal(2);
    leaving.abort(new Error('left'));
    expect(await left).to.include({ message: 'left' });
    expect(queue.waiting('unknown')).to.equal(1);
    others.push(run('unknown', 'd'));
    await finish(3);
    expect([await first, ...(await Promise.all(others))]).to.deep.equal(['done', 'done', 'done']);
    expect(begun).to.deep.equal(['unknown a', 'unknown c', 'unknown d']);
    expect(refused).to.deep.equal([]);
    const late = queue.run(caller, () => Promise.resolve('begun'), leaving.signal).catch((error) => error);
    expect(await late).to.include({ message: 'left' });
  });

  it('runs a limited number at once, and all of them in the end', async () => {
    const { begun, run, finish, settle } = openQueue({ atOnceMax: 2 });
    const outcomes = ['a', 'b', 'c'].map((key) => run('known', key));
    await settle();
    expect(begun).to.have.length(2);
    await finish(3);
    expect(await Promise.all(outcomes)).to.deep.equal(['done', 'done', 'done']);
  });

  it('keeps one of several places free of unknown callers, so that a known one need not wait', async () => {
    const { begun, run, finish, settle } = openQueue({ atOnceMax: 3 });
    const outcomes = ['a', 'b', 'c', 'd'].map((key) => run('unknown', key));
    await settle();
    expect(begun).to.deep.equal(['unknown a', 'unknown b']);
    outcomes.push(run('known', 'e'));
    await settle();
    expect(begun).to.deep.equal(['unknown a', 'unknown b', 'known e']);
    await finish(5);
    expect(new Set(await Promise.all(outcomes))).to.deep.equal(new Set(['done']));
    expect(begun.slice(3)).to.deep.equal(['unknown c', 'unknown d']);
  });

  it('fills every place again when several become free', async () => {
    const { begun, run, finish, settle } = openQueue({ atOnceMax: 3 });
    for (const key of ['a', 'b', 'c']) void run('known', key);
    for (const key of ['d', 'e', 'f']) void run('recent', key);
    await finish(3);
    await settle();
    expect(begun.slice(3)).to.deep.equal(['recent d', 'recent e', 'recent f']);
    await finish(3);
    void run('unknown', 'g');
    void run('unknown', 'h');
    await settle();
    expect(begun.slice(6)).to.deep.equal(['unknown g', 'unknown h']);
  });

  it('refuses in advance exactly those for whom it has no place', async () => {
    const { queue, refused, run, settle } = openQueue({ waitingMax: 3 });
    const hasPlace = (importance: CallerClass, key: string): boolean => {
      try {
        queue.requirePlace({ importance, key });
        return true;
      } catch (error) {
        expect((error as ServiceError).code).to.equal('RATE_LIMITED');
        return false;
      }
    };
    expect(hasPlace('unknown', 'flood')).to.equal(true);
    for (let count = 0; count < 4; count += 1) void run('unknown', 'flood');
    await settle();
    expect(queue.waiting('unknown')).to.equal(3);
    expect(hasPlace('unknown', 'flood')).to.equal(false);
    expect(refused).to.deep.equal(['unknown flood full']);
    // The flood would give way to it.
    expect(hasPlace('unknown', 'quiet')).to.equal(true);
    expect(hasPlace('known', 'name')).to.equal(true);
    expect(queue.waiting('unknown')).to.equal(3);
  });

  it('serves known callers before a crowd of strangers, and strangers still get their share', async () => {
    const { begun, run, finish } = openQueue();
    for (let count = 0; count < 60; count += 1) void run('unknown', `network ${count}`);
    for (let count = 0; count < 8; count += 1) void run('known', `name ${count}`);
    for (let count = 0; count < 4; count += 1) void run('recent', `other ${count}`);
    await finish(15);
    const turns = (importance: string) => begun.slice(1, 15).filter((turn) => turn.startsWith(importance));
    expect(turns('known')).to.have.length(8);
    expect(turns('recent')).to.have.length(4);
    expect(turns('unknown')).to.have.length(2);
    expect(begun[1]).to.equal('known name 0');
  });

  it('lets the keys of a class take turns, so that a flood of one delays no other', async () => {
    const { begun, run, finish } = openQueue();
    for (let count = 0; count < 20; count += 1) void run('unknown', 'flood');
    void run('unknown', 'a');
    void run('unknown', 'b');
    await finish(5);
    expect(begun.slice(0, 6)).to.deep.equal([
      'unknown flood',
      'unknown flood',
      'unknown a',
      'unknown b',
      'unknown flood',
      'unknown flood',
    ]);
  });

  it('lets the longest line give way when a class is full, and no other class', async () => {
    const { begun, run, finish, refused } = openQueue({ waitingMax: 4 });
    void run('unknown', 'first');
    const flood = Array.from({ length: 6 }, () => run('unknown', 'flood'));
    expect(await Promise.all(flood.slice(4))).to.deep.equal(['RATE_LIMITED 1000', 'RATE_LIMITED 1000']);
    const honest = run('unknown', 'honest');
    expect(await flood[3]).to.equal('RATE_LIMITED 1000');
    const known = run('known', 'home');
    expect(refused).to.deep.equal(Array<string>(3).fill('unknown flood full'));
    await finish(7);
    expect(await Promise.all([honest, known, ...flood.slice(0, 3)])).to.deep.equal(
      Array<string>(5).fill('done'),
    );
    expect(begun.slice(0, 2)).to.deep.equal(['unknown first', 'known home']);
  });

  it('refuses a newcomer when no line is longer than its own', async () => {
    const { run, finish } = openQueue({ waitingMax: 2 });
    const outcomes = ['busy', 'a', 'b', 'c'].map((key) => run('unknown', key));
    await finish(3);
    expect(await Promise.all(outcomes)).to.deep.equal(['done', 'done', 'done', 'RATE_LIMITED 1000']);
  });

  it('refuses callers that have waited too long, and does not run their work', async () => {
    const { begun, queue, run, pass, finish, refused } = openQueue();
    void run('known', 'busy');
    const [early, known] = [run('unknown', 'early'), run('known', 'early')];
    pass(600);
    const late = run('unknown', 'late');
    pass(500);
    await finish(2);
    expect(await Promise.all([early, known])).to.deep.equal(['RATE_LIMITED 1000', 'RATE_LIMITED 1000']);
    expect(await late).to.equal('done');
    expect(begun).to.deep.equal(['known busy', 'unknown late']);
    expect(refused).to.have.members(['unknown early waited', 'known early waited']);
    expect(queue.waiting('unknown')).to.equal(0);
  });

  it('gives no turns afterwards to a class that did not wait', async () => {
    const { begun, run, finish } = openQueue();
    for (let count = 0; count < 12; count += 1) void run('unknown', `network ${count}`);
    await finish(8);
    for (let count = 0; count < 8; count += 1) void run('known', `name ${count}`);
    await finish(8);
    expect(begun.slice(9, 17).filter((turn) => turn.startsWith('known'))).to.have.length(7);
  });

  it('passes its place on when the work fails', async () => {
    const queue = createFairQueue({
      name: 'passwords',
      limits: { atOnceMax: 1, waitingMax: 10, waitMaxMs: 1000 },
      clock: systemClock,
    });
    const caller = { importance: 'unknown', key: 'a' } as const;
    const failing = queue.run(caller, () => Promise.reject(new Error('broken'))).catch(() => 'failed');
    const next = queue.run(caller, () => Promise.resolve('done'));
    expect(await Promise.all([failing, next])).to.deep.equal(['failed', 'done']);
    expect(await queue.run(caller, () => Promise.resolve('again'))).to.equal('again');
  });
});
