/** Traces of feeds in files: they are compared with the tables, and a feed without a rule is found. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Feed, type Moment, type SyncOutcome, type SyncTicket } from '@portcullis/guard/internal';
import { expect } from 'chai';
import { watchFeeds } from '../../../proofs/spec/feed-steps.js';
import { createReadingFilter } from '../../../proofs/spec/reading-filter.js';
import { checkTraceFile, checkTraceFolder } from '../../../proofs/spec/trace-file.js';
import {
  type Broadcast,
  EntryKind,
  SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';

const EPOCH = Buffer.alloc(16, 0xa1);
const LEASE_SECONDS = 5n;
/** Readings of the clocks between two syncs. */
const READINGS = 50;
const ROUNDS = 4;

const listener: ConstructorParameters<typeof Feed>[0]['listener'] = {
  entryAdded: () => {},
  listFilled: () => {},
  epochChanged: () => {},
};
const OPTIONS = { service: 'inventory', instance: Buffer.alloc(16, 1), listener };

function broadcastOf(sequence: bigint): Broadcast {
  const entry = {
    entryId: Buffer.alloc(16, Number(sequence)),
    sequence,
    kind: EntryKind.ENTRY_KIND_TOKEN,
    key: Buffer.alloc(16, Number(sequence)),
    minGeneration: 0n,
    keepUntil: new Date(10_000_000),
    acknowledge: true,
    issuer: '',
    claim: '',
    cutOffTime: undefined,
  };
  return { epoch: EPOCH, entries: [entry] };
}

/** The trace of a feed that syncs, receives broadcasts and reads its clocks, which jitter and jump. */
function traceOf(feed: Feed): { readonly lines: readonly string[]; readonly steps: number } {
  const lines: string[] = [];
  const isNeeded = createReadingFilter();
  let steps = 0;
  watchFeeds(feed, () => ({
    onStep(step) {
      steps += 1;
      if (isNeeded(step)) lines.push(JSON.stringify(step));
    },
  }));
  let nowMs = 1000;
  const moment = (): Moment => {
    nowMs += 1.3;
    return { monotonicMs: nowMs, wallMs: Math.floor(nowMs) };
  };
  for (let round = 1n; round <= ROUNDS; round += 1n) {
    const ticket = feed.createSyncRequest(moment());
    feed.applyBroadcast(broadcastOf(round));
    const response = {
      ...SyncResponse.fromPartial({}),
      epoch: EPOCH,
      head: round - 1n,
      entryIdAtHead: round === 1n ? Buffer.alloc(0) : Buffer.alloc(16, Number(round - 1n)),
      keySet: { version: Buffer.alloc(32, 1), keys: [] },
      pull: round === 1n,
      leaseLength: { seconds: LEASE_SECONDS, nanos: 0 },
    };
    feed.applySyncResponse(ticket, response, () => {});
    for (let reading = 0; reading < READINGS; reading += 1) {
      const { monotonicMs, wallMs } = moment();
      feed.leaseLeftMs(monotonicMs, wallMs);
    }
    // The wall clock is set back, and then the machine sleeps.
    feed.leaseLeftMs(nowMs, nowMs - 100);
    feed.leaseLeftMs(nowMs, nowMs);
  }
  return { lines, steps };
}

/** The lease begins when the response arrives. */
class LateFeed extends Feed {
  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, install: () => void): SyncOutcome {
    const { monotonicMs, wallMs } = ticket.sentAt;
    const sentAt = { monotonicMs: monotonicMs + 1, wallMs: wallMs + 1 };
    return super.applySyncResponse({ ...ticket, sentAt }, answer, install);
  }
}

/** A response that asks for a pull grants a lease. */
class EagerFeed extends Feed {
  override applySyncResponse(ticket: SyncTicket, answer: SyncResponse, install: () => void): SyncOutcome {
    const outcome = super.applySyncResponse(ticket, answer, install);
    if (outcome !== 'pull') return outcome;
    const again = {
      ...ticket,
      sentAt: { ...ticket.sentAt, monotonicMs: ticket.sentAt.monotonicMs + 0.1 },
      list: this.list,
    };
    return super.applySyncResponse(again, { ...answer, pull: false }, install);
  }
}

/** Rises of the wall clock do not count. */
class AwakeFeed extends Feed {
  override leaseLeftMs(monotonicMs: number): number {
    return super.leaseLeftMs(monotonicMs, Math.floor(monotonicMs));
  }
}

describe('traces of instances', () => {
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'portcullis-traces-'));
  });

  after(() => rm(folder, { recursive: true, force: true }));

  async function resultOf(feed: Feed): Promise<string | undefined> {
    const file = join(folder, 'one.jsonl');
    await writeFile(
      file,
      traceOf(feed)
        .lines.map((line) => `${line}\n`)
        .join(''),
    );
    return (await checkTraceFile(file)).mismatch?.what;
  }

  it('agree with the tables, without most readings of the clocks', async () => {
    const { lines, steps } = traceOf(new Feed(OPTIONS));
    expect(steps).to.be.greaterThan(ROUNDS * READINGS);
    expect(lines.length).to.be.lessThan(steps / 2);
    expect(await resultOf(new Feed(OPTIONS))).to.equal(undefined);
  });

  it('show a lease that begins when the response arrives', async () => {
    expect(await resultOf(new LateFeed(OPTIONS))).to.match(/^lease: the lease: found/);
  });

  it('show a lease that is granted before the list was pulled', async () => {
    expect(await resultOf(new EagerFeed(OPTIONS))).to.match(
      /^answer 1: the decision: found granted, .* pull$/,
    );
  });

  it('show rises of the wall clock that do not count', async () => {
    expect(await resultOf(new AwakeFeed(OPTIONS))).to.match(/^lease: the lease: found/);
  });

  it('may end in the middle of a line, and are counted', async () => {
    const { lines } = traceOf(new Feed(OPTIONS));
    const text = lines.join('\n');
    await writeFile(join(folder, 'one.jsonl'), text.slice(0, -10));
    const { traces, steps, mismatches } = await checkTraceFolder(folder);
    expect({ traces, steps, mismatches }).to.deep.equal({
      traces: 1,
      steps: lines.length - 1,
      mismatches: [],
    });
  });

  it('contain no keys and no tokens, only identifiers', async () => {
    await resultOf(new Feed(OPTIONS));
    const text = await readFile(join(folder, 'one.jsonl'), 'utf8');
    expect(text).to.match(/"key_set_version":"01/);
    expect(text).to.not.match(/eyJ|"keys"|BEGIN|"service"|"instance"/);
  });
});
