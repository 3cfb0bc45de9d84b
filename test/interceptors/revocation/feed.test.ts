/** How the feed keeps the list equal to the log, and when its lease runs. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import fc from 'fast-check';
import { ACKNOWLEDGEMENTS_MAX } from '../../../interceptors/src/limits.js';
import { Feed, type SyncTicket } from '../../../interceptors/src/revocation/feed.js';
import {
  EntryKind,
  type PullResponse,
  type SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { bytesOf, claims, entry, KEEP_UNTIL_MS, tokenEntry } from '../tokens-support.js';
import {
  answer,
  at,
  broadcast,
  EPOCH,
  endOfPull,
  keySet,
  LEASE_MS,
  ListenedFeed,
  ModelLog,
  NOTHING,
  OTHER_EPOCH,
  partOf,
} from './feed-support.js';

describe('a feed', () => {
  let held: ListenedFeed;
  let feed: ListenedFeed['feed'];

  beforeEach(() => {
    held = new ListenedFeed();
    feed = held.feed;
  });

  const revokes = (tokenId: string) => feed.list.revokes(claims({ tokenId }));

  describe('before its first response', () => {
    it('sends a request without a position, and has no lease', () => {
      expect(feed.createSyncRequest(at(0)).request).to.deep.equal({
        service: 'inventory',
        instance: Buffer.alloc(16, 1),
        epoch: NOTHING,
        applied: 0n,
        entryIdAtApplied: NOTHING,
        keySetVersion: NOTHING,
        seen: [],
        fences: [],
        heldTo: 0n,
        heldDigest: NOTHING,
        kinds: [1, 2, 3, 4, 5, 6],
        claimIds: [],
        description: undefined,
        leaving: false,
      });
      expect(held.leaseLeftMs(at(0))).to.equal(0);
      expect(feed.hydrated).to.equal(false);
    });

    it("says what it reads in other issuers' tokens", () => {
      const claimIds = [Uint8Array.of(1, 2), Uint8Array.of(3)];
      const listener = { entryAdded: () => {}, listFilled: () => {}, epochChanged: () => {} };
      const reading = new Feed({ service: 'inventory', instance: Buffer.alloc(16, 1), listener, claimIds });
      expect(reading.createSyncRequest(at(0)).request.claimIds).to.deep.equal([
        Buffer.from([1, 2]),
        Buffer.from([3]),
      ]);
    });

    it('pulls first, even when the response seems complete, because it does not continue the request', () => {
      expect(held.ask(at(0), answer({ keySet: keySet(1) }))).to.equal('pull');
      expect(feed.hydrated).to.equal(false);
      expect(held.leaseLeftMs(at(0))).to.equal(0);
    });

    it('ignores broadcasts', () => {
      const tokenId = randomUUID();
      expect(feed.applyBroadcast(broadcast([tokenEntry(tokenId)]))).to.deep.equal({
        accepted: false,
        syncDue: false,
      });
      expect(feed.applyBroadcast(broadcast([tokenEntry(tokenId)], NOTHING))).to.deep.equal({
        accepted: false,
        syncDue: false,
      });
      expect(feed.list.size).to.equal(0);
    });

    it('has no lease after a pull alone', () => {
      held.ask(at(0), answer({ pull: true, keySet: keySet(1) }));
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(randomUUID())));
      expect(feed.applyPullPart(endOfPull(7n))).to.equal(true);
      expect(feed.applied).to.equal(7n);
      expect(feed.hydrated).to.equal(false);
      expect(held.leaseLeftMs(at(1))).to.equal(0);
    });

    it('is granted a lease by the sync after the pull', () => {
      held.hydrate(at(0), 7n);
      expect(feed.hydrated).to.equal(true);
      expect(held.leaseLeftMs(at(0))).to.equal(LEASE_MS);
      expect(feed.createSyncRequest(at(1)).request).to.include({ applied: 7n });
    });
  });

  describe('lease', () => {
    it('runs from the request, not from the response', () => {
      held.hydrate(at(0));
      const ticket = feed.createSyncRequest(at(1000));
      // The response takes four seconds.
      expect(feed.applySyncResponse(ticket, answer(), () => {})).to.equal('granted');
      expect(held.leaseLeftMs(at(5000))).to.equal(1000);
      expect(held.leaseLeftMs(at(5999))).to.equal(1);
      expect(held.leaseLeftMs(at(6000))).to.equal(0);
      expect(held.leaseLeftMs(at(60_000))).to.be.below(0);
    });

    it('is over on arrival when the response took longer than its length', () => {
      held.hydrate(at(0));
      expect(held.ask(at(1000), answer())).to.equal('granted');
      expect(held.leaseLeftMs(at(1000 + LEASE_MS))).to.be.at.most(0);
    });

    it('is over when the wall clock is before the request', () => {
      held.hydrate(at(0));
      expect(held.leaseLeftMs(at(100, -100))).to.equal(LEASE_MS - 100);
      expect(held.leaseLeftMs(at(100, -101))).to.equal(0);
    });

    it('is over when either clock says so, because the monotonic clock does not count a sleep', () => {
      held.hydrate(at(0));
      expect(held.leaseLeftMs(at(10, LEASE_MS - 11))).to.equal(1);
      expect(held.leaseLeftMs(at(10, LEASE_MS - 10))).to.equal(0);
      expect(held.leaseLeftMs(at(10, 3_600_000))).to.be.below(0);
    });

    it('is not made longer by a wall clock that runs behind', () => {
      held.hydrate(at(0));
      expect(held.leaseLeftMs(at(LEASE_MS, -1000))).to.equal(0);
    });

    it('counts a sleep that follows on a wall clock that was set back', () => {
      held.hydrate(at(0));
      expect(held.leaseLeftMs(at(3000))).to.equal(LEASE_MS - 3000);
      expect(held.leaseLeftMs(at(3000, -2500))).to.equal(LEASE_MS - 3000);
      // Asleep for 1900 ms, which the monotonic clock does not count.
      expect(held.leaseLeftMs(at(3000, -600))).to.equal(100);
      expect(held.leaseLeftMs(at(3100, -600))).to.equal(0);
    });

    it('counts every sleep, however often the wall clock is set back before', () => {
      held.hydrate(at(0));
      for (let cycle = 1; cycle <= 10; cycle += 1) {
        held.leaseLeftMs(at(100 * cycle, -100));
        // Asleep for 100 ms.
        expect(held.leaseLeftMs(at(100 * cycle))).to.equal(LEASE_MS - 200 * cycle);
      }
    });

    it('counts the rises of the wall clock since the request', () => {
      held.hydrate(at(0));
      held.leaseLeftMs(at(100, -50));
      held.leaseLeftMs(at(100, 4000));
      held.ask(at(200, 4000), answer());
      expect(held.leaseLeftMs(at(200, 4000))).to.equal(LEASE_MS);
      const ticket = feed.createSyncRequest(at(300, 4000));
      held.leaseLeftMs(at(400, 3900));
      held.leaseLeftMs(at(400, 4000));
      expect(feed.applySyncResponse(ticket, answer(), () => {})).to.equal('granted');
      expect(held.leaseLeftMs(at(400, 4000))).to.equal(LEASE_MS - 200);
    });

    it('is shortened by a wall clock that is set forward as by time that passes', () => {
      held.hydrate(at(0));
      expect(held.leaseLeftMs(at(100, 1000))).to.equal(LEASE_MS - 1100);
      expect(held.leaseLeftMs(at(200, 1000))).to.equal(LEASE_MS - 1200);
      expect(held.leaseLeftMs(at(200, LEASE_MS))).to.be.below(0);
    });

    it('is not shortened by jitter of the clocks', () => {
      held.hydrate(at(0));
      for (let reading = 0; reading < 100_000; reading += 1) {
        held.leaseLeftMs(at(reading / 100, (reading % 5) / 2 - 1));
      }
      expect(held.leaseLeftMs(at(1000))).to.be.within(LEASE_MS - 1005, LEASE_MS - 1000);
    });

    it('is as long as the response that grants it specifies', () => {
      held.hydrate(at(0));
      expect(feed.leaseLengthMs).to.equal(LEASE_MS);
      held.ask(at(10), answer({ leaseLength: { seconds: 1n, nanos: 500_000_000 } }));
      expect(feed.leaseLengthMs).to.equal(1500);
      expect(held.leaseLeftMs(at(10))).to.equal(1500);
    });

    it('does not begin when the response contains no length', () => {
      held.hydrate(at(0));
      held.ask(at(10), answer({ leaseLength: undefined }));
      expect(held.leaseLeftMs(at(10))).to.equal(0);
    });

    it('is neither renewed nor ended by a response that requires a pull', () => {
      held.hydrate(at(0));
      expect(held.ask(at(1000), answer({ head: 900n, pull: true }))).to.equal('pull');
      expect(held.leaseLeftMs(at(1000))).to.equal(LEASE_MS - 1000);
      expect(feed.applied).to.equal(0n);
    });

    it('begins after the keys are installed', () => {
      held.hydrate(at(0));
      let leaseWhileInstalling = Number.NaN;
      held.ask(at(2000), answer({ keySet: keySet(2) }), () => {
        leaseWhileInstalling = held.leaseLeftMs(at(2000));
      });
      expect(leaseWhileInstalling).to.equal(LEASE_MS - 2000);
      expect(held.leaseLeftMs(at(2000))).to.equal(LEASE_MS);
      expect(feed.createSyncRequest(at(2001)).request.keySetVersion).to.deep.equal(keySet(2).version);
    });

    it('is not renewed when the keys cannot be installed, and they are requested again', () => {
      held.hydrate(at(0));
      const ticket = feed.createSyncRequest(at(2000));
      const install = () => {
        throw new Error('not a key');
      };
      expect(() => feed.applySyncResponse(ticket, answer({ keySet: keySet(2) }), install)).to.throw(
        'not a key',
      );
      expect(held.leaseLeftMs(at(2000))).to.equal(LEASE_MS - 2000);
      expect(feed.createSyncRequest(at(2001)).request.keySetVersion).to.deep.equal(keySet(1).version);
    });

    it('is not granted before the first key set', () => {
      held.ask(at(0), answer({ pull: true }));
      feed.beginPull();
      feed.applyPullPart(endOfPull(0n));
      expect(held.ask(at(1), answer())).to.equal('outdated');
      expect(feed.hydrated).to.equal(false);
      expect(held.leaseLeftMs(at(1))).to.equal(0);
    });

    it('is not granted on a key set that was replaced since the request', () => {
      held.hydrate(at(0));
      const ticket = feed.createSyncRequest(at(1000));
      const later = feed.createSyncRequest(at(2000));
      // Sent at 1000 with key set 1; meanwhile the response to an earlier request has installed set 2.
      held.ask(at(500), answer({ keySet: keySet(2) }));
      expect(feed.applySyncResponse(ticket, answer(), () => {})).to.equal('outdated');
      expect(held.leaseLeftMs(at(1000))).to.equal(LEASE_MS - 500);
      expect(feed.applySyncResponse(later, answer({ keySet: keySet(1) }), () => {})).to.equal('granted');
    });

    it('installs no keys from a response without any', () => {
      held.hydrate(at(0));
      let installed = 0;
      held.ask(at(10), answer(), () => {
        installed += 1;
      });
      expect(installed).to.equal(0);
    });
  });

  describe('sync responses', () => {
    it('add every entry to the list, known or not, and notify of each', () => {
      held.hydrate(at(0));
      const [known, unknown] = [randomUUID(), randomUUID()];
      feed.applyBroadcast(broadcast([tokenEntry(known, { sequence: 1n })]));
      const entries = [tokenEntry(known, { sequence: 1n }), tokenEntry(unknown, { sequence: 2n })];
      held.ask(at(10), answer({ head: 2n, entries }));
      expect(revokes(known) && revokes(unknown)).to.equal(true);
      expect(held.added.slice(1)).to.deep.equal(entries);
      expect(feed.applied).to.equal(2n);
    });

    it('name the entry at the head, which the next request names', () => {
      held.hydrate(at(0));
      const one = tokenEntry(randomUUID(), { sequence: 1n });
      held.ask(at(10), answer({ head: 1n, entryIdAtHead: one.entryId, entries: [one] }));
      expect(feed.createSyncRequest(at(11)).request.entryIdAtApplied).to.deep.equal(one.entryId);
    });

    it('contribute only entries when they were overtaken', () => {
      held.hydrate(at(0));
      const tokenId = randomUUID();
      const slow = feed.createSyncRequest(at(1000));
      held.ask(at(2000), answer({ head: 5n, horizon: new Date(1000) }));
      let installed = false;
      const late = answer({
        head: 9n,
        entries: [tokenEntry(tokenId, { sequence: 9n })],
        keySet: keySet(9),
        horizon: new Date(KEEP_UNTIL_MS * 2),
        leaseLength: { seconds: 3600n, nanos: 0 },
      });
      const outcome = feed.applySyncResponse(slow, late, () => {
        installed = true;
      });
      expect(outcome).to.equal('outdated');
      expect(revokes(tokenId)).to.equal(true);
      expect(feed.applied).to.equal(5n);
      expect(installed).to.equal(false);
      expect(feed.horizonMs).to.equal(1000);
      expect(held.leaseLeftMs(at(2000))).to.equal(LEASE_MS);
    });

    it('to one request count once', () => {
      held.hydrate(at(0));
      const ticket = feed.createSyncRequest(at(1000));
      expect(feed.applySyncResponse(ticket, answer({ head: 1n }), () => {})).to.equal('granted');
      expect(feed.applySyncResponse(ticket, answer({ head: 2n }), () => {})).to.equal('outdated');
      expect(feed.applied).to.equal(1n);
    });

    it('never move the position in the log back', () => {
      held.hydrate(at(0), 7n);
      held.ask(at(10), answer({ head: 5n }));
      expect(feed.applied).to.equal(7n);
    });

    it('set the horizon, which never goes back', () => {
      held.hydrate(at(0));
      held.ask(at(10), answer({ horizon: new Date(2000) }));
      held.ask(at(20), answer({ horizon: new Date(1000) }));
      held.ask(at(30), answer());
      expect(feed.horizonMs).to.equal(2000);
    });

    it('drop the entries up to the horizon, and no others', () => {
      held.hydrate(at(0));
      const [early, late] = [randomUUID(), randomUUID()];
      const entries = [
        tokenEntry(early, { sequence: 1n }),
        tokenEntry(late, { sequence: 2n, keepUntil: new Date(KEEP_UNTIL_MS + 120_000) }),
      ];
      held.ask(at(10), answer({ head: 2n, entries }));
      held.ask(at(20), answer({ head: 2n, horizon: new Date(KEEP_UNTIL_MS + 60_000) }));
      expect([revokes(early), revokes(late)]).to.deep.equal([false, true]);
    });

    it('grant no lease when one of their entries is malformed', () => {
      held.hydrate(at(0));
      const tokenId = randomUUID();
      const entries = [tokenEntry(tokenId, { sequence: 1n }), entry(9 as EntryKind, 'x', { sequence: 2n })];
      expect(() => held.ask(at(2000), answer({ head: 2n, entries }))).to.throw(RangeError);
      expect(feed.applied).to.equal(0n);
      expect(held.leaseLeftMs(at(2000))).to.equal(LEASE_MS - 2000);
      expect(revokes(tokenId)).to.equal(true);
    });
  });

  describe('entries beyond the position', () => {
    const xorOf = (...ids: readonly Uint8Array[]): Buffer =>
      ids.reduce<Buffer>(
        (sum, id) => Buffer.from(sum.map((byte, index) => byte ^ (id[index] ?? 0))),
        Buffer.alloc(16),
      );
    const named = () => {
      const { applied, heldTo, heldDigest } = feed.createSyncRequest(at(1)).request;
      return { applied, heldTo, heldDigest };
    };
    const four = tokenEntry(randomUUID(), { sequence: 4n });
    const five = tokenEntry(randomUUID(), { sequence: 5n });
    const six = tokenEntry(randomUUID(), { sequence: 6n });

    beforeEach(() => held.hydrate(at(0), 3n));

    it('are named in the next request, up to the first gap, and do not move the position', () => {
      expect(named()).to.deep.equal({ applied: 3n, heldTo: 0n, heldDigest: NOTHING });
      feed.applyBroadcast(broadcast([four]));
      feed.applyBroadcast(broadcast([six, six]));
      expect(named()).to.deep.equal({ applied: 3n, heldTo: 4n, heldDigest: Buffer.from(four.entryId) });
      feed.applyBroadcast(broadcast([five]));
      const heldDigest = xorOf(four.entryId, five.entryId, six.entryId);
      expect(named()).to.deep.equal({ applied: 3n, heldTo: 6n, heldDigest });
    });

    it('need not be in the response that moves the position beyond them', () => {
      feed.applyBroadcast(broadcast([four, five]));
      const ticket = feed.createSyncRequest(at(10));
      feed.applyBroadcast(broadcast([six]));
      const response = answer({ head: 5n, entryIdAtHead: Buffer.from(five.entryId) });
      expect(feed.applySyncResponse(ticket, response, () => {})).to.equal('granted');
      expect(named()).to.deep.equal({ applied: 5n, heldTo: 6n, heldDigest: Buffer.from(six.entryId) });
    });

    it('are not held when they could not be added to the list', () => {
      const broken = entry(9 as EntryKind, 'x', { sequence: 5n });
      expect(() => feed.applyBroadcast(broadcast([four, broken, six]))).to.throw(RangeError);
      expect(named()).to.deep.include({ heldTo: 4n, heldDigest: Buffer.from(four.entryId) });
    });

    it('are forgotten when an epoch begins', () => {
      feed.applyBroadcast(broadcast([four]));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      expect(named()).to.deep.equal({ applied: 0n, heldTo: 0n, heldDigest: NOTHING });
    });

    it('begin after the end of a pull', () => {
      feed.applyBroadcast(broadcast([four, five, six]));
      feed.beginPull();
      feed.applyPullPart(endOfPull(5n));
      expect(named()).to.deep.equal({ applied: 5n, heldTo: 6n, heldDigest: Buffer.from(six.entryId) });
    });
  });

  describe('broadcasts', () => {
    beforeEach(() => held.hydrate(at(0), 3n));

    it('count at once, in any order, and never move the position in the log', () => {
      const [fourth, fifth] = [randomUUID(), randomUUID()];
      feed.applyBroadcast(broadcast([tokenEntry(fifth, { sequence: 5n })]));
      feed.applyBroadcast(broadcast([tokenEntry(fourth, { sequence: 4n })]));
      expect(revokes(fourth) && revokes(fifth)).to.equal(true);
      expect(held.notifications).to.deep.equal(['entry', 'entry']);
      expect(feed.applied).to.equal(3n);
      expect(feed.createSyncRequest(at(1)).request.applied).to.equal(3n);
    });

    it('never renew the lease', () => {
      feed.applyBroadcast(broadcast([tokenEntry(randomUUID(), { sequence: 4n })]));
      expect(held.leaseLeftMs(at(LEASE_MS))).to.equal(0);
    });

    it('require a sync when an earlier entry is missing', () => {
      const received = (sequence: bigint) =>
        feed.applyBroadcast(broadcast([tokenEntry(randomUUID(), { sequence })])).syncDue;
      expect(received(4n)).to.equal(false);
      expect(received(5n)).to.equal(false);
      expect(received(7n)).to.equal(true);
      expect(received(8n)).to.equal(false);
      expect(received(6n)).to.equal(false);
      expect(received(8n)).to.equal(false);
    });

    it('continue from the head of the last response', () => {
      held.ask(at(1), answer({ head: 20n }));
      expect(feed.applyBroadcast(broadcast([tokenEntry(randomUUID(), { sequence: 21n })])).syncDue).to.equal(
        false,
      );
      expect(feed.applyBroadcast(broadcast([tokenEntry(randomUUID(), { sequence: 23n })])).syncDue).to.equal(
        true,
      );
    });

    it('count as seen although a response with a lower head follows', () => {
      feed.applyBroadcast(broadcast([tokenEntry(randomUUID(), { sequence: 9n })]));
      held.ask(at(1), answer({ head: 5n }));
      const next = broadcast([tokenEntry(randomUUID(), { sequence: 10n })]);
      expect(feed.applyBroadcast(next).syncDue).to.equal(false);
    });

    it('of another epoch are ignored', () => {
      const tokenId = randomUUID();
      const received = feed.applyBroadcast(
        broadcast([tokenEntry(tokenId, { sequence: 99n, acknowledge: true })], OTHER_EPOCH),
      );
      expect(received).to.deep.equal({ accepted: false, syncDue: false });
      expect(revokes(tokenId)).to.equal(false);
      expect(feed.createSyncRequest(at(1)).request.seen).to.deep.equal([]);
      expect(held.leaseLeftMs(at(0))).to.equal(LEASE_MS);
    });
  });

  describe('acknowledgements', () => {
    const received = (acknowledge: boolean) => {
      const one = tokenEntry(randomUUID(), { sequence: 1n, acknowledge });
      return { ...feed.applyBroadcast(broadcast([one])), id: one.entryId };
    };
    beforeEach(() => held.hydrate(at(0)));

    it('are sent with the next request, which is due at once', () => {
      const { syncDue, id } = received(true);
      expect(syncDue).to.equal(true);
      expect(feed.createSyncRequest(at(1)).request.seen).to.deep.equal([id]);
    });

    it('are not sent for entries that request none', () => {
      expect(received(false).syncDue).to.equal(false);
      expect(feed.createSyncRequest(at(1)).request.seen).to.deep.equal([]);
    });

    it('are sent again until a request that contained them was answered', () => {
      const { id } = received(true);
      feed.createSyncRequest(at(1));
      expect(feed.createSyncRequest(at(2)).request.seen).to.deep.equal([id]);
      const ticket = feed.createSyncRequest(at(3));
      const { id: second } = received(true);
      feed.applySyncResponse(ticket, answer(), () => {});
      expect(feed.createSyncRequest(at(4)).request.seen).to.deep.equal([second]);
    });

    it('are sent again when the response was overtaken by one to a request without them', () => {
      const before = feed.createSyncRequest(at(1));
      const { id } = received(true);
      feed.applySyncResponse(before, answer(), () => {});
      expect(feed.createSyncRequest(at(2)).request.seen).to.deep.equal([id]);
    });

    it('stay within the limit of one request', () => {
      for (let count = 0; count < ACKNOWLEDGEMENTS_MAX + 5; count += 1) received(true);
      expect(feed.createSyncRequest(at(1)).request.seen).to.have.length(ACKNOWLEDGEMENTS_MAX);
    });

    it('are sent once for an entry that is broadcast twice', () => {
      const one = tokenEntry(randomUUID(), { sequence: 1n, acknowledge: true });
      feed.applyBroadcast(broadcast([one]));
      feed.applyBroadcast(broadcast([one]));
      expect(feed.createSyncRequest(at(1)).request.seen).to.deep.equal([one.entryId]);
    });
  });

  describe('pull', () => {
    it('leaves nothing behind when it breaks', () => {
      held.hydrate(at(0));
      const tokenId = randomUUID();
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(tokenId)));
      feed.abandonPull();
      expect(feed.list.size).to.equal(0);
      // Its later parts are ignored.
      expect(feed.applyPullPart(endOfPull(9n))).to.equal(false);
      expect([feed.list.size, feed.applied]).to.deep.equal([0, 0n]);
      expect(held.notifications).to.deep.equal([]);
    });

    it('drops the parts of an unfinished pull when it starts again', () => {
      held.hydrate(at(0));
      const [early, late] = [randomUUID(), randomUUID()];
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(early)));
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(late)));
      expect(feed.applyPullPart(endOfPull(1n))).to.equal(true);
      expect([revokes(early), revokes(late)]).to.deep.equal([false, true]);
    });

    it('counts as a whole: packed identifiers, entries and the position in the log at once', () => {
      held.hydrate(at(0));
      const [token, session] = [randomUUID(), randomUUID()];
      const packed = (kind: EntryKind, id: string): PullResponse => ({
        part: { $case: 'packed', value: { kind, keepUntil: new Date(KEEP_UNTIL_MS), ids: bytesOf(id) } },
      });
      feed.beginPull();
      feed.applyPullPart(packed(EntryKind.ENTRY_KIND_TOKEN, token));
      feed.applyPullPart(packed(EntryKind.ENTRY_KIND_SESSION, session));
      feed.applyPullPart(partOf(entry(EntryKind.ENTRY_KIND_USER, 'user-1', { minGeneration: 4n })));
      expect(feed.list.size).to.equal(0);
      const last = Buffer.alloc(16, 8);
      expect(feed.applyPullPart(endOfPull(8n, last))).to.equal(true);
      expect(feed.list.size).to.equal(3);
      expect(revokes(token)).to.equal(true);
      expect(feed.list.revokes(claims({ sessionId: session }))).to.equal(true);
      expect(feed.list.revokes(claims({ generation: 3n }))).to.equal(true);
      expect(feed.createSyncRequest(at(1)).request).to.deep.include({ applied: 8n, entryIdAtApplied: last });
      expect(held.notifications).to.deep.equal(['filled']);
    });

    it('adds to the list, and moves no position back, when it is older', () => {
      held.hydrate(at(0), 9n, Buffer.alloc(16, 9));
      const [received, pulled] = [randomUUID(), randomUUID()];
      feed.applyBroadcast(broadcast([tokenEntry(received, { sequence: 10n })]));
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(pulled, { sequence: 4n })));
      feed.applyPullPart(endOfPull(4n, Buffer.alloc(16, 4)));
      expect(revokes(received) && revokes(pulled)).to.equal(true);
      expect(feed.createSyncRequest(at(1)).request).to.deep.include({
        applied: 9n,
        entryIdAtApplied: Buffer.alloc(16, 9),
      });
    });

    it('is ignored when it is of another epoch', () => {
      held.hydrate(at(0));
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(randomUUID())));
      expect(feed.applyPullPart(endOfPull(5n, NOTHING, OTHER_EPOCH))).to.equal(false);
      expect([feed.list.size, feed.applied]).to.deep.equal([0, 0n]);
    });

    it('is ignored when the epoch changed meanwhile', () => {
      held.hydrate(at(0));
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(randomUUID())));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      expect(feed.applyPullPart(endOfPull(5n, NOTHING, OTHER_EPOCH))).to.equal(false);
      expect([feed.list.size, feed.applied]).to.deep.equal([0, 0n]);
    });

    it('fails on a part of unknown kind, instead of ignoring it', () => {
      held.hydrate(at(0));
      feed.beginPull();
      expect(() => feed.applyPullPart({ part: undefined })).to.throw(RangeError);
      feed.abandonPull();
      expect(feed.applied).to.equal(0n);
    });

    it('fails on identifiers without keep_until', () => {
      held.hydrate(at(0));
      feed.beginPull();
      const value = { kind: EntryKind.ENTRY_KIND_TOKEN, keepUntil: undefined, ids: Buffer.alloc(16, 1) };
      expect(() => feed.applyPullPart({ part: { $case: 'packed', value } })).to.throw(RangeError);
    });

    it('does not move the position in the log when a part is malformed', () => {
      held.hydrate(at(0));
      feed.beginPull();
      const value = { kind: EntryKind.ENTRY_KIND_TOKEN, keepUntil: new Date(0), ids: Buffer.alloc(15) };
      expect(() => feed.applyPullPart({ part: { $case: 'packed', value } })).to.throw(RangeError);
      expect(feed.applied).to.equal(0n);
    });
  });

  describe('that sees another epoch', () => {
    const tokenId = randomUUID();
    beforeEach(() => {
      held.hydrate(at(0), 3n, Buffer.alloc(16, 3));
      feed.applyBroadcast(broadcast([tokenEntry(tokenId, { sequence: 4n, acknowledge: true })]));
      held.notifications.length = 0;
    });

    it('drops lease, list and position, and notifies of it before anything of the new epoch counts', () => {
      const fresh = tokenEntry(randomUUID(), { sequence: 1n });
      const outcome = held.ask(
        at(10),
        answer({ epoch: OTHER_EPOCH, head: 1n, entries: [fresh], keySet: keySet(2) }),
      );
      expect(outcome).to.equal('pull');
      expect(held.notifications).to.deep.equal(['epoch', 'entry']);
      expect(held.leaseLeftMs(at(10))).to.equal(0);
      expect(feed.hydrated).to.equal(false);
      expect(revokes(tokenId)).to.equal(false);
      expect(feed.createSyncRequest(at(11)).request).to.deep.include({
        epoch: OTHER_EPOCH,
        applied: 0n,
        entryIdAtApplied: NOTHING,
        keySetVersion: keySet(2).version,
        seen: [],
      });
    });

    it('requests the keys of the new epoch, although it has keys of the old one', () => {
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true }));
      expect(feed.createSyncRequest(at(11)).request.keySetVersion).to.deep.equal(NOTHING);
    });

    it('does not return to the old epoch on an overtaken response', () => {
      const slow = feed.createSyncRequest(at(5));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      expect(
        feed.applySyncResponse(slow, answer({ head: 3n, entries: [tokenEntry(randomUUID())] }), () => {}),
      ).to.equal('outdated');
      expect(feed.createSyncRequest(at(11)).request.epoch).to.deep.equal(OTHER_EPOCH);
      expect(feed.list.size).to.equal(0);
    });

    it('gets no lease from a response to an earlier request', () => {
      const slow = feed.createSyncRequest(at(20));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      const outcome = feed.applySyncResponse(
        slow,
        answer({ epoch: OTHER_EPOCH, head: 9n, keySet: keySet(2) }),
        () => {},
      );
      expect(outcome).to.equal('pull');
      expect([feed.hydrated, feed.applied]).to.deep.equal([false, 0n]);
    });

    it('does not return to the old epoch on a response read before the change that arrives after one read later', () => {
      const first = feed.createSyncRequest(at(20));
      const second = feed.createSyncRequest(at(30));
      // The epoch changed between the two reads; the second response was read before the change, after a change of keys.
      feed.applySyncResponse(first, answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }), () => {});
      let installed = false;
      const overtaken = answer({ head: 3n, entryIdAtHead: Buffer.alloc(16, 3), keySet: keySet(3) });
      const outcome = feed.applySyncResponse(second, overtaken, () => {
        installed = true;
      });
      expect(outcome).to.equal('outdated');
      expect([feed.hydrated, feed.applied, installed]).to.deep.equal([false, 0n, false]);
      expect(held.leaseLeftMs(at(31))).to.equal(0);
      expect(feed.createSyncRequest(at(32)).request.epoch).to.deep.equal(OTHER_EPOCH);
    });

    it('gets no lease for another list than the one that the request described', () => {
      // The feed leaves the epoch and returns to it: the epoch is the same, the list is empty.
      const ticket = feed.createSyncRequest(at(30));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      held.ask(at(20), answer({ pull: true, keySet: keySet(1) }));
      let outcome = feed.applySyncResponse(ticket, answer({ head: 3n, keySet: keySet(1) }), () => {});
      expect(outcome).to.equal('pull');
      // Nor when the keys that the request named are current again.
      const again = { ...ticket, sentAt: at(40) };
      outcome = feed.applySyncResponse(again, answer({ head: 3n }), () => {});
      expect(outcome).to.equal('pull');
      expect([feed.hydrated, feed.applied]).to.deep.equal([false, 0n]);
      expect(held.leaseLeftMs(at(41))).to.equal(0);
    });

    it('applies nothing of a pull that began before it left the epoch and returned', () => {
      feed.beginPull();
      feed.applyPullPart(partOf(tokenEntry(randomUUID())));
      held.ask(at(10), answer({ epoch: OTHER_EPOCH, pull: true, keySet: keySet(2) }));
      held.ask(at(20), answer({ pull: true, keySet: keySet(1) }));
      expect(feed.applyPullPart(endOfPull(5n, Buffer.alloc(16, 5)))).to.equal(false);
      expect([feed.list.size, feed.applied]).to.deep.equal([0, 0n]);
    });

    it('gets a lease for the new list after a pull and a sync', () => {
      held.hydrate(at(20), 1n, Buffer.alloc(16, 7), OTHER_EPOCH);
      expect(feed.hydrated).to.equal(true);
      expect(held.leaseLeftMs(at(20))).to.equal(LEASE_MS);
      expect(
        feed.applyBroadcast(broadcast([tokenEntry(tokenId, { sequence: 4n })], EPOCH)).accepted,
      ).to.equal(false);
    });
  });

  describe('under random delays, losses and reorderings', () => {
    type Step =
      | { do: 'commit' }
      | { do: 'broadcast' | 'answer' | 'apply'; which: number }
      | { do: 'request' | 'pull' | 'part' | 'break' | 'epoch' | 'keys' | 'lose' }
      | { do: 'pass' | 'wall'; ms: number };
    const steps = fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.record({ do: fc.constant('commit' as const) }) },
        { weight: 5, arbitrary: fc.record({ do: fc.constant('request' as const) }) },
        {
          weight: 14,
          arbitrary: fc.record({
            do: fc.constantFrom('answer' as const, 'apply' as const),
            which: fc.nat(4),
          }),
        },
        { weight: 3, arbitrary: fc.record({ do: fc.constant('broadcast' as const), which: fc.nat(9) }) },
        { weight: 4, arbitrary: fc.record({ do: fc.constant('pull' as const) }) },
        { weight: 12, arbitrary: fc.record({ do: fc.constant('part' as const) }) },
        { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('break' as const, 'lose' as const) }) },
        {
          weight: 1,
          arbitrary: fc.record({ do: fc.constantFrom('epoch' as const, 'keys' as const) }),
        },
        {
          weight: 6,
          arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 4000 }) }),
        },
        {
          weight: 2,
          arbitrary: fc.record({
            do: fc.constant('wall' as const),
            ms: fc.integer({ min: -9000, max: 9000 }),
          }),
        },
      ),
      { maxLength: 120 },
    );

    it('has a lease only with every entry committed longer ago than the length of the lease', () => {
      let trusted = 0;
      const run = (all: readonly Step[]): void => {
        const follower = new ListenedFeed();
        const log = new ModelLog();
        const committed: { tokenId: string; epoch: Buffer; atMs: number }[] = [];
        const broadcastable: { epoch: Buffer; entries: ReturnType<ModelLog['append']>[] }[] = [];
        let asked: SyncTicket[] = [];
        let answered: { ticket: SyncTicket; response: SyncResponse }[] = [];
        let coming: PullResponse[] = [];
        let epochAtMs = 0;
        let nowMs = 0;
        let jumpMs = 0;
        for (let round = 0; round < 2; round += 1) {
          const ticket = follower.feed.createSyncRequest(at(round - 2));
          follower.feed.applySyncResponse(ticket, log.answer(ticket.request, 2), () => {});
          follower.feed.beginPull();
          for (const part of log.parts()) follower.feed.applyPullPart(part);
        }
        for (const step of all) {
          const moment = at(nowMs, jumpMs);
          switch (step.do) {
            case 'commit': {
              const tokenId = randomUUID();
              broadcastable.push({ epoch: log.epoch, entries: [log.append(tokenId)] });
              committed.push({ tokenId, epoch: log.epoch, atMs: nowMs });
              break;
            }
            case 'epoch':
              log.beginEpoch();
              epochAtMs = nowMs;
              break;
            case 'keys':
              log.changeKeys();
              break;
            case 'broadcast': {
              const message = broadcastable[step.which % broadcastable.length];
              if (message !== undefined) follower.feed.applyBroadcast(message);
              break;
            }
            case 'request':
              asked.push(follower.feed.createSyncRequest(moment));
              break;
            case 'answer': {
              const [ticket] = asked.splice(step.which % Math.max(1, asked.length), 1);
              if (ticket !== undefined) answered.push({ ticket, response: log.answer(ticket.request, 2) });
              break;
            }
            case 'apply': {
              const [taken] = answered.splice(step.which % Math.max(1, answered.length), 1);
              if (taken !== undefined)
                follower.feed.applySyncResponse(taken.ticket, taken.response, () => {});
              break;
            }
            case 'pull':
              follower.feed.beginPull();
              coming = log.parts();
              break;
            case 'part': {
              const next = coming.shift();
              if (next !== undefined) follower.feed.applyPullPart(next);
              break;
            }
            case 'break':
              follower.feed.abandonPull();
              break;
            case 'lose':
              asked = [];
              answered = [];
              break;
            case 'pass':
              nowMs += step.ms;
              break;
            case 'wall':
              jumpMs += step.ms;
              break;
            default:
          }
          const { feed: after } = follower;
          if (follower.leaseLeftMs(at(nowMs, jumpMs)) <= 0) continue;
          trusted += 1;
          const boundMs = nowMs - LEASE_MS;
          const followed = after.createSyncRequest(at(nowMs, jumpMs)).request.epoch;
          if (epochAtMs <= boundMs)
            expect(followed.equals(log.epoch), 'follows an epoch that is over').to.equal(true);
          for (const { tokenId, epoch, atMs } of committed) {
            if (!epoch.equals(followed) || atMs > boundMs) continue;
            expect(after.list.revokes(claims({ tokenId })), `misses what was committed at ${atMs}`).to.equal(
              true,
            );
          }
        }
      };
      fc.assert(fc.property(steps, run), { numRuns: 1500 });
      expect(trusted).to.be.above(1000);
    });

    it('contains every entry up to its position in the log', () => {
      fc.assert(
        fc.property(
          fc.array(fc.constantFrom('commit', 'sync', 'broadcast', 'pull'), { maxLength: 60 }),
          (names) => {
            const follower = new ListenedFeed();
            const log = new ModelLog();
            const tokenIds: string[] = [];
            for (const [index, name] of names.entries()) {
              if (name === 'commit') {
                const tokenId = randomUUID();
                log.append(tokenId);
                tokenIds.push(tokenId);
              } else if (name === 'broadcast') {
                const last = log.entries.at(-1);
                if (last !== undefined) follower.feed.applyBroadcast({ epoch: log.epoch, entries: [last] });
              } else if (name === 'pull') {
                follower.feed.beginPull();
                for (const part of log.parts()) follower.feed.applyPullPart(part);
              } else {
                const ticket = follower.feed.createSyncRequest(at(index));
                follower.feed.applySyncResponse(ticket, log.answer(ticket.request, 2), () => {});
              }
              for (const tokenId of tokenIds.slice(0, Number(follower.feed.applied))) {
                expect(follower.feed.list.revokes(claims({ tokenId }))).to.equal(true);
              }
            }
          },
        ),
      );
    });
  });
});
