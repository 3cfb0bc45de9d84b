/** The fence in real PostgreSQL: what it holds back, what it waits for, and what it survives. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import pg from 'pg';
import { systemTimers } from '../../../interceptors/src/clock.js';
import {
  FENCE_TABLE,
  type FenceQuery,
  isBefore,
  type LogPlace,
  lockFence,
  raiseFence,
} from '../../../interceptors/src/revocation/fence.js';
import { Fences } from '../../../interceptors/src/revocation/fences.js';
import { rejectionOf } from '../../support/outcomes.js';
import { type FreshDatabase, freshDatabase } from '../../support/postgres.js';
import { until } from '../../support/waiting.js';

const at = (epochNumber: bigint, sequence: bigint): LogPlace => ({ epochNumber, sequence });

describe('a fence in PostgreSQL', function () {
  this.timeout(60_000);
  let fresh: FreshDatabase;
  let pool: pg.Pool;

  before(async () => {
    fresh = await freshDatabase();
    pool = new pg.Pool({ connectionString: fresh.url, max: 20 });
    pool.on('error', () => undefined);
    await pool.query(FENCE_TABLE);
  });
  beforeEach(() => pool.query('UPDATE revocation_fence SET epoch_number = 0, sequence = 0'));
  after(async () => {
    await pool.end();
    await fresh.drop();
  });

  /** Runs work in a transaction. */
  async function transaction<T>(work: (query: FenceQuery) => Promise<T>, begin = 'BEGIN'): Promise<T> {
    const client = await pool.connect();
    let broken: Error | undefined;
    try {
      await client.query(begin);
      const result = await work((text, values) => client.query(text, values && [...values]));
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK').catch((cause: Error) => {
        broken = cause;
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }
  const raise = (to: LogPlace) => transaction((query) => raiseFence(query, to));

  it('rises, never falls, and orders epochs by their numbers', async () => {
    expect(await raise(at(7n, 3n))).to.include(at(7n, 3n));
    expect(await raise(at(7n, 2n))).to.include(at(7n, 3n));
    expect(await raise(at(6n, 9n))).to.include(at(7n, 3n));
    expect(await raise(at(8n, 0n))).to.include(at(8n, 0n));
    expect(await transaction(lockFence)).to.include(at(8n, 0n));
    expect((await transaction(lockFence)).fenceId).to.have.length(16);
  });

  it('rises only once every transaction that has passed it is over, and holds back those that come later', async () => {
    const order: string[] = [];
    let end = (): void => {};
    const passed = transaction(async (query) => {
      expect(await lockFence(query)).to.include(at(0n, 0n));
      order.push('passed');
      await new Promise<void>((resolve) => {
        end = resolve;
      });
      order.push('commits');
    });
    await until(() => order.length === 1);
    const raised = raise(at(1n, 1n)).then(() => order.push('raised'));
    await sleep(100);
    const later = transaction(lockFence).then(({ sequence }) => order.push(`later sees ${sequence}`));
    await sleep(100);
    expect(order).to.deep.equal(['passed']);
    end();
    await Promise.all([passed, raised, later]);
    expect(order.slice(0, 2)).to.deep.equal(['passed', 'commits']);
    expect(order).to.include.members(['raised', 'later sees 1']);
  });

  it('rises within a bounded time amid a steady stream of transactions', async () => {
    let isOver = false;
    let passes = 0;
    // At any time some of them have passed: without the lock on the table, the fence would wait for as long as they go on.
    const stream = Array.from({ length: 16 }, async (_, index) => {
      await sleep(index * 6);
      while (!isOver) {
        await transaction(async (query) => {
          await lockFence(query);
          await sleep(100);
        });
        passes += 1;
      }
    });
    await until(() => passes > 20);
    const waits: Promise<unknown>[] = [];
    for (let sequence = 1n; sequence <= 3n; sequence += 1n) {
      const raised = raise(at(2n, sequence)).then(() => 'raised');
      waits.push(raised);
      expect(await Promise.race([raised, sleep(5_000, 'starved')])).to.equal('raised');
    }
    isOver = true;
    await Promise.all([...stream, ...waits]);
    expect(await transaction(lockFence)).to.include(at(2n, 3n));
  });

  for (const isolation of ['REPEATABLE READ', 'SERIALIZABLE']) {
    it(`is never read as it was before, also at ${isolation}`, async () => {
      const error = await rejectionOf(
        transaction(async (query) => {
          // The snapshot of the transaction begins here.
          await query('SELECT 1');
          await query('SELECT count(*) FROM pg_class');
          await raise(at(3n, 3n));
          return await lockFence(query);
        }, `BEGIN ISOLATION LEVEL ${isolation}`),
      );
      expect(error).to.have.property('code', '40001');
    });
  }

  it('does not wait for a dump of the database', async () => {
    await transaction(async (query) => {
      await query('LOCK TABLE revocation_fence IN ACCESS SHARE MODE');
      expect(await raise(at(4n, 4n))).to.include(at(4n, 4n));
    });
  });

  it('gives up for the moment when a transaction that has passed does not end, and lets others go on', async () => {
    let end = (): void => {};
    let isHeld = false;
    const held = transaction(async (query) => {
      await lockFence(query);
      isHeld = true;
      await new Promise<void>((resolve) => {
        end = resolve;
      });
    });
    await until(() => isHeld);
    expect(await rejectionOf(raise(at(5n, 5n)))).to.have.property('code', '55P03');
    expect(await transaction(lockFence)).to.include(at(0n, 0n));
    end();
    await held;
    expect(await raise(at(5n, 5n))).to.include(at(5n, 5n));
  });

  it('fails where the row is missing', async () => {
    const error = await rejectionOf(
      transaction(async (query) => {
        await query('DELETE FROM revocation_fence');
        return await lockFence(query);
      }),
    );
    expect(error).to.have.property('message', 'expected one row in revocation_fence, got 0');
  });

  describe('kept by a guard', () => {
    class List {
      place = at(0n, 0n);
      fenceWanted = at(0n, 0n);
    }
    let list: List;
    let syncs: number;
    let onSync: () => void;
    let fences: Fences;
    let committing: Promise<void>;

    beforeEach(() => {
      list = new List();
      syncs = 0;
      onSync = () => undefined;
      committing = Promise.resolve();
      fences = new Fences({
        databases: [
          {
            transaction: async (work) => {
              await transaction(work);
              await committing;
            },
          },
        ],
        feed: list,
        syncNow: () => {
          syncs += 1;
          onSync();
        },
        timers: systemTimers,
        log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      });
    });
    afterEach(() => fences.close());

    const grant = (place: LogPlace, fenceWanted = place): void => {
      Object.assign(list, { place, fenceWanted });
      fences.granted();
    };
    const reported = () => fences.positions().map(({ sequence }) => sequence);

    it('stands where the issuer wants it, and is reported after the commit only', async () => {
      let confirm = (): void => {};
      committing = new Promise((resolve) => {
        confirm = resolve;
      });
      grant(at(1n, 5n), at(1n, 4n));
      await until(async () => (await transaction(lockFence)).sequence === 4n);
      expect(reported()).to.deep.equal([]);
      confirm();
      await until(() => reported().length === 1);
      expect(reported()).to.deep.equal([4n]);
      expect(syncs).to.equal(1);
    });

    it('is not raised beyond what this instance has applied, and not for an unknown epoch', async () => {
      grant(at(1n, 3n), at(1n, 4n));
      grant(at(0n, 9n), at(0n, 9n));
      await sleep(100);
      expect(await transaction(lockFence)).to.include(at(0n, 0n));
      expect(reported()).to.deep.equal([]);
    });

    it('stops a transaction of an instance that lags behind, after a moment for a sync', async () => {
      await raise(at(1n, 5n));
      grant(at(1n, 4n), at(1n, 0n));
      expect(await transaction((query) => fences.pass(query))).to.equal(false);
      expect(syncs).to.be.greaterThan(0);
      onSync = () => setTimeout(() => grant(at(1n, 5n), at(1n, 5n)), 20);
      expect(await transaction((query) => fences.pass(query))).to.equal(true);
    });

    it('stops an instance of an earlier epoch, and lets one of a later epoch pass', async () => {
      await raise(at(2n, 5n));
      grant(at(1n, 9n), at(1n, 0n));
      expect(await transaction((query) => fences.pass(query))).to.equal(false);
      grant(at(3n, 0n), at(3n, 0n));
      expect(await transaction((query) => fences.pass(query))).to.equal(true);
      await until(async () => (await transaction(lockFence)).epochNumber === 3n);
    });
  });

  it('compares places', () => {
    expect(isBefore(at(1n, 9n), at(2n, 0n))).to.equal(true);
    expect(isBefore(at(2n, 0n), at(1n, 9n))).to.equal(false);
    expect(isBefore(at(1n, 1n), at(1n, 2n))).to.equal(true);
    expect(isBefore(at(1n, 1n), at(1n, 1n))).to.equal(false);
  });
});
