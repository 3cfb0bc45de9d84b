/** The oracle of the drill reports every violation of the promise, and nothing else. */

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

  it('allows a revoked token until the bound has passed, and no longer', () => {
    revokeAt(90, 100);
    expect(judge(100 + BOUND_MS, ADMITTED)).to.deep.equal([]);
    expect(judge(100 + BOUND_MS + 1, ADMITTED)).to.deep.equal(['ADMITTED_LATE']);
    expect(oracle.rounds[0]?.maxLateMs).to.equal(BOUND_MS + 1);
  });

  it('counts a message of a stream like a call', () => {
    revokeAt(90, 100);
    expect(judge(100 + BOUND_MS + 1, ADMITTED, { isMessage: true })).to.deep.equal(['ADMITTED_LATE']);
  });

  it('expects no bound for methods with ON_STALE_ALLOW', () => {
    revokeAt(90, 100);
    expect(judge(100 + 2 * BOUND_MS, ADMITTED, { allowStale: true })).to.deep.equal([]);
  });

  it('reports an instance that forgets a revocation which it has enforced', () => {
    revokeAt(90, 100);
    judge(110, REVOKED);
    expect(judge(120, ADMITTED, { instance: 'two', allowStale: true })).to.deep.equal([]);
    expect(judge(130, ADMITTED, { allowStale: true })).to.deep.equal(['ADMITTED_AGAIN']);
  });

  it('accepts either outcome while it is unknown whether the revocation is in the log', () => {
    oracle.revoking([credential], 90);
    judge(95, ADMITTED);
    expect(judge(96, REVOKED)).to.deep.equal([]);
  });

  it('treats an outcome from before the Revoke request as the outcome of a good token', () => {
    oracle.revoking([credential], 90);
    expect(judge(80, REVOKED, { endedMs: 85 })).to.deep.equal(['REVOKED_BY_NOBODY']);
  });

  it('reports the refusal of a good token as revoked or as invalid', () => {
    judge(10, REVOKED);
    expect(judge(20, { kind: 'refused', reason: 'TOKEN_INVALID' })).to.deep.equal([
      'REVOKED_BY_NOBODY',
      'GOOD_TOKEN_REFUSED',
    ]);
  });

  it('allows a good token to be refused as stale only during faults that may cost availability', () => {
    expect(judge(10, STALE)).to.deep.equal([]);
    oracle.beginRound(2, 'a fault of the broker', false);
    expect(judge(20, STALE)).to.deep.equal(['SERVICE_LOST']);
  });

  it('allows it in the rest of a round in which an epoch is opened or lost, and not in the next round', () => {
    oracle.beginRound(2, 'a fault of the broker', false);
    oracle.allowServiceLoss();
    expect(judge(20, STALE)).to.deep.equal([]);
    oracle.beginRound(3, 'a fault of the broker', false);
    expect(judge(30, STALE)).to.deep.equal(['SERVICE_LOST']);
  });

  it('blames no fault when the instance waited for a processor, and counts that', () => {
    oracle = new RevocationOracle(BOUND_MS, (instance, atMs) => instance === 'one' && atMs < 100);
    oracle.beginRound(1, 'a fault of the broker', false);
    expect(judge(10, STALE)).to.deep.equal([]);
    expect(oracle.starved).to.equal(1);
    judge(20, STALE, { instance: 'two' });
    expect(judge(200, STALE)).to.deep.equal(['SERVICE_LOST', 'SERVICE_LOST']);
  });

  it('reports refusals other than UNAUTHENTICATED and UNAVAILABLE', () => {
    revokeAt(90, 100);
    judge(5_000, STALE);
    judge(5_000, { kind: 'unanswered' });
    judge(5_000, REVOKED);
    expect(judge(5_000, { kind: 'other', what: 'INTERNAL' })).to.deep.equal(['WRONG_REFUSAL']);
  });

  it('sums the time without service of the worst instance', () => {
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
