/** Verified tokens: found by text, found by the entries that revoke them, removed completely. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { isRevokedBy } from '../../../interceptors/src/revocation/list.js';
import type { LiveCall } from '../../../interceptors/src/revocation/verified-tokens.js';
import { type VerifiedToken, VerifiedTokens } from '../../../interceptors/src/revocation/verified-tokens.js';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { heapUsedAfterCollection } from '../../support/heap.js';
import {
  bytesOf,
  entry,
  foreignEntry,
  ISSUER,
  NOW_SECONDS,
  tokenEntry,
  verifiedToken,
} from '../tokens-support.js';

const OTHER_ISSUER = 'https://other.example';
const { ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION, ENTRY_KIND_USER, ENTRY_KIND_CLIENT, ENTRY_KIND_KEY } =
  EntryKind;

function liveCall(): LiveCall {
  return { previousLive: undefined, nextLive: undefined, recheck: () => {} };
}

/** Tokens that are all in one bucket: their texts differ in characters that do not select the bucket. */
function colliding(count: number): VerifiedToken[] {
  const signature = 'S'.repeat(86);
  return Array.from({ length: count }, (_, index) =>
    verifiedToken({}, `header.payload${index}.${signature}`),
  );
}

describe('verified tokens', () => {
  it('are found by their exact text', () => {
    const tokens = new VerifiedTokens();
    const token = verifiedToken();
    tokens.add(token);
    expect(tokens.find(token.text)).to.equal(token);
    // A copy of the text, so that equality is not identity.
    expect(tokens.find(Buffer.from(token.text).toString())).to.equal(token);
    for (const other of [
      `${token.text}x`,
      token.text.slice(1),
      ` ${token.text}`,
      token.text.toLowerCase(),
      '',
    ]) {
      expect(tokens.find(other)).to.equal(undefined);
    }
  });

  it('are distinguished when all their signatures are alike', () => {
    const tokens = new VerifiedTokens();
    const alike = colliding(20);
    for (const token of alike) tokens.add(token);
    for (const token of alike) expect(tokens.find(token.text)).to.equal(token);
    expect(tokens.find(`header.payload99.${'S'.repeat(86)}`)).to.equal(undefined);
  });

  it('are still found when another of their bucket is removed', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([0, 1, 2, 3, 4, 5]), fc.array(fc.nat(5)), (removed, returned) => {
        const tokens = new VerifiedTokens();
        const alike = colliding(6);
        const present = new Set(alike);
        for (const token of alike) tokens.add(token);
        for (const at of removed) {
          const token = alike[at];
          if (token === undefined) continue;
          tokens.remove(token);
          present.delete(token);
        }
        for (const at of returned) {
          const token = alike[at];
          if (token === undefined || present.has(token)) continue;
          tokens.add(token);
          present.add(token);
        }
        expect([...tokens.all()]).to.have.members([...present]);
        for (const token of alike) {
          expect(tokens.find(token.text)).to.equal(present.has(token) ? token : undefined);
        }
      }),
    );
  });

  it('are returned for an entry exactly when it revokes them', () => {
    const uuids = Array.from({ length: 4 }, () => randomUUID() as string);
    const names = ['alice', 'payment', 'key-1'];
    const anyUuid = fc.constantFrom(...uuids);
    const anyName = fc.constantFrom(...names);
    const anyToken = fc.record({
      tokenId: anyUuid,
      sessionId: fc.option(anyUuid, { nil: undefined }),
      subject: anyName,
      keyId: anyName,
      generation: fc.option(fc.bigInt(0n, 3n), { nil: undefined }),
      ancestors: fc.array(anyUuid, { maxLength: 3 }),
      clients: fc.array(fc.tuple(anyName, fc.bigInt(0n, 3n)), { maxLength: 2 }),
      origin: fc.option(
        fc.record({
          issuer: fc.constantFrom(ISSUER, OTHER_ISSUER),
          subject: anyName,
          sessionId: fc.option(anyUuid, { nil: undefined }),
          tokenId: anyUuid,
          issuedAtSeconds: fc.constantFrom(NOW_SECONDS - 20, NOW_SECONDS),
        }),
        { nil: undefined },
      ),
    });
    const anyEntry = fc.oneof(
      fc
        .tuple(fc.constantFrom(ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION), anyUuid)
        .map(([kind, id]) => entry(kind, bytesOf(id))),
      fc
        .tuple(
          fc.constantFrom(ENTRY_KIND_USER, ENTRY_KIND_CLIENT, ENTRY_KIND_KEY),
          anyName,
          fc.bigInt(0n, 4n),
        )
        .map(([kind, name, minGeneration]) => entry(kind, name, { minGeneration })),
      fc
        .tuple(
          fc.constantFrom(ENTRY_KIND_TOKEN, ENTRY_KIND_SESSION, ENTRY_KIND_USER),
          fc.constantFrom(ISSUER, OTHER_ISSUER),
          fc.oneof(anyUuid, anyName),
          fc.constantFrom(NOW_SECONDS - 21, NOW_SECONDS - 10, NOW_SECONDS),
        )
        .map((parts) => foreignEntry(...parts)),
    );
    fc.assert(
      fc.property(
        fc.array(anyToken, { maxLength: 8 }),
        fc.array(fc.boolean()),
        anyEntry,
        (all, gone, one) => {
          const tokens = new VerifiedTokens();
          const held = all.map((claims) => verifiedToken(claims));
          for (const token of held) tokens.add(token);
          const present = held.filter((token, index) => {
            if (gone[index] === true) tokens.remove(token);
            return gone[index] !== true;
          });
          const expected = present.filter((token) => isRevokedBy(token.claims, one));
          expect(tokens.revokedBy(one)).to.have.members(expected);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('are not returned again once they are flagged', () => {
    const tokens = new VerifiedTokens();
    const token = verifiedToken();
    tokens.add(token);
    const one = tokenEntry(token.claims.tokenId);
    expect(tokens.revokedBy(one)).to.deep.equal([token]);
    token.revoked = true;
    expect(tokens.revokedBy(one)).to.deep.equal([]);
  });

  it('leave nothing behind when they are removed, once or twice', () => {
    const tokens = new VerifiedTokens();
    const shared = randomUUID();
    const [first, second] = [
      verifiedToken({ sessionId: shared, ancestors: [shared] }),
      verifiedToken({ sessionId: shared }),
    ];
    tokens.add(first);
    tokens.add(second);
    tokens.remove(first);
    tokens.remove(first);
    expect(tokens.size).to.equal(1);
    expect(first.indexed).to.equal(false);
    expect(tokens.find(first.text)).to.equal(undefined);
    expect(tokens.revokedBy(entry(ENTRY_KIND_SESSION, bytesOf(shared)))).to.deep.equal([second]);
    expect(tokens.revokedBy(tokenEntry(shared))).to.deep.equal([]);
    expect(tokens.revokedBy(entry(ENTRY_KIND_USER, 'user-1', { minGeneration: 9n }))).to.deep.equal([second]);
    expect(tokens.revokedBy(entry(ENTRY_KIND_KEY, 'key-1'))).to.deep.equal([second]);
    tokens.remove(second);
    expect([...tokens.all()]).to.deep.equal([]);
    expect(tokens.dropExpired(Number.POSITIVE_INFINITY)).to.deep.equal([]);
  });

  it('are counted by what counts the calls of their principal until they are removed', () => {
    const tokens = new VerifiedTokens();
    const [first, second] = [verifiedToken(), verifiedToken()];
    const holder = { tokens: 2 };
    for (const token of [first, second]) {
      token.holder = holder;
      tokens.add(token);
    }
    tokens.remove(first);
    tokens.remove(first);
    expect(holder.tokens).to.equal(1);
    expect([first.holder, second.holder]).to.deep.equal([undefined, holder]);
    // A token that was never added changes nothing.
    const stranger = verifiedToken();
    stranger.holder = holder;
    tokens.remove(stranger);
    expect([holder.tokens, stranger.holder]).to.deep.equal([1, holder]);
  });

  it('are found by comparing few texts, however many there are', () => {
    const tokens = new VerifiedTokens();
    let reads = 0;
    const texts = Array.from({ length: 5000 }, () => {
      const token = verifiedToken();
      const { text } = token;
      tokens.add(token);
      Object.defineProperty(token, 'text', {
        get: () => {
          reads += 1;
          return text;
        },
      });
      return text;
    });
    reads = 0;
    for (const text of texts) expect(tokens.find(text)?.claims).to.not.equal(undefined);
    expect(reads / texts.length).to.be.below(2);
  });

  it('leave no memory behind when all tokens of a session are removed', () => {
    const tokens = new VerifiedTokens();
    const fill = (count: number): void => {
      for (let number = 0; number < count; number += 1) {
        const shared = { sessionId: randomUUID(), subject: randomUUID(), ancestors: [randomUUID()] };
        const pair = [verifiedToken(shared), verifiedToken(shared)];
        for (const token of pair) tokens.add(token);
        for (const token of pair) tokens.remove(token);
      }
    };
    fill(100);
    const before = heapUsedAfterCollection();
    fill(5000);
    // An index that kept its sets would grow by some 5 MB.
    expect(heapUsedAfterCollection() - before).to.be.below(2_000_000);
  });

  it('know whether they are in the index', () => {
    const tokens = new VerifiedTokens();
    const token = verifiedToken();
    expect(token.indexed).to.equal(false);
    tokens.add(token);
    expect(token.indexed).to.equal(true);
  });

  it('are dropped when they have expired, including the skew, and not before', () => {
    const tokens = new VerifiedTokens();
    const early = verifiedToken({ expiresAtSeconds: NOW_SECONDS });
    const late = verifiedToken({ expiresAtSeconds: NOW_SECONDS + 1 });
    tokens.add(early);
    tokens.add(late);
    expect(early.expiresAtMs).to.equal((NOW_SECONDS + 5) * 1000);
    tokens.dropExpired(early.expiresAtMs - 1);
    expect(tokens.size).to.equal(2);
    tokens.dropExpired(early.expiresAtMs);
    expect([...tokens.all()]).to.deep.equal([late]);
  });

  it('expire although another one that expires with them was removed', () => {
    const tokens = new VerifiedTokens();
    const [removed, other] = [verifiedToken(), verifiedToken()];
    tokens.add(removed);
    tokens.add(other);
    tokens.remove(removed);
    tokens.dropExpired(other.expiresAtMs);
    expect(tokens.size).to.equal(0);
  });

  it('are returned when they had live calls as they expired', () => {
    const tokens = new VerifiedTokens();
    const [idle, busy] = [verifiedToken(), verifiedToken()];
    tokens.add(idle);
    tokens.add(busy);
    busy.link(liveCall());
    expect(tokens.dropExpired(idle.expiresAtMs)).to.deep.equal([busy]);
    expect(tokens.size).to.equal(0);
  });

  describe('above their limit', () => {
    it('are evicted, the oldest unused one first', () => {
      const tokens = new VerifiedTokens(3);
      const [a, b, c, d] = [verifiedToken(), verifiedToken(), verifiedToken(), verifiedToken()];
      for (const token of [a, b, c]) {
        token.used = false;
        tokens.add(token);
      }
      a.used = true;
      tokens.add(d);
      expect([...tokens.all()]).to.have.members([a, c, d]);
      expect(a.used).to.equal(false);
    });

    it('are not evicted before another one that was not used since', () => {
      const tokens = new VerifiedTokens(2);
      const [first, second, third] = [verifiedToken(), verifiedToken(), verifiedToken()];
      tokens.add(first);
      tokens.add(second);
      second.used = false;
      tokens.add(third);
      expect([...tokens.all()]).to.have.members([first, third]);
    });

    it('are evicted after at most 32 others were examined', () => {
      const tokens = new VerifiedTokens(40);
      for (let count = 0; count < 40; count += 1) {
        const token = verifiedToken();
        if (count < 32) token.link(liveCall());
        tokens.add(token);
      }
      // The 32 oldest have live calls; the next eviction begins after them.
      tokens.add(verifiedToken());
      expect(tokens.size).to.equal(41);
      tokens.add(verifiedToken());
      expect(tokens.size).to.equal(41);
    });

    it('never exceed it while none has a live call', () => {
      const tokens = new VerifiedTokens(100);
      for (let count = 0; count < 500; count += 1) {
        tokens.add(verifiedToken());
        expect(tokens.size).to.be.at.most(100);
      }
    });

    it('are not evicted while they have a live call', () => {
      const tokens = new VerifiedTokens(10);
      const pinned = Array.from({ length: 50 }, () => verifiedToken());
      for (const token of pinned) {
        token.link(liveCall());
        tokens.add(token);
      }
      for (let count = 0; count < 200; count += 1) tokens.add(verifiedToken());
      for (const token of pinned) expect(tokens.find(token.text)).to.equal(token);
    });

    it('are evicted although most have live calls and all were just used', () => {
      fc.assert(
        fc.property(fc.array(fc.boolean(), { minLength: 200, maxLength: 200 }), (pins) => {
          const max = 64;
          const tokens = new VerifiedTokens(max);
          let pinned = 0;
          for (const isPinned of pins) {
            for (const token of tokens.all()) token.used = true;
            const token = verifiedToken();
            tokens.add(token);
            if (isPinned && pinned < 30) {
              token.link(liveCall());
              pinned += 1;
            }
            // With fewer than 32 pinned, every eviction finds a token.
            expect(tokens.size).to.be.at.most(max);
          }
        }),
        { numRuns: 20 },
      );
    });
  });

  it('know their live calls, whatever the order in which these begin and end', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(5)), { maxLength: 40 }), (steps) => {
        const token = verifiedToken();
        const calls = Array.from({ length: 6 }, liveCall);
        const live = new Set<LiveCall>();
        for (const [begins, at] of steps) {
          const call = calls[at];
          if (call === undefined || begins === live.has(call)) continue;
          if (begins) {
            token.link(call);
            live.add(call);
          } else {
            token.unlink(call);
            live.delete(call);
            expect([call.previousLive, call.nextLive]).to.deep.equal([undefined, undefined]);
          }
          expect(token.liveCalls()).to.have.members([...live]);
          expect(token.firstCall === undefined).to.equal(live.size === 0);
        }
      }),
    );
  });

  it('keep their live calls when a call that is none of them ends', () => {
    const token = verifiedToken();
    const [live, stranger] = [liveCall(), liveCall()];
    token.link(live);
    token.unlink(stranger);
    expect(token.liveCalls()).to.deep.equal([live]);
    token.unlink(live);
    token.unlink(live);
    expect(token.liveCalls()).to.deep.equal([]);
  });
});
