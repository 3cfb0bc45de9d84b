/** Virtual time, its clocks and its processes. */

import { expect } from 'chai';
import { MachineClock, Process, Scheduler } from '../../../proofs/simulate/time.js';
import { inEvent } from './support.js';

describe('the time of a simulation', () => {
  let scheduler: Scheduler;
  let told: string[];
  const tell = (what: string) => () => void told.push(`${scheduler.nowMs} ${what}`);

  beforeEach(() => {
    scheduler = new Scheduler();
    told = [];
  });

  const runUntil = (ms: number) => inEvent(() => scheduler.runUntil(ms));

  it('runs events in the order of their times, and those of one time in the order of their making', async () => {
    for (const ms of [5, 3, 9, 3, 1, 7, 3]) scheduler.at(ms, tell(`made ${told.length}`));
    scheduler.at(3, tell('last of three'));
    await runUntil(8);
    expect(told.map((line) => line.split(' ')[0])).to.deep.equal(['1', '3', '3', '3', '3', '5', '7']);
    expect(told[4]).to.equal('3 last of three');
    expect(scheduler.nowMs).to.equal(8);
  });

  it('leaves out what was taken back', async () => {
    scheduler.at(1, tell('kept'));
    scheduler.at(2, tell('taken back'))();
    await runUntil(10);
    expect(told).to.deep.equal(['1 kept']);
  });

  it('settles every promise of an event before the next one begins', async () => {
    scheduler.at(1, () => {
      const chain = async () => {
        for (let step = 0; step < 50; step += 1) await Promise.resolve();
        tell('settled')();
      };
      void chain();
    });
    scheduler.at(1, tell('next'));
    await runUntil(2);
    expect(told).to.deep.equal(['1 settled', '1 next']);
  });

  describe('on a clock', () => {
    it('runs at the rate of its oscillator', async () => {
      const clock = new MachineClock(scheduler, { rate: 0.99, wallMs: 1_000_000, monotonicMs: 500 });
      await runUntil(1000);
      expect(clock.monotonicMs()).to.equal(1490);
      expect(clock.wallMs()).to.equal(1_000_990);
    });

    it('is set forward and back on the wall alone', async () => {
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

    it('stands while it is paused; what has arrived meanwhile happens afterwards, in its order', async () => {
      const resume = process.pause();
      scheduler.at(1, () => process.run(tell('first')));
      scheduler.at(2, () => process.run(tell('second')));
      process.after(3, tell('a timer'));
      scheduler.at(10, resume);
      await runUntil(20);
      expect(told).to.deep.equal(['10 first', '10 second', '10 a timer']);
    });

    it('goes on only when every pause has ended', async () => {
      const resume = process.pause();
      const resumeToo = process.pause();
      process.run(tell('work'));
      scheduler.at(5, resume);
      scheduler.at(6, resume);
      scheduler.at(9, resumeToo);
      await runUntil(20);
      expect(told).to.deep.equal(['9 work']);
    });

    it('ends when it is killed, and those who are connected learn of it', async () => {
      process.after(5, tell('a timer'));
      process.onKill(tell('killed'));
      process.onKill(tell('no longer connected'))();
      scheduler.at(3, () => process.kill());
      scheduler.at(4, () => process.run(tell('work')));
      await runUntil(20);
      expect(told).to.deep.equal(['3 killed']);
    });
  });
});
