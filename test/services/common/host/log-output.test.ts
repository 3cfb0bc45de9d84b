/** Lines on their way to a destination that fails, stands still, or takes only a part. */

import { expect } from 'chai';
import { LogOutput, type Sink } from '../../../../services/common/host/log-output.js';
import { MovableClock } from '../../../support/clock.js';

/** A destination in the test's hand: each write waits until the test ends it. */
function heldSink() {
  const writes: { text: string; done: (error?: Error | null, cut?: boolean) => void }[] = [];
  const sink: Sink = (text, done) => void writes.push({ text, done });
  return { sink, writes };
}

describe('the output of the log', () => {
  it('hands lines over in order, and those that waited together', () => {
    const { sink, writes } = heldSink();
    const output = new LogOutput(sink, 1_000, () => {});
    for (const line of ['a\n', 'b\n', 'c\n']) output.write(line);
    expect(writes.map(({ text }) => text)).to.deep.equal(['a\n']);
    writes[0]?.done();
    expect(writes.map(({ text }) => text)).to.deep.equal(['a\n', 'b\nc\n']);
  });

  it('keeps a bounded amount while a write stands still, counts the rest, and says so when lines are written again', () => {
    const { sink, writes } = heldSink();
    const restored: number[] = [];
    const output: LogOutput = new LogOutput(sink, 1_000, (lines) => {
      restored.push(lines);
      output.write(`lost ${lines}\n`);
    });
    for (let count = 0; count < 100_000; count += 1) output.write(`${'x'.repeat(99)}\n`);
    // One line is being written, ten wait.
    expect(output.lost).to.equal(100_000 - 11);
    expect(restored).to.deep.equal([]);
    writes[0]?.done();
    expect(restored).to.deep.equal([100_000 - 11]);
    // The report is written even though what waits is as much as may wait.
    expect(writes[1]?.text).to.match(/^(x{99}\n){10}lost 99989\n$/);
    expect(output.lost).to.equal(100_000 - 11);
  });

  it('calls back from flush when everything is written, and at once while writing fails', () => {
    const { sink, writes } = heldSink();
    const output = new LogOutput(sink, 1_000, () => {});
    const flushed: string[] = [];
    output.flush(() => flushed.push('empty'));
    output.write('a\n');
    output.write('b\n');
    output.flush(() => flushed.push('written'));
    writes[0]?.done();
    expect(flushed).to.deep.equal(['empty']);
    writes[1]?.done();
    expect(flushed).to.deep.equal(['empty', 'written']);
    output.write('c\n');
    output.flush(() => flushed.push('failed'));
    writes[2]?.done(new Error('ENOSPC'));
    output.write('d\n');
    output.flush(() => flushed.push('failing'));
    expect(flushed).to.deep.equal(['empty', 'written', 'failed', 'failing']);
  });

  it('calls back from flush at once when a write stands still for more than a second', () => {
    const { sink } = heldSink();
    const clock = new MovableClock();
    const output = new LogOutput(sink, 1_000, () => {}, clock);
    let flushed = 0;
    output.write('a\n');
    output.flush(() => {
      flushed += 1;
    });
    expect(flushed).to.equal(0);
    clock.pass(1_001);
    output.flush(() => {
      flushed += 1;
    });
    expect(flushed).to.equal(1);
  });

  it('tries again after a failure, and ends a line of which only a part was written', async () => {
    const { sink, writes } = heldSink();
    const output = new LogOutput(sink, 1_000, () => {});
    output.write('a\n');
    writes[0]?.done(new Error('ENOSPC'), true);
    output.write('b\n');
    expect(output.lost).to.equal(1);
    expect(writes).to.have.length(1);
    await new Promise<void>((resolve) => {
      const wait = (): void => void (writes.length > 1 ? resolve() : setTimeout(wait, 20));
      wait();
    });
    expect(writes[1]?.text).to.equal('\nb\n');
  });
});
