/** Mutants of a token: their number, their seed, and their completeness. */

import { expect } from 'chai';
import { mutantsOf } from '../../../proofs/attack/mutants.js';
import { createRandom } from '../../../proofs/shared/random.js';

const GOOD = `${'eyJhbGciOiJFZERTQSJ9'}.${'eyJzdWIiOiJhIn0'}.${'c2lnbmF0dXJlLW9mLXRoZS10b2tlbg'}`;
const OTHER = `${'eyJhbGciOiJFZERTQSJ9'}.${'eyJzdWIiOiJiIn0'}.${'YW5vdGhlci1zaWduYXR1cmUtb2YtaXQ'}`;

function valuesOf(count: number, seed = 1): string[] {
  return [...mutantsOf(GOOD, OTHER, { count, random: createRandom(seed) })].map(({ value }) => value);
}

describe('mutants of a token', () => {
  it('have the requested number, and never equal one of the two tokens', () => {
    for (const count of [0, 1, 500, 30_000]) {
      const values = valuesOf(count);
      expect(values).to.have.lengthOf(count);
      const tokens = values
        .filter((value) => /^bearer /i.test(value))
        .map((value) => value.slice('Bearer '.length));
      expect(tokens).not.to.include.members([GOOD]);
      expect(tokens).not.to.include.members([OTHER]);
    }
  });

  it('are the same for the same seed', () => {
    expect(valuesOf(2_000, 7)).to.deep.equal(valuesOf(2_000, 7));
    expect(valuesOf(2_000, 7)).not.to.deep.equal(valuesOf(2_000, 8));
  });

  it('include every flipped bit, truncation and insertion when their number permits', () => {
    const value = `Bearer ${GOOD}`;
    const values = new Set(valuesOf(30_000));
    for (let at = 0; at < value.length; at += 1) {
      expect(values).to.include(value.slice(0, at));
      expect(values).to.include(`${value.slice(0, at)}A${value.slice(at)}`);
      for (let bit = 0; bit < 8; bit += 1) {
        const flipped = String.fromCharCode(value.charCodeAt(at) ^ (1 << bit));
        // The scheme in the other case is the same scheme.
        if (at < 'Bearer '.length && flipped.toLowerCase() === value.charAt(at).toLowerCase()) continue;
        expect(values).to.include(value.slice(0, at) + flipped + value.slice(at + 1));
      }
    }
  });
});
