/** The library's own feed, fed straight from auth's database. */

import { randomUUID } from 'node:crypto';
import { systemClock } from '@portcullis/guard/clock';
import { Feed } from '@portcullis/guard/internal';
import { expect } from 'chai';
import type { Entry } from '../../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { createRevocationSource } from '../../../../services/auth/adapters/revocation-source.js';
import { openTestLog, question, type TestLog } from '../revocation/revocation-support.js';

/** An instance that says nothing of itself. */
const UNNAMED = { description: undefined, leaving: false };

describe('the source of revocations', () => {
  let log: TestLog;
  beforeEach(async () => {
    log = await openTestLog();
  });
  afterEach(() => log.close());

  function createFeed() {
    const added: Entry[] = [];
    let filled = 0;
    const feed = new Feed({
      service: 'auth',
      instance: Buffer.alloc(16, 5),
      listener: {
        entryAdded: (entry) => added.push(entry),
        listFilled: () => {
          filled += 1;
        },
        epochChanged: () => undefined,
      },
    });
    const source = createRevocationSource(log.revocations);
    const now = () => ({ monotonicMs: systemClock.monotonicMs(), wallMs: systemClock.wallMs() });
    const ask = async () => {
      const ticket = feed.createSyncRequest(now());
      return feed.applySyncResponse(
        ticket,
        await source.sync(ticket.request, new AbortController().signal),
        () => undefined,
      );
    };
    const pull = async () => {
      feed.beginPull();
      const request = { service: 'auth', instance: Buffer.alloc(16, 5) };
      let isWhole = false;
      for await (const part of source.pull(request, new AbortController().signal))
        isWhole = feed.applyPullPart(part);
      return isWhole;
    };
    return { feed, ask, pull, added, filled: () => filled };
  }

  it('fills a feed, and keeps it current', async () => {
    await log.revokeToken();
    const { feed, ask, pull, added, filled } = createFeed();
    expect(await ask()).to.equal('pull');
    expect(await pull()).to.equal(true);
    expect(filled()).to.equal(1);
    expect(feed.applied).to.equal(1n);
    expect(await ask()).to.equal('granted');
    expect(feed.leaseLeftMs(systemClock.monotonicMs(), systemClock.wallMs())).to.be.within(4000, 5000);

    const { sequence } = await log.revokeToken(randomUUID());
    expect(await ask()).to.equal('granted');
    expect(feed.applied).to.equal(sequence);
    expect(added.map((entry) => entry.sequence)).to.deep.equal([sequence]);
  });

  it('stops waiting when the caller has cancelled', async () => {
    const source = createRevocationSource({
      ...log.revocations,
      sync: () => new Promise(() => undefined),
    });
    const gone = new AbortController();
    const asked = source
      .sync({ ...question(), seen: [], kinds: [], claimIds: [], fences: [], ...UNNAMED }, gone.signal)
      .catch((error: unknown) => error);
    gone.abort(new Error('gone'));
    expect(await asked).to.have.property('message', 'gone');
  });
});
