/** Tests of the housekeeping. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { startHousekeeping } from '../../../services/auth/housekeeping.js';
import { until } from '../../support/waiting.js';

describe('housekeeping', () => {
  it('continues with the next round when a chore fails, and logs its name', async () => {
    const warnings: object[] = [];
    let rounds = 0;
    let hasEnough = (): void => {};
    const enough = new Promise<void>((resolve) => {
      hasEnough = resolve;
    });
    const housekeeping = startHousekeeping({
      chores: {
        broken: () => Promise.reject(new Error('on purpose')),
        counting: async () => {
          rounds += 1;
          if (rounds === 3) hasEnough();
        },
      },
      log: { warn: (fields) => warnings.push(fields) },
      intervalMs: 5,
    });
    await enough;
    await housekeeping.stop();
    expect(warnings).to.have.length(3);
    expect(warnings[0]).to.include({ chore: 'broken' });
  });

  it('stops after the running chore, and starts no other', async () => {
    const done: string[] = [];
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const housekeeping = startHousekeeping({
      chores: {
        first: async () => {
          done.push('begun');
          await held;
          done.push('ended');
        },
        second: async () => {
          done.push('second');
        },
      },
      log: { warn: () => {} },
      intervalMs: 1,
    });
    await until(() => done.length > 0);
    const stopped = housekeeping.stop();
    release();
    await stopped;
    await sleep(10);
    expect(done).to.deep.equal(['begun', 'ended']);
  });
});
