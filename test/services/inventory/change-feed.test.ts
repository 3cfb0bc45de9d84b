/** The feed of changes, with writers that commit out of order, roll back or hang, and an unreachable database. */

import { systemClock } from '@portcullis/guard/clock';
import { expect } from 'chai';
import type { Sql } from '../../../services/common/database/database.js';
import {
  type ChangeFeed,
  createChangeFeed,
  type FeedStore,
  UNREADABLE_MAX_MS,
} from '../../../services/inventory/change-feed.js';
import type { ChangeRange } from '../../../services/inventory/change-tail.js';
import { CHANGES_KEPT_MAX } from '../../../services/inventory/recent-changes.js';
import type { StockLevel } from '../../../services/inventory/stock.js';
import { WATCHERS_PER_TURN } from '../../../services/inventory/turns.js';
import { codeOf } from '../../support/outcomes.js';
import { type Instance, openFreshInstance, openInstance, stockUp } from './instance.js';

/** A signal that is never aborted; a new one each time, as each call has its own. */
const never = () => new AbortController().signal;

describe('inventory change feed', () => {
  describe('on a real database', () => {
    let writing: Instance;
    let reading: Instance;
    let a: string;
    let b: string;
    let detach: () => void;

    before(async () => {
      const fresh = await openFreshInstance();
      writing = fresh;
      reading = await openInstance(fresh.url);
      a = (await stockUp(writing, 100n)).sku;
      b = (await stockUp(writing, 100n)).sku;
    });
    beforeEach(() => {
      detach = reading.feed.attach();
    });
    afterEach(() => detach());
    after(async () => {
      await reading.close();
      await writing.close();
    });

    /** Adds one unit as the service does, without its checks. Wakes the feed, unless it is part of a transaction. */
    async function addOne(sql: Sql, sku: string): Promise<bigint> {
      const { rows } = await sql.query<{ change_id: bigint }>(
        `WITH moved AS (
           UPDATE items SET on_hand = on_hand + 1, change_id = nextval('stock_change_ids') WHERE sku = $1 RETURNING *
         )
         INSERT INTO stock_changes (change_id, sku, kind, on_hand_delta, reserved_delta, on_hand, reserved, reason,
                                    change_time)
         SELECT change_id, sku, 'ADJUSTED', 1, 0, on_hand, reserved, 'test', clock_timestamp() FROM moved
         RETURNING change_id`,
        [sku],
      );
      if (sql === writing.database) reading.feed.wake();
      return rows[0]?.change_id ?? 0n;
    }
    /** Opens a transaction that has changed an item and waits to be committed or rolled back. */
    async function openWriter(
      sku: string,
    ): Promise<{ id: bigint; commit(): Promise<void>; rollBack(): Promise<void> }> {
      let end: (how: 'commit' | 'roll back') => void = () => {};
      let started: (id: bigint) => void = () => {};
      const ended = new Promise<'commit' | 'roll back'>((resolve) => {
        end = resolve;
      });
      const id = new Promise<bigint>((resolve) => {
        started = resolve;
      });
      const done = writing.database
        .transaction(async (sql) => {
          started(await addOne(sql, sku));
          if ((await ended) === 'roll back') throw new Error('rolled back on purpose');
        })
        .catch(() => {});
      const finish = async (how: 'commit' | 'roll back') => {
        end(how);
        await done;
      };
      return { id: await id, commit: () => finish('commit'), rollBack: () => finish('roll back') };
    }
    async function idsAfter(after: bigint, upTo: bigint): Promise<bigint[]> {
      const { changes } = await reading.feed.read({ after, upTo, skus: undefined, caller: undefined });
      return changes.map(({ changeId }) => changeId);
    }
    async function isReached(changeId: bigint, withinMs: number): Promise<boolean> {
      return await reading.feed.reach(changeId, AbortSignal.timeout(withinMs)).then(
        () => true,
        () => false,
      );
    }

    it('waits at an id whose transaction has not committed yet', async () => {
      const start = await reading.feed.reach(0n, never());
      const slow = await openWriter(a);
      const later = await addOne(writing.database, b);
      expect(later > slow.id).to.equal(true);
      expect(await isReached(slow.id, 150)).to.equal(false);
      await slow.commit();
      expect(await isReached(later, 2_000)).to.equal(true);
      expect(await idsAfter(start, later)).to.deep.equal([slow.id, later]);
    });

    it('skips an id that was rolled back', async () => {
      const start = await reading.feed.reach(0n, never());
      const failing = await openWriter(a);
      const later = await addOne(writing.database, b);
      expect(await isReached(later, 100)).to.equal(false);
      await failing.rollBack();
      expect(await isReached(later, 2_000)).to.equal(true);
      expect(await idsAfter(start, later)).to.deep.equal([later]);
    });

    it('does not wait, after a rollback, for a transaction that writes to other tables', async () => {
      await reading.feed.reach(0n, never());
      await writing.database.transaction(async (sql) => {
        await sql.query("INSERT INTO requests VALUES ('s', 'm', gen_random_uuid()::text, '', '')");
        await (await openWriter(a)).rollBack();
        const later = await addOne(writing.database, b);
        expect(await isReached(later, 700)).to.equal(true);
      });
    });

    it('waits only for writers that were open at the gap, not for later ones', async () => {
      await reading.feed.reach(0n, never());
      const failing = await openWriter(a);
      const reached = await addOne(writing.database, b);
      expect(await isReached(reached, 100)).to.equal(false);
      const next = await openWriter(b);
      await failing.rollBack();
      expect(await isReached(reached, 700)).to.equal(true);
      await next.commit();
    });

    it('begins once the writers that were open when it was attached have ended', async () => {
      detach();
      const slow = await openWriter(a);
      const later = await addOne(writing.database, b);
      detach = reading.feed.attach();
      expect(await isReached(0n, 150)).to.equal(false);
      await slow.commit();
      expect(await reading.feed.reach(0n, never())).to.equal(later);
    });

    it('finds changes that were not announced', async () => {
      const start = await reading.feed.reach(0n, never());
      const id = await writing.database.transaction((sql) => addOne(sql, a));
      expect(await isReached(id, 2_500)).to.equal(true);
      expect(await idsAfter(start, id)).to.deep.equal([id]);
    });

    it('receives announced changes at once', async () => {
      await reading.feed.reach(0n, never());
      const startMs = systemClock.monotonicMs();
      await stockUp(writing, 1n);
      const { rows } = await writing.database.query<{ max: bigint }>(
        'SELECT max(change_id) FROM stock_changes',
      );
      await reading.feed.reach(rows[0]?.max ?? 0n, never());
      expect(systemClock.monotonicMs() - startMs).to.be.below(500);
    });
  });

  describe('on a store in memory', () => {
    function change(changeId: bigint): StockLevel {
      return {
        changeId,
        sku: changeId % 2n === 0n ? 'EVEN' : 'ODD',
        onHand: changeId,
        reserved: 0n,
        changeTime: new Date(0),
      };
    }
    /** A store with the changes 1 to `count`. */
    function fakeStore(count: () => bigint): FeedStore & { reads: number; readonly callers: unknown[] } {
      const between = ({ after, upTo = count(), skus, limit }: ChangeRange): StockLevel[] => {
        const found: StockLevel[] = [];
        for (let id = after + 1n; id <= upTo && found.length < limit; id += 1n) {
          if (skus === undefined || skus.includes(change(id).sku)) found.push(change(id));
        }
        return found;
      };
      const callers: unknown[] = [];
      return {
        reads: 0,
        callers,
        async changesAfter(range) {
          this.reads += 1;
          return between(range);
        },
        async pastChanges(range, caller) {
          this.reads += 1;
          callers.push(caller);
          return between(range);
        },
        latestChangeId: async () => count(),
        writers: async () => [],
        isAnyWriting: async () => false,
      };
    }
    async function readAll(
      feed: ChangeFeed,
      after: bigint,
      upTo: bigint,
      skus?: string[],
    ): Promise<bigint[]> {
      const ids: bigint[] = [];
      for (let position = after; position < upTo; ) {
        const read = await feed.read({ after: position, upTo, skus: skus && new Set(skus), caller: 'alice' });
        ids.push(...read.changes.map(({ changeId }) => changeId));
        expect(read.upTo > position).to.equal(true);
        position = read.upTo;
      }
      return ids;
    }
    const silent = { warn: () => {} };

    it('reads changes that are no longer in memory from the database, without a gap between the two', async () => {
      let count = 100n;
      const store = fakeStore(() => count);
      const feed = createChangeFeed({ store, clock: systemClock, log: silent });
      const detach = feed.attach();
      expect(await feed.reach(0n, never())).to.equal(100n);
      count = BigInt(3 * CHANGES_KEPT_MAX);
      feed.wake();
      await feed.reach(count, never());
      const all = await readAll(feed, 50n, count);
      expect(all).to.have.length(Number(count) - 50);
      expect(all[0]).to.equal(51n);
      expect(all.at(-1)).to.equal(count);
      expect(await readAll(feed, 20n, count, ['EVEN'])).to.have.length((Number(count) - 20) / 2);
      // A resume token can name any position: such reads take the turns of their user.
      expect([...new Set(store.callers)]).to.deep.equal(['alice']);
      const before = store.reads;
      await readAll(feed, count - 5_000n, count);
      expect(store.reads).to.equal(before);
      detach();
      await feed.close();
    });

    it('reads once for any number of watchers, and not at all without watchers', async () => {
      let count = 1n;
      const store = fakeStore(() => count);
      const feed = createChangeFeed({ store, clock: systemClock, log: silent });
      const detaches = Array.from({ length: 100 }, () => feed.attach());
      await feed.reach(0n, never());
      const before = store.reads;
      const waiting = Array.from({ length: 100 }, () => feed.reach(2n, never()));
      count = 2n;
      feed.wake();
      await Promise.all(waiting);
      expect(store.reads - before).to.be.at.most(3);
      for (const detach of detaches) detach();
      await new Promise((resolve) => setTimeout(resolve, 20));
      const rest = store.reads;
      feed.wake();
      await new Promise((resolve) => setTimeout(resolve, 50));
      expect(store.reads).to.equal(rest);
      await feed.close();
    });

    it('lets some watchers go on in each turn of the event loop, when one change or one failure is what many wait for', async () => {
      let count = 1n;
      let turn = 0;
      let counting = true;
      const nextTurn = () => {
        if (!counting) return;
        turn += 1;
        setImmediate(nextTurn).unref();
      };
      nextTurn();
      const feed = createChangeFeed({ store: fakeStore(() => count), clock: systemClock, log: silent });
      const detach = feed.attach();
      await feed.reach(0n, never());
      const perTurn = new Map<number, number>();
      const note = () => perTurn.set(turn, (perTurn.get(turn) ?? 0) + 1);
      const watchers = 5 * WATCHERS_PER_TURN;
      const waitAll = (changeId: bigint) =>
        Promise.all(Array.from({ length: watchers }, () => feed.reach(changeId, never()).then(note, note)));
      const reached = waitAll(2n);
      count = 2n;
      feed.wake();
      await reached;
      expect(Math.max(...perTurn.values())).to.be.at.most(WATCHERS_PER_TURN);
      perTurn.clear();
      const failed = waitAll(3n);
      await feed.close();
      await failed;
      counting = false;
      expect([...perTurn.values()].reduce((sum, one) => sum + one, 0)).to.equal(watchers);
      expect(Math.max(...perTurn.values())).to.be.at.most(WATCHERS_PER_TURN);
      detach();
    });

    it('fails watchers with DEPENDENCY_UNAVAILABLE once the database was unreachable for too long', async () => {
      let nowMs = 0;
      const away = new Error('away');
      const store = { ...fakeStore(() => 1n), latestChangeId: () => Promise.reject(away) };
      const warnings: string[] = [];
      const log = { warn: (_fields: object, message: string) => warnings.push(message) };
      const clock = { wallMs: () => 0, monotonicMs: () => nowMs };
      const feed = createChangeFeed({ store, clock, log });
      const detach = feed.attach();
      const waiting = codeOf(feed.reach(0n, never()));
      await new Promise((resolve) => setTimeout(resolve, 20));
      nowMs = UNREADABLE_MAX_MS + 1;
      feed.wake();
      expect(await waiting).to.equal('DEPENDENCY_UNAVAILABLE');
      expect(warnings).to.include('cannot read the changes of stock');
      detach();
      await feed.close();
    });

    it('fails waiting watchers and rejects new ones when it is closed', async () => {
      const feed = createChangeFeed({ store: fakeStore(() => 1n), clock: systemClock, log: silent });
      feed.attach();
      const waiting = codeOf(feed.reach(2n, never()));
      await feed.close();
      expect(await waiting).to.equal('DEPENDENCY_UNAVAILABLE');
      expect(() => feed.attach()).to.throw('this instance is stopping');
    });

    it('stops waiting when the signal is aborted, before or during the wait', async () => {
      const feed = createChangeFeed({ store: fakeStore(() => 1n), clock: systemClock, log: silent });
      feed.attach();
      const call = new AbortController();
      const waiting = [feed.reach(2n, call.signal), feed.reach(3n, AbortSignal.abort('gone'))];
      call.abort('gone');
      const outcomes = await Promise.allSettled(waiting);
      expect(outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason)).to.deep.equal([
        'gone',
        'gone',
      ]);
      await feed.close();
    });
  });
});
