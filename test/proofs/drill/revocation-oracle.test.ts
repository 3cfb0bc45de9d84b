/** The judge of the drill finds what breaks the promise, and nothing else. */

import { expect } from 'chai';
import {
  type Credential,
  type Observation,
  type Outcome,
  RevocationOracle,
} from '../../../proofs/drill/revocation-oracle.js';

const BOUND_MS = 1_600;
const ADMITTED: Outcome = { kind: 'admitted' };
const REVOKED: Outcome = { kind: 'refused', reason: 'TOKEN_REVOKED' };
const STALE: Outcome = { kind: 'unavailable', reason: 'REVOCATION_STATE_STALE' };

describe('the oracle of the drill', () => {
  let oracle: RevocationOracle;
  let credential: Credential;

  beforeEach(() => {
    oracle = new RevocationOracle(BOUND_MS);
    oracle.beginRound(1, 'a fault', true);
    credential = { name: 'alice', token: '' };
  });

  function judge(notBeforeMs: number, outcome: Outcome, more: Partial<Observation> = {}): string[] {
    const endedMs = notBeforeMs + 1;
    oracle.judge({ credential, instance: 'one', method: 'Ask', notBeforeMs, endedMs, outcome, ...more });
    return kinds();
  }

  function kinds(): string[] {
    return oracle.violations.map(({ kind }) => kind);
  }

  function revokeAt(sentMs: number, returnedMs: number): void {
    oracle.revoking([credential], sentMs);
    oracle.revoked([credential], returnedMs);
  }

  it('allows a revoked token until the bound has passed, and not a moment longer', () => {
    revokeAt(90, 100);
    expect(judge(100 + BOUND_MS, ADMITTED)).to.deep.equal([]);
    expect(judge(100 + BOUND_MS + 1, ADMITTED)).to.deep.equal(['ADMITTED_LATE']);
    expect(oracle.rounds[0]?.maxLateMs).to.equal(BOUND_MS + 1);
  });

  it('counts a message of a stream like a call', () => {
    revokeAt(90, 100);
    expect(judge(100 + BOUND_MS + 1, ADMITTED, { isMessage: true })).to.deep.equal(['ADMITTED_LATE']);
  });

  it('promises no bound for methods that go on while the list is stale', () => {
    revokeAt(90, 100);
    expect(judge(100 + 2 * BOUND_MS, ADMITTED, { allowStale: true })).to.deep.equal([]);
  });

  it('does not forgive an instance that forgets a revocation which it has enforced before', () => {
    revokeAt(90, 100);
    judge(110, REVOKED);
    expect(judge(120, ADMITTED, { instance: 'two', allowStale: true })).to.deep.equal([]);
    expect(judge(130, ADMITTED, { allowStale: true })).to.deep.equal(['ADMITTED_AGAIN']);
  });

  it('accepts either answer while nobody knows whether the revocation is in the log', () => {
    oracle.revoking([credential], 90);
    judge(95, ADMITTED);
    expect(judge(96, REVOKED)).to.deep.equal([]);
  });

  it('judges what was answered before anybody asked for the revocation as the answer to a good token', () => {
    oracle.revoking([credential], 90);
    expect(judge(80, REVOKED, { endedMs: 85 })).to.deep.equal(['REVOKED_BY_NOBODY']);
  });

  it('lets nobody refuse a good token as revoked or as bad', () => {
    judge(10, REVOKED);
    expect(judge(20, { kind: 'refused', reason: 'TOKEN_INVALID' })).to.deep.equal([
      'REVOKED_BY_NOBODY',
      'GOOD_TOKEN_REFUSED',
    ]);
  });

  it('lets a good token be refused as stale only by faults that may cost service', () => {
    expect(judge(10, STALE)).to.deep.equal([]);
    oracle.beginRound(2, 'a fault of the broker', false);
    expect(judge(20, STALE)).to.deep.equal(['SERVICE_LOST']);
  });

  it('blames no fault when the instance had no processor, and counts that', () => {
    oracle = new RevocationOracle(BOUND_MS, (instance, atMs) => instance === 'one' && atMs < 100);
    oracle.beginRound(1, 'a fault of the broker', false);
    expect(judge(10, STALE)).to.deep.equal([]);
    expect(oracle.starved).to.equal(1);
    judge(20, STALE, { instance: 'two' });
    expect(judge(200, STALE)).to.deep.equal(['SERVICE_LOST', 'SERVICE_LOST']);
  });

  it('takes no other refusal than UNAUTHENTICATED and UNAVAILABLE', () => {
    revokeAt(90, 100);
    judge(5_000, STALE);
    judge(5_000, { kind: 'unanswered' });
    judge(5_000, REVOKED);
    expect(judge(5_000, { kind: 'other', what: 'INTERNAL' })).to.deep.equal(['WRONG_REFUSAL']);
  });

  it('adds up how long the worst instance served nobody', () => {
    for (const [sentMs, outcome] of [
      [0, ADMITTED],
      [100, STALE],
      [200, STALE],
      [300, ADMITTED],
      [400, STALE],
      [450, ADMITTED],
    ] as const) {
      oracle.serve('one', sentMs, sentMs + 1, outcome);
      oracle.serve('two', sentMs, sentMs + 1, ADMITTED);
    }
    oracle.endRound();
    expect(oracle.rounds[0]?.unavailableMs).to.equal(250);
  });
});
