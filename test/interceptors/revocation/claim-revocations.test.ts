import { expect } from 'chai';
import { isRevokedBy, RevocationList } from '../../../interceptors/src/revocation/list.js';
import { VerifiedTokens } from '../../../interceptors/src/revocation/verified-tokens.js';
import type { TokenClaims, TokenOrigin } from '../../../interceptors/src/token/claims.js';
import { claimIdOf, pointerOf } from '../../../interceptors/src/token/revocable-claims.js';
import { type Entry, EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { claims, entry, KEEP_UNTIL_MS, NOW_SECONDS, verifiedToken } from '../tokens-support.js';

const OTHER = 'https://other.example';

function byClaim(value: string, over: Partial<Entry> = {}): Entry {
  const cutOffTime = new Date(NOW_SECONDS * 1000);
  return entry(EntryKind.ENTRY_KIND_CLAIM, value, { issuer: OTHER, claim: '/tenant', cutOffTime, ...over });
}

const READ = { '/tenant': ['acme', 'subsidiary'], '/groups': ['staff'] };

function originWith(values: Record<string, readonly string[]> | undefined): TokenOrigin {
  return {
    issuer: OTHER,
    subject: 'alice',
    sessionId: undefined,
    tokenId: 'token 1',
    issuedAtSeconds: NOW_SECONDS - 20,
    revocable: values && new Map(Object.entries(values)),
  };
}

/** The list, the check of one entry, and the index must agree, also after another list has taken the entries over. */
function isRevoked(of: Partial<TokenClaims>, ...entries: Entry[]): boolean {
  const list = new RevocationList();
  for (const one of entries) list.add(one);
  const tokens = new VerifiedTokens();
  const token = verifiedToken(of);
  tokens.add(token);
  tokens.add(verifiedToken());
  const answers = [
    list.revokes(claims(of)),
    entries.some((one) => isRevokedBy(claims(of), one)),
    entries.some((one) => tokens.revokedBy(one).includes(token)),
  ];
  const merged = new RevocationList();
  merged.takeOver(list);
  answers.push(merged.revokes(claims(of)));
  expect(new Set(answers), JSON.stringify(answers)).to.have.property('size', 1);
  for (const one of entries) expect(tokens.revokedBy(one).filter((hit) => hit !== token)).to.deep.equal([]);
  return answers[0] === true;
}

describe('an entry about a claim of another issuer', () => {
  const itsOwn = (
    values: Record<string, readonly string[]> | undefined,
    over: Partial<TokenClaims> = {},
  ) => ({
    ...originWith(values),
    isForeign: true,
    ...over,
  });
  const derived = (values: Record<string, readonly string[]> | undefined) => ({
    origin: originWith(values),
    actors: ['payment'],
  });

  for (const [name, tokenWith] of Object.entries({ 'its own token': itsOwn, 'a derived token': derived })) {
    it('counts beside entries about tokens of other issuers', () => {
      const token = entry(EntryKind.ENTRY_KIND_TOKEN, 'another token', { issuer: OTHER });
      expect(isRevoked(itsOwn(READ), token, byClaim('acme'))).to.equal(true);
      expect(isRevoked(itsOwn(READ), token, byClaim('nobody'))).to.equal(false);
    });

    it(`revokes ${name} that has the value, alone or among others`, () => {
      expect(isRevoked(tokenWith(READ), byClaim('acme'))).to.equal(true);
      expect(isRevoked(tokenWith(READ), byClaim('subsidiary'))).to.equal(true);
      expect(isRevoked(tokenWith(READ), byClaim('staff', { claim: '/groups' }))).to.equal(true);
    });

    it(`does not revoke ${name} with another value, claim, case, spelling or issuer`, () => {
      const others = [
        byClaim('other'),
        byClaim('ACME'),
        byClaim('acme '),
        byClaim('acme', { claim: '/groups' }),
        byClaim('acme', { issuer: 'https://third.example' }),
      ];
      for (const one of others) expect(isRevoked(tokenWith(READ), one), textOf(one)).to.equal(false);
      expect(isRevoked(tokenWith({ ...READ, '/tenant': [] }), byClaim('acme'))).to.equal(false);
    });

    it(`revokes ${name} up to the cut-off, and no later ones`, () => {
      const until = (seconds: number) => byClaim('acme', { cutOffTime: new Date(seconds * 1000) });
      expect(isRevoked(tokenWith(READ), until(NOW_SECONDS - 20))).to.equal(true);
      expect(isRevoked(tokenWith(READ), until(NOW_SECONDS - 20.5))).to.equal(true);
      expect(isRevoked(tokenWith(READ), until(NOW_SECONDS - 21))).to.equal(false);
      expect(isRevoked(tokenWith(READ), until(NOW_SECONDS - 21), until(NOW_SECONDS), until(1))).to.equal(
        true,
      );
    });

    it(`revokes ${name} for which the claim was not read, because it may have the value`, () => {
      for (const values of [undefined, {}, { '/groups': ['staff'] }]) {
        expect(isRevoked(tokenWith(values), byClaim('acme')), JSON.stringify(values)).to.equal(true);
        const late = byClaim('acme', { cutOffTime: new Date((NOW_SECONDS - 21) * 1000) });
        expect(isRevoked(tokenWith(values), late), JSON.stringify(values)).to.equal(false);
        const third = byClaim('acme', { issuer: 'https://third.example' });
        expect(isRevoked(tokenWith(values), third), JSON.stringify(values)).to.equal(false);
      }
    });
  }

  it("does not revoke this issuer's users", () => {
    expect(isRevoked({ subject: 'acme' }, byClaim('acme'))).to.equal(false);
  });

  it('keeps claim and value apart', () => {
    expect(isRevoked(itsOwn({ '/a': ['b c'], '/a b': [] }), byClaim('c', { claim: '/a b' }))).to.equal(false);
    expect(isRevoked(itsOwn({ '/a': [], '/b': ['x'] }), byClaim('x', { claim: '/a\n/b' }))).to.equal(true);
  });

  it('is kept and counted until the horizon passes its keep_until', () => {
    const list = new RevocationList();
    list.add(byClaim('acme'));
    list.add(byClaim('acme', { keepUntil: new Date(KEEP_UNTIL_MS + 5000) }));
    list.add(byClaim('other'));
    list.add(byClaim('staff', { claim: '/groups' }));
    expect(list.size).to.equal(3);
    list.dropUntil(KEEP_UNTIL_MS - 1);
    expect(list.size).to.equal(3);
    list.dropUntil(KEEP_UNTIL_MS);
    expect(list.size).to.equal(1);
    expect(list.revokes(claims(itsOwn({ ...READ, '/tenant': ['other'] })))).to.equal(false);
    expect(list.revokes(claims(itsOwn(READ)))).to.equal(true);
    list.dropUntil(KEEP_UNTIL_MS + 5000);
    expect(list.size).to.equal(0);
    expect(list.revokes(claims(itsOwn(undefined)))).to.equal(false);
  });

  it('is an error without a cut-off, a claim or an issuer', () => {
    const list = new RevocationList();
    expect(() => list.add(byClaim('acme', { cutOffTime: undefined }))).to.throw(RangeError);
    expect(() => list.add(byClaim('acme', { claim: '' }))).to.throw(RangeError);
    expect(() => list.add(byClaim('acme', { issuer: '' }))).to.throw(RangeError);
    expect(list.size).to.equal(0);
  });

  it('does not find a token that was evicted, and finds others of its issuer', () => {
    const tokens = new VerifiedTokens();
    const [first, second] = [verifiedToken(itsOwn(READ)), verifiedToken(derived(READ))];
    for (const token of [first, second]) tokens.add(token);
    tokens.remove(first);
    expect(tokens.revokedBy(byClaim('acme'))).to.deep.equal([second]);
    expect(tokens.revokedBy(byClaim('acme', { claim: '/other' }))).to.deep.equal([second]);
    tokens.remove(second);
    expect(tokens.revokedBy(byClaim('acme'))).to.deep.equal([]);
    expect(tokens.revokedBy(byClaim('acme', { claim: '/other' }))).to.deep.equal([]);
  });
});

describe('the name of a claim', () => {
  it('is a JSON Pointer', () => {
    expect(pointerOf('tenant')).to.equal('/tenant');
    expect(pointerOf(['realm_access', 'groups'])).to.equal('/realm_access/groups');
    expect(pointerOf('https://acme.example/te~nt')).to.equal('/https:~1~1acme.example~1te~0nt');
  });

  it('has an id that depends on the issuer and on the claim', () => {
    // printf 'https://other.example\\0/tenant' | sha256sum
    expect(claimIdOf(OTHER, '/tenant').toString('hex')).to.equal('7dcde4c210162907088c942d82936f94');
    const ids = [claimIdOf(OTHER, ''), claimIdOf(`${OTHER}/`, '/tenant'), claimIdOf(OTHER, '/group')];
    expect(new Set(ids.map((id) => id.toString('hex'))).size).to.equal(3);
  });
});

function textOf({ issuer, claim, key }: Entry): string {
  return `${issuer} ${claim} ${Buffer.from(key).toString()}`;
}
