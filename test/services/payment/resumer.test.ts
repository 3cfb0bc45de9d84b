/** The background loop that resumes abandoned payments. */
import { expect } from 'chai';
import { startResumer } from '../../../services/payment/resumer.js';
import { silentLog } from './instance.js';

describe('the resumer of payment', () => {
  it('starts at once, continues while payments are found, and survives a failure', async () => {
    const rounds = [2, new Error('the database is away'), 0, 1, 0];
    let done: () => void = () => {};
    const all = new Promise<void>((resolve) => {
      done = resolve;
    });
    const resumeAbandoned = async () => {
      const round = rounds.shift() ?? 0;
      if (rounds.length === 0) done();
      if (round instanceof Error) throw round;
      return round;
    };
    const resumer = startResumer({ resumeAbandoned, log: silentLog, intervalMs: 1 });
    await all;
    await resumer.stop();
  });

  it('stops after the current round, without waiting for the next', async () => {
    let isRunning = false;
    let end: () => void = () => {};
    const resumer = startResumer({
      resumeAbandoned: async () => {
        isRunning = true;
        await new Promise<void>((resolve) => {
          end = resolve;
        });
        isRunning = false;
        return 0;
      },
      log: silentLog,
      intervalMs: 3_600_000,
    });
    const stopped = resumer.stop();
    end();
    await stopped;
    expect(isRunning).to.equal(false);
  });
});
