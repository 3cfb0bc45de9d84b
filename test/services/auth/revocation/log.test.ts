/** The pure rules of the revocation log. */

import {
  ACCESS_TOKEN_LIFETIME_MAX_SECONDS,
  CLOCK_SKEW_SECONDS as ADMISSION_SKEW_SECONDS,
  HELD_ENTRIES_MAX,
} from '@portcullis/guard/limits';
import { expect } from 'chai';
import type { Appended, LogEntry } from '../../../../services/auth/records/revocations.js';
import {
  bytesOfUuid,
  checkQuestion,
  DATABASE_CLOCK_STEP_SECONDS,
  enforcedEverywhereBy,
  enforcementBoundMs,
  entriesNeededAfter,
  KEEP_SECONDS_MAX,
  type LogReading,
  newlyLost,
  otherEpochs,
  PULL_ENTRIES_MAX,
  PULL_IDS_MAX,
  partsOf,
  rangeName,
  rangesToCompare,
  SYNC_ENTRIES_MAX,
  syncResultFor,
} from '../../../../services/auth/revocation/log.js';
import { digestOf, publishedKeys, question } from './revocation-support.js';

const EPOCH = Buffer.alloc(16, 7);

function entry(sequence: bigint): LogEntry {
  const entryId = Buffer.alloc(16);
  entryId.writeBigUInt64BE(sequence);
  return {
    entryId,
    sequence,
    kind: 'TOKEN',
    issuer: '',
    key: entryId,
    minGeneration: 0n,
    keepUntil: new Date(0),
    cutOffTime: undefined,
    acknowledge: false,
  };
}

function reading(head: bigint, from = 1n): LogReading {
  const entries: LogEntry[] = [];
  for (let sequence = from; sequence <= head; sequence++) entries.push(entry(sequence));
  return {
    state: {
      epoch: EPOCH,
      head,
      headEntryId: head === 0n ? Buffer.alloc(0) : entry(head).entryId,
      horizon: new Date(0),
      leaseMs: 5000,
      epochNumber: 1n,
      fenceWanted: 0n,
    },
    keys: publishedKeys('one'),
    entries,
    entryIds: new Map(entries.map(({ sequence, entryId }) => [sequence, entryId])),
    digests: new Map(),
    otherEpochs: new Map(),
  };
}

/** A request of an instance that holds the entries after its position up to `heldTo`, and the read for it. */
function holding(applied: bigint, heldTo: bigint, head: bigint) {
  const read = reading(head);
  const asked = { ...at(applied), heldTo, heldDigest: digestOf(read.entries, applied, heldTo) };
  const digests = new Map(
    rangesToCompare(read.state, [asked]).map((range) => [
      rangeName(range),
      digestOf(read.entries, range.applied, range.heldTo),
    ]),
  );
  return { read: { ...read, digests }, asked };
}

function at(applied: bigint) {
  return question({ epoch: EPOCH, applied, entryIdAtApplied: entry(applied).entryId });
}

describe('a sync response', () => {
  it('contains no entries for an instance that is up to date', () => {
    const answer = syncResultFor(reading(3n), at(3n));
    expect(answer).to.include({ pull: false, head: 3n });
    expect(answer.entries).to.deep.equal([]);
  });

  it('requires no pull from an instance at the head, although the entry there was dropped', () => {
    const dropped = { ...reading(3n), entries: [], entryIds: new Map() };
    expect(syncResultFor(dropped, at(3n)).pull).to.equal(false);
  });

  it('contains every entry after the position of an instance that lags', () => {
    const answer = syncResultFor(reading(5n), at(2n));
    expect(answer.entries.map(({ sequence }) => sequence)).to.deep.equal([3n, 4n, 5n]);
    expect(answer.pull).to.equal(false);
  });

  it('requires no pull when the log is empty', () => {
    expect(syncResultFor(reading(0n), question({ epoch: EPOCH })).pull).to.equal(false);
  });

  it('requires a pull when the gap exceeds the limit of entries by one, but not at the limit', () => {
    const head = BigInt(SYNC_ENTRIES_MAX) + 1n;
    expect(syncResultFor(reading(head), question({ epoch: EPOCH }))).to.include({ pull: true });
    const answer = syncResultFor(reading(head), at(1n));
    expect(answer.pull).to.equal(false);
    expect(answer.entries).to.have.length(SYNC_ENTRIES_MAX);
  });

  it('requires a pull when the entry at the position of the instance was dropped', () => {
    const answer = syncResultFor(reading(5n, 4n), at(2n));
    expect(answer.pull).to.equal(true);
    expect(answer.entries).to.deep.equal([]);
  });

  it('requires a pull when the instance follows a former epoch or none, whatever it has applied', () => {
    expect(syncResultFor(reading(5n), question()).pull).to.equal(true);
    const over = { ...reading(5n), otherEpochs: new Map([['08'.repeat(16), 'OVER' as const]]) };
    expect(syncResultFor(over, { ...at(9n), epoch: Buffer.alloc(16, 8) }).pull).to.equal(true);
  });

  it('fails with LOG_CHANGED when the instance follows an epoch that this log has never had', () => {
    const asked = { ...at(0n), entryIdAtApplied: Buffer.alloc(0), epoch: Buffer.alloc(16, 8) };
    const found = { ...reading(5n), otherEpochs: new Map([['08'.repeat(16), 'LOST' as const]]) };
    for (const known of [reading(5n), found]) {
      expect(() => syncResultFor(known, asked))
        .to.throw()
        .with.property('code', 'LOG_CHANGED');
    }
    expect(newlyLost(reading(5n), asked)).to.deep.equal({ epoch: asked.epoch, foundUnder: EPOCH });
    for (const known of [newlyLost(found, asked), newlyLost(reading(5n), question())]) {
      expect(known).to.equal(undefined);
    }
    expect(newlyLost(reading(5n), at(9n))).to.equal(undefined);
  });

  it('requires a lookup of every other epoch that a request names, once', () => {
    const [one, two] = [Buffer.alloc(16, 1), Buffer.alloc(16, 2)];
    const asked = [one, two, one, EPOCH, Buffer.alloc(0)].map((epoch) => question({ epoch }));
    expect(otherEpochs(reading(0n).state, asked)).to.deep.equal([one, two]);
  });

  it('fails with LOG_CHANGED when the instance is ahead of the log', () => {
    expect(() => syncResultFor(reading(5n), at(6n)))
      .to.throw()
      .with.property('code', 'LOG_CHANGED');
  });

  it('fails with LOG_CHANGED when the log has another entry at the position of the instance', () => {
    for (const applied of [5n, 3n]) {
      const asked = { ...at(applied), entryIdAtApplied: Buffer.alloc(16, 9) };
      expect(() => syncResultFor(reading(5n), asked))
        .to.throw()
        .with.property('code', 'LOG_CHANGED');
    }
  });

  it('contains the key set only if the instance has another one, and always the broadcast keys', () => {
    const { keySet } = publishedKeys('one');
    expect(syncResultFor(reading(0n), question({ epoch: EPOCH })).keySet).to.deep.equal(keySet);
    const known = question({ epoch: EPOCH, keySetVersion: keySet.version });
    expect(syncResultFor(reading(0n), known)).to.deep.include({
      keySet: undefined,
      broadcastKeys: publishedKeys('one').broadcastKeys,
    });
  });
});

describe('a sync response to an instance that holds entries beyond its position', () => {
  const sequencesIn = ({ entries }: { entries: readonly LogEntry[] }) =>
    entries.map(({ sequence }) => sequence);

  it('contains only the entries after those', () => {
    const { read, asked } = holding(2n, 4n, 6n);
    expect(sequencesIn(syncResultFor(read, asked))).to.deep.equal([5n, 6n]);
    const all = holding(2n, 6n, 6n);
    expect(syncResultFor(all.read, all.asked)).to.deep.include({ entries: [], pull: false, head: 6n });
  });

  it('contains every entry when the digest is not that of the log', () => {
    const { read, asked } = holding(2n, 4n, 6n);
    const other = { ...asked, heldDigest: Buffer.alloc(16, 1) };
    expect(sequencesIn(syncResultFor(read, other))).to.deep.equal([3n, 4n, 5n, 6n]);
    // As an issuer that does not know the ids.
    expect(sequencesIn(syncResultFor({ ...read, digests: new Map() }, asked))).to.have.length(4);
    // As an instance that names none.
    const none = { ...asked, heldDigest: Buffer.alloc(0) };
    expect(sequencesIn(syncResultFor(read, none))).to.have.length(4);
  });

  it('requires no pull from one that lags by more than the limit of entries, but lacks fewer', () => {
    const head = BigInt(SYNC_ENTRIES_MAX) * 3n;
    const { read, asked } = holding(10n, head - BigInt(SYNC_ENTRIES_MAX), head);
    const result = syncResultFor(read, asked);
    expect(result.pull).to.equal(false);
    expect(result.entries).to.have.length(SYNC_ENTRIES_MAX);
    const other = { ...asked, heldDigest: Buffer.alloc(16, 1) };
    expect(syncResultFor(read, other)).to.deep.include({ pull: true, entries: [] });
  });

  it('requires a pull from one that lacks too many, and compares nothing', () => {
    const head = BigInt(SYNC_ENTRIES_MAX) * 3n;
    const { read, asked } = holding(10n, head - BigInt(SYNC_ENTRIES_MAX) - 1n, head);
    expect(read.digests.size).to.equal(0);
    expect(syncResultFor(read, asked).pull).to.equal(true);
  });

  it('fails with LOG_CHANGED whatever it holds, when the entry at its position is another one', () => {
    const { read, asked } = holding(2n, 4n, 6n);
    expect(() => syncResultFor(read, { ...asked, entryIdAtApplied: Buffer.alloc(16, 9) }))
      .to.throw()
      .with.property('code', 'LOG_CHANGED');
  });
});

describe('the ranges of entries that requests name as held', () => {
  const { state } = reading(70_000n, 70_000n);
  const heldDigest = Buffer.alloc(16, 1);

  it('are compared when they can be those of the log', () => {
    const asked = [
      { ...at(69_990n), heldTo: 69_995n, heldDigest },
      { ...at(70_000n - BigInt(HELD_ENTRIES_MAX)), heldTo: 70_000n, heldDigest },
    ];
    expect(rangesToCompare(state, asked)).to.deep.equal(asked);
  });

  for (const [fault, asked] of Object.entries({
    'the instance names none': { ...at(69_990n), heldTo: 0n, heldDigest: Buffer.alloc(0) },
    'they end before the position': { ...at(69_990n), heldTo: 69_990n, heldDigest },
    'they end beyond the head': { ...at(69_990n), heldTo: 70_001n, heldDigest },
    'the instance lacks too many': { ...at(60_000n), heldTo: 68_999n, heldDigest },
    'the position is too far behind': {
      ...at(70_000n - BigInt(HELD_ENTRIES_MAX) - 1n),
      heldTo: 70_000n,
      heldDigest,
    },
    'they are of another epoch': { ...at(69_990n), epoch: Buffer.alloc(16, 8), heldTo: 69_995n, heldDigest },
  })) {
    it(`are not compared when ${fault}`, () => {
      expect(rangesToCompare(state, [asked])).to.deep.equal([]);
    });
  }
});

describe('the entries that several sync requests need', () => {
  it('begin after what an instance holds when that alone is in reach', () => {
    const { state } = reading(5000n, 5000n);
    const heldDigest = Buffer.alloc(16, 1);
    expect(entriesNeededAfter(state, [{ ...at(100n), heldTo: 4500n, heldDigest }])).to.equal(4500n);
    expect(entriesNeededAfter(state, [{ ...at(100n), heldTo: 3999n, heldDigest }])).to.equal(undefined);
    // The digest may be another one.
    expect(entriesNeededAfter(state, [{ ...at(4400n), heldTo: 4500n, heldDigest }])).to.equal(4400n);
  });

  it('begin after the instance that lags furthest, without those that must pull or are up to date', () => {
    const state = reading(2000n, 2000n).state;
    expect(entriesNeededAfter(state, [at(1500n), at(1000n), at(999n), at(2000n), question()])).to.equal(
      1000n,
    );
    expect(entriesNeededAfter(state, [at(999n), at(2000n)])).to.equal(undefined);
  });
});

describe('a sync request', () => {
  const bad = {
    'an instance id of another length': question({ instance: Buffer.alloc(15) }),
    'an epoch of another length': question({ epoch: Buffer.alloc(3) }),
    'no entry id at a position': question({ epoch: EPOCH, applied: 1n }),
    'an entry id without a position': question({ epoch: EPOCH, entryIdAtApplied: Buffer.alloc(16) }),
    'a position that no log reaches': question({ applied: 2n ** 63n, entryIdAtApplied: Buffer.alloc(16) }),
    'an acknowledgement that is not an id': question({ seen: [Buffer.alloc(1)] }),
    'a held position that no log reaches': question({ heldTo: 2n ** 63n }),
    'a digest of another length': question({ heldTo: 1n, heldDigest: Buffer.alloc(15) }),
    'no service': question({ service: '' }),
  };
  for (const [fault, asked] of Object.entries(bad)) {
    it(`is rejected with ${fault}`, () => {
      expect(() => checkQuestion(asked))
        .to.throw()
        .with.property('code', 'FIELD_INVALID');
    });
  }
});

describe('the enforcement bound', () => {
  const appended: Appended = {
    epoch: EPOCH,
    epochNumber: 1n,
    entries: [],
    lockedTime: new Date(1_000_000),
    leaseMs: 5000,
    olderLeasesEndBy: new Date(0),
  };

  it('is the lease, one per cent and 100 ms', () => {
    expect(enforcementBoundMs(5000)).to.equal(5150);
    expect(enforcementBoundMs(1500)).to.equal(1615);
  });

  it('counts from a time that is not before the commit', () => {
    expect(enforcedEverywhereBy(appended, 2.5).getTime()).to.equal(1_000_003 + 5150);
  });

  it('is not before the end of the leases that were longer', () => {
    const later = new Date(1_009_000);
    expect(enforcedEverywhereBy({ ...appended, olderLeasesEndBy: later }, 0)).to.deep.equal(later);
  });
});

describe('the time for which entries are kept', () => {
  it('covers the maximum lifetime of a token, the allowed skew, and a step of the clock', () => {
    expect(KEEP_SECONDS_MAX).to.equal(
      ACCESS_TOKEN_LIFETIME_MAX_SECONDS + ADMISSION_SKEW_SECONDS + DATABASE_CLOCK_STEP_SECONDS,
    );
  });
});

describe('the parts of a live set', () => {
  it('carry every identifier and every entry once, in parts of bounded size, and end with the head', () => {
    const ids = Buffer.alloc((PULL_IDS_MAX + 1) * 16, 1);
    const entries = reading(BigInt(PULL_ENTRIES_MAX) + 1n).entries;
    const packed = { kind: 'TOKEN' as const, keepUntil: new Date(60_000), ids };
    const head = { epoch: EPOCH, head: 1n, headEntryId: Buffer.alloc(16) };
    const sizes = [...partsOf({ ...head, packed: [packed], entries })].map((part) => {
      if (part.part === 'packed') return part.packed.ids.length / 16;
      return part.part === 'entries' ? part.entries.length : part.end;
    });
    expect(sizes).to.deep.equal([PULL_IDS_MAX, 1, PULL_ENTRIES_MAX, 1, head]);
  });

  it('are only the end when nothing is revoked', () => {
    const head = { epoch: EPOCH, head: 0n, headEntryId: Buffer.alloc(0) };
    expect([...partsOf({ ...head, packed: [], entries: [] })]).to.deep.equal([{ part: 'end', end: head }]);
  });
});

describe('a UUID', () => {
  it('has the same value in lower and upper case, and is rejected in any other spelling', () => {
    const text = '0190b5a4-7c3e-7d1a-8f00-00112233aabb';
    expect(bytesOfUuid('token_id', text)).to.deep.equal(bytesOfUuid('token_id', text.toUpperCase()));
    for (const bad of ['', text.replaceAll('-', ''), `{${text}}`, `${text} `, `${text}0`]) {
      expect(() => bytesOfUuid('token_id', bad))
        .to.throw()
        .with.property('code', 'FIELD_INVALID');
    }
  });
});
