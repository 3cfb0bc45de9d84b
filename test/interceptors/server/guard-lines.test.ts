/** The lines of a guard about calls: at most a few a second, each with the number of those that were left out. */

import { expect } from 'chai';
import { GuardLines } from '../../../interceptors/src/server/guard-lines.js';
import { SetClock } from '../tokens-support.js';

const PATH = '/test.v1.EchoService/Unary';

describe('the lines of a guard', () => {
  let clock: SetClock;
  let lines: object[];
  let guardLines: GuardLines;

  beforeEach(() => {
    clock = new SetClock();
    clock.monotonic = 0;
    lines = [];
    const write = (fields: object): void => void lines.push(fields);
    guardLines = new GuardLines({ info: write, warn: write, error: write }, clock);
  });

  it('are five a second about refused calls', () => {
    for (let call = 0; call < 9; call += 1) guardLines.refused(PATH, 'SCOPE_MISSING', undefined);
    expect(lines).to.deep.equal(
      new Array(5).fill({ event: 'refused', path: PATH, reason: 'SCOPE_MISSING', count: 1 }),
    );
    clock.pass(1000);
    guardLines.refused(PATH, 'SCOPE_MISSING', undefined);
    expect(lines.at(-1)).to.include({ count: 5 });
  });

  it('are five a second about calls that go on only because the guard observes', () => {
    for (let call = 0; call < 9; call += 1) guardLines.observed(PATH, 'TOKEN_MISSING');
    expect(lines).to.deep.equal(
      new Array(5).fill({ event: 'would_refuse', path: PATH, reason: 'TOKEN_MISSING', count: 1 }),
    );
  });

  it('are not written about refusals that have a line of their own', () => {
    for (const reason of ['TOKEN_INVALID', 'TLS_REQUIRED', 'RATE_LIMITED'] as const) {
      guardLines.refused(PATH, reason, undefined);
    }
    expect(lines).to.deep.equal([]);
  });
});
