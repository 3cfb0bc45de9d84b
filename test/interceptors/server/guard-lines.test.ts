/** The lines of a guard about calls: at most a few a second, each with the number of those that were left out. */

import { expect } from 'chai';
import { GuardLines } from '../../../interceptors/src/server/guard-lines.js';
import { SetClock, verifiedToken } from '../tokens-support.js';

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

  it('are five a second about rejected tokens, and one about limits and unknown methods', () => {
    const quotas = [
      [5, () => guardLines.tokenInvalid('signature')],
      [1, () => guardLines.limited('calls_per_user')],
      [1, () => guardLines.unknownMethod('/x/y')],
    ] as const;
    for (const [quota, write] of quotas) {
      lines.length = 0;
      for (let call = 0; call < 9; call += 1) write();
      expect(lines).to.have.length(quota);
      clock.pass(1000);
      write();
      expect(lines.at(-1)).to.include({ count: 10 - quota });
    }
  });

  it('are short, however long the path is', () => {
    guardLines.unknownMethod(`/${'x'.repeat(10_000)}`);
    expect(lines).to.deep.equal([{ event: 'method_without_rule', path: `/${'x'.repeat(199)}`, count: 1 }]);
  });

  it('name the caller of a refused call, and no more of it', () => {
    const token = verifiedToken();
    guardLines.refused(PATH, 'SCOPE_MISSING', token);
    const { kind, clientId } = token.claims;
    expect(lines).to.deep.equal([
      { event: 'refused', path: PATH, reason: 'SCOPE_MISSING', kind, clientId, count: 1 },
    ]);
  });

  it('are not written about refusals that have a line of their own', () => {
    for (const reason of ['TOKEN_INVALID', 'TLS_REQUIRED', 'RATE_LIMITED'] as const) {
      guardLines.refused(PATH, reason, undefined);
    }
    expect(lines).to.deep.equal([]);
  });
});
