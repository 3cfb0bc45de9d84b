/** Revocations by the values of claims: which tokens they revoke, and how long they are kept. */

import { expect } from 'chai';
import { ClaimCutOffs, isRevokedByClaim } from '../../../interceptors/src/revocation/claim-cut-offs.js';
import { heapUsedAfterCollection } from '../../support/heap.js';

const ISSUER = 'https://other.example';
const token = (issuedAtSeconds: number, claims?: Record<string, readonly string[]>, issuer = ISSUER) => ({
  issuer,
  issuedAtSeconds,
  revocable: claims === undefined ? undefined : new Map(Object.entries(claims)),
});

describe('cut-offs by claims', () => {
  let cutOffs: ClaimCutOffs;

  beforeEach(() => {
    cutOffs = new ClaimCutOffs();
    cutOffs.add(ISSUER, '/tenant', 'acme', { seconds: 100, keepUntilMs: 5000 });
  });

  it('revoke tokens of the issuer with the value that were issued up to the time', () => {
    expect(cutOffs.revokes(token(100, { '/tenant': ['x', 'acme'] }))).to.equal(true);
    expect(cutOffs.revokes(token(101, { '/tenant': ['acme'] }))).to.equal(false);
    expect(cutOffs.revokes(token(100, { '/tenant': ['x'] }))).to.equal(false);
    expect(cutOffs.revokes(token(100, { '/tenant': [] }))).to.equal(false);
    expect(cutOffs.revokes(token(100, { '/tenant': ['acme'] }, 'https://third.example'))).to.equal(false);
  });

  it('revoke tokens for which the claim was not read', () => {
    for (const claims of [undefined, { '/group': ['a'] }]) {
      expect(cutOffs.revokes(token(100, claims))).to.equal(true);
      expect(cutOffs.revokes(token(101, claims))).to.equal(false);
    }
  });

  it('look at every claim that has revoked values', () => {
    cutOffs.add(ISSUER, '/group', 'a', { seconds: 50, keepUntilMs: 5000 });
    expect(cutOffs.revokes(token(50, { '/tenant': ['x'], '/group': ['a'] }))).to.equal(true);
    expect(cutOffs.revokes(token(51, { '/tenant': ['x'], '/group': ['a'] }))).to.equal(false);
  });

  it('count each value once, with the latest of its times', () => {
    cutOffs.add(ISSUER, '/tenant', 'acme', { seconds: 200, keepUntilMs: 4000 });
    cutOffs.add(ISSUER, '/tenant', 'acme', { seconds: 150, keepUntilMs: 6000 });
    expect(cutOffs.size).to.equal(1);
    expect(cutOffs.revokes(token(200, { '/tenant': ['acme'] }))).to.equal(true);
    expect(cutOffs.revokes(token(201, { '/tenant': ['acme'] }))).to.equal(false);
    cutOffs.dropUntil(5999);
    expect(cutOffs.size).to.equal(1);
    cutOffs.dropUntil(6000);
    expect(cutOffs.size).to.equal(0);
  });

  it('are dropped at their time, and the others stay', () => {
    cutOffs.add(ISSUER, '/tenant', 'later', { seconds: 100, keepUntilMs: 5001 });
    cutOffs.add(ISSUER, '/group', 'a', { seconds: 100, keepUntilMs: 4999 });
    cutOffs.add('https://third.example', '/group', 'a', { seconds: 100, keepUntilMs: 5000 });
    expect(cutOffs.size).to.equal(4);
    cutOffs.dropUntil(5000);
    expect(cutOffs.size).to.equal(1);
    expect(cutOffs.revokes(token(1, { '/tenant': ['later'], '/group': ['a'] }))).to.equal(true);
    expect(cutOffs.revokes(token(1, { '/tenant': ['acme'], '/group': ['a'] }))).to.equal(false);
    expect(cutOffs.revokes(token(1, { '/tenant': ['x'] }, 'https://third.example'))).to.equal(false);
    cutOffs.dropUntil(5001);
    expect([cutOffs.size, cutOffs.revokes(token(1))]).to.deep.equal([0, false]);
  });

  it('take over what another list has', () => {
    const other = new ClaimCutOffs();
    other.add(ISSUER, '/tenant', 'acme', { seconds: 300, keepUntilMs: 1 });
    other.add(ISSUER, '/tenant', 'more', { seconds: 1, keepUntilMs: 2 });
    cutOffs.addAll(other);
    expect(cutOffs.size).to.equal(2);
    expect(cutOffs.revokes(token(300, { '/tenant': ['acme'] }))).to.equal(true);
    // The other list is not changed by what is added here.
    cutOffs.add(ISSUER, '/tenant', 'more', { seconds: 9, keepUntilMs: 2 });
    expect(other.revokes(token(9, { '/tenant': ['more'] }))).to.equal(false);
  });

  for (const [what, place] of [
    ['claims', (index: number) => [ISSUER, `/claim ${index}`]],
    ['issuers', (index: number) => [`https://${index}.example`, '/tenant']],
  ] as const) {
    it(`keep nothing of ${what} whose values were all dropped`, () => {
      const places = Array.from({ length: 20_000 }, (_, index) => place(index));
      const before = heapUsedAfterCollection();
      for (const [issuer = '', claim = ''] of places)
        cutOffs.add(issuer, claim, 'acme', { seconds: 1, keepUntilMs: 4000 });
      expect(heapUsedAfterCollection() - before).to.be.greaterThan(2_000_000);
      cutOffs.dropUntil(4000);
      expect(heapUsedAfterCollection() - before).to.be.lessThan(1_000_000);
      expect(cutOffs.size).to.equal(1);
    });
  }

  it('agree with the question for one entry', () => {
    const entry = { issuer: ISSUER, claim: '/tenant' };
    const cutOff = { value: 'acme', seconds: 100 };
    const tokens = [
      token(100, { '/tenant': ['x', 'acme'] }),
      token(101, { '/tenant': ['acme'] }),
      token(100, { '/tenant': ['x'] }),
      token(100, { '/tenant': [] }),
      token(100, { '/group': ['acme'] }),
      token(101),
      token(100),
      token(100, undefined, 'https://third.example'),
    ];
    expect(tokens.map((each) => isRevokedByClaim(each, entry, cutOff))).to.deep.equal(
      tokens.map((each) => cutOffs.revokes(each)),
    );
    expect(tokens.filter((each) => cutOffs.revokes(each))).to.have.length(3);
  });
});
