/** Sleeps and steps that only both clocks together reveal. */

import { expect } from 'chai';
import { CLOCK_JITTER_MS, ClockRises } from '../../../interceptors/src/revocation/clock-rises.js';

const WALL_MS = 1_900_000_000_000;

describe('the rises of the wall clock above the monotonic clock', () => {
  let rises: ClockRises;
  let monotonicMs: number;
  let wallMs: number;

  beforeEach(() => {
    rises = new ClockRises();
    monotonicMs = 12_345.678;
    wallMs = WALL_MS;
    read();
  });

  const read = () => rises.read(monotonicMs, Math.floor(wallMs));
  const awake = (ms: number) => {
    monotonicMs += ms;
    wallMs += ms;
    return read();
  };
  const asleep = (ms: number) => {
    wallMs += ms;
    return read();
  };
  const set = (ms: number) => {
    wallMs += ms;
    return read();
  };

  it('are zero while both clocks run alike', () => {
    for (let second = 0; second < 1000; second += 1) expect(awake(1000)).to.be.below(1.001);
  });

  it('are as long as a sleep, or a step forward of the wall clock', () => {
    awake(100);
    expect(asleep(4000)).to.be.within(4000, 4001);
    expect(set(700)).to.be.within(4700, 4702);
  });

  it('are not cancelled by setting the clock back, before or after', () => {
    awake(100);
    set(-4000);
    expect(asleep(4000)).to.be.within(3999, 4002);
    expect(set(-9000)).to.be.within(3999, 4002);
    expect(asleep(500)).to.be.within(4498, 4504);
  });

  it('are summed over any number of cycles', () => {
    for (let cycle = 1; cycle <= 1000; cycle += 1) {
      set(-50);
      expect(asleep(50)).to.be.within(49 * cycle, 51 * cycle);
      awake(7.3);
    }
  });

  it('never fall', () => {
    let before = 0;
    for (let step = 0; step < 10_000; step += 1) {
      const now = set(((step * 7919) % 401) - 200);
      expect(now).to.be.at.least(before);
      before = now;
    }
  });

  it('grow by less than 5 ms through jitter, however often the clocks are read', () => {
    const start = read();
    for (let reading = 0; reading < 300_000; reading += 1) {
      // From 0 to 2 ms, plus the rounding of the wall clock.
      const jitterMs = 1 + Math.sin(reading * 1.7);
      const passedMs = reading * 0.731;
      rises.read(monotonicMs + passedMs, Math.floor(wallMs + passedMs + jitterMs));
    }
    expect(read() - start).to.be.below(5);
  });

  it('are zero while the wall clock runs slow', () => {
    const start = read();
    for (let reading = 0; reading < 100_000; reading += 1) {
      rises.read(monotonicMs + reading, Math.floor(wallMs + reading * 0.999));
    }
    // Once for each segment: the wall clock counts whole milliseconds.
    const end = rises.read(monotonicMs + 100_000, Math.floor(wallMs + 99_900));
    expect(end - start).to.be.below(100 / CLOCK_JITTER_MS + 2);
  });

  it('end a segment only where the clock fell more than 10 ms below its highest reading', () => {
    const sums: [differences: number[], sumMs: number][] = [
      // The largest rise of one segment counts, not every rise.
      [[0, 5, -5, 0], 5],
      [[0, 5, -5, 5], 10],
      // Two segments: the rises of both count.
      [[0, 5, -6, 0], 11],
      [[0, 8, 2, -4, 4], 16],
      // A slow rise is counted as a whole.
      [[0, 5, 10, 15, 20], 20],
      [[0, -5, 5, -3, 9], 14],
    ];
    for (const [differences, sumMs] of sums) {
      const fresh = new ClockRises();
      const answers = differences.map((differenceMs) => fresh.read(1000, WALL_MS + differenceMs));
      expect(answers.at(-1), differences.join()).to.equal(sumMs);
    }
  });
});
