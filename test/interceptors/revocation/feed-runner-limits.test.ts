/** The feed runner at its limits: intervals, timeouts, numbers of requests, the broker, and its end. */

import { randomUUID } from 'node:crypto';
import { expect } from 'chai';
import { ServiceError } from '../../../interceptors/src/errors.js';
import {
  BROADCAST_TYPE,
  BroadcastReader,
  type subscribeToBroadcasts,
} from '../../../interceptors/src/revocation/broadcasts.js';
import { Feed } from '../../../interceptors/src/revocation/feed.js';
import {
  BROADCASTS_INLINE_MAX,
  BROADCASTS_PENDING_MAX,
  FeedRunner,
  type FeedRunnerOptions,
} from '../../../interceptors/src/revocation/feed-runner.js';
import { Broadcast, type SyncResponse } from '../../../proto/gen/portcullis/revocation/v1/revocation.js';
import { until } from '../../support/waiting.js';
import { SetClock, SetTimers, TestKey, tokenEntry } from '../tokens-support.js';
import { answer, broadcast, endOfPull, LEASE_MS, partOf } from './feed-support.js';
import { HeldSource, settled } from './runner-support.js';

const INSTANCE = Buffer.alloc(16, 1);
const NATS = { url: 'nats://broker.example', name: 'test', awaited: false };

describe('a feed runner at its limits', () => {
  const published = new TestKey('EdDSA').published;
  const keySet = { version: Buffer.alloc(32, 1), keys: [published] };
  let source: HeldSource;
  let clock: SetClock;
  let timers: SetTimers;
  let feed: Feed;
  let runner: FeedRunner;
  let events: string[];
  let logged: Record<string, unknown>[];
  let broker: Parameters<typeof subscribeToBroadcasts>[0];
  let isSubscribed: boolean;

  function start(over: Partial<FeedRunnerOptions> = {}, listEntriesMax?: number): void {
    clock = new SetClock();
    timers = new SetTimers();
    source = new HeldSource(clock);
    events = [];
    logged = [];
    isSubscribed = false;
    const note = (fields: object) => logged.push({ ...fields });
    const listener = { entryAdded: () => {}, listFilled: () => {}, epochChanged: () => {} };
    feed = new Feed({ service: 'inventory', instance: INSTANCE, listener, listEntriesMax });
    runner = new FeedRunner({
      feed,
      source,
      service: 'inventory',
      instance: INSTANCE,
      nats: NATS,
      subscribe: (subscription) => {
        broker = subscription;
        isSubscribed = true;
        return {
          close: async () => {
            isSubscribed = false;
          },
        };
      },
      clock,
      timers,
      random: () => 0.5,
      log: { info: note, warn: note, error: note },
      onKeys: () => {},
      onCurrentChange: (isCurrent) => events.push(isCurrent ? 'current' : 'stale'),
      onForgery: () => events.push('forgery'),
      ...over,
    });
    runner.start();
  }
  afterEach(() => runner.close());

  async function hydrate(over: Partial<SyncResponse> = {}): Promise<void> {
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.send(endOfPull(0n));
    pull.end();
    (await source.question(1)).answer(answer(over));
    await settled();
  }
  const failures = () => logged.filter(({ event }) => event === 'sync_failed');

  describe('that waits for its broker', () => {
    beforeEach(() => start({ nats: { ...NATS, awaited: true } }));

    it('does not sync before the broker was reached, and states why', async () => {
      runner.syncNow();
      timers.pass(10_000);
      expect(source.questions).to.have.length(0);
      expect(runner.broker).to.deep.equal({ state: 'connecting', problem: '' });
      expect(runner.staleReason).to.equal('revocations: the broker has not been reached yet');
      const refused = { state: 'refused', problem: 'wrong password' } as const;
      broker.onDisconnected(refused);
      expect(runner.broker).to.deep.equal(refused);
      expect(runner.staleReason).to.equal(
        'revocations: the broker has not been reached yet (wrong password)',
      );
      expect(logged.at(-1)).to.include({ event: 'broker_lost', reason: 'refused', why: 'wrong password' });
      broker.onConnected();
      expect(runner.broker).to.deep.equal({ state: 'connected', problem: '' });
      await hydrate();
      expect(runner.staleReason).to.equal('');
      broker.onDisconnected(refused);
      broker.onConnected();
      await settled();
      expect(source.questions).to.have.length(3);
    });

    it('does not sync when it was closed before', async () => {
      await runner.close();
      broker.onConnected();
      await settled();
      expect(source.questions).to.have.length(0);
    });
  });

  it('follows the log without a broker', async () => {
    start({ nats: undefined });
    expect([isSubscribed, runner.broker]).to.deep.equal([false, undefined]);
    await hydrate();
    expect(events).to.deep.equal(['current']);
  });

  it('follows a source that commits nothing itself and has nothing to close', async () => {
    const held = new HeldSource(new SetClock());
    start({ source: { sync: held.sync.bind(held), pull: held.pull.bind(held) } });
    await held.question(0);
    await runner.close();
  });

  it('passes the address of the broker and the files to the subscription', () => {
    const files = { caFile: 'ca.pem' };
    start({ nats: { ...NATS, files } });
    expect(broker).to.include({ url: NATS.url, name: NATS.name, files });
  });

  it('syncs every 200 ms before the first lease, then five times within a lease, each a little early', async () => {
    start();
    timers.pass(189);
    expect(source.questions).to.have.length(1);
    timers.pass(1);
    expect(source.questions).to.have.length(2);
    await runner.close();
    start();
    await hydrate();
    // The timer that runs was started before the lease.
    timers.pass(190);
    const asked = source.questions.length;
    timers.pass(949);
    expect(source.questions).to.have.length(asked);
    timers.pass(1);
    expect(source.questions).to.have.length(asked + 1);
  });

  it('syncs at most once a millisecond, however short the lease is', async () => {
    start();
    await hydrate({ leaseLength: { seconds: 0n, nanos: 1000 } });
    source.isDeaf = true;
    timers.pass(200);
    const asked = source.questions.length;
    timers.pass(5);
    expect(source.questions.length - asked).to.be.at.most(5);
  });

  it('has at most eight syncs open, and syncs again when some have ended', async () => {
    start();
    source.isDeaf = true;
    for (let count = 0; count < 15; count += 1) timers.pass(190);
    expect(source.questions).to.have.length(8);
    for (let round = 0; round < 3; round += 1) {
      for (const { fail } of source.questions) fail(new Error('away'));
      await settled();
      const ended = source.questions.length;
      for (let count = 0; count < 15; count += 1) timers.pass(190);
      expect(source.questions).to.have.length(ended + 8);
    }
  });

  it('waits five seconds for the first response, and sixty for a pull', async () => {
    start();
    const first = await source.question(0);
    timers.pass(4999);
    expect(first.signal.aborted).to.equal(false);
    timers.pass(1);
    expect(first.signal.aborted).to.equal(true);
    expect(first.signal.reason).to.have.property('message', 'no answer within 5000 ms');
    source.questions.at(-1)?.answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    timers.pass(59_999);
    expect(pull.signal.aborted).to.equal(false);
    timers.pass(1);
    expect(pull.signal.aborted).to.equal(true);
  });

  it('pulls with its own name, and syncs after a complete pull only', async () => {
    start();
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    expect(pull.request).to.deep.equal({ service: 'inventory', instance: INSTANCE });
    pull.send(partOf(tokenEntry(randomUUID())));
    pull.end();
    await settled();
    expect(source.questions).to.have.length(1);
  });

  it('is current until its lease is over, and not at that moment', async () => {
    start();
    await hydrate();
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    expect(leftMs).to.equal(LEASE_MS - 1);
    clock.pass(leftMs - 1);
    expect(runner.isCurrent()).to.equal(true);
    clock.pass(1);
    expect(runner.isCurrent()).to.equal(false);
  });

  it('checks its lease once, when it ends', async () => {
    start();
    const delays: number[] = [];
    const { after } = SetTimers.prototype;
    timers.after = (ms, work) => {
      delays.push(ms);
      return after.call(timers, ms, work);
    };
    await hydrate();
    const leftMs = feed.leaseLeftMs(clock.monotonicMs(), clock.wallMs());
    // Beside it, a sync and the pull have their timeouts.
    expect(delays.filter((ms) => ms === leftMs)).to.have.length(1);
    expect(Math.min(...delays)).to.equal(leftMs);
    clock.pass(leftMs);
    source.isDeaf = true;
    timers.pass(leftMs);
    expect(events).to.deep.equal(['current', 'stale']);
  });

  it('does not become current on a response that arrives when its lease is over', async () => {
    for (const lateMs of [LEASE_MS - 1, LEASE_MS]) {
      start();
      (await source.question(0)).answer(answer({ pull: true, keySet }));
      const pull = await source.pullNumber(0);
      pull.send(endOfPull(0n));
      pull.end();
      const question = await source.question(1);
      clock.pass(lateMs);
      question.answer(answer());
      await settled();
      expect([events, runner.isCurrent()], `${lateMs} ms`).to.deep.equal([[], false]);
      await runner.close();
    }
  });

  it('knows whether its latest sync succeeded', async () => {
    start();
    expect(runner.lastSyncSucceeded).to.equal(false);
    await hydrate();
    expect(runner.lastSyncSucceeded).to.equal(true);
    runner.syncNow();
    (await source.question(2)).fail(new Error('away'));
    await settled();
    expect(runner.lastSyncSucceeded).to.equal(false);
    runner.syncNow();
    (await source.question(3)).answer(answer());
    await settled();
    expect(runner.lastSyncSucceeded).to.equal(true);
  });

  it("states an error of the issuer's own process like one that arrived through gRPC", async () => {
    start();
    const error = new ServiceError('LOG_CHANGED', 'FAILED_PRECONDITION', 'another log');
    (await source.question(0)).fail(error);
    await settled();
    expect(runner.staleReason).to.include('an operator must open a new epoch');
    expect(failures().map(({ reason }) => reason)).to.deep.equal(['LOG_CHANGED']);
    runner.syncNow();
    (await source.question(1)).fail(
      new ServiceError('RATE_LIMITED', 'RESOURCE_EXHAUSTED', 'too many instances'),
    );
    await settled();
    expect(runner.staleReason).to.equal('revocations: the issuer does not answer (too many instances)');
  });

  it('states that its list is full, and gets no lease', async () => {
    start({}, 1);
    (await source.question(0)).answer(answer({ pull: true, keySet }));
    const pull = await source.pullNumber(0);
    pull.send(partOf(tokenEntry(randomUUID()), tokenEntry(randomUUID())), endOfPull(2n));
    await settled();
    expect(runner.staleReason).to.equal('revocations: the revocation list is full: it holds 1 entries');
  });

  describe('for broadcasts', () => {
    let inline: boolean[];
    const { read } = BroadcastReader.prototype;
    beforeEach(() => {
      inline = [];
      BroadcastReader.prototype.read = function (bytes, now) {
        inline.push(now === true);
        return read.call(this, bytes, now);
      };
      start();
    });
    afterEach(() => {
      BroadcastReader.prototype.read = read;
    });

    it('verifies those of up to 64 KiB on the main thread', () => {
      for (const length of [64 * 1024, 64 * 1024 + 1, 1]) broker.onMessage(Buffer.alloc(length));
      expect(inline).to.deep.equal([true, false, true]);
    });

    it('verifies a limited number within 100 ms on the main thread', () => {
      const send = (count: number): number => {
        inline = [];
        for (let sent = 0; sent < count; sent += 1) broker.onMessage(Buffer.from('x'));
        return inline.filter(Boolean).length;
      };
      clock.pass(1000);
      expect(send(BROADCASTS_INLINE_MAX - 1)).to.equal(BROADCASTS_INLINE_MAX - 1);
      clock.pass(99);
      expect(send(5)).to.equal(1);
      clock.pass(1);
      expect(send(BROADCASTS_INLINE_MAX + 5)).to.equal(BROADCASTS_INLINE_MAX);
    });

    it('does not sync for those that it dropped before its list was complete', async () => {
      const key = new TestKey('EdDSA');
      const bytes = Broadcast.encode(broadcast([tokenEntry(randomUUID())])).finish();
      const message = Buffer.from(await key.sign(bytes, { typ: BROADCAST_TYPE }));
      (await source.question(0)).answer(answer({ pull: true, keySet, broadcastKeys: [key.published] }));
      await settled();
      inline = [];
      for (let sent = 0; sent < 3 * BROADCASTS_PENDING_MAX; sent += 1) broker.onMessage(message);
      expect(inline).to.have.length(BROADCASTS_INLINE_MAX + BROADCASTS_PENDING_MAX);
      // The next message is read when those before it were verified.
      await until(() => {
        broker.onMessage(message);
        return inline.length > BROADCASTS_INLINE_MAX + BROADCASTS_PENDING_MAX;
      });
      await settled();
      expect(source.questions).to.have.length(1);
    });
  });

  describe('that is closed', () => {
    it('closes its subscription and its source, and aborts what is open, not what has ended', async () => {
      start();
      await hydrate();
      runner.syncNow();
      const open = await source.question(2);
      const ended = await source.question(1);
      await runner.close();
      expect([isSubscribed, source.isClosed]).to.deep.equal([false, true]);
      expect([open.signal.aborted, ended.signal.aborted]).to.deep.equal([true, false]);
    });

    it('logs no failure of a pull, and reports no end of its lease', async () => {
      start();
      await hydrate();
      runner.syncNow();
      (await source.question(2)).answer(answer({ pull: true }));
      await source.pullNumber(1);
      await runner.close();
      clock.pass(2 * LEASE_MS);
      timers.pass(2 * LEASE_MS);
      await settled();
      expect(failures()).to.deep.equal([]);
      expect(events).to.deep.equal(['current']);
    });
  });
});
