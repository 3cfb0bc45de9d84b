/** The promise holds in random schedules, and breaks when one of its rules is left out: the short simulation. */

import { expect } from 'chai';
import { GUARDS, type GuardName, NOTICED_BY } from '../../../proofs/simulate/guards.js';
import { type RunResult, runSeedSoon } from '../../../proofs/simulate/run.js';

/** The number of schedules that run with every rule in place. */
const SEEDS = 200;

/** Seconds on a quiet machine. */
const PATIENCE_MS = 600_000;

/** The search for a schedule that detects a missing rule: its maximum number of seeds, and its first seeds. */
const SEEDS_MAX = 1500;
const FIRST_SEEDS: { readonly [G in GuardName]: number } = {
  lease: 17,
  'lease-start': 251,
  applied: 93,
  'entry-id': 359,
  fence: 61,
  'shared-read': 1138,
  hydration: 69,
  recheck: 62,
  retention: 3,
  'session-generation': 5,
  signature: 38,
  epoch: 258,
  generation: 4,
  'same-list': 5388,
  'known-epochs': 39,
  'clock-rises': 86,
  'fence-lock': 23,
  'fence-position': 23,
  'fence-list': 34,
  'stored-lifetime': 924,
  'older-lifetimes': 22,
};

/** Guards of the feed, and the first schedule in which the tables of the specification notice that they are missing. */
const COMPARED: { readonly [G in GuardName]?: number } = {
  lease: 1,
  'lease-start': 1,
  applied: 1,
  hydration: 3,
  epoch: 11,
  'clock-rises': 1,
};

describe('a simulated run', function () {
  this.timeout(PATIENCE_MS);

  it('returns the same result every time, with or without a trace', async () => {
    for (const seed of [3, 15, 166]) {
      const watched = await runSeedSoon(seed, { trace: true });
      const again = await runSeedSoon(seed, { trace: true });
      expect(again.trace.length).to.be.greaterThan(50);
      expect(again).to.deep.equal(watched);
      const unwatched = await runSeedSoon(seed);
      expect(unwatched).to.deep.equal({ ...watched, trace: [] });
    }
  });

  it(`keeps the promise in ${SEEDS} random schedules`, async () => {
    const faults = new Set<string>();
    let revocations = 0;
    let checks = 0;
    let commits = 0;
    let fenced = 0;
    let comparedSteps = 0;
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { violations, measures } = await runSeedSoon(seed);
      expect(violations, `npm run simulate -- --seed ${seed}`).to.deep.equal([]);
      for (const fault of measures.faults.keys()) faults.add(fault);
      revocations += measures.revocations;
      checks += measures.checks;
      commits += measures.commits;
      fenced += measures.fenced;
      comparedSteps += measures.comparedSteps;
    }
    // A simulation without events would pass, too.
    expect(faults.size).to.be.greaterThan(20);
    expect(revocations).to.be.greaterThan(3 * SEEDS);
    expect(checks).to.be.greaterThan(50 * SEEDS);
    expect(commits).to.be.greaterThan(SEEDS);
    expect(fenced).to.be.greaterThan(SEEDS / 4);
    expect(comparedSteps).to.be.greaterThan(50 * SEEDS);
  });

  for (const guard of GUARDS) {
    it(`breaks it without ${guard}`, async () => {
      const first = FIRST_SEEDS[guard];
      const isNoticed = ({ violations }: RunResult): boolean =>
        violations.some(({ oracle }) => oracle === NOTICED_BY[guard]);
      for (let seed = first; seed < first + SEEDS_MAX; seed += 1) {
        if (isNoticed(await runSeedSoon(seed, { without: guard }))) return;
      }
      expect.fail(`nothing was noticed from seed ${first} to ${first + SEEDS_MAX - 1}`);
    });
  }

  for (const [guard, seed] of Object.entries(COMPARED) as [GuardName, number][]) {
    it(`differs from the tables of the specification without ${guard}`, async () => {
      for (let tried = seed; tried < seed + SEEDS_MAX; tried += 1) {
        const { violations } = await runSeedSoon(tried, { without: guard, comparesTables: true });
        const [first] = violations.filter(({ oracle }) => oracle === 'tables');
        if (first === undefined) continue;
        expect(first.what).to.match(/inventory-\d and the tables of the specification differ: /);
        return;
      }
      expect.fail(`no difference from seed ${seed} to ${seed + SEEDS_MAX - 1}`);
    });
  }
});
