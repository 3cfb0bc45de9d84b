/** The end of the log in memory, over a log that can be restored. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import { rangeName, SYNC_ENTRIES_MAX } from '../../../../services/auth/revocation/log.js';
import type { LogReader } from '../../../../services/auth/revocation/log-access.js';
import { LogTail } from '../../../../services/auth/revocation/log-tail.js';
import { digestOf } from './revocation-support.js';

/** A log, and how many of its entries were read. */
class FakeLog {
  epoch = randomBytes(16);
  entries: LogEntry[] = [];
  read = 0;
  idsRead = 0;

  append(count: number): void {
    for (let added = 0; added < count; added++) {
      this.entries.push({
        entryId: randomBytes(16),
        sequence: BigInt(this.entries.length + 1),
        kind: 'TOKEN',
        issuer: '',
        key: randomBytes(16),
        minGeneration: 0n,
        keepUntil: new Date(0),
        cutOffTime: undefined,
        acknowledge: false,
      });
    }
  }

  reader(): LogReader {
    const { epoch, entries } = this;
    const last = entries.at(-1);
    const headEntryId = last?.entryId ?? Buffer.alloc(0);
    return {
      state: {
        epoch,
        head: BigInt(entries.length),
        headEntryId,
        horizon: new Date(0),
        leaseMs: 5000,
        epochNumber: 1n,
        fenceWanted: 0n,
      },
      entriesAfter: (sequence) => {
        const found = entries.filter((entry) => entry.sequence > sequence);
        this.read += found.length;
        return Promise.resolve(found);
      },
      idsAfter: (sequence) => {
        const found = entries.filter((entry) => entry.sequence > sequence);
        this.idsRead += found.length;
        return Promise.resolve(found);
      },
      entryIdsAt: () => Promise.reject(new TypeError('not expected')),
      standingOf: () => Promise.reject(new TypeError('not expected')),
      publishedKeys: () => Promise.reject(new TypeError('not expected')),
    };
  }
}

describe('the tail of the log', () => {
  let log: FakeLog;
  let tail: LogTail;

  beforeEach(() => {
    log = new FakeLog();
    tail = new LogTail();
  });

  /** The entries after a sequence as the tail has them, and the digest of their ids, which must be those of the log. */
  async function expectEntriesAfter(after: bigint): Promise<void> {
    const head = BigInt(log.entries.length);
    const ranges = [{ applied: after, heldTo: head }];
    const { entries, digests } = await tail.read(log.reader(), { after, ranges });
    const wanted = log.entries.filter((entry) => entry.sequence > after);
    expect(entries.filter((entry) => entry.sequence > after)).to.deep.equal(wanted);
    expectDigest(digests, after, head);
  }

  function expectDigest(digests: ReadonlyMap<string, Buffer>, applied: bigint, heldTo: bigint): void {
    expect(digests.get(rangeName({ applied, heldTo }))).to.deep.equal(digestOf(log.entries, applied, heldTo));
  }

  /** The digest of the entries that an instance holds which lags far behind. */
  async function expectDigestOf(applied: bigint, heldTo: bigint): Promise<void> {
    const { digests } = await tail.read(log.reader(), { after: heldTo, ranges: [{ applied, heldTo }] });
    expectDigest(digests, applied, heldTo);
  }

  it('reads an entry once, and only the last one again', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    expect(log.read).to.equal(10);
    await expectEntriesAfter(0n);
    await expectEntriesAfter(7n);
    expect(log.read).to.equal(10);
    log.append(5);
    await expectEntriesAfter(3n);
    expect(log.read).to.equal(16);
  });

  it('reads anew what it does not have', async () => {
    log.append(10);
    await expectEntriesAfter(5n);
    await expectEntriesAfter(2n);
    expect(log.read).to.equal(13);
  });

  it('reads no entry that no request needs', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    log.append(5000);
    log.read = 0;
    await expectEntriesAfter(5005n);
    expect(log.read).to.equal(5);
    // It can continue from where it has read.
    log.append(2);
    await expectEntriesAfter(5008n);
    expect(log.read).to.equal(8);
  });

  it('remembers no more entries than one response can have', async () => {
    log.append(SYNC_ENTRIES_MAX + 50);
    await expectEntriesAfter(50n);
    log.append(20);
    await expectEntriesAfter(70n);
    const { entries } = await tail.read(log.reader(), { after: BigInt(log.entries.length - 1), ranges: [] });
    expect(entries).to.have.length(SYNC_ENTRIES_MAX);
  });

  it('reads nothing when nothing is wanted', async () => {
    log.append(5);
    const reading = await tail.read(log.reader(), { after: undefined, ranges: [] });
    expect([reading.entries, reading.digests.size, log.read]).to.deep.equal([[], 0, 0]);
  });

  it('knows the digests of far more ids than entries, and reads no entry twice for them', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    for (let round = 0; round < 5; round += 1) {
      log.append(900);
      await expectEntriesAfter(BigInt(log.entries.length - 900));
    }
    // Each read has the last entry once more.
    expect(log.read).to.equal(4510 + 5);
    await expectDigestOf(0n, 4510n);
    await expectDigestOf(17n, 4000n);
    expect(log.read).to.equal(4515);
  });

  it('reads the ids that any instance may compare, once, for an instance that lags further than a response', async () => {
    log.append(5000);
    await expectEntriesAfter(4990n);
    expect([log.read, log.idsRead]).to.deep.equal([10, 0]);
    await expectDigestOf(3000n, 4995n);
    await expectDigestOf(1500n, 4995n);
    await expectDigestOf(1n, 5000n);
    expect([log.read, log.idsRead]).to.deep.equal([10 + SYNC_ENTRIES_MAX, 5000]);
    log.append(3);
    await expectDigestOf(1n, 5003n);
    expect([log.read, log.idsRead]).to.deep.equal([10 + SYNC_ENTRIES_MAX + 4, 5000]);
  });

  it('mixes no entries of two reads that were under way at once', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    log.append(5);
    const before = log.reader();
    const restored = new FakeLog();
    restored.epoch = log.epoch;
    restored.entries = log.entries.slice(0, 10);
    restored.append(7);
    const one = { after: 10n, ranges: [{ applied: 3n, heldTo: 15n }] };
    const two = { after: 10n, ranges: [{ applied: 3n, heldTo: 17n }] };
    const [first, second] = await Promise.all([tail.read(before, one), tail.read(restored.reader(), two)]);
    expect(first.digests.get(rangeName({ applied: 3n, heldTo: 15n }))).to.deep.equal(
      digestOf(log.entries, 3n, 15n),
    );
    expect(second.digests.get(rangeName({ applied: 3n, heldTo: 17n }))).to.deep.equal(
      digestOf(restored.entries, 3n, 17n),
    );
    expect(second.entries).to.deep.equal(restored.entries);
  });

  it('uses nothing of a log that was restored and went on differently', async () => {
    for (const [kept, added] of [
      [5, 0],
      [5, 3],
      [5, 5],
      [5, 9],
      [0, 20],
    ] as const) {
      log = new FakeLog();
      tail = new LogTail();
      log.append(10);
      await expectEntriesAfter(0n);
      log.entries = log.entries.slice(0, kept);
      log.append(added);
      await expectEntriesAfter(0n);
      await expectEntriesAfter(3n);
    }
  });

  it('uses nothing of another epoch', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    const ids = log.entries.map(({ entryId }) => entryId);
    log.epoch = randomBytes(16);
    log.entries = [];
    log.append(10);
    // Even if the last one had the same id.
    log.entries = log.entries.map((entry, index) =>
      index === 9 ? { ...entry, entryId: ids[9] ?? entry.entryId } : entry,
    );
    await expectEntriesAfter(0n);
  });

  it('reads anew when the last entry that it has was dropped from the log', async () => {
    log.append(10);
    await expectEntriesAfter(0n);
    log.append(3);
    const whole = log.entries;
    const [, , , , , , , , , dropped] = whole;
    const reader = log.reader();
    const rest = whole.filter((entry) => entry !== dropped);
    const { entries } = await tail.read(
      {
        ...reader,
        entriesAfter: (after) => Promise.resolve(rest.filter(({ sequence }) => sequence > after)),
      },
      { after: 5n, ranges: [] },
    );
    expect(entries.map(({ sequence }) => sequence)).to.deep.equal([6n, 7n, 8n, 9n, 11n, 12n, 13n]);
  });
});
