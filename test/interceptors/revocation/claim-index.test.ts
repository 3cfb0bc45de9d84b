/** Which tokens are found by the value of a claim, and that nothing is kept of those that were removed. */

import { expect } from 'chai';
import { ClaimIndex } from '../../../interceptors/src/revocation/claim-index.js';
import { heapUsedAfterCollection } from '../../support/heap.js';

const ISSUER = 'https://other.example';
const root = (claims: Record<string, readonly string[]>, issuer = ISSUER) => ({
  issuer,
  revocable: new Map(Object.entries(claims)),
});

describe('the index of claims', () => {
  const ACME = root({ '/tenant': ['acme', 'shared'], '/group': ['a'] });
  const OTHER = root({ '/tenant': ['other', 'shared'] });
  const UNREAD = { issuer: ISSUER };

  function filled(): ClaimIndex<string> {
    const index = new ClaimIndex<string>();
    index.add(ACME, 'of acme');
    index.add(OTHER, 'of other');
    index.add(UNREAD, 'unread');
    index.add(root({ '/tenant': ['acme'] }, 'https://third.example'), 'of a third issuer');
    return index;
  }

  it('leads from a value to the tokens that have it, and to those whose claim was not read', () => {
    const index = filled();
    expect([...index.find(ISSUER, '/tenant', 'acme')]).to.have.members(['of acme', 'unread']);
    expect([...index.find(ISSUER, '/tenant', 'shared')]).to.have.members(['of acme', 'of other', 'unread']);
    expect([...index.find(ISSUER, '/tenant', 'nobody')]).to.have.members(['unread']);
    // The other token was read for the tenant only, so it may be in any group.
    expect([...index.find(ISSUER, '/group', 'a')]).to.have.members(['of acme', 'of other', 'unread']);
    expect([...index.find(ISSUER, '/group', 'b')]).to.have.members(['of other', 'unread']);
    expect([...index.find('https://fourth.example', '/tenant', 'acme')]).to.deep.equal([]);
  });

  it('tells apart claims and values that look alike when they are joined', () => {
    const index = new ClaimIndex<string>();
    index.add(root({ '/a': ['b /c d'], '/a b': ['d'] }), 'a token');
    expect([...index.find(ISSUER, '/a', 'b /c d')]).to.deep.equal(['a token']);
    expect([...index.find(ISSUER, '/a b', '/c d')]).to.deep.equal([]);
    expect([...index.find(ISSUER, '/a', 'b d')]).to.deep.equal([]);
  });

  it('loses nothing when something is removed that was never added', () => {
    const index = filled();
    // Neither the claims that were read, nor the value, nor the issuer are known.
    index.remove(root({ '/other': ['x'] }), 'never added');
    index.remove(root({ '/tenant': ['nobody'] }), 'never added');
    index.remove(root({ '/tenant': ['acme'] }, 'https://fourth.example'), 'never added');
    expect([...index.find(ISSUER, '/tenant', 'shared')]).to.have.members(['of acme', 'of other', 'unread']);
  });

  it('does not find what was removed, and finds the others', () => {
    const index = filled();
    index.add(ACME, 'of acme too');
    index.remove(ACME, 'of acme');
    expect([...index.find(ISSUER, '/tenant', 'acme')]).to.have.members(['of acme too', 'unread']);
    index.remove(UNREAD, 'unread');
    index.remove(ACME, 'of acme too');
    expect([...index.find(ISSUER, '/tenant', 'shared')]).to.deep.equal(['of other']);
    index.remove(OTHER, 'of other');
    index.remove(OTHER, 'of other');
    index.remove(root({}, 'https://fourth.example'), 'never added');
    expect([...index.find(ISSUER, '/tenant', 'shared')]).to.deep.equal([]);
    expect([...index.find('https://third.example', '/tenant', 'acme')]).to.deep.equal(['of a third issuer']);
  });

  const TOKENS = 20_000;
  const KEPT_BYTES_MAX = 1_000_000;
  for (const [what, rootOf] of [
    ['values', (index: number) => root({ '/tenant': [`value ${index}`] })],
    ['sets of claims', (index: number) => root({ [`/claim ${index}`]: [] })],
    ['issuers', (index: number) => root({ '/tenant': [] }, `https://${index}.example`)],
  ] as const) {
    it(`keeps nothing of the ${what} of removed tokens`, () => {
      const index = new ClaimIndex<number>();
      index.add(root({ '/tenant': ['stays'] }), -1);
      const before = heapUsedAfterCollection();
      for (let token = 0; token < TOKENS; token += 1) index.add(rootOf(token), token);
      const full = heapUsedAfterCollection() - before;
      for (let token = 0; token < TOKENS; token += 1) index.remove(rootOf(token), token);
      const kept = heapUsedAfterCollection() - before;
      expect(full).to.be.greaterThan(2 * KEPT_BYTES_MAX);
      expect(kept).to.be.lessThan(KEPT_BYTES_MAX);
      expect([...index.find(ISSUER, '/tenant', 'stays')]).to.deep.equal([-1]);
    });
  }
});
