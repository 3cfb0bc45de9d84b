import { expect } from 'chai';
import { fuzz, fuzzBlocks } from '../support/fuzz.js';

/** Few enough for a few seconds; a campaign by hand sends a million. */
const FRAMES = 40_000;
const BLOCKS = 60_000;

describe('gate: mutated frames and header blocks', () => {
  const seed = Math.floor(Math.random() * 0xffff_ffff);

  it(`never crash the relay, and bring nothing to the server that was not admitted (seed ${seed})`, () => {
    const { admitted } = fuzz(seed, FRAMES);
    expect(admitted, 'calls were tried').to.be.greaterThan(FRAMES / 40);
  });

  it(`are decoded, or are faults (seed ${seed})`, () => {
    expect(fuzzBlocks(seed, BLOCKS)).to.be.greaterThan(BLOCKS / 20);
  });
});
