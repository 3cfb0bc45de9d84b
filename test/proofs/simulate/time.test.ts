/** Virtual time, its clocks and its processes. */

import { expect } from 'chai';
import { MachineClock, Process, Scheduler } from '../../../proofs/simulate/time.js';
import { inEvent } from './support.js';

describe('the time of a simulation', () => {
  let scheduler: Scheduler;
  let recorded: string[];
  const record = (what: string) => () => void recorded.push(`${scheduler.nowMs} ${what}`);

  beforeEach(() => {
    scheduler = new Scheduler();
    recorded = [];
  });

  const runUntil = (ms: number) => inEvent(() => scheduler.runUntil(ms));

  it('runs events in order of time, and events of the same time in order of creation', async () => {
    for (const ms of [5, 3, 9, 3, 1, 7, 3]) scheduler.at(ms, record(`made ${recorded.length}`));
    scheduler.at(3, record('last of three'));
    await runUntil(8);
    expect(recorded.map((line) => line.split(' ')[0])).to.deep.equal(['1', '3', '3', '3', '3', '5', '7']);
    expect(recorded[4]).to.equal('3 last of three');
    expect(scheduler.nowMs).to.equal(8);
  });

  it('skips cancelled events', async () => {
    scheduler.at(1, record('kept'));
    scheduler.at(2, record('cancelled'))();
    await runUntil(10);
    expect(recorded).to.deep.equal(['1 kept']);
  });

  it('settles every promise of an event before the next one begins', async () => {
    scheduler.at(1, () => {
      const chain = async () => {
        for (let step = 0; step < 50; step += 1) await Promise.resolve();
        record('settled')();
      };
      void chain();
    });
    scheduler.at(1, record('next'));
    await runUntil(2);
    expect(recorded).to.deep.equal(['1 settled', '1 next']);
  });

  describe('on a clock', () => {
    it('runs at the rate of its oscillator', async () => {
      const clock = new MachineClock(scheduler, { rate: 0.99, wallMs: 1_000_000, monotonicMs: 500 });
      await runUntil(1000);
      expect(clock.monotonicMs()).to.equal(1490);
      expect(clock.wallMs()).to.equal(1_000_990);
    });

    it('sets only the wall clock forward and back', async () => {
      const clock = new MachineClock(scheduler, { rate: 1, wallMs: 1000, monotonicMs: 0 });
      await runUntil(10);
      clock.step(-500);
      expect([clock.wallMs(), clock.monotonicMs()]).to.deep.equal([510, 10]);
    });

    it('does not count a sleep on the monotonic clock', async () => {
      const clock = new MachineClock(scheduler, { rate: 1, wallMs: 0, monotonicMs: 0 });
      await runUntil(100);
      clock.sleep(true);
      await runUntil(400);
      expect([clock.wallMs(), clock.monotonicMs()]).to.deep.equal([400, 100]);
      clock.sleep(false);
      await runUntil(450);
      expect([clock.wallMs(), clock.monotonicMs()]).to.deep.equal([450, 150]);
    });
  });

  describe('in a process', () => {
    let process: Process;

    beforeEach(() => {
      const clock = new MachineClock(scheduler, { rate: 1, wallMs: 0, monotonicMs: 0 });
      process = new Process(scheduler, 'a process', clock);
    });

    it('stops while it is paused, and handles events that arrived meanwhile afterwards, in order', async () => {
      const resume = process.pause();
      scheduler.at(1, () => process.run(record('first')));
      scheduler.at(2, () => process.run(record('second')));
      process.after(3, record('a timer'));
      scheduler.at(10, resume);
      await runUntil(20);
      expect(recorded).to.deep.equal(['10 first', '10 second', '10 a timer']);
    });

    it('resumes only when every pause has ended', async () => {
      const resume = process.pause();
      const resumeToo = process.pause();
      process.run(record('work'));
      scheduler.at(5, resume);
      scheduler.at(6, resume);
      scheduler.at(9, resumeToo);
      await runUntil(20);
      expect(recorded).to.deep.equal(['9 work']);
    });

    it('ends when it is killed, and its connections are closed', async () => {
      process.after(5, record('a timer'));
      process.onKill(record('killed'));
      process.onKill(record('no longer connected'))();
      scheduler.at(3, () => process.kill());
      scheduler.at(4, () => process.run(record('work')));
      await runUntil(20);
      expect(recorded).to.deep.equal(['3 killed']);
    });
  });
});
