/** The oracle: the true state of tokens and revocations, independent of the system under test. */

import { expect } from 'chai';
import { Oracle } from '../../../proofs/simulate/oracle.js';
import type { Revocation } from '../../../services/auth/records/revocations.js';
import {
  clientRevocation,
  enforcementBoundMs,
  foreignRevocation,
  keyRevocation,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
} from '../../../services/auth/revocation/log.js';

const LEASE_MS = 5000;
const USER = '00000000-0000-4000-8000-00000000000a';
const id = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

describe('the oracle of a simulation', () => {
  let nowMs: number;
  let oracle: Oracle;
  let count: number;

  beforeEach(() => {
    nowMs = 0;
    count = 0;
    oracle = new Oracle(() => nowMs);
  });

  function revoke(
    revocation: Revocation,
    over: { sessionsGoOn?: boolean; olderLeasesEndMs?: number } = {},
  ): string {
    count += 1;
    const label = `revocation-${count}`;
    const known = {
      label,
      entryId: label,
      leaseMs: LEASE_MS,
      olderLeasesEndMs: 0,
      sessionsGoOn: false,
      ...over,
    };
    oracle.revoked(revocation, known);
    oracle.confirmed(label);
    return label;
  }

  function logIn(number: number, clientId = 'direct'): void {
    oracle.sessionOpened({ sessionId: id(number), userId: USER, clientId });
  }

  function issue(
    number: number,
    session: number | undefined,
    ancestors: readonly number[] = [],
    clientId = 'direct',
  ) {
    const sid = session === undefined ? {} : { sid: id(session) };
    const claims = { jti: id(number), sub: USER, client_id: clientId, aud: [], exp: 0, ...sid };
    oracle.tokenIssued({ ...claims, ancestors: ancestors.map(id) }, `text ${number}`, 'key-1');
    return oracle.byText(`text ${number}`);
  }

  const isRevoked = (token: ReturnType<typeof issue>): boolean =>
    oracle.revocationsOf(token).next().done !== true;

  it('reports a revocation as overdue once the bound has passed since its confirmation', () => {
    logIn(1);
    const token = issue(2, 1);
    nowMs = 1000;
    revoke(tokenRevocation(id(2)));
    nowMs += enforcementBoundMs(LEASE_MS);
    expect(oracle.lateness(token).overdueMs).to.equal(0);
    nowMs += 1;
    expect(oracle.lateness(token)).to.deep.include({ overdueMs: 1, by: 'revocation-1' });
  });

  it('waits for an older, longer lease to run out', () => {
    logIn(1);
    const token = issue(2, 1);
    revoke(tokenRevocation(id(2)), { olderLeasesEndMs: 20_000 });
    nowMs = 19_000;
    expect(oracle.lateness(token).overdueMs).to.equal(-1000);
  });

  it('expects nothing before Revoke has returned', () => {
    logIn(1);
    const token = issue(2, 1);
    const known = { label: 'r', entryId: 'r', leaseMs: LEASE_MS, olderLeasesEndMs: 0, sessionsGoOn: false };
    oracle.revoked(tokenRevocation(id(2)), known);
    nowMs = 1_000_000;
    expect(oracle.lateness(token).overdueMs).to.equal(Number.NEGATIVE_INFINITY);
    expect(isRevoked(token)).to.equal(true);
  });

  it('revokes a token with its session, its user, its key and every client of its chain, and with no other', () => {
    for (const revocation of [
      sessionRevocation(id(1)),
      userRevocation(USER, 1n),
      keyRevocation('key-1'),
      clientRevocation('direct', 1n),
      clientRevocation('payment', 1n),
    ]) {
      oracle = new Oracle(() => nowMs);
      logIn(1);
      issue(2, 1);
      const token = issue(3, 1, [2], 'payment');
      revoke(revocation);
      expect(isRevoked(token), revocation.kind).to.equal(true);
    }
    oracle = new Oracle(() => nowMs);
    logIn(1);
    const token = issue(2, 1);
    for (const revocation of [
      sessionRevocation(id(9)),
      userRevocation(id(9), 1n),
      keyRevocation('key-2'),
      clientRevocation('payment', 1n),
      foreignRevocation({ issuer: 'https://other.example', what: 'USER', id: USER }),
    ]) {
      revoke(revocation);
    }
    expect(isRevoked(token)).to.equal(false);
  });

  it('revokes tokens that a revoked session gets later, and none of a later login', () => {
    logIn(1);
    revoke(userRevocation(USER, 1n));
    logIn(2);
    expect([isRevoked(issue(3, 1)), isRevoked(issue(4, 2))]).to.deep.equal([true, false]);
  });

  it('keeps a session open after a change of roles, and revokes its older tokens', () => {
    logIn(1);
    const before = issue(2, 1);
    revoke(userRevocation(USER, 1n), { sessionsGoOn: true });
    expect([isRevoked(before), isRevoked(issue(3, 1))]).to.deep.equal([true, false]);
  });

  it('revokes a token with the token it was derived from, even when it is derived later', () => {
    logIn(1);
    issue(2, 1);
    const before = issue(3, 1, [2], 'payment');
    revoke(tokenRevocation(id(2)));
    expect([isRevoked(before), isRevoked(issue(4, 1, [2], 'payment'))]).to.deep.equal([true, true]);
  });

  it('expects nothing of lost revocations until an epoch is opened', () => {
    logIn(1);
    const token = issue(2, 1);
    nowMs = 100;
    revoke(tokenRevocation(id(2)));
    nowMs = 200;
    oracle.restored(50);
    nowMs = 1_000_000;
    expect(oracle.lateness(token).overdueMs).to.equal(Number.NEGATIVE_INFINITY);
    expect(oracle.isUnsettled('')).to.equal(true);
    oracle.epochOpened('new', { label: 'epoch-1', leaseMs: LEASE_MS, olderLeasesEndMs: 0 });
    oracle.confirmed('epoch-1');
    expect([oracle.isUnsettled('old'), oracle.isUnsettled('new')]).to.deep.equal([true, false]);
    nowMs += enforcementBoundMs(LEASE_MS) + 1;
    expect(oracle.lateness(token)).to.deep.include({ overdueMs: 1, by: 'epoch-1' });
  });

  it('expects an instance to notice the loss of an epoch that it followed, until another epoch is opened', () => {
    const open = (epoch: string) =>
      oracle.epochOpened(epoch, { label: epoch, leaseMs: LEASE_MS, olderLeasesEndMs: 0 });
    const followed = new Set(['first', 'lost']);
    oracle.leaseChanged(LEASE_MS);
    nowMs = 100;
    open('lost');
    nowMs = 200;
    oracle.restored(50);
    nowMs += enforcementBoundMs(LEASE_MS);
    // Until then it may continue with its former lease.
    expect(oracle.unnoticedAmong(followed)).to.equal(undefined);
    nowMs += 1;
    expect(oracle.unnoticedAmong(followed)).to.equal('lost');
    expect(oracle.unnoticedAmong(new Set(['first']))).to.equal(undefined);
    open('next');
    expect(oracle.unnoticedAmong(followed)).to.equal(undefined);
    nowMs += 100;
    oracle.restored(50);
    nowMs += enforcementBoundMs(LEASE_MS) + 1;
    expect(oracle.unnoticedAmong(followed)).to.equal('lost');
    expect(oracle.unnoticedAmong(new Set(['next']))).to.equal('next');
  });

  it('allows no delay once Revoke has waited for the bound', () => {
    logIn(1);
    const token = issue(2, 1);
    const known = { label: 'r', entryId: 'r', leaseMs: LEASE_MS, olderLeasesEndMs: 0, sessionsGoOn: false };
    oracle.revoked(tokenRevocation(id(2)), known);
    nowMs = 6000;
    oracle.confirmed('r', true);
    nowMs = 6001;
    expect(oracle.lateness(token).overdueMs).to.equal(1);
  });
});
