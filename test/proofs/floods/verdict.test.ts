/** The verdict on one flood. */

import { expect } from 'chai';
import { HONEST_CLASSES } from '../../../proofs/floods/honest-traffic.js';
import type { FloodResult } from '../../../proofs/floods/run-flood.js';
import { figuresOf, isAccepted, needsSecondRun, reasonsOf, tableOf } from '../../../proofs/floods/verdict.js';

const CALM = { p50: 2, p99: 10, max: 12 };

function service(name: string): FloodResult['services'][number] {
  return {
    service: name,
    rssGrowthMb: 3,
    rssMb: 120,
    blockMs: 12,
    collectionMs: 30,
    heldGrowthMb: undefined,
    logLines: 4,
    stale: 0,
    exits: 0,
    starved: 0.1,
  };
}

function resultWith(changes: Partial<FloodResult>): FloodResult {
  const honest = Object.fromEntries(
    HONEST_CLASSES.map((kind) => [kind, { quiet: CALM, meanwhile: CALM, calls: 100 }]),
  ) as FloodResult['honest'];
  return {
    flood: { name: 'rain', attacker: 'stranger', title: 'drops', run: () => Promise.resolve() },
    honest,
    refused: {},
    limited: 0,
    stale: 0,
    services: [service('auth'), service('payment')],
    recoveredSeconds: 0.4,
    tally: { sent: 7 },
    broken: undefined,
    other: [],
    load: 1,
    ...changes,
  };
}

function violationsWith(changes: Partial<FloodResult>): readonly string[] {
  return figuresOf(resultWith(changes)).violations;
}

describe('the verdict on a flood', () => {
  it('finds nothing when honest callers notice nothing', () => {
    const figures = figuresOf(resultWith({}));
    expect(figures.violations).to.deep.equal([]);
    expect(figures).to.include({
      rss_mb: 3,
      block_ms: 12,
      collection_ms: 30,
      log_lines: 8,
      exits: 0,
      starved: 0.1,
      recovered_s: 0.4,
    });
  });

  it('reports the honest class that is farthest above what it may take', () => {
    const { honest } = resultWith({});
    const slow = { quiet: { ...CALM, p99: 300 }, meanwhile: { ...CALM, p99: 500 }, calls: 9 };
    const slowest = { quiet: CALM, meanwhile: { ...CALM, p99: 240 }, calls: 9 };
    const figures = figuresOf(resultWith({ honest: { ...honest, revoke: slow, login: slowest } }));
    expect(figures).to.include({ honest_class: 'login', honest_p99_ms: 240, honest_p99_ratio: 24 });
    expect(figures.violations).to.deep.equal(['login p99 10.0 → 240 ms']);
  });

  it('allows honest calls 100 ms or twice their quiet time, whichever is more', () => {
    const { honest } = resultWith({});
    const within = { quiet: CALM, meanwhile: { ...CALM, p99: 100 }, calls: 9 };
    const twice = { quiet: { ...CALM, p99: 80 }, meanwhile: { ...CALM, p99: 160 }, calls: 9 };
    expect(violationsWith({ honest: { ...honest, known: within, login: twice } })).to.deep.equal([]);
  });

  it('reports memory, blocks, staleness, exits, refusals and a slow recovery', () => {
    const services = [
      { ...service('auth'), rssGrowthMb: 400 },
      { ...service('payment'), blockMs: 222, exits: 1 },
    ];
    expect(
      violationsWith({ services, stale: 3, refused: { 'login: 8 no': 2 }, recoveredSeconds: 9 }),
    ).to.deep.equal([
      'auth grew by 400 MB',
      'an event loop was blocked for 222 ms',
      'stale 3 times',
      '1 processes ended',
      '2 honest calls failed: 2 × login: 8 no',
      'recovered after 9.00 s',
    ]);
  });

  it('reports a flood that failed itself, and a system that does not recover', () => {
    const changes = { broken: 'it ended', recoveredSeconds: undefined, other: ['inventory-2 did not stop'] };
    const figures = figuresOf(resultWith(changes));
    expect(figures.recovered_s).to.equal(-1);
    expect(reasonsOf({ rain: figures })).to.deep.equal([
      'rain: did not recover; it ended; inventory-2 did not stop',
    ]);
  });

  it('accepts a broken limit whose reason is known, and prints the reason', () => {
    const { flood } = resultWith({});
    const known = { flood: { ...flood, notReached: 'The sky is the limit.' }, recoveredSeconds: 9 };
    const figures = figuresOf(resultWith(known));
    expect(figures.reason).to.equal('The sky is the limit.');
    expect(isAccepted(figures)).to.equal(true);
    expect(reasonsOf({ rain: figures })).to.deep.equal([
      'rain: recovered after 9.00 s. The sky is the limit.',
    ]);
    expect(tableOf({ rain: figures }).at(-1)?.at(-1)).to.equal('not reached');
    for (const inexcusable of [
      { stale: 1 },
      { refused: { 'login: 8 no': 1 } },
      { services: [{ ...service('auth'), exits: 1 }] },
      { recoveredSeconds: undefined },
      { broken: 'it ended' },
      { other: ['inventory-2 did not stop'] },
    ]) {
      expect(isAccepted(figuresOf(resultWith({ ...known, ...inexcusable })))).to.equal(false);
    }
    // A flood that holds all limits needs no reason.
    expect(figuresOf(resultWith({ ...known, recoveredSeconds: 1 }))).to.not.have.property('reason');
    expect(isAccepted(figuresOf(resultWith({ recoveredSeconds: 9 })))).to.equal(false);
  });

  it('excuses slow honest calls alone, by a machine without a processor for the services, and within limits', () => {
    const { honest } = resultWith({});
    const slow = (p99: number): FloodResult['honest'] => ({
      ...honest,
      login: { quiet: CALM, meanwhile: { ...CALM, p99 }, calls: 9 },
    });
    const starved = (share: number) => [{ ...service('auth'), starved: share }];
    const figures = figuresOf(resultWith({ honest: slow(390), services: starved(0.31) }));
    expect(figures.violations).to.deep.equal(['login p99 10.0 → 390 ms']);
    expect(figures.reason).to.include('had none for 31 % of the time');
    expect(isAccepted(figures)).to.equal(true);
    for (const changes of [
      { honest: slow(390), services: starved(0.19) },
      { honest: slow(410), services: starved(0.31) },
      { honest: slow(390), services: starved(0.31), stale: 1 },
      { services: [{ ...service('auth'), starved: 0.31, rssGrowthMb: 51 }] },
    ]) {
      expect(isAccepted(figuresOf(resultWith(changes)))).to.equal(false);
    }
  });

  it('excuses slow calls by a full collection that took as long, and no more than that', () => {
    const { honest } = resultWith({});
    const slow = (p99: number): Partial<FloodResult> => ({
      honest: { ...honest, login: { quiet: CALM, meanwhile: { ...CALM, p99 }, calls: 9 } },
    });
    expect(figuresOf(resultWith(slow(129))).reason).to.equal('A full collection of a heap took 30.0 ms.');
    expect(isAccepted(figuresOf(resultWith(slow(131))))).to.equal(false);
    expect(isAccepted(figuresOf(resultWith({ ...slow(129), stale: 1 })))).to.equal(false);
  });

  it('excuses memory of which nothing is in use after a full collection, up to twice the limit', () => {
    const grown = (rssGrowthMb: number, heldGrowthMb: number | undefined) =>
      figuresOf(resultWith({ services: [{ ...service('auth'), rssGrowthMb, heldGrowthMb }] }));
    expect(grown(86, 4).reason).to.include('the heap of auth had 4.00 MB more in use than before the flood');
    expect(grown(86, -4).reason).to.include('4.00 MB less');
    for (const figures of [grown(86, 11), grown(101, 4), grown(86, undefined)]) {
      expect(isAccepted(figures)).to.equal(false);
    }
    // Each service for itself.
    const services = [
      { ...service('auth'), rssGrowthMb: 60, heldGrowthMb: 1 },
      { ...service('payment'), rssGrowthMb: 55, heldGrowthMb: 12 },
    ];
    expect(isAccepted(figuresOf(resultWith({ services })))).to.equal(false);
  });

  it('wants a second run of a flood where calls were slow, and nothing else was wrong or explains it', () => {
    const { honest, flood } = resultWith({});
    const slow = {
      honest: { ...honest, login: { quiet: CALM, meanwhile: { ...CALM, p99: 390 }, calls: 9 } },
    };
    const needs = (changes: Partial<FloodResult>) => needsSecondRun(figuresOf(resultWith(changes)));
    expect(needs(slow)).to.equal(true);
    expect(needs({})).to.equal(false);
    expect(needs({ stale: 1 })).to.equal(false);
    expect(needs({ ...slow, stale: 1 })).to.equal(false);
    expect(needs({ ...slow, flood: { ...flood, notReached: 'The sky is the limit.' } })).to.equal(false);
  });

  it('does not count honest calls that were told a limit and a time', () => {
    expect(violationsWith({ limited: 4 })).to.deep.equal([]);
  });
});
