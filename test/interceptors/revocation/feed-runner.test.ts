/** The feed runner: when it syncs, what it does with responses, and what it reports without them. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { ServiceError } from '../../../interceptors/src/errors.js';
import {
  BROADCAST_TYPE,
  type subscribeToBroadcasts,
} from '../../../interceptors/src/revocation/broadcasts.js';
import { Feed } from '../../../interceptors/src/revocation/feed.js';
import {
  BROADCASTS_INLINE_MAX,
  BROADCASTS_PENDING_MAX,
  FeedRunner,
} from '../../../interceptors/src/revocation/feed-runner.js';
import {
  Broadcast,
  type Entry,
  type EntryKind,
  type InstanceDescription,
  type SyncResponse,
} from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { until } from '../../support/waiting.js';
import { SetClock, SetTimers, TestKey, tokenEntry } from '../tokens-support.js';
import { answer, broadcast, EPOCH, endOfPull, LEASE_MS, OTHER_EPOCH, partOf } from './feed-support.js';
import { HeldSource, received, settled } from './runner-support.js';

describe('a feed runner', () => {
  const published = new TestKey('EdDSA').published;
  const keySet = { version: Buffer.alloc(32, 1), keys: [published] };
  let source: HeldSource;
  let clock: SetClock;
  let timers: SetTimers;
  let feed: Feed;
  let runner: FeedRunner;
  let events: string[];
  let logged: string[];
  let broker: Parameters<typeof subscribeToBroadcasts>[0];

  /** Broadcasts an entry signed with a key, and waits until it was processed. */
  async function deliver(signer: TestKey, entry: Entry, isDone: () => boolean = () => true): Promise<void> {
    const bytes = Broadcast.encode(broadcast([entry])).finish();
    broker.onMessage(Buffer.from(await signer.sign(bytes, { typ: BROADCAST_TYPE })));
    // Signatures are verified on another thread.
    await until(isDone);
    await settled();
  }

  beforeEach(() => {
    clock = new SetClock();
    timers = new SetTimers();
    source = new HeldSource(clock);
    events = [];
    logged = [];
    const instance = Buffer.alloc(16, 1);
    feed = new Feed({
      service: 'inventory',
      instance,
      listener: { entryAdded: () => {}, listFilled: () => {}, epochChanged: () => events.push('epoch') },
    });
    runner = createRunner();
    runner.start();
  });

  function createRunner(description?: InstanceDescription): FeedRunner {
    const instance = Buffer.alloc(16, 1);
    const note = (fields: object) => logged.push('event' in fields ? String(fields.event) : '');
    return new FeedRunner({
      ...(description !== undefined && { description }),
      feed,
      source,
      service: 'inventory',
      instance,
      nats: { url: 'nats://broker.example', name: 'test', awaited: false },
      subscribe: (subscription) => {
        broker = subscription;
        return { close: async () => {} };
      },
      clock,
      timers,
      log: { info: note, warn: note, error: note },
      onKeys: (keys) => events.push(`keys ${[...keys.keyIds()].length}`),
      onCurrentChange: (isCurrent) => events.push(isCurrent ? 'current' : 'stale'),
      onForgery: () => events.push('forgery'),
    });
  }

  afterEach(() => runner.close());

  /** Answers the first requests, so that the list becomes current. */
  async function hydrate(over: Partial<SyncResponse> = {}): Promise<void> {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.send(endOfPull(0n));
    pull.end();
    (await source.question(1)).answer(answer(over));
    await settled();
    events.length = 0;
  }

  it('asks again only for a list that came to its end', async () => {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.end();
    await settled();
    expect(source.questions).to.have.length(1);
  });

  describe('that is closed', () => {
    const description = { host: 'web1', version: '0.1.0', startTime: new Date(0) };

    async function restart(given: InstanceDescription | undefined): Promise<void> {
      await runner.close();
      source = new HeldSource(clock);
      runner = createRunner(given);
      runner.start();
    }

    it('says that it leaves, and who it was', async () => {
      await restart(description);
      await hydrate();
      const closing = runner.close();
      const last = await source.question(2);
      expect(last.request).to.deep.include({ leaving: true, description });
      last.answer(answer());
      await closing;
      expect(source.isClosed).to.equal(true);
      runner = createRunner();
    });

    it('says nothing when the issuer did not answer, or it has no name', async () => {
      await restart(description);
      (await source.question(0)).fail(new Error('unreachable'));
      await settled();
      await runner.close();
      expect(source.questions).to.have.length(1);
      await restart(undefined);
      await hydrate();
      await runner.close();
      expect(source.questions).to.have.length(2);
    });
  });

  it('syncs at once, pulls, syncs again, and installs the keys before it is current', async () => {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    expect(events).to.deep.equal(['epoch', 'keys 1']);
    expect(runner.staleReason).to.equal('revocations: the issuer has not answered yet');
    pull.send(partOf(tokenEntry('11111111-1111-4111-8111-111111111111')), endOfPull(4n));
    pull.end();
    const second = await source.question(1);
    expect(second.request).to.deep.include({ epoch: EPOCH, applied: 4n, keySetVersion: keySet.version });
    expect(runner.isCurrent()).to.equal(false);
    second.answer(answer({ head: 4n }));
    await settled();
    expect(events).to.deep.equal(['epoch', 'keys 1', 'current']);
    expect([runner.isCurrent(), runner.staleReason, feed.list.size]).to.deep.equal([true, '', 1]);
  });

  it('counts the lease from before the request was sent', async () => {
    await hydrate();
    runner.syncNow();
    const question = await source.question(2);
    clock.pass(3000);
    question.answer(answer());
    await settled();
    expect(feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs())).to.equal(LEASE_MS - 3001);
  });

  it("applies its own process's entries at once, and syncs only when that is due", async () => {
    await hydrate();
    source.written(broadcast([tokenEntry(randomUUID(), { sequence: 1n })]));
    expect([feed.list.size, feed.applied]).to.deep.equal([1, 0n]);
    await settled();
    expect(source.questions).to.have.length(2);

    // Another process has committed the second entry.
    source.written(broadcast([tokenEntry(randomUUID(), { sequence: 3n })]));
    expect(feed.list.size).to.equal(2);
    expect((await source.question(2)).request.applied).to.equal(0n);
  });

  it("syncs, and does not fail, when its own process's entries cannot be applied", async () => {
    await hydrate();
    const asked = source.questions.length;
    source.written(broadcast([tokenEntry(randomUUID(), { sequence: 1n, keepUntil: undefined })]));
    await source.question(asked);
    expect(logged).to.include('broadcast_unusable');
  });

  it('syncs at once when its own process has opened an epoch', async () => {
    await hydrate();
    source.written({ epoch: OTHER_EPOCH, entries: [] });
    await source.question(2);
    expect(runner.isCurrent()).to.equal(true);
  });

  it('is not current when the key set cannot be imported', async () => {
    const broken = { version: keySet.version, keys: [{ ...published, jwk: '{}' }] };
    (await source.question(0)).answer(answer({ pull: true, keySet: broken }));
    await settled();
    expect(events).to.deep.equal([]);
    expect(source.pulls).to.have.length(0);
    expect(runner.staleReason).to.include('the issuer does not answer');
  });

  it('syncs several times within a lease, without waiting for responses', async () => {
    await hydrate({ leaseLength: { seconds: 0n, nanos: 250_000_000 } });
    const before = source.questions.length;
    timers.pass(200 + 3 * 50);
    expect(source.questions.length).to.be.within(before + 4, before + 5);
    expect(source.questions.slice(before).every(({ signal }) => !signal.aborted)).to.equal(true);
  });

  it('aborts a sync that is not answered within a lease', async () => {
    await hydrate({ leaseLength: { seconds: 0n, nanos: 100_000_000 } });
    runner.syncNow();
    const question = await source.question(2);
    timers.pass(99);
    expect(question.signal.aborted).to.equal(false);
    timers.pass(1);
    expect(question.signal.aborted).to.equal(true);
  });

  it('has one urgent sync open at a time, and sends one more when another was requested meanwhile', async () => {
    await hydrate();
    for (let count = 0; count < 5; count += 1) runner.syncNow();
    await settled();
    expect(source.questions).to.have.length(3);
    source.questions[2]?.answer(answer());
    await settled();
    expect(source.questions).to.have.length(4);
    source.questions[3]?.answer(answer());
    await settled();
    expect(source.questions).to.have.length(4);
  });

  it('reports that the log has changed, and becomes stale when its lease ends', async () => {
    await hydrate();
    runner.syncNow();
    const error = new ServiceError(
      'LOG_CHANGED',
      'FAILED_PRECONDITION',
      'the log is not the one that was followed',
    );
    (await source.question(2)).fail(received(error));
    await settled();
    expect([runner.isCurrent(), runner.staleReason]).to.deep.equal([true, '']);
    expect(events).to.deep.equal([]);
    expect(logged).to.include('sync_failed');

    clock.pass(LEASE_MS);
    runner.syncNow();
    (await source.question(3)).fail(received(error));
    await settled();
    expect(events).to.deep.equal(['stale']);
    expect(runner.staleReason).to.include('an operator must open a new epoch');

    runner.syncNow();
    (await source.question(4)).answer(answer());
    await settled();
    expect(events).to.deep.equal(['stale', 'current']);
    expect(runner.staleReason).to.equal('');
  });

  it('logs every kind of failure once', async () => {
    for (let number = 0; number < 3; number += 1) {
      (await source.question(number)).fail(new Error('no route'));
      await settled();
      runner.syncNow();
    }
    await settled();
    expect(runner.staleReason).to.equal('revocations: the issuer does not answer (Error: no route)');
    expect(logged.filter((event) => event === 'sync_failed')).to.have.length(1);
  });

  it('survives every kind of failure of its source', async () => {
    const failures = [
      undefined,
      null,
      'away',
      7,
      {},
      { metadata: { region: 'eu' } },
      { code: 14, details: 'away' },
    ];
    for (const [number, failure] of failures.entries()) {
      runner.syncNow();
      (await source.question(number)).fail(failure);
      await settled();
    }
    expect(runner.staleReason).to.include('the issuer does not answer');
  });

  it('reports that the list is stale when the lease ends, without any response or failure', async () => {
    source.isDeaf = true;
    await hydrate({ leaseLength: { seconds: 0n, nanos: 300_000_000 } });
    clock.pass(300);
    timers.pass(300);
    expect(events).to.deep.equal(['stale']);
    expect(logged).to.include('revocations_stale');
  });

  it('checks the lease again when its timer was early', async () => {
    source.isDeaf = true;
    await hydrate({ leaseLength: { seconds: 0n, nanos: 50_000_000 } });
    // The timer fires while the clock of the lease stands still, so the check is too early.
    timers.pass(50);
    expect(events).to.deep.equal([]);
    clock.pass(50);
    timers.pass(50);
    expect(events).to.deep.equal(['stale']);
  });

  it('reports once that the list is stale, and again only after it was current', async () => {
    await hydrate();
    clock.pass(LEASE_MS);
    for (let number = 2; number < 5; number += 1) {
      runner.syncNow();
      (await source.question(number)).fail(new Error('away'));
      await settled();
    }
    expect(events).to.deep.equal(['stale']);
  });

  it('is stale at once in a new epoch, and current again after a pull and a sync', async () => {
    await hydrate();
    runner.syncNow();
    const next = { version: Buffer.alloc(32, 2), keys: [new TestKey('EdDSA').published] };
    (await source.question(2)).answer(answer({ epoch: OTHER_EPOCH, pull: true, keySet: next }));
    const pull = await source.pullNumber(1);
    expect(events).to.deep.equal(['epoch', 'keys 1', 'stale']);
    pull.send(endOfPull(0n, Buffer.alloc(0), OTHER_EPOCH));
    pull.end();
    (await source.question(3)).answer(answer({ epoch: OTHER_EPOCH }));
    await settled();
    expect(events.at(-1)).to.equal('current');
  });

  it('grants no lease on a response read before a new epoch that arrives after one read later', async () => {
    const leaseLength = { seconds: 0n, nanos: 500_000_000 };
    await hydrate({ leaseLength });
    const listed = tokenEntry(randomUUID(), { sequence: 1n });
    runner.syncNow();
    (await source.question(2)).answer(
      answer({ leaseLength, head: 1n, entryIdAtHead: listed.entryId, entries: [listed] }),
    );
    await settled();
    // Two syncs are open, and both name the first epoch.
    const asked = source.questions.length;
    timers.pass(200);
    timers.pass(100);
    const [first, second] = [await source.question(asked), await source.question(asked + 1)];
    events.length = 0;
    const next = { version: Buffer.alloc(32, 2), keys: [new TestKey('EdDSA').published] };
    const changed = { version: Buffer.alloc(32, 3), keys: [published, new TestKey('EdDSA').published] };
    first.answer(answer({ leaseLength, epoch: OTHER_EPOCH, pull: true, keySet: next }));
    await settled();
    second.answer(answer({ leaseLength, head: 1n, entryIdAtHead: listed.entryId, keySet: changed }));
    await settled();
    expect(events).to.deep.equal(['epoch', 'keys 1', 'stale']);
    expect([runner.isCurrent(), feed.hydrated]).to.deep.equal([false, false]);
    // It recovers by itself, in the current epoch.
    const pull = await source.pullNumber(1);
    pull.send(endOfPull(0n, Buffer.alloc(0), OTHER_EPOCH));
    pull.end();
    const last = await source.question(asked + 2);
    expect(last.request.epoch).to.deep.equal(OTHER_EPOCH);
    last.answer(answer({ epoch: OTHER_EPOCH }));
    await settled();
    expect(runner.isCurrent()).to.equal(true);
  });

  it('drops a pull that broke, and pulls again when a sync response requires it', async () => {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.send(partOf(tokenEntry('11111111-1111-4111-8111-111111111111')));
    await settled();
    pull.fail(new Error('cut off'));
    await settled();
    expect([feed.list.size, feed.applied]).to.deep.equal([0, 0n]);
    expect(runner.staleReason).to.include('cut off');
    runner.syncNow();
    (await source.question(1)).answer(answer({ pull: true }));
    const again = await source.pullNumber(1);
    again.send(endOfPull(2n));
    again.end();
    await settled();
    expect(feed.applied).to.equal(2n);
  });

  it('applies nothing of a pull that ended before its last part', async () => {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.send(partOf(tokenEntry('11111111-1111-4111-8111-111111111111')));
    pull.end();
    await settled();
    expect([feed.list.size, feed.applied, feed.hydrated]).to.deep.equal([0, 0n, false]);
  });

  it('runs one pull at a time', async () => {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    await source.pullNumber(0);
    for (let number = 1; number < 4; number += 1) {
      runner.syncNow();
      (await source.question(number)).answer(answer({ pull: true }));
      await settled();
    }
    expect(source.pulls).to.have.length(1);
  });

  it('verifies a limited number of broadcasts at a time, and syncs for those that it dropped', async () => {
    await runner.close();
    const key = new TestKey('EdDSA');
    const message = broadcast([tokenEntry('11111111-1111-4111-8111-111111111111', { sequence: 1n })]);
    const replayed = Buffer.from(await key.sign(Broadcast.encode(message).finish(), { typ: BROADCAST_TYPE }));
    let taken = 0;
    let deliver: (bytes: Uint8Array) => void = () => {};
    source = new HeldSource(clock);
    feed = new Feed({
      service: 'inventory',
      instance: Buffer.alloc(16, 1),
      listener: { entryAdded: () => (taken += 1), listFilled: () => {}, epochChanged: () => {} },
    });
    runner = new FeedRunner({
      feed,
      source,
      service: 'inventory',
      instance: Buffer.alloc(16, 1),
      nats: { url: '', name: '', awaited: false },
      subscribe: ({ onMessage }) => {
        deliver = onMessage;
        return { close: async () => {} };
      },
      clock,
      timers,
      log: { info: () => {}, warn: () => {}, error: () => {} },
      onKeys: () => {},
      onCurrentChange: () => {},
      onForgery: () => {},
    });
    runner.start();
    await hydrate({ broadcastKeys: [key.published] });
    const asked = source.questions.length;
    for (let sent = 0; sent < 10 * BROADCASTS_PENDING_MAX; sent += 1) deliver(replayed);
    // The first ones are in the list already; a call at this moment is rejected.
    expect(taken).to.equal(BROADCASTS_INLINE_MAX);
    await source.question(asked);
    expect(taken).to.equal(BROADCASTS_INLINE_MAX + BROADCASTS_PENDING_MAX);
    source.questions[asked]?.answer(answer({ broadcastKeys: [key.published] }));
    await settled();
    deliver(replayed);
    await until(() => taken > BROADCASTS_INLINE_MAX + BROADCASTS_PENDING_MAX);
    await settled();
    // One sync fetches all that was dropped.
    expect(source.questions).to.have.length(asked + 1);
    // In the next interval, some are verified on the main thread again.
    const before = taken;
    clock.pass(100);
    deliver(replayed);
    expect(taken).to.equal(before + 1);
  });

  describe('with a broker', () => {
    const key = new TestKey('EdDSA');
    const entryOf = (over: Partial<Entry> = {}) => tokenEntry(randomUUID(), { sequence: 1n, ...over });

    it('applies a broadcast signed by a current key, without a sync', async () => {
      await hydrate({ broadcastKeys: [key.published] });
      await deliver(key, entryOf(), () => feed.list.size > 0);
      expect([feed.list.size, feed.applied, source.questions.length]).to.deep.equal([1, 0n, 2]);
    });

    it('syncs at once when an entry is missing, or requests an acknowledgement', async () => {
      await hydrate({ broadcastKeys: [key.published] });
      await deliver(key, entryOf({ sequence: 3n }));
      (await source.question(2)).answer(answer({ head: 3n, broadcastKeys: [key.published] }));
      await settled();
      const one = entryOf({ sequence: 4n, acknowledge: true });
      await deliver(key, one);
      expect((await source.question(3)).request.seen).to.deep.equal([one.entryId]);
    });

    it('reports a broadcast signed by another key, and does not apply it', async () => {
      await hydrate({ broadcastKeys: [key.published] });
      await deliver(new TestKey('EdDSA', key.published.kid), entryOf(), () => events.length > 0);
      broker.onMessage(Buffer.from('nonsense'));
      await settled();
      expect(feed.list.size).to.equal(0);
      expect(events).to.deep.equal(['forgery', 'forgery']);
    });

    it('reports no forgery before it has a key', async () => {
      await deliver(key, entryOf());
      expect(events).to.deep.equal([]);
    });

    it('syncs at once when an entry in a broadcast cannot be applied', async () => {
      await hydrate({ broadcastKeys: [key.published] });
      await deliver(key, entryOf({ kind: 99 as EntryKind }), () => logged.includes('broadcast_unusable'));
      expect(source.questions).to.have.length(3);
      expect(logged).to.include('broadcast_unusable');
    });

    it('syncs at once after reconnecting to the broker, because broadcasts are missing', async () => {
      broker.onConnected();
      await settled();
      expect(source.questions).to.have.length(1);
      await hydrate();
      broker.onDisconnected({ state: 'unreachable', problem: 'gone' });
      broker.onConnected();
      await settled();
      expect(source.questions).to.have.length(3);
    });

    it('does not reinstall a broadcast key that has left, on an overtaken response', async () => {
      await hydrate({ leaseLength: { seconds: 0n, nanos: 500_000_000 }, broadcastKeys: [key.published] });
      timers.pass(200);
      timers.pass(100);
      const [slow, quick] = [await source.question(2), await source.question(3)];
      const next = new TestKey('EdDSA');
      quick.answer(answer({ broadcastKeys: [next.published] }));
      await settled();
      slow.answer(answer({ broadcastKeys: [key.published] }));
      await settled();
      await deliver(key, entryOf(), () => events.includes('forgery'));
      expect(feed.list.size).to.equal(0);
      await deliver(next, entryOf(), () => feed.list.size > 0);
      expect(feed.list.size).to.equal(1);
    });
  });

  it('stops syncing, and aborts open requests, when it is closed', async () => {
    await hydrate({ leaseLength: { seconds: 0n, nanos: 50_000_000 } });
    runner.syncNow();
    await settled();
    const asked = source.questions.length;
    await runner.close();
    expect(source.questions.at(-1)?.signal.aborted).to.equal(true);
    runner.syncNow();
    timers.pass(1000);
    expect(source.questions).to.have.length(asked);
    expect(logged).to.not.include('sync_failed');
  });

  it('applies no response after it was closed', async () => {
    const question = await source.question(0);
    question.answer(answer({ pull: true, keySet }));
    await runner.close();
    await settled();
    expect(events).to.deep.equal([]);
  });
});
