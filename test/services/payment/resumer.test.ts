/** The background loop that resumes abandoned payments. */
import { expect } from 'chai';
import { startResumer } from '../../../services/payment/resumer.js';
import { silentLog } from './instance.js';

describe('the resumer of payment', () => {
  it('starts at once, and continues without a pause while payments are found', async () => {
    expect(await roundsRun([2, 1, 0, 5], { intervalMs: 3_600_000, until: 3 })).to.equal(3);
  });

  it('survives a failure, and runs again after the interval', async () => {
    const rounds = [new Error('the database is away'), 0, 1, 0];
    expect(await roundsRun(rounds, { intervalMs: 1, until: 4 })).to.equal(4);
  });

  /** Runs a resumer over these rounds until so many have run; returns how many had run when it was stopped. */
  async function roundsRun(
    rounds: readonly (number | Error)[],
    options: { readonly intervalMs: number; readonly until: number },
  ): Promise<number> {
    let run = 0;
    let reached: () => void = () => {};
    const enough = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const resumeAbandoned = async (): Promise<number> => {
      const round = rounds[run] ?? 0;
      run += 1;
      if (run === options.until) reached();
      if (round instanceof Error) throw round;
      return round;
    };
    const resumer = startResumer({ resumeAbandoned, log: silentLog, intervalMs: options.intervalMs });
    await enough;
    await resumer.stop();
    return run;
  }

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
