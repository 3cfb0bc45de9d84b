/** The end of the log in memory, over a log that can be restored. */

import { randomBytes } from 'node:crypto';
import { expect } from 'chai';
import type { LogEntry } from '../../../../services/auth/records/revocations.js';
import { SYNC_ENTRIES_MAX } from '../../../../services/auth/revocation/log.js';
import type { LogReader } from '../../../../services/auth/revocation/log-access.js';
import { LogTail } from '../../../../services/auth/revocation/log-tail.js';

/** A log, and how many of its entries were read. */
class FakeLog {
  epoch = randomBytes(16);
  entries: LogEntry[] = [];
  read = 0;

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
      state: { epoch, head: BigInt(entries.length), headEntryId, horizon: new Date(0), leaseMs: 5000 },
      entriesAfter: (sequence) => {
        const found = entries.filter((entry) => entry.sequence > sequence);
        this.read += found.length;
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

  /** The entries after a sequence as the tail has them, which must be those of the log. */
  async function expectEntriesAfter(after: bigint): Promise<void> {
    const entries = await tail.entriesAfter(log.reader(), after);
    const wanted = log.entries.filter((entry) => entry.sequence > after);
    expect(entries.filter((entry) => entry.sequence > after)).to.deep.equal(wanted);
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
    await expectEntriesAfter(0n);
    expect(await tail.entriesAfter(log.reader(), BigInt(SYNC_ENTRIES_MAX))).to.have.length(SYNC_ENTRIES_MAX);
    log.append(20);
    await expectEntriesAfter(60n);
    const known = await tail.entriesAfter(log.reader(), BigInt(log.entries.length - 1));
    expect(known).to.have.length(SYNC_ENTRIES_MAX);
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
    const found = await tail.entriesAfter(
      {
        ...reader,
        entriesAfter: (after) => Promise.resolve(rest.filter(({ sequence }) => sequence > after)),
      },
      5n,
    );
    expect(found.map(({ sequence }) => sequence)).to.deep.equal([6n, 7n, 8n, 9n, 11n, 12n, 13n]);
  });
});
