/** The simulated database has the properties of the real one on which the protocol relies. */

import { ServiceError } from '@portcullis/guard/errors';
import { expect } from 'chai';
import { createRandom } from '../../../proofs/shared/random.js';
import { Cluster, type Node, type Transaction } from '../../../proofs/simulate/database.js';
import { Network } from '../../../proofs/simulate/network.js';
import { MachineClock, Process, Scheduler } from '../../../proofs/simulate/time.js';
import { inEvent } from './support.js';

describe('the database of a simulation', () => {
  let scheduler: Scheduler;
  let network: Network;
  let cluster: Cluster;
  let client: Process;
  let outcomes: Map<string, string>;

  beforeEach(() => {
    scheduler = new Scheduler();
    const random = createRandom(1, { discard: 4 });
    network = new Network(scheduler, random);
    cluster = new Cluster(scheduler, network, random, 0);
    client = new Process(
      scheduler,
      'client',
      new MachineClock(scheduler, { rate: 1, wallMs: 0, monotonicMs: 0 }),
    );
    outcomes = new Map();
  });

  const runFor = (ms: number) => inEvent(() => scheduler.runUntil(scheduler.nowMs + ms));

  /** Begins a transaction and records its outcome. */
  function begin(
    name: string,
    work: (transaction: Transaction) => Promise<unknown>,
    node: Node = cluster.primary,
  ): void {
    cluster.transaction(client, node, work).then(
      () => outcomes.set(name, `committed at ${Math.round(scheduler.nowMs)}`),
      (error: unknown) => outcomes.set(name, error instanceof ServiceError ? error.code : String(error)),
    );
  }

  const write = (value: string) => (transaction: Transaction) =>
    transaction.statement(async () => {
      await transaction.lock('row', 'exclusive');
      transaction.put('table', 'row', { value });
    });
  const seen = (node: Node = cluster.primary) => node.tables.get('table', 'row');

  it('shows a write only after its commit, when the standby already has it', async () => {
    let durable: object | undefined;
    begin('one', async (transaction) => {
      transaction.onDurable(() => {
        durable = cluster.standby.get('table', 'row');
        expect(seen()).to.equal(undefined);
      });
      await write('a')(transaction);
      expect(seen()).to.equal(undefined);
    });
    await runFor(100);
    expect(durable).to.deep.equal({ value: 'a' });
    expect(seen()).to.deep.equal({ value: 'a' });
    expect(outcomes.get('one')).to.match(/^committed/);
  });

  it('discards all writes of a failed transaction', async () => {
    begin('one', async (transaction) => {
      await write('a')(transaction);
      throw new Error('on purpose');
    });
    begin('two', write('b'));
    await runFor(100);
    expect(outcomes.get('one')).to.equal('Error: on purpose');
    expect(seen()).to.deep.equal({ value: 'b' });
  });

  it('makes writers of one row wait for each other', async () => {
    const order: string[] = [];
    for (const name of ['one', 'two', 'three']) {
      begin(name, async (transaction) => {
        await transaction.statement(async () => {
          await transaction.lock('row', 'exclusive');
          const before = (transaction.get('table', 'row') as { value: string } | undefined)?.value ?? '';
          transaction.put('table', 'row', { value: `${before}${name} ` });
          order.push(name);
        });
      });
    }
    await runFor(500);
    expect(seen()).to.deep.equal({ value: `${order.join(' ')} ` });
  });

  it('takes the lock from a transaction that is idle for a second', async () => {
    begin('silent', async (transaction) => {
      await write('a')(transaction);
      await new Promise<void>((resolve) => client.after(1500, resolve));
    });
    await runFor(50);
    begin('next', write('b'));
    await runFor(3000);
    expect(outcomes.get('next')).to.match(/^committed/);
    expect(outcomes.get('silent')).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(seen()).to.deep.equal({ value: 'b' });
  });

  it('takes the lock from such a transaction also for one that would not wait', async () => {
    const took: boolean[] = [];
    const take = async (transaction: Transaction): Promise<void> => {
      took.push(await transaction.statement(() => transaction.tryLock('row')));
    };
    begin('silent', async (transaction) => {
      await take(transaction);
      await new Promise<void>((resolve) => client.after(5000, resolve));
    });
    await runFor(50);
    begin('too early', take);
    await runFor(1500);
    begin('next', take);
    await runFor(100);
    expect(took).to.deep.equal([true, false, true]);
  });

  it('commits nothing at a deposed primary, which still answers reads', async () => {
    begin('before', write('a'));
    await runFor(100);
    const old = cluster.primary;
    cluster.failOver();
    begin('at the old one', write('b'), old);
    begin('at the new one', write('c'));
    let read: object | undefined;
    const reading = (transaction: Transaction) =>
      transaction.statement(() => {
        read = transaction.get('table', 'row');
      });
    await runFor(100);
    cluster.uncommitted(client, old, reading).catch(() => undefined);
    await runFor(10_000);
    expect(outcomes.get('at the old one')).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(outcomes.get('at the new one')).to.match(/^committed/);
    expect(read).to.deep.equal({ value: 'a' });
    expect([seen(old), seen()]).to.deep.equal([{ value: 'a' }, { value: 'c' }]);
  });

  it('restores an older state as a whole', async () => {
    begin('one', write('a'));
    await runFor(100);
    const saved = cluster.standby.copy();
    begin('two', write('b'));
    await runFor(100);
    cluster.restore(saved);
    expect([seen(), cluster.standby.get('table', 'row')]).to.deep.equal([{ value: 'a' }, { value: 'a' }]);
    begin('three', write('c'));
    await runFor(100);
    expect(outcomes.get('three')).to.match(/^committed/);
    expect(saved.get('table', 'row')).to.deep.equal({ value: 'a' });
  });

  it('can commit although the client gets no answer', async () => {
    begin('one', async (transaction) => {
      await write('a')(transaction);
      network.link('database', 'client').weather.blocked = 'lose';
    });
    await runFor(10_000);
    expect(outcomes.get('one')).to.equal('DEPENDENCY_UNAVAILABLE');
    expect(seen()).to.deep.equal({ value: 'a' });
  });
});
