/** The revocation log: appending, reading, the live set, retention, leases and epochs. */

import { randomBytes, randomUUID } from 'node:crypto';
import { ACCESS_TOKEN_LIFETIME_MAX_SECONDS } from '@portcullis/guard/limits';
import { expect } from 'chai';
import { publish } from '../../../services/auth/keys/published-keys.js';
import type { NewEntry } from '../../../services/auth/records/revocations.js';
import {
  clientRevocation,
  enforcementBoundMs,
  foreignRevocation,
  KEEP_MARGIN_SECONDS,
  KEEP_SECONDS_MAX,
  keyRevocation,
  sessionRevocation,
  tokenRevocation,
  userRevocation,
} from '../../../services/auth/revocation/log.js';
import type { AuthTransaction } from '../../../services/auth/transaction.js';
import {
  actorOf,
  anEntry,
  append,
  demand,
  dropAll,
  entryOf,
  headOf,
  keyOf,
  outcomeOf,
  plain,
  type Under,
} from './store-under-test.js';

/** The lifetime of tokens in these tests, in seconds. */
const TOKEN_SECONDS = 300;

export function describeLog(under: Under): void {
  describe('the revocation log', () => {
    it('numbers entries without gaps, in the order of commits', async () => {
      const { store, sleep } = under();
      const { head } = await headOf(under());
      const order: bigint[] = [];
      const append = async (holdMs: number, fails = false) => {
        const { entries } = await store.transaction(async (tx) => {
          const appended = await tx.revocations.append([anEntry(), anEntry()]);
          await sleep(holdMs);
          if (fails) throw new Error('on purpose');
          return appended;
        });
        order.push(...entries.map(({ sequence }) => sequence));
      };
      const first = append(50);
      await sleep(10);
      await Promise.all([first, outcomeOf(append(10, true)), append(20), append(0)]);
      expect(order).to.deep.equal([1n, 2n, 3n, 4n, 5n, 6n].map((after) => head + after));
      expect((await headOf(under())).head).to.equal(head + 6n);
    });

    it('returns each entry as it was written', async () => {
      const { store } = under();
      const written: NewEntry[] = [
        { ...anEntry(), acknowledge: true },
        entryOf(userRevocation(randomUUID(), 7n)),
        entryOf(foreignRevocation({ issuer: 'https://other.example', what: 'USER', id: 'mallory' })),
        entryOf(
          foreignRevocation({ issuer: 'https://other.example', what: 'CLAIM', claim: '/tenant', id: 'acme' }),
        ),
      ];
      const { epoch, head } = await headOf(under());
      const appended = await store.transaction((tx) => tx.revocations.append(written));
      expect(appended.epoch).to.deep.equal(epoch);
      const keptMs = appended.lockedTime.getTime() + KEEP_SECONDS_MAX * 1000;
      for (const [index, entry] of appended.entries.entries()) {
        const { kind, issuer, claim, key, minGeneration, acknowledge = false } = written[index] ?? anEntry();
        expect(entry).to.deep.include({ kind, issuer, key, minGeneration, acknowledge });
        expect(entry.claim).to.equal(claim);
        expect(entry.sequence).to.equal(head + BigInt(index + 1));
        expect(entry.entryId).to.have.length(16);
        expect(entry.keepUntil.getTime()).to.be.within(appended.lockedTime.getTime(), keptMs + 2);
      }
      // A whole second, later than any time that a clock within the skew may have stamped.
      for (const foreign of appended.entries.slice(2)) {
        expect(foreign.cutOffTime?.getTime()).to.be.above(appended.lockedTime.getTime());
        expect((foreign.cutOffTime?.getTime() ?? 1) % 1000).to.equal(0);
      }
      expect(appended.entries.slice(0, 2).map(({ cutOffTime }) => cutOffTime)).to.deep.equal([
        undefined,
        undefined,
      ]);
    });

    it('passes a batch on after the commit, not earlier', async () => {
      const { store, passedOn } = under();
      passedOn.length = 0;
      const { epoch, entries } = await store.transaction(async (tx) => {
        const appended = await tx.revocations.append([anEntry()]);
        expect(passedOn).to.deep.equal([]);
        return appended;
      });
      expect(passedOn).to.have.length(1);
      expect(passedOn[0]?.epoch).to.deep.equal(epoch);
      expect(passedOn[0]?.entries).to.deep.equal(entries);
    });

    it('rejects an append without entries', async () => {
      const { store } = under();
      const nothing = store.transaction((tx) => tx.revocations.append([]));
      expect(await outcomeOf(nothing)).to.be.instanceOf(TypeError);
    });

    it('finds the revoked tokens of its own issuer', async () => {
      const { store } = under();
      const [revoked, foreign, other] = [randomUUID(), randomUUID(), randomUUID()];
      await append(under(), tokenRevocation(revoked), {
        ...tokenRevocation(foreign),
        issuer: 'https://other.example',
      });
      const anyRevoked = (...ids: string[]) => store.transaction((tx) => tx.tokens.anyRevoked(ids));
      expect(await anyRevoked(other, revoked)).to.equal(true);
      expect(await anyRevoked(other, foreign)).to.equal(false);
      expect(await anyRevoked()).to.equal(false);
    });

    it('finds the revocations of another issuer', async () => {
      const { store } = under();
      const issuer = 'https://other.example';
      const [tokenId, sessionId, subject] = [randomUUID(), randomUUID(), randomUUID()];
      await append(under(), foreignRevocation({ issuer, what: 'TOKEN', id: tokenId }));
      await append(under(), foreignRevocation({ issuer, what: 'SESSION', id: sessionId }));
      const [user] = await append(under(), foreignRevocation({ issuer, what: 'USER', id: subject }));
      const cutOffSeconds = (user?.cutOffTime?.getTime() ?? 0) / 1000;
      const asked = {
        ...{ issuer, tokenId: 'a', sessionId: 'b', subject: 'c', issuedAtSeconds: cutOffSeconds },
        // Other tests revoke by this claim.
        revocable: new Map([['/tenant', []]]),
      };
      const isRevoked = (over: Partial<Parameters<AuthTransaction['tokens']['foreignRevoked']>[0]>) =>
        store.transaction((tx) => tx.tokens.foreignRevoked({ ...asked, ...over }));
      expect(await isRevoked({ tokenId })).to.equal(true);
      expect(await isRevoked({ sessionId })).to.equal(true);
      expect(await isRevoked({ sessionId: undefined })).to.equal(false);
      expect(await isRevoked({ subject })).to.equal(true);
      expect(await isRevoked({ subject, issuedAtSeconds: cutOffSeconds + 1 })).to.equal(false);
      expect(await isRevoked({ tokenId, sessionId, subject, issuer: 'https://third.example' })).to.equal(
        false,
      );
    });

    it('finds the revocations of another issuer by the values of claims', async () => {
      const { store } = under();
      const issuer = `https://${randomUUID()}.example`;
      const [entry] = await append(
        under(),
        foreignRevocation({ issuer, what: 'CLAIM', claim: '/tenant', id: 'acme' }),
        foreignRevocation({ issuer, what: 'CLAIM', claim: '/group', id: 'staff' }),
      );
      const cutOffSeconds = (entry?.cutOffTime?.getTime() ?? 0) / 1000;
      const token = { issuer, tokenId: 'a', sessionId: 'b', subject: 'c', issuedAtSeconds: cutOffSeconds };
      const isRevoked = (values: Record<string, readonly string[]> | undefined, over: object = {}) => {
        const revocable = values && new Map(Object.entries(values));
        return store.transaction((tx) => tx.tokens.foreignRevoked({ ...token, revocable, ...over }));
      };
      const later = { issuedAtSeconds: cutOffSeconds + 1 };
      expect(await isRevoked({ '/tenant': ['other', 'acme'], '/group': [] })).to.equal(true);
      expect(await isRevoked({ '/tenant': [], '/group': ['staff'] })).to.equal(true);
      expect(await isRevoked({ '/tenant': ['acme'], '/group': [] }, later)).to.equal(false);
      expect(await isRevoked({ '/tenant': ['staff', 'ACME'], '/group': ['acme'] })).to.equal(false);
      expect(await isRevoked({ '/tenant': [], '/group': [] })).to.equal(false);
      // A claim that was not read may have the value.
      for (const values of [undefined, {}, { '/tenant': [] }, { '/tenant': [], '/other': [] }]) {
        expect(await isRevoked(values), JSON.stringify(values)).to.equal(true);
        expect(await isRevoked(values, later), JSON.stringify(values)).to.equal(false);
        expect(await isRevoked(values, { issuer: 'https://third.example' })).to.equal(false);
      }
    });
  });
}

export function describeLogReads(under: Under): void {
  describe('a read of the log', () => {
    it('returns the entries after a position in order, without the fields that only broadcasts have', async () => {
      const { store, log } = under();
      const { head } = await headOf(under());
      const { entries } = await store.transaction((tx) =>
        tx.revocations.append([{ ...anEntry(), acknowledge: true }, anEntry(), anEntry()]),
      );
      const read = await log.read((reader) => reader.entriesAfter(head + 1n));
      expect(read.map(plain)).to.deep.equal(entries.slice(1).map(plain));
      const all = await log.read((reader) => reader.entriesAfter(head));
      expect(all.map(({ acknowledge }) => acknowledge)).to.deep.equal([false, false, false]);
    });

    it('returns the end of the log, and the ids of the entries at existing positions', async () => {
      const { log } = under();
      const { head } = await headOf(under());
      const [first, second] = await append(under(), anEntry(), anEntry());
      const { state, ids } = await log.read(async (reader) => ({
        state: reader.state,
        ids: await reader.entryIdsAt([head + 1n, head + 99n]),
      }));
      expect(state.head).to.equal(head + 2n);
      expect(state.headEntryId).to.deep.equal(second?.entryId);
      expect([...ids]).to.deep.equal([[head + 1n, first?.entryId]]);
    });

    it('returns the ids of the entries after a position, in order', async () => {
      const { log } = under();
      const { head } = await headOf(under());
      expect(await log.read((reader) => reader.idsAfter(head))).to.deep.equal([]);
      const entries = await append(under(), anEntry(), anEntry(), anEntry());
      const ids = await log.read((reader) => reader.idsAfter(head + 1n));
      expect(ids.map(({ sequence, entryId }) => ({ sequence, entryId }))).to.deep.equal(
        entries.slice(1).map(({ sequence, entryId }) => ({ sequence, entryId })),
      );
    });

    it('sees one moment of the log, whatever is committed meanwhile', async () => {
      const { log } = under();
      const { head } = await headOf(under());
      const seen = await log.read(async (reader) => {
        await append(under(), anEntry());
        return { head: reader.state.head, entries: await reader.entriesAfter(head) };
      });
      expect(seen).to.deep.equal({ head, entries: [] });
      expect((await headOf(under())).head).to.equal(head + 1n);
    });

    it('sees what was committed before it began', async () => {
      const { log } = under();
      for (let time = 0; time < 3; time += 1) {
        const [entry] = await append(under(), anEntry());
        expect((await log.read(async ({ state }) => state)).head).to.equal(entry?.sequence);
      }
    });

    it('does not wait for open appends', async () => {
      const { store, log } = under();
      await store.transaction(async (tx) => {
        await tx.revocations.append([anEntry()]);
        await log.read(async ({ state }) => state);
        await log.readLive();
      });
    });

    it('returns the keys that are published in this epoch', async () => {
      const { store, log } = under();
      await store.transaction(async (tx) => {
        await tx.keys.retireAll();
        for (const purpose of ['token', 'broadcast'] as const) {
          for (const state of ['signing', 'next'] as const) await tx.keys.insert(keyOf(purpose, state));
        }
      });
      const published = await log.read((reader) => reader.publishedKeys());
      expect(published).to.deep.equal(publish(await store.transaction((tx) => tx.keys.live())));
      expect(published.keySet.keys).to.have.length(2);
      expect(published.broadcastKeys).to.have.length(2);
    });

    it('fails with what its work throws', async () => {
      const failure = new Error('on purpose');
      expect(await outcomeOf(under().log.read(() => Promise.reject(failure)))).to.equal(failure);
    });
  });
}

export function describeLiveSet(under: Under): void {
  describe('the live set', () => {
    it('packs the ids of sessions and tokens by minute, and lists everything else', async () => {
      const { log } = under();
      await dropAll(under());
      const [token, session] = [tokenRevocation(randomUUID()), sessionRevocation(randomUUID())];
      const foreign = foreignRevocation({ issuer: 'https://other.example', what: 'TOKEN', id: 'a' });
      const user = userRevocation(randomUUID(), 3n);
      const entries = await append(under(), token, session, foreign, user);
      const live = await log.readLive();
      const keepUntilMs = entries[0]?.keepUntil.getTime() ?? 0;
      const minute = new Date(Math.ceil(keepUntilMs / 60_000) * 60_000);
      const packed = live.packed.toSorted((one, other) => (one.kind < other.kind ? 1 : -1));
      expect(packed).to.deep.equal([
        { kind: 'TOKEN', keepUntil: minute, ids: token.key },
        { kind: 'SESSION', keepUntil: minute, ids: session.key },
      ]);
      expect(live.entries.map(plain)).to.deep.equal(entries.slice(2).map(plain));
      const { epoch, head, headEntryId } = await headOf(under());
      expect(live).to.deep.include({ epoch, head, headEntryId });
    });
  });
}

export function describeRetention(under: Under): void {
  describe('retention', () => {
    it('drops nothing before its time', async () => {
      await dropAll(under());
      await append(under(), anEntry());
      expect(await under().log.dropExpired(10)).to.equal(0);
    });

    it('drops the entries that expired first, at most the limit, and moves the horizon with them', async () => {
      const { log, sleep, expireEntries } = under();
      await dropAll(under());
      const { head } = await headOf(under());
      for (let count = 0; count < 3; count += 1) {
        await append(under(), anEntry());
        await sleep(5);
      }
      await expireEntries();
      const before = await log.read((reader) => reader.entriesAfter(head));
      expect(await log.dropExpired(2)).to.equal(2);
      const places = [1n, 2n, 3n].map((after) => head + after);
      const left = await log.read(async (reader) => ({
        horizon: reader.state.horizon,
        ids: [...(await reader.entryIdsAt(places)).keys()],
        entries: (await reader.entriesAfter(head)).map(({ sequence }) => sequence),
      }));
      const horizon = before[1]?.keepUntil;
      expect(left).to.deep.equal({ horizon, ids: [head + 3n], entries: [head + 3n] });
      expect(await log.dropExpired(2)).to.equal(1);
    });

    it('keeps the position and the id of the last entry after that entry was dropped', async () => {
      const { log, expireEntries } = under();
      const [entry] = await append(under(), anEntry());
      await expireEntries();
      while ((await log.dropExpired(100)) > 0);
      const { head, headEntryId } = await headOf(under());
      expect([head, headEntryId]).to.deep.equal([entry?.sequence, entry?.entryId]);
      expect(await log.readLive()).to.deep.include({ head, headEntryId, packed: [], entries: [] });
    });
  });
}

export function describeLeases(under: Under): void {
  describe('the length of leases', () => {
    const lockOf = () => under().store.transaction((tx) => tx.revocations.append([anEntry()]));

    it('applies to every read after it was changed', async () => {
      const { log } = under();
      for (const leaseMs of [7000, 4000]) {
        await log.setLeaseMs(leaseMs);
        expect((await headOf(under())).leaseMs).to.equal(leaseMs);
        expect((await lockOf()).leaseMs).to.equal(leaseMs);
      }
    });

    it('counts after it was lowered until the last longer lease is over', async () => {
      const { log, store } = under();
      await log.setLeaseMs(9000);
      const before = await store.transaction((tx) => tx.databaseTime());
      await log.setLeaseMs(3000);
      const { olderLeasesEndBy, lockedTime } = await lockOf();
      const boundMs = enforcementBoundMs(9000);
      expect(olderLeasesEndBy.getTime()).to.be.within(
        before.getTime() + boundMs,
        lockedTime.getTime() + boundMs + 1,
      );
      await log.setLeaseMs(3000);
      await log.setLeaseMs(5000);
      expect((await lockOf()).olderLeasesEndBy).to.deep.equal(olderLeasesEndBy);
    });
  });
}

export function describeTokenLifetimes(under: Under): void {
  const MARGIN_MS = KEEP_MARGIN_SECONDS * 1000;
  const LONGEST_MS = ACCESS_TOKEN_LIFETIME_MAX_SECONDS * 1000;

  /** How long after the lock each entry is kept, in milliseconds. */
  const keptMs = async (...entries: NewEntry[]): Promise<number[]> => {
    const appended = await under().store.transaction((tx) => tx.revocations.append(entries));
    const lockedMs = appended.lockedTime.getTime();
    const stored = await under().log.read((log) =>
      log.entriesAfter((appended.entries[0]?.sequence ?? 0n) - 1n),
    );
    expect(stored.map(plain)).to.deep.equal(appended.entries.map(plain));
    return appended.entries.map(({ keepUntil }) => keepUntil.getTime() - lockedMs);
  };
  const mintingTimes = () => under().store.transaction((tx) => tx.tokens.mintingTimes());

  describe('the lifetime of tokens', () => {
    it('decides how long an entry about tokens of this issuer is kept', async () => {
      await under().log.setTokenSeconds(TOKEN_SECONDS);
      const own = [
        tokenRevocation(randomUUID()),
        sessionRevocation(randomUUID()),
        userRevocation(randomUUID(), 1n),
        clientRevocation('direct', 1n),
      ].map(entryOf);
      for (const ms of await keptMs(...own)) {
        expect(ms).to.be.within(TOKEN_SECONDS * 1000 + MARGIN_MS, TOKEN_SECONDS * 1000 + MARGIN_MS + 2);
      }
    });

    it('does not shorten entries about tokens of which this issuer does not set the lifetime', async () => {
      const issuer = 'https://other.example';
      const others = [
        ...(['TOKEN', 'SESSION', 'USER'] as const).map((what) =>
          foreignRevocation({ issuer, what, id: 'a' }),
        ),
        keyRevocation('stolen'),
      ].map(entryOf);
      for (const ms of await keptMs(...others)) {
        expect(ms).to.be.within(LONGEST_MS + MARGIN_MS, LONGEST_MS + MARGIN_MS + 2);
      }
    });

    it('does not matter to an entry about a token whose expiry is known', async () => {
      const tokenExpireTime = new Date(Math.ceil(Date.now() / 1000) * 1000 + 17_000);
      const appended = await under().store.transaction((tx) =>
        tx.revocations.append([
          { ...anEntry(), tokenExpireTime },
          { ...entryOf(sessionRevocation(randomUUID())), tokenExpireTime },
        ]),
      );
      const [known, session] = appended.entries;
      expect(known?.keepUntil.getTime()).to.equal(tokenExpireTime.getTime() + MARGIN_MS);
      expect(session?.keepUntil.getTime()).to.be.above(known?.keepUntil.getTime() ?? 0);
    });

    it('is that of every transaction that mints, after the time that the token begins with', async () => {
      const { log, store } = under();
      for (const seconds of [TOKEN_SECONDS + 60, TOKEN_SECONDS]) {
        await log.setTokenSeconds(seconds);
        const before = await store.transaction((tx) => tx.databaseTime());
        const { now, lifetimeSeconds } = await mintingTimes();
        expect(lifetimeSeconds).to.equal(seconds);
        expect(now.getTime()).to.be.at.least(before.getTime());
      }
    });

    it('counts after it was lowered until the last longer token has expired', async () => {
      const { log, store } = under();
      await log.setTokenSeconds(600);
      const before = await store.transaction((tx) => tx.databaseTime());
      await log.setTokenSeconds(20);
      const { lockedTime, entries } = await store.transaction((tx) => tx.revocations.append([anEntry()]));
      const endMs = (entries[0]?.keepUntil.getTime() ?? 0) - MARGIN_MS;
      expect(endMs).to.be.within(before.getTime() + 600_000, lockedTime.getTime() + 600_002);
      await log.setTokenSeconds(30);
      const again = await store.transaction((tx) => tx.revocations.append([anEntry()]));
      expect((again.entries[0]?.keepUntil.getTime() ?? 0) - MARGIN_MS).to.equal(endMs);
      await log.setTokenSeconds(TOKEN_SECONDS);
    });
  });
}

export function describeEpochs(under: Under): void {
  const openEpoch = () =>
    under().store.transaction((tx) => tx.revocations.openEpoch({ reason: actorOf('epoch'), actor: 'test' }));

  const present = async () => (await headOf(under())).epoch;
  const standingOf = async (epoch: Buffer) =>
    (await under().log.read((reader) => reader.standingOf([epoch]))).get(epoch.toString('hex'));

  describe('a new epoch', () => {
    it('begins an empty log without keys', async () => {
      const { store, log } = under();
      await store.transaction(async (tx) => {
        await tx.keys.retireAll();
        await tx.keys.insert(keyOf('token', 'signing'));
      });
      await append(under(), anEntry());
      await dropAll(under());
      const { epoch: former } = await headOf(under());
      const { epoch, lockedTime, leaseMs } = await openEpoch();
      expect(epoch).to.have.length(16);
      expect(epoch).to.not.deep.equal(former);
      expect(lockedTime).to.be.a('date');
      const state = await headOf(under());
      expect(state).to.deep.include({ epoch, head: 0n, headEntryId: Buffer.alloc(0), leaseMs });
      expect(await log.read((reader) => reader.entriesAfter(0n))).to.deep.equal([]);
      expect(await store.transaction((tx) => tx.keys.live())).to.deep.equal([]);
      expect(await log.readLive()).to.deep.include({ epoch, head: 0n, packed: [], entries: [] });
      const [entry] = await append(under(), anEntry());
      expect(entry?.sequence).to.equal(1n);
    });

    it('begins with the former log’s entries of other issuers', async () => {
      const { log } = under();
      await dropAll(under());
      const issuer = 'https://other.example';
      const written = await append(
        under(),
        anEntry(),
        foreignRevocation({ issuer, what: 'USER', id: 'mallory' }),
        foreignRevocation({ issuer, what: 'TOKEN', id: 'token' }),
        foreignRevocation({ issuer, what: 'CLAIM', claim: '/tenant', id: 'acme' }),
      );
      await openEpoch();
      const entries = await log.read((reader) => reader.entriesAfter(0n));
      expect(entries.map(({ sequence }) => sequence)).to.deep.equal([1n, 2n, 3n]);
      for (const [index, entry] of entries.entries()) {
        const former = demand(written[index + 1]);
        const { entryId, sequence } = entry;
        expect(entryId).to.not.deep.equal(former.entryId);
        expect(plain(entry)).to.deep.equal({ ...plain(former), entryId, sequence });
      }
      const { head, headEntryId } = await headOf(under());
      expect([head, headEntryId]).to.deep.equal([3n, entries[2]?.entryId]);
    });

    it('is passed on after the commit, as a batch without entries', async () => {
      const { passedOn } = under();
      passedOn.length = 0;
      const { epoch } = await openEpoch();
      expect(passedOn).to.deep.equal([{ epoch, entries: [] }]);
    });

    it('keeps earlier revocations of tokens', async () => {
      const { store } = under();
      const tokenId = randomUUID();
      await append(under(), tokenRevocation(tokenId));
      await openEpoch();
      expect(await store.transaction((tx) => tx.tokens.anyRevoked([tokenId]))).to.equal(true);
    });

    it('ends every earlier epoch', async () => {
      const { log } = under();
      const { epoch: former } = await openEpoch();
      await openEpoch();
      expect(await standingOf(former)).to.equal('OVER');
      await log.noteLostEpochs([{ epoch: former, foundUnder: await present() }]);
      expect(await standingOf(former)).to.equal('OVER');
    });
  });

  describe('an epoch that the database never had', () => {
    it('is unknown until it is recorded, then lost, and over once another epoch is opened', async () => {
      const { log } = under();
      const epoch = randomBytes(16);
      expect(await standingOf(epoch)).to.equal(undefined);
      const lost = { epoch, foundUnder: await present() };
      await log.noteLostEpochs([lost]);
      await log.noteLostEpochs([lost]);
      expect(await standingOf(epoch)).to.equal('LOST');
      await openEpoch();
      expect(await standingOf(epoch)).to.equal('OVER');
    });

    it('is not recorded when another epoch was opened since it was found', async () => {
      const { log } = under();
      const lost = { epoch: randomBytes(16), foundUnder: await present() };
      await openEpoch();
      await log.noteLostEpochs([lost]);
      expect(await standingOf(lost.epoch)).to.equal(undefined);
    });
  });
}
