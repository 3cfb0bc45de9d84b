/** The history of a fence: what an instance may find that only reads while another one raises it. */

import { expect } from 'chai';
import { FenceChecker } from '../../../proofs/spec/fence-checker.js';
import type { PlaceStep } from '../../../proofs/spec/fence-rows.js';

describe('a fence that one instance raises and another one reads', () => {
  const raise = (transaction: string, wanted: PlaceStep, reads: boolean, found: PlaceStep) =>
    ({
      do: 'raise',
      transaction,
      instance: transaction,
      place: [1, 9],
      wanted,
      reads,
      expect: found,
    }) as const;

  /** One instance has raised the fence to 1 of epoch 1, and its commit to 2 is durable. */
  function startChecker(): FenceChecker {
    const checker = new FenceChecker({ from: { place: [1, 1] } });
    for (const step of [
      { do: 'begin', transaction: 'one' },
      raise('one', [1, 2], false, [1, 2]),
      { do: 'commit', transaction: 'one' },
      { do: 'begin', transaction: 'other' },
    ] as const) {
      expect(checker.check(step)).to.equal(undefined);
    }
    return checker;
  }

  it('stands where it stood, or where it will, until the commit is visible', () => {
    for (const found of [
      [1, 1],
      [1, 2],
    ] as const) {
      const checker = startChecker();
      expect(checker.check(raise('other', [1, 2], true, found))).to.equal(undefined);
      expect(checker.check({ do: 'confirm', transaction: 'other', instance: 'other' })).to.equal(undefined);
      expect(checker.check({ do: 'report', instance: 'other', expect: found })).to.equal(undefined);
    }
  });

  it('stands nowhere else, and not where it stood once the commit is visible', () => {
    expect(startChecker().check(raise('other', [1, 2], true, [1, 0]))).to.have.property('what');
    const checker = startChecker();
    checker.check({ do: 'end', transaction: 'one' });
    expect(checker.check(raise('other', [1, 2], true, [1, 1]))).to.have.property('what');
    expect(startChecker().check(raise('other', [1, 3], false, [1, 1]))).to.have.property('what');
  });
});
