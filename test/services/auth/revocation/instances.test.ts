/** Receipts: which requests of an instance acknowledge a revocation, and how long a call waits for them. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Clock, systemTimers } from '@portcullis/guard/clock';
import { expect } from 'chai';
import type { Committed } from '../../../../services/auth/revocation/enforcement-watch.js';
import type { InstanceStore, SharedRecord } from '../../../../services/auth/revocation/instance-records.js';
import { createInstances, type Instances } from '../../../../services/auth/revocation/instances.js';
import {
  createId,
  enforcementBoundMs,
  type SyncPosition,
  type SyncResult,
} from '../../../../services/auth/revocation/log.js';
import { serviceErrorOf } from '../../../support/outcomes.js';
import { publishedKeys, question } from './revocation-support.js';

const EPOCH = createId();
const LEASE_MS = 5000;

/** A replica whose clock a test moves, and whose database is a list. */
class Replica {
  nowMs = 1_000_000;
  elsewhere: SharedRecord[] = [];
  databaseIsAway = false;
  readonly shared: SharedRecord[][] = [];
  readonly instances: Instances;

  readonly refused: string[] = [];

  constructor() {
    const clock: Clock = { monotonicMs: () => this.nowMs, wallMs: () => this.nowMs };
    const store: InstanceStore = {
      share: async (_, records) => void this.shared.push([...records]),
      readFromOthers: async () => {
        if (this.databaseIsAway) throw new Error('away');
        return this.elsewhere;
      },
      list: () => Promise.reject(new TypeError('no list expected')),
      unready: () => Promise.reject(new TypeError('no check expected')),
      deleteSilent: () => Promise.resolve(),
    };
    // Pauses are short, so that a test moves the clock instead of waiting for it.
    const timers = {
      ...systemTimers,
      after: (ms: number, work: () => void) => systemTimers.after(Math.min(ms, 2), work),
    };
    this.instances = createInstances({
      store,
      clock,
      timers,
      perClientMax: 3,
      onRefused: (limit, service) => this.refused.push(`${limit} ${service}`),
    });
  }

  /** An instance sends a sync request and receives the response. */
  ask(number: number, over: Partial<SyncPosition> = {}, answer: Partial<SyncResult> = {}): void {
    const asked = question({ instance: Buffer.alloc(16, number), epoch: EPOCH, ...over });
    this.instances.requested(asked);
    this.instances.answered(asked, this.nowMs, {
      epoch: EPOCH,
      head: 9n,
      headEntryId: createId(),
      horizon: new Date(0),
      leaseMs: LEASE_MS,
      epochNumber: 1n,
      fenceWanted: 0n,
      entries: [],
      pull: false,
      keySet: publishedKeys('one').keySet,
      broadcastKeys: [],
      ...answer,
    });
  }

  commit(): Committed {
    const committedAtMs = this.nowMs;
    const boundAtMs = committedAtMs + enforcementBoundMs(LEASE_MS);
    const entry = { entryId: createId(), sequence: 9n };
    return { epoch: EPOCH, entry, committedAtMs, leaseMs: LEASE_MS, boundAtMs };
  }

  async wait(committed: Committed, wait: 'KNOWN_INSTANCES' | 'EVERYWHERE' = 'KNOWN_INSTANCES') {
    const outcome: { states?: string[]; milliseconds?: number[] } = {};
    const done = this.instances.wait(committed, wait, new AbortController().signal).then((receipts) => {
      outcome.states = receipts.map(({ instance, state }) => `${instance[0]} ${state}`);
      outcome.milliseconds = receipts.map(({ milliseconds }) => milliseconds);
    });
    // Everything that does not depend on the clock is done.
    await sleep(10);
    return { done, outcome };
  }
}

describe('waiting for instances', () => {
  let replica: Replica;
  beforeEach(() => {
    replica = new Replica();
  });

  it('ends at once when no instance is known', async () => {
    const { outcome } = await replica.wait(replica.commit());
    expect(outcome.states).to.deep.equal([]);
  });

  it('counts an acknowledgement as soon as it arrives, and returns the time', async () => {
    replica.ask(1);
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    expect(outcome.states).to.equal(undefined);
    replica.nowMs += 7;
    const { entryId } = committed.entry;
    replica.instances.requested(question({ instance: Buffer.alloc(16, 1), epoch: EPOCH, seen: [entryId] }));
    await done;
    expect(outcome).to.deep.equal({ states: ['1 ENFORCED'], milliseconds: [7] });
  });

  it('counts what an instance has applied only in this epoch and from the entry on', async () => {
    replica.ask(1);
    const { done, outcome } = await replica.wait(replica.commit());
    for (const words of [
      { applied: 8n },
      { applied: 99n, epoch: createId() },
      { applied: 0n, seen: [createId()] },
    ]) {
      replica.nowMs += 1;
      replica.ask(1, words);
      await sleep(5);
      expect(
        outcome.states,
        JSON.stringify(words, (_, value) => String(value)),
      ).to.equal(undefined);
    }
    replica.ask(1, { applied: 9n });
    await done;
    expect(outcome.states).to.deep.equal(['1 ENFORCED']);
  });

  it('does not count a position that was not compared with the log, such as that of an instance that must pull', async () => {
    replica.ask(1, { applied: 7n });
    const { done, outcome } = await replica.wait(replica.commit());
    replica.nowMs += 1;
    // In a restored log the ninth entry was another one. A new epoch began before the positions could be compared.
    replica.ask(1, { applied: 9n }, { pull: true, epoch: createId() });
    await sleep(5);
    expect(outcome.states).to.equal(undefined);
    expect(replica.instances.known()[0]?.applied).to.equal(7n);
    const entryIdAtApplied = createId();
    replica.ask(1, { applied: 9n, entryIdAtApplied });
    await done;
    expect(outcome.states).to.deep.equal(['1 ENFORCED']);
    // Other replicas compare the position again by this id.
    expect(replica.instances.known()[0]?.seen).to.deep.equal([entryIdAtApplied]);
  });

  it('does not count a position that an earlier request named: the log may have lost that entry since', async () => {
    replica.ask(1, { applied: 9n });
    const { done, outcome } = await replica.wait(replica.commit());
    replica.nowMs += 1;
    replica.ask(1, { applied: 9n }, { pull: true, epoch: createId() });
    await sleep(5);
    expect(outcome.states).to.equal(undefined);
    replica.ask(1, { applied: 9n });
    await done;
    expect(outcome.states).to.deep.equal(['1 ENFORCED']);
  });

  it('waits for a known instance that syncs without having the entry, and lists it as PENDING', async () => {
    replica.ask(1);
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    replica.nowMs = committed.boundAtMs - 1;
    replica.ask(1);
    await sleep(10);
    expect(outcome.states).to.equal(undefined);
    replica.nowMs += 1;
    await done;
    expect(outcome).to.deep.equal({ states: ['1 PENDING'], milliseconds: [0] });
  });

  it('stops waiting for a silent instance when its last lease is over, not before', async () => {
    replica.ask(1);
    replica.nowMs += 3000;
    replica.ask(2);
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    // After the commit: a request of the same millisecond may be older than the commit.
    replica.nowMs += 1;
    replica.ask(2, { applied: 9n });
    replica.nowMs = 1_000_000 + enforcementBoundMs(LEASE_MS) - 1;
    await sleep(10);
    expect(outcome.states).to.equal(undefined);
    replica.nowMs += 1;
    await done;
    expect(outcome.states).to.have.members(['1 UNKNOWN', '2 ENFORCED']);
    expect(replica.nowMs).to.be.below(committed.boundAtMs);
  });

  it('does not wait for an instance whose lease was over before', async () => {
    replica.ask(1);
    replica.nowMs += enforcementBoundMs(LEASE_MS);
    const { outcome } = await replica.wait(replica.commit());
    expect(outcome.states).to.deep.equal([]);
  });

  it('waits for an instance of which only a request after the commit is known, because it may have sent one before', async () => {
    const committed = replica.commit();
    replica.nowMs += 1;
    replica.ask(3);
    const { done, outcome } = await replica.wait(committed);
    expect(outcome.states).to.equal(undefined);
    replica.ask(3, { applied: 9n });
    await done;
    expect(outcome.states).to.deep.equal(['3 ENFORCED']);
  });

  it('reads the records of other replicas, and continues without the database', async () => {
    const sharedRecord = (over: Partial<SharedRecord>): SharedRecord => ({
      service: 'payment',
      instance: Buffer.alloc(16, 4),
      epoch: EPOCH,
      applied: 0n,
      seen: [],
      ageMs: 100,
      leaseLeftMs: 4900,
      ...over,
    });
    replica.ask(1);
    replica.elsewhere = [sharedRecord({})];
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    replica.databaseIsAway = true;
    // After the commit: a request of the same millisecond may be older than the commit.
    replica.nowMs += 1;
    replica.ask(1, { applied: 9n });
    await sleep(10);
    expect(outcome.states).to.equal(undefined);
    replica.databaseIsAway = false;
    replica.nowMs += 50;
    replica.elsewhere = [sharedRecord({ seen: [committed.entry.entryId], ageMs: 20 })];
    await done;
    expect(outcome.states).to.have.members(['1 ENFORCED', '4 ENFORCED']);
  });

  it('is not over before the records of other replicas were read', async () => {
    replica.databaseIsAway = true;
    const { done, outcome } = await replica.wait(replica.commit());
    expect(outcome.states).to.equal(undefined);
    replica.databaseIsAway = false;
    await done;
    expect(outcome.states).to.deep.equal([]);
  });

  it('for EVERYWHERE ends only with the bound', async () => {
    replica.ask(1);
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed, 'EVERYWHERE');
    // After the commit: a request of the same millisecond may be older than the commit.
    replica.nowMs += 1;
    replica.ask(1, { applied: 9n });
    replica.nowMs = committed.boundAtMs - 1;
    await sleep(10);
    expect(outcome.states).to.equal(undefined);
    replica.nowMs += 1;
    await done;
    expect(outcome.states).to.deep.equal(['1 ENFORCED']);
  });
});

describe('the place of an instance', () => {
  const service = 'mallory';
  const ackOf = (number: number, { entry }: Committed): SyncPosition =>
    question({ service, instance: Buffer.alloc(16, number), epoch: EPOCH, seen: [entry.entryId] });

  it('is refused to one more instance of a client than the limit, which names it, and not to other clients', async () => {
    const replica = new Replica();
    for (const number of [1, 2, 3]) replica.ask(number, { service });
    const error = await serviceErrorOf(Promise.resolve().then(() => replica.ask(4, { service })));
    expect(error).to.deep.include({ code: 'RATE_LIMITED', message: 'too many instances of client mallory' });
    expect(error.retryAfterMs).to.equal(1000);
    replica.ask(1, { service });
    replica.ask(4);
    expect(replica.refused).to.deep.equal(['client mallory']);
    expect(replica.instances.known()).to.have.length(4);
  });

  it('is kept as long as a lease may run, and free after that', () => {
    const replica = new Replica();
    for (const number of [1, 2, 3]) replica.ask(number, { service });
    replica.nowMs += enforcementBoundMs(LEASE_MS);
    expect(() => replica.ask(4, { service })).to.throw('too many instances');
    replica.nowMs += 1;
    replica.ask(4, { service });
    expect(() => replica.ask(4, { service })).to.not.throw();
  });

  it('does not go to the instance id of another service, whose acknowledgements it would forge', async () => {
    const replica = new Replica();
    replica.ask(1, { service: 'inventory' });
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    replica.nowMs += 1;
    expect(() => replica.instances.requested(ackOf(1, committed))).to.throw('instance');
    await sleep(10);
    expect(outcome.states).to.equal(undefined);
    replica.nowMs = committed.boundAtMs;
    await done;
    expect(outcome.states).to.deep.equal(['1 UNKNOWN']);
  });

  it('is what an acknowledgement needs: a refused instance is never counted as enforcing', async () => {
    const replica = new Replica();
    for (const number of [1, 2, 3]) replica.ask(number, { service });
    const committed = replica.commit();
    const { done, outcome } = await replica.wait(committed);
    replica.nowMs += 1;
    expect(() => replica.instances.requested(ackOf(4, committed))).to.throw('too many instances');
    for (const number of [1, 2, 3]) replica.instances.requested(ackOf(number, committed));
    await done;
    expect(outcome.states).to.deep.equal(['1 ENFORCED', '2 ENFORCED', '3 ENFORCED']);
  });

  it('of another replica is another one, even with the same instance id', async () => {
    const replica = new Replica();
    replica.ask(1, { service: 'inventory' });
    const committed = replica.commit();
    const shared = { service, instance: Buffer.alloc(16, 1), epoch: EPOCH, applied: 9n, leaseLeftMs: 0 };
    replica.elsewhere = [{ ...shared, seen: [committed.entry.entryId], ageMs: 0 }];
    const { done, outcome } = await replica.wait(committed);
    replica.nowMs = committed.boundAtMs;
    await done;
    expect(outcome.states).to.have.members(['1 UNKNOWN', '1 ENFORCED']);
  });
});

describe('the record of an instance', () => {
  it('does not go back when sync requests overtake each other', () => {
    const replica = new Replica();
    replica.ask(1, { applied: 7n });
    replica.ask(1, { applied: 5n });
    expect(replica.instances.known()[0]?.applied).to.equal(7n);
    replica.ask(1, { applied: 2n, epoch: createId() });
    expect(replica.instances.known()[0]?.applied).to.equal(2n);
  });

  it('is shared at once for a new instance and an acknowledgement, and later in batches otherwise', async () => {
    const replica = new Replica();
    replica.ask(1);
    await sleep(10);
    expect(replica.shared).to.have.length(1);
    replica.ask(1, { seen: [createId()] });
    await sleep(10);
    expect(replica.shared).to.have.length(2);
    replica.ask(1, {}, { pull: true });
    replica.ask(2);
    await sleep(10);
    expect(replica.shared[2]?.map(({ instance }) => instance[0])).to.deep.equal([1, 2]);
  });

  it('shares no lease that was not granted', async () => {
    const replica = new Replica();
    replica.ask(1, {}, { pull: true });
    await sleep(10);
    expect(replica.shared[0]?.[0]?.leaseLeftMs).to.equal(Number.NEGATIVE_INFINITY);
    replica.ask(2);
    await sleep(10);
    expect(replica.shared[1]?.[0]?.leaseLeftMs).to.equal(LEASE_MS);
  });
});
