/** Revocations of another issuer's tokens: in the list, in the index of verified tokens, and in the claims. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { isRevokedBy, RevocationList } from '../../../interceptors/src/revocation/list.js';
import { VerifiedTokens } from '../../../interceptors/src/revocation/verified-tokens.js';
import { readClaims, type TokenClaims, type TokenOrigin } from '../../../interceptors/src/token/claims.js';
import type { Entry } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  bytesOf,
  claims,
  entry,
  ISSUER,
  KEEP_UNTIL_MS,
  NOW_SECONDS,
  verifiedToken,
} from '../tokens-support.js';

const OTHER = 'https://other.example';
const { ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION, ENTRY_KIND_USER } = EntryKind;

const origin: TokenOrigin = {
  issuer: OTHER,
  subject: 'alice',
  sessionId: 'session 1',
  tokenId: 'token 1',
  issuedAtSeconds: NOW_SECONDS - 20,
};

function foreign(kind: EntryKind, key: string, over: Partial<Entry> = {}): Entry {
  return entry(kind, key, { issuer: OTHER, ...over });
}

function cutOff(key: string, seconds: number, over: Partial<Entry> = {}): Entry {
  return foreign(ENTRY_KIND_USER, key, { cutOffTime: new Date(seconds * 1000), ...over });
}

/** The list, the check of one entry, and the index must agree. */
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
  expect(new Set(answers), JSON.stringify(answers)).to.have.property('size', 1);
  for (const one of entries) expect(tokens.revokedBy(one).filter((hit) => hit !== token)).to.deep.equal([]);
  return answers[0] === true;
}

describe('an entry of another issuer', () => {
  const derived = { origin, actors: ['payment'], ancestors: [randomUUID()] };
  const itsOwn = {
    issuer: OTHER,
    subject: 'alice',
    sessionId: 'session 1',
    tokenId: 'token 1',
    issuedAtSeconds: NOW_SECONDS - 20,
    isForeign: true,
  };

  for (const [name, token] of Object.entries({
    'its own token': itsOwn,
    'a token derived from it': derived,
  })) {
    it(`revokes ${name} by its id, its session and its user`, () => {
      expect(isRevoked(token, foreign(ENTRY_KIND_TOKEN, 'token 1'))).to.equal(true);
      expect(isRevoked(token, foreign(ENTRY_KIND_SESSION, 'session 1'))).to.equal(true);
      expect(isRevoked(token, cutOff('alice', NOW_SECONDS))).to.equal(true);
    });

    it(`does not revoke ${name} by the ids of others, of another kind or of another issuer`, () => {
      const others = [
        foreign(ENTRY_KIND_TOKEN, 'token 2'),
        foreign(ENTRY_KIND_TOKEN, 'session 1'),
        foreign(ENTRY_KIND_SESSION, 'token 1'),
        cutOff('bob', NOW_SECONDS),
        foreign(ENTRY_KIND_TOKEN, 'token 1', { issuer: `${OTHER}/` }),
        cutOff('alice', NOW_SECONDS, { issuer: 'https://third.example' }),
      ];
      for (const one of others) expect(isRevoked(token, one)).to.equal(false);
    });

    it(`revokes ${name} up to the cut-off, the very second included, and no later ones`, () => {
      expect(isRevoked(token, cutOff('alice', NOW_SECONDS - 20))).to.equal(true);
      expect(isRevoked(token, cutOff('alice', NOW_SECONDS - 21))).to.equal(false);
      // A cut-off within a second takes the whole second.
      expect(isRevoked(token, cutOff('alice', NOW_SECONDS - 20.5))).to.equal(true);
    });
  }

  it('combines with others by the latest cut-off, in whatever order they come', () => {
    const [early, late] = [cutOff('alice', NOW_SECONDS - 60), cutOff('alice', NOW_SECONDS)];
    expect(isRevoked(derived, early, late)).to.equal(true);
    expect(isRevoked(derived, late, early)).to.equal(true);
    expect(isRevoked(derived, early)).to.equal(false);
  });

  it('does not revoke a token of this issuer with the same identifiers', () => {
    const ours = { subject: 'alice', sessionId: 'session 1', tokenId: 'token 1' };
    expect(isRevoked(ours, foreign(ENTRY_KIND_TOKEN, 'token 1'))).to.equal(false);
    expect(isRevoked(ours, foreign(ENTRY_KIND_SESSION, 'session 1'))).to.equal(false);
    expect(isRevoked(ours, cutOff('alice', NOW_SECONDS))).to.equal(false);
  });

  it('and one of this issuer revoke no tokens of each other with the same identifiers', () => {
    const id = randomUUID();
    const theirs = { ...itsOwn, tokenId: id, sessionId: id, subject: id, keyId: id, generation: 1n };
    for (const kind of [ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION]) {
      expect(isRevoked(theirs, entry(kind, bytesOf(id)))).to.equal(false);
    }
    for (const kind of [ENTRY_KIND_USER, EntryKind.ENTRY_KIND_CLIENT, EntryKind.ENTRY_KIND_KEY]) {
      const token = { ...theirs, clients: [[id, 1n]] as const };
      expect(isRevoked(token, entry(kind, id, { minGeneration: 9n }))).to.equal(false);
    }
  });

  it('revokes nothing when it is of a kind that this version does not know', () => {
    const tokens = new VerifiedTokens();
    for (const token of [derived, itsOwn, {}]) tokens.add(verifiedToken(token));
    for (const kind of [0, 7, 99, EntryKind.ENTRY_KIND_CLIENT, EntryKind.ENTRY_KIND_KEY] as EntryKind[]) {
      const one = foreign(kind, 'key-1');
      expect(isRevokedBy(claims(itsOwn), one), `kind ${kind}`).to.equal(false);
      expect(tokens.revokedBy(one), `kind ${kind}`).to.deep.equal([]);
    }
    for (const kind of [0, 7, 99, EntryKind.ENTRY_KIND_CLAIM] as EntryKind[]) {
      expect(isRevokedBy(claims(), entry(kind, 'key-1')), `kind ${kind}`).to.equal(false);
      expect(tokens.revokedBy(entry(kind, 'key-1')), `kind ${kind}`).to.deep.equal([]);
    }
  });

  it('keeps issuer and identifier apart', () => {
    const token = { ...derived, origin: { ...origin, issuer: 'a b', tokenId: 'c' } };
    expect(isRevoked(token, foreign(ENTRY_KIND_TOKEN, 'b c', { issuer: 'a' }))).to.equal(false);
    expect(isRevoked(token, foreign(ENTRY_KIND_TOKEN, 'c', { issuer: 'a b' }))).to.equal(true);
  });

  it('is kept and counted until the horizon passes its keep_until', () => {
    const list = new RevocationList();
    list.add(foreign(ENTRY_KIND_TOKEN, 'token 1'));
    list.add(cutOff('alice', NOW_SECONDS));
    list.add(cutOff('alice', NOW_SECONDS - 5, { keepUntil: new Date(KEEP_UNTIL_MS + 5000) }));
    expect(list.size).to.equal(2);
    list.dropUntil(KEEP_UNTIL_MS - 1);
    expect(list.size).to.equal(2);
    list.dropUntil(KEEP_UNTIL_MS);
    expect(list.size).to.equal(1);
    expect(list.revokes(claims(derived))).to.equal(true);
    list.dropUntil(KEEP_UNTIL_MS + 5000);
    expect(list.size).to.equal(0);
    expect(list.revokes(claims(derived))).to.equal(false);
  });

  it('is an error when it is a client or a key, or a user without a cut-off', () => {
    const list = new RevocationList();
    expect(() => list.add(foreign(EntryKind.ENTRY_KIND_CLIENT, 'x'))).to.throw(RangeError);
    expect(() => list.add(foreign(EntryKind.ENTRY_KIND_KEY, 'x'))).to.throw(RangeError);
    expect(() => list.add(foreign(ENTRY_KIND_USER, 'x'))).to.throw(RangeError);
    expect(list.size).to.equal(0);
  });

  it('does not flag a token that was evicted', () => {
    const tokens = new VerifiedTokens();
    const token = verifiedToken(derived);
    tokens.add(token);
    tokens.remove(token);
    expect(tokens.revokedBy(foreign(ENTRY_KIND_TOKEN, 'token 1'))).to.deep.equal([]);
  });
});

describe('the claim `origin`', () => {
  const { issuer: iss, subject: sub, sessionId: sid, tokenId: jti, issuedAtSeconds: iat } = origin;
  const plain = { iss, sub, sid, jti, iat };
  const payload = (claim: unknown, over: object = {}) => ({
    iss: ISSUER,
    aud: ['inventory'],
    sub: `${OTHER}#alice`,
    client_id: 'payment',
    iat: NOW_SECONDS - 10,
    exp: NOW_SECONDS + 290,
    jti: randomUUID(),
    scope: 'inventory.read',
    clients: [['payment', 1]],
    act: { sub: 'payment' },
    origin: claim,
    ...over,
  });
  const read = (claim: unknown, over: object = {}) =>
    readClaims(JSON.parse(JSON.stringify(payload(claim, over))), 'key-1', {
      issuer: ISSUER,
      audience: 'inventory',
      nowSeconds: NOW_SECONDS,
    });

  it('is read, with a session and without', () => {
    expect(read(plain)).to.deep.include({ origin: { ...origin, revocable: undefined } });
    const { sid: _sid, ...without } = plain;
    expect(read(without)).to.deep.include({
      origin: { ...origin, sessionId: undefined, revocable: undefined },
    });
  });

  it('is read with the values of claims by which it can be revoked', () => {
    const given = { '/tenant': ['acme', '42'], '/groups': [] };
    const revocable = new Map(Object.entries(given));
    expect(read({ ...plain, claims: given })).to.deep.include({ origin: { ...origin, revocable } });
  });

  it('is rejected when the values have another form, or there are too many claims', () => {
    const many = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`/claim${index}`, []]));
    const bad = [null, [], 'acme', { '/tenant': 'acme' }, { '/tenant': [1] }, { '/tenant': [''] }, many];
    for (const given of bad) {
      expect(read({ ...plain, claims: given }), JSON.stringify(given)).to.deep.equal({ fault: 'origin' });
    }
    expect(read({ ...plain, claims: { ...many, '/claim8': undefined } })).to.deep.include({ keyId: 'key-1' });
  });

  it('is rejected when a member is missing or of another type', () => {
    const bad: unknown[] = [null, [], 'alice', {}];
    for (const name of ['iss', 'sub', 'jti', 'iat']) {
      bad.push({ ...plain, [name]: undefined }, { ...plain, [name]: [] }, { ...plain, [name]: '' });
    }
    bad.push({ ...plain, sid: 1 }, { ...plain, iat: 1.5 }, { ...plain, sub: 'x'.repeat(256) });
    for (const claim of bad) expect(read(claim), JSON.stringify(claim)).to.deep.equal({ fault: 'origin' });
  });

  it('is rejected in a token that was not exchanged, and when it names this issuer', () => {
    expect(read(plain, { act: undefined, ancestors: undefined })).to.deep.equal({ fault: 'origin' });
    expect(read({ ...plain, iss: ISSUER })).to.deep.equal({ fault: 'origin' });
  });

  it("is rejected when the token outlives the origin's maximum lifetime, because its revocation may be dropped", () => {
    expect(read({ ...plain, iat: NOW_SECONDS + 290 - 3600 })).to.deep.include({ keyId: 'key-1' });
    expect(read({ ...plain, iat: NOW_SECONDS + 290 - 3601 })).to.deep.equal({ fault: 'origin' });
  });
});
