/** Entries are kept until their tokens have expired, in every order of minting, changes and revocations. */

import { expect } from 'chai';
import { LIFETIME_GUARD_NAMES, LIFETIME_GUARDS, searchLifetimes } from '../../../proofs/explore/lifetimes.js';

const PATIENCE_MS = 120_000;

describe('the search of lifetimes', function () {
  this.timeout(PATIENCE_MS);

  it('reaches its fix point without a violation', () => {
    const { states, violation } = searchLifetimes();
    expect(violation).to.equal(undefined);
    expect(states).to.be.above(10_000);
  });

  for (const guard of LIFETIME_GUARD_NAMES) {
    it(`finds a violation without the rule that ${LIFETIME_GUARDS[guard]}`, () => {
      const { violation } = searchLifetimes(guard);
      expect(violation?.at(-1)).to.be.a('string');
    });
  }
});
