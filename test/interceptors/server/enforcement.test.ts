/** Revocations in one process: cached tokens, tokens that are being verified, and live calls. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { ServiceError } from '../../../interceptors/src/errors.js';
import { Feed } from '../../../interceptors/src/revocation/feed.js';
import type { LiveCall, VerifiedToken } from '../../../interceptors/src/revocation/verified-tokens.js';
import { CUT_SLICE_CALLS, Enforcement } from '../../../interceptors/src/server/enforcement.js';
import { KNOWN_NETWORK_MS } from '../../../interceptors/src/server/known-networks.js';
import { refusal } from '../../../interceptors/src/server/refusals.js';
import {
  JOINED_CALLS_MAX,
  JOINED_CALLS_PER_NETWORK_MAX,
  VERIFICATIONS_MAX,
  VERIFICATIONS_PER_NETWORK_MAX,
} from '../../../interceptors/src/server/verifications.js';
import { EntryKind } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import {
  answer,
  broadcast,
  EPOCH,
  endOfPull,
  keySet,
  LEASE_MS,
  OTHER_EPOCH,
  partOf,
} from '../revocation/feed-support.js';
import {
  AUDIENCE,
  bytesOf,
  callerWith,
  entry,
  ISSUER,
  SetClock,
  tokenEntry,
  userPayload,
  verifiedToken,
} from '../tokens-support.js';
import { ALLOW, bearer, foreignIssuer, HeldKeys, outcomeOf, REFUSE, tokenText } from './admission-support.js';

/** The network of the peer from which calls come unless a test says otherwise. */
const PEER_NETWORK = 'peer';

/** Verifications that run instead of waiting, at most. */
const RUNNING_MAX = 16;

describe('enforcement', () => {
  let clock: SetClock;
  let keys: HeldKeys;
  let enforcement: Enforcement;
  let feed: Feed;
  let faults: string[];
  let cutFailures: unknown[];
  let limited: string[];
  let later: (() => void)[];
  /** Number of scheduled tasks that wait for a time instead of for the next turn. */
  let paused: number;

  beforeEach(() => {
    clock = new SetClock();
    keys = new HeldKeys('key-1');
    faults = [];
    cutFailures = [];
    limited = [];
    later = [];
    paused = 0;
    enforcement = new Enforcement({
      issuer: ISSUER,
      audience: AUDIENCE,
      clock,
      timers: {
        after: (_, work) => {
          later.push(work);
          paused += 1;
          return () => {};
        },
        soon: (work) => later.push(work),
      },
      createFeed: (listener) => new Feed({ service: AUDIENCE, instance: Buffer.alloc(16, 1), listener }),
      onTokenInvalid: (fault) => faults.push(fault),
      onLimit: (limit) => limited.push(limit),
      onCutFailed: (error) => cutFailures.push(error),
    });
    feed = enforcement.feed;
    hydrate();
  });

  function now() {
    clock.pass(1);
    return { monotonicMs: clock.monotonic, wallMs: clock.wall };
  }

  function sync(over: Parameters<typeof answer>[0] = {}): void {
    feed.applySyncResponse(feed.createSyncRequest(now()), answer(over), () => enforcement.replaceKeys(keys));
  }

  function hydrate(epoch: Buffer = EPOCH, version = 1): void {
    sync({ epoch, pull: true, keySet: keySet(version) });
    feed.beginPull();
    feed.applyPullPart(endOfPull(feed.applied, Buffer.alloc(0), epoch));
    sync({ epoch, head: feed.applied });
  }

  function decide(text: string, rule = REFUSE, peer = 'peer', caller = callerWith()) {
    return enforcement.admissions.decide(rule, bearer(text), Object.assign(caller, { getPeer: () => peer }));
  }

  async function decided(text: string, rule = REFUSE, peer = 'peer', caller = callerWith()): Promise<string> {
    return outcomeOf(await decide(text, rule, peer, caller));
  }

  /** Decisions on so many new tokens at once, each from the peer of its index. */
  function floodOf(count: number, peerOf: (index: number) => string): Promise<string>[] {
    return Array.from({ length: count }, (_, index) => decided(tokenText(), REFUSE, peerOf(index)));
  }

  async function admitted(text: string): Promise<VerifiedToken> {
    const admission = await decide(text, ALLOW);
    if (admission.kind !== 'admitted') throw new Error(`refused: ${outcomeOf(admission)}`);
    return admission.token;
  }

  /** A live call of a token that records when it is cut. */
  function liveCall(token: VerifiedToken, onCut: () => void = () => {}): { readonly cuts: string[] } {
    const cuts: string[] = [];
    const call: LiveCall = {
      previousLive: undefined,
      nextLive: undefined,
      recheck: () => {
        const objection = enforcement.admissions.denialReason(token, false);
        if (objection === undefined) return;
        cuts.push(objection);
        token.unlink(call);
        onCut();
      },
    };
    token.link(call);
    return { cuts };
  }

  const revokeToken = (tokenId: string) => feed.applyBroadcast(broadcast([tokenEntry(tokenId)]));

  describe('of a cached token', () => {
    it('is decided in the same turn, and verified once', async () => {
      const text = tokenText();
      expect(await decided(text)).to.equal('admitted');
      for (let count = 0; count < 10; count += 1) {
        const admission = decide(text);
        expect(admission).to.not.be.instanceOf(Promise);
      }
      expect(keys.verified).to.equal(1);
    });

    it('caches claims and no decisions: rule, expiry, lease and revocation are checked on every call', async () => {
      const tokenId = randomUUID();
      const text = tokenText({ jti: tokenId });
      expect(await decided(text)).to.equal('admitted');
      expect(await decided(text, { ...REFUSE, scopes: ['other'] })).to.equal('SCOPE_MISSING');
      expect(await decided(text, { ...REFUSE, caller: 'SERVICE' })).to.equal('CALLER_KIND');
      clock.pass(LEASE_MS);
      expect(await decided(text)).to.equal('REVOCATION_STATE_STALE');
      expect(await decided(text, ALLOW)).to.equal('admitted');
      revokeToken(tokenId);
      expect(await decided(text, ALLOW)).to.equal('TOKEN_REVOKED');
      expect(keys.verified).to.equal(1);
    });

    it('rejects it on every connection without its certificate, cached or not, in the same turn', async () => {
      const [mine, other] = ['A'.repeat(43), `${'B'.repeat(42)}A`];
      const text = tokenText({ cnf: { 'x5t#S256': mine } });
      const strange = callerWith(other);
      expect(await decided(text, REFUSE, 'peer', strange)).to.equal('TOKEN_INVALID');
      expect(await decided(text, REFUSE, 'peer', callerWith(mine))).to.equal('admitted');
      for (const connection of [strange, callerWith()]) {
        const admission = decide(text, REFUSE, 'peer', connection);
        expect(admission).to.not.be.instanceOf(Promise);
        expect(outcomeOf(await admission)).to.equal('TOKEN_INVALID');
        // The client may have renewed its certificate, which the next connection will show.
        expect(connection.retired).to.be.greaterThan(0);
      }
      expect(await decided(text, REFUSE, 'peer', callerWith(mine))).to.equal('admitted');
      expect(faults).to.include('cnf');
    });

    it('ends with its expiry and the skew', async () => {
      const text = tokenText();
      const token = await admitted(text);
      clock.wall = token.expiresAtMs - 1;
      expect(await decided(text, ALLOW)).to.equal('admitted');
      clock.wall = token.expiresAtMs;
      expect(await decided(text, ALLOW)).to.equal('TOKEN_EXPIRED');
    });

    it('ends with the horizon, whatever the local clock says', async () => {
      const text = tokenText();
      const token = await admitted(text);
      sync({ horizon: new Date(token.expiresAtMs - 1) });
      expect(await decided(text)).to.equal('admitted');
      sync({ horizon: new Date(token.expiresAtMs) });
      expect(await decided(text)).to.equal('TOKEN_EXPIRED');
      expect(await decided(text, ALLOW)).to.equal('TOKEN_EXPIRED');
    });

    const ways: Record<string, () => void> = {
      'a broadcast': () =>
        feed.applyBroadcast(broadcast([entry(EntryKind.ENTRY_KIND_USER, 'user-1', { minGeneration: 4n })])),
      'an answer': () =>
        sync({ head: 1n, entries: [entry(EntryKind.ENTRY_KIND_CLIENT, 'direct', { minGeneration: 2n })] }),
      'an answer that was overtaken': () => {
        const slow = feed.createSyncRequest(now());
        sync();
        feed.applySyncResponse(
          slow,
          answer({ entries: [entry(EntryKind.ENTRY_KIND_KEY, 'key-1')] }),
          () => {},
        );
      },
      'a pull': () => {
        feed.beginPull();
        feed.applyPullPart(
          partOf(entry(EntryKind.ENTRY_KIND_SESSION, bytesOf(String(userPayload()['sid'])))),
        );
        feed.applyPullPart(endOfPull(5n));
      },
      'a key set without its key': () => {
        keys = new HeldKeys('key-2');
        sync({ keySet: keySet(2) });
      },
      'another epoch': () => {
        keys = new HeldKeys('key-2');
        sync({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) });
      },
    };
    for (const [way, revoke] of Object.entries(ways)) {
      it(`is flagged by ${way}, and its calls are cut in the same turn`, async () => {
        const token = await admitted(tokenText());
        const call = liveCall(token);
        revoke();
        expect(token.revoked).to.equal(true);
        expect(call.cuts).to.deep.equal(['TOKEN_REVOKED']);
      });
    }

    it('is dropped by another epoch, even if its key stays, and verified again when it returns', async () => {
      const text = tokenText();
      const token = await admitted(text);
      const call = liveCall(token);
      const other = verifiedToken({ isForeign: true, issuer: 'https://other.example' });
      enforcement.admissions.tokens.add(other);
      sync({ epoch: OTHER_EPOCH, pull: true });
      expect([token.revoked, call.cuts]).to.deep.equal([true, ['TOKEN_REVOKED']]);
      // Tokens of other issuers do not depend on the epoch.
      expect([...enforcement.admissions.tokens.all()]).to.deep.equal([other]);
      expect(other.revoked).to.equal(false);
      hydrate(OTHER_EPOCH);
      expect(await decided(text)).to.equal('admitted');
      expect(keys.verified).to.equal(2);
    });

    it('is flagged when its key leaves the set of its own issuer, and no other', () => {
      const foreign = 'https://other.example';
      const held = new HeldKeys('kept');
      const tokenOf = (issuer: string, keyId: string) => {
        const token = verifiedToken({ issuer, keyId, isForeign: issuer !== ISSUER });
        enforcement.admissions.tokens.add(token);
        return token;
      };
      const tokens = [
        tokenOf(foreign, 'gone'),
        tokenOf(foreign, 'kept'),
        tokenOf('https://third.example', 'gone'),
        tokenOf(ISSUER, 'gone'),
      ];
      // A token of our own whose claims name the other issuer is not one of the other issuer's.
      const own = verifiedToken({ issuer: foreign, keyId: 'gone', isForeign: false });
      enforcement.admissions.tokens.add(own);
      enforcement.foreignKeysChanged(foreignIssuer(foreign, held));
      expect([...tokens, own].map(({ revoked }) => revoked)).to.deep.equal([
        true,
        false,
        false,
        false,
        false,
      ]);
      enforcement.replaceKeys(new HeldKeys('kept'));
      expect([...tokens, own].map(({ revoked }) => revoked)).to.deep.equal([true, false, false, true, true]);
    });

    it('is not affected by entries that do not match it', async () => {
      const token = await admitted(tokenText());
      const call = liveCall(token);
      revokeToken(randomUUID());
      feed.applyBroadcast(broadcast([entry(EntryKind.ENTRY_KIND_USER, 'user-1', { minGeneration: 3n })]));
      sync({ keySet: keySet(2) });
      expect([token.revoked, call.cuts]).to.deep.equal([false, []]);
    });
  });

  describe('of a token that is being verified', () => {
    it('finds it revoked when the revocation arrived meanwhile, for all waiting calls', async () => {
      const tokenId = randomUUID();
      const text = tokenText({ jti: tokenId });
      keys.isHolding = true;
      const waiting = [decided(text), decided(text, ALLOW), decided(text)];
      revokeToken(tokenId);
      keys.release();
      expect(await Promise.all(waiting)).to.deep.equal(['TOKEN_REVOKED', 'TOKEN_REVOKED', 'TOKEN_REVOKED']);
      expect(keys.verified).to.equal(1);
    });

    it('finds its key missing when the key left meanwhile', async () => {
      const old = keys;
      old.isHolding = true;
      const waiting = decided(tokenText());
      keys = new HeldKeys('key-2');
      sync({ keySet: keySet(2) });
      old.release();
      expect(await waiting).to.equal('TOKEN_INVALID');
      expect(faults).to.deep.equal(['kid']);
    });

    it('finds it stale when the lease ended meanwhile', async () => {
      keys.isHolding = true;
      const waiting = decided(tokenText());
      clock.pass(LEASE_MS);
      keys.release();
      expect(await waiting).to.equal('REVOCATION_STATE_STALE');
    });

    it('finds it of another epoch when the epoch changed meanwhile', async () => {
      const old = keys;
      old.isHolding = true;
      const waiting = decided(tokenText());
      keys = new HeldKeys('key-2');
      hydrate(OTHER_EPOCH, 2);
      old.release();
      expect(await waiting).to.equal('TOKEN_INVALID');
    });

    it('verifies a new token once for concurrent calls', async () => {
      const text = tokenText();
      keys.isHolding = true;
      const waiting = Array.from({ length: 500 }, () => decided(text));
      keys.release();
      expect(new Set(await Promise.all(waiting))).to.deep.equal(new Set(['admitted']));
      expect([keys.verified, enforcement.admissions.tokens.size]).to.deep.equal([1, 1]);
    });

    it('limits the verifications of one network, whatever the port, without affecting others', async () => {
      keys.isHolding = true;
      const flood = floodOf(VERIFICATIONS_PER_NETWORK_MAX + 100, (index) => `192.0.2.1:${index}`);
      const honest = decided(tokenText(), REFUSE, '192.0.2.2:1');
      keys.release();
      expect(await honest).to.equal('admitted');
      const outcomes = await Promise.all(flood);
      const refused = outcomes.filter((outcome) => outcome === 'RATE_LIMITED').length;
      expect(refused).to.be.within(100 - RUNNING_MAX, 100);
      expect(limited).to.deep.equal(new Array(refused).fill('verifications'));
      // Verifications that ended no longer count.
      expect(await decided(tokenText(), REFUSE, '192.0.2.1:1')).to.equal('admitted');
    });

    it('limits the calls of one network that wait for one verification, without affecting others', async () => {
      const text = tokenText();
      keys.isHolding = true;
      const first = decided(text, REFUSE, '192.0.2.1:1');
      const flood = Array.from({ length: JOINED_CALLS_PER_NETWORK_MAX + 100 }, (_, index) =>
        decided(text, REFUSE, `192.0.2.1:${index}`),
      );
      const honest = decided(text, REFUSE, '192.0.2.2:1');
      // Refused at once, not when the verification ends.
      expect(await flood.at(-1)).to.equal('RATE_LIMITED');
      keys.release();
      expect([await first, await honest]).to.deep.equal(['admitted', 'admitted']);
      const refused = (await Promise.all(flood)).filter((outcome) => outcome === 'RATE_LIMITED');
      expect(refused).to.have.length(100);
      expect(limited).to.deep.equal(new Array(100).fill('verifications'));
    });

    it('limits all calls of unknown networks that wait for verifications, not those of known ones', async () => {
      const known = tokenText();
      await admitted(tokenText());
      keys.isHolding = true;
      const text = tokenText();
      const flood = Array.from({ length: JOINED_CALLS_MAX + 101 }, (_, index) =>
        decided(text, REFUSE, `10.0.${(index >> 8) & 255}.${index & 255}:1`),
      );
      const honest = [decided(known), decided(known)];
      expect(await flood.at(-1)).to.equal('RATE_LIMITED');
      keys.release();
      expect(await Promise.all(honest)).to.deep.equal(['admitted', 'admitted']);
      const refused = (await Promise.all(flood)).filter((outcome) => outcome === 'RATE_LIMITED');
      expect(refused).to.have.length(100);
      // Calls whose verification ended no longer count.
      keys.isHolding = true;
      const later = tokenText();
      const second = Array.from({ length: JOINED_CALLS_MAX }, (_, index) =>
        decided(later, REFUSE, `10.1.${(index >> 8) & 255}.${index & 255}:1`),
      );
      keys.release();
      expect(new Set(await Promise.all(second))).to.deep.equal(new Set(['admitted']));
    });

    it('counts all addresses of an IPv6 /64 as one network', async () => {
      keys.isHolding = true;
      const flood = floodOf(VERIFICATIONS_PER_NETWORK_MAX + 100, (index) => `2001:db8:0:1::${index}:443`);
      keys.release();
      expect(await Promise.all(flood)).to.include('RATE_LIMITED');
    });

    it('takes turns between the connections of a network, and refuses the one with the most', async () => {
      keys.isHolding = true;
      const flood = floodOf(VERIFICATIONS_PER_NETWORK_MAX + RUNNING_MAX, () => '192.0.2.1:1');
      const honest = Array.from({ length: 10 }, () => decided(tokenText(), REFUSE, '192.0.2.1:2'));
      keys.release();
      expect(await Promise.all(honest)).to.deep.equal(new Array(10).fill('admitted'));
      expect(await Promise.all(flood)).to.include('RATE_LIMITED');
    });

    it('keeps a share for networks with a verified token, and verifies their tokens first', async () => {
      await admitted(tokenText());
      keys.isHolding = true;
      // More networks than the whole queue has places.
      const flood = floodOf(VERIFICATIONS_MAX * 2, (index) => `10.0.${index >> 8}.${index & 255}:1`);
      let verifiedOfFlood = 0;
      for (const decision of flood) {
        void decision.then((outcome) => {
          if (outcome === 'admitted') verifiedOfFlood += 1;
        });
      }
      const known = Array.from({ length: 200 }, () => decided(tokenText()));
      keys.release();
      expect(await Promise.all(known)).to.deep.equal(new Array(200).fill('admitted'));
      // All 512 that wait would come first if the classes had no order.
      expect(verifiedOfFlood).to.be.within(1, 300);
      expect(await Promise.all(flood)).to.include('RATE_LIMITED');
    });

    it('forgets a known network after an hour without a verified token', async () => {
      await admitted(tokenText());
      const { knownNetworks } = enforcement.admissions;
      expect(knownNetworks.has(PEER_NETWORK)).to.equal(true);
      clock.pass(KNOWN_NETWORK_MS);
      expect(knownNetworks.has(PEER_NETWORK)).to.equal(false);
    });

    it('does not know a network by a revoked or an expired token', async () => {
      const { knownNetworks } = enforcement.admissions;
      const jti = randomUUID();
      revokeToken(jti);
      expect(await decided(tokenText({ jti }), ALLOW)).to.equal('TOKEN_REVOKED');
      const expired = tokenText();
      clock.pass(KNOWN_NETWORK_MS);
      expect(await decided(expired, ALLOW)).to.equal('TOKEN_EXPIRED');
      expect(knownNetworks.has(PEER_NETWORK)).to.equal(false);
    });

    it('limits all verifications, without affecting cached tokens', async () => {
      const known = tokenText();
      await admitted(known);
      keys.isHolding = true;
      const flood = floodOf(VERIFICATIONS_MAX * 2, (index) => `10.0.${index >> 8}.${index & 255}:1`);
      expect(await decided(known, REFUSE, 'another')).to.equal('admitted');
      keys.release();
      expect(await Promise.all(flood)).to.include('RATE_LIMITED');
    });

    it('caches nothing of a rejected token', async () => {
      const text = tokenText({ aud: ['payment'] });
      expect(await decided(text)).to.equal('TOKEN_INVALID');
      expect(await decided(tokenText({}, 'key-9'))).to.equal('TOKEN_INVALID');
      expect(enforcement.admissions.tokens.size).to.equal(0);
      expect(faults).to.deep.equal(['aud', 'kid']);
    });
  });

  describe('of a token that left the index', () => {
    it('still finds it revoked, for a handler that outlives its call', async () => {
      const tokenId = randomUUID();
      const token = await admitted(tokenText({ jti: tokenId }));
      enforcement.admissions.tokens.remove(token);
      expect(enforcement.admissions.denialReason(token, false)).to.equal(undefined);
      revokeToken(tokenId);
      expect(token.revoked).to.equal(false);
      expect(enforcement.admissions.denialReason(token, false)).to.equal('TOKEN_REVOKED');
    });

    it('still finds its key missing', async () => {
      const token = await admitted(tokenText());
      enforcement.admissions.tokens.remove(token);
      keys = new HeldKeys('key-2');
      sync({ keySet: keySet(2) });
      expect(enforcement.admissions.denialReason(token, false)).to.equal('TOKEN_REVOKED');
    });

    it('verifies it again when it returns', async () => {
      const tokenId = randomUUID();
      const text = tokenText({ jti: tokenId });
      const token = await admitted(text);
      revokeToken(tokenId);
      enforcement.admissions.tokens.remove(token);
      expect(await decided(text)).to.equal('TOKEN_REVOKED');
      expect(keys.verified).to.equal(2);
    });
  });

  describe('before the list has been complete', () => {
    beforeEach(() => {
      enforcement = new Enforcement({
        issuer: ISSUER,
        audience: AUDIENCE,
        clock,
        timers: { after: () => () => {}, soon: () => {} },
        createFeed: (listener) => new Feed({ service: AUDIENCE, instance: Buffer.alloc(16, 1), listener }),
        onTokenInvalid: () => {},
        onCutFailed: () => {},
      });
      feed = enforcement.feed;
    });

    it('admits no call, with or without on_stale ALLOW and keys', async () => {
      const text = tokenText();
      for (const rule of [REFUSE, ALLOW])
        expect(await decided(text, rule)).to.equal('REVOCATION_STATE_STALE');
      sync({ pull: true, keySet: keySet(1) });
      for (const rule of [REFUSE, ALLOW])
        expect(await decided(text, rule)).to.equal('REVOCATION_STATE_STALE');
      feed.beginPull();
      feed.applyPullPart(endOfPull(0n));
      for (const rule of [REFUSE, ALLOW])
        expect(await decided(text, rule)).to.equal('REVOCATION_STATE_STALE');
      sync();
      for (const rule of [REFUSE, ALLOW]) expect(await decided(text, rule)).to.equal('admitted');
    });

    it('admits no call after the epoch changed, with or without on_stale ALLOW', async () => {
      hydrate();
      const text = tokenText();
      expect(await decided(text, ALLOW)).to.equal('admitted');
      sync({ epoch: OTHER_EPOCH, pull: true });
      for (const one of [text, tokenText()]) {
        expect(await decided(one, ALLOW)).to.equal('REVOCATION_STATE_STALE');
      }
      // The new epoch has other keys.
      keys = new HeldKeys('key-2');
      hydrate(OTHER_EPOCH, 2);
      expect(await decided(text, ALLOW)).to.not.equal('admitted');
    });

    it('accepts a token of an epoch that began, ended by a late response, and began again', async () => {
      hydrate(OTHER_EPOCH, 2);
      const text = tokenText();
      expect(await decided(text)).to.equal('admitted');
      hydrate(EPOCH, 1);
      hydrate(OTHER_EPOCH, 2);
      expect(await decided(text)).to.equal('admitted');
    });

    it('admits calls of public methods', () => {
      expect(enforcement.admissions.decide({ ...REFUSE, isPublic: true }, [], callerWith())).to.include({
        kind: 'public',
      });
    });
  });

  describe('of live calls', () => {
    it('cuts the other calls when one throws, and those of the next revocation', async () => {
      const [first, second] = [randomUUID(), randomUUID()];
      const token = await admitted(tokenText({ jti: first }));
      const other = await admitted(tokenText({ jti: second }));
      const calls = [
        liveCall(token),
        liveCall(token, () => {
          throw new Error('what a handler does');
        }),
        liveCall(token),
      ];
      const another = liveCall(other);
      revokeToken(first);
      expect(calls.map(({ cuts }) => cuts.length)).to.deep.equal([1, 1, 1]);
      expect(cutFailures).to.have.length(1);
      revokeToken(second);
      expect(another.cuts).to.deep.equal(['TOKEN_REVOKED']);
    });

    it('flags every token before it cuts the first call', async () => {
      const tokens = await Promise.all([admitted(tokenText()), admitted(tokenText()), admitted(tokenText())]);
      const flags: boolean[] = [];
      for (const token of tokens) liveCall(token, () => flags.push(tokens.every(({ revoked }) => revoked)));
      feed.applyBroadcast(broadcast([entry(EntryKind.ENTRY_KIND_USER, 'user-1', { minGeneration: 9n })]));
      expect(flags).to.deep.equal([true, true, true]);
    });

    const cutMany = async (ms: number) => {
      const token = await admitted(tokenText());
      const calls = Array.from({ length: 4 * CUT_SLICE_CALLS }, () => liveCall(token, () => clock.pass(ms)));
      feed.applyBroadcast(broadcast([entry(EntryKind.ENTRY_KIND_USER, 'user-1', { minGeneration: 9n })]));
      return () => calls.filter(({ cuts }) => cuts.length > 0).length;
    };

    it('yields to other calls after a few cuts, and pauses only when there are any', async () => {
      const count = await cutMany(0);
      // The call that was cut was admitted shortly before, so there are other calls.
      expect([count(), later.length, paused]).to.deep.equal([CUT_SLICE_CALLS, 1, 1]);
      later.shift()?.();
      expect([count(), later.length, paused]).to.deep.equal([2 * CUT_SLICE_CALLS, 1, 1]);
      await admitted(tokenText({ sub: 'user-2' }));
      later.shift()?.();
      expect([count(), later.length, paused]).to.deep.equal([3 * CUT_SLICE_CALLS, 1, 2]);
      later.shift()?.();
      expect([count(), later.length, paused]).to.deep.equal([4 * CUT_SLICE_CALLS, 0, 2]);
    });

    it('cuts one at a time when handlers take long', async () => {
      // Exactly as long as one slice may take.
      const count = await cutMany(0.5);
      for (let done = 1; done <= 4 * CUT_SLICE_CALLS; done += 1) {
        expect(count()).to.equal(done);
        later.shift()?.();
      }
      expect(later).to.deep.equal([]);
    });

    it('cuts those of a second revocation after those of the first, in one row of slices', async () => {
      const second = await admitted(tokenText({ sub: 'user-2' }));
      const count = await cutMany(0);
      const calls = Array.from({ length: CUT_SLICE_CALLS }, () => liveCall(second));
      feed.applyBroadcast(broadcast([entry(EntryKind.ENTRY_KIND_USER, 'user-2', { minGeneration: 9n })]));
      expect([count(), later.length]).to.deep.equal([CUT_SLICE_CALLS, 1]);
      for (let slice = 0; slice < 4; slice += 1) {
        expect(calls.filter(({ cuts }) => cuts.length > 0)).to.have.length(0);
        later.shift()?.();
      }
      expect(calls.filter(({ cuts }) => cuts.length > 0)).to.have.length(CUT_SLICE_CALLS);
      expect(later).to.deep.equal([]);
    });

    it('cuts those of expired tokens', async () => {
      const token = await admitted(tokenText());
      const call = liveCall(token);
      clock.wall = token.expiresAtMs;
      enforcement.dropExpired();
      expect(call.cuts).to.deep.equal(['TOKEN_EXPIRED']);
      expect(enforcement.admissions.tokens.size).to.equal(0);
    });

    it('cuts those that a stale list does not allow, when they are rechecked', async () => {
      const call = liveCall(await admitted(tokenText()));
      enforcement.recheckLiveCalls();
      expect(call.cuts).to.deep.equal([]);
      clock.pass(LEASE_MS);
      enforcement.recheckLiveCalls();
      expect(call.cuts).to.deep.equal(['REVOCATION_STATE_STALE']);
    });
  });

  describe('of a token that is introspected', () => {
    const examined = async (text: string, audience?: string) => {
      const outcome = await enforcement.admissions.introspect(text, audience);
      return outcome instanceof ServiceError ? outcome.code : outcome.tokenId;
    };

    it('returns its claims, for any audience, and caches nothing', async () => {
      const tokenId = randomUUID();
      const text = tokenText({ jti: tokenId, aud: ['payment'] });
      expect(await examined(text)).to.equal(tokenId);
      expect(await examined(text, 'payment')).to.equal(tokenId);
      expect(await examined(text, 'inventory')).to.equal('TOKEN_INVALID');
      expect(enforcement.admissions.tokens.size).to.equal(0);
    });

    it('returns whether it is invalid, revoked or expired', async () => {
      const tokenId = randomUUID();
      const text = tokenText({ jti: tokenId });
      expect(await examined('nonsense')).to.equal('TOKEN_INVALID');
      expect(await examined(tokenText({}, 'key-9'))).to.equal('TOKEN_INVALID');
      revokeToken(tokenId);
      expect(await examined(text)).to.equal('TOKEN_REVOKED');
      clock.pass(400_000);
      expect(await examined(tokenText())).to.equal('TOKEN_EXPIRED');
    });

    it('finds its key missing when the key left during the verification', async () => {
      const old = keys;
      old.isHolding = true;
      const outcome = examined(tokenText());
      keys = new HeldKeys('key-2');
      sync({ keySet: keySet(2) });
      old.release();
      expect(await outcome).to.equal('TOKEN_REVOKED');
    });
  });

  describe('of invalid credentials', () => {
    it('gives all of them the same response', async () => {
      const good = tokenText();
      const [, payload] = good.split('.');
      const values = [
        'Bearer',
        'Bearer ',
        good,
        `Basic ${good}`,
        `Bearer  ${good}`,
        ` Bearer ${good}`,
        `Bearer ${good} `,
        `Bearer ${good}, Bearer ${good}`,
        `Bearer ${good}=`,
        `Bearer ${payload}`,
        `Bearer ${'A'.repeat(9000)}`,
      ];
      for (const value of values) {
        const admission = await enforcement.admissions.decide(REFUSE, [value], callerWith());
        expect(admission, value.slice(0, 20)).to.have.deep.property('error', refusal('TOKEN_INVALID'));
      }
      expect(keys.verified).to.equal(0);
    });

    it('rejects two valid tokens at once', () => {
      const text = tokenText();
      const admission = enforcement.admissions.decide(REFUSE, bearer(text, text), callerWith());
      expect(admission).to.have.deep.property('error', refusal('TOKEN_INVALID'));
    });
  });
});
