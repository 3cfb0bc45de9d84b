/** Watching stock: each change exactly once and in order, with concurrent writers and interrupted streams. */

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import fc from 'fast-check';
import type { ChangeFeed } from '../../../services/inventory/change-feed.js';
import type { StockLevel } from '../../../services/inventory/stock.js';
import {
  createStockWatch,
  SNAPSHOT_PAGE_SIZE,
  type StockNotice,
  type WatchStore,
} from '../../../services/inventory/watch.js';
import { codeOf, violatedFieldsOf } from '../../support/outcomes.js';
import { alice, type Instance, newSku, olga, openFreshInstance, openInstance, stockUp } from './instance.js';

describe('inventory watch', () => {
  let one: Instance;
  let other: Instance;

  before(async () => {
    const fresh = await openFreshInstance();
    one = fresh;
    other = await openInstance(fresh.url);
  });
  after(async () => {
    await other.close();
    await one.close();
  });

  function watch(
    instance: Instance,
    skus: string[],
    resumeToken = '',
    signal = new AbortController().signal,
  ) {
    return instance.stockWatch.watch({ skus, resumeToken }, signal);
  }
  /** Reads the next `count` notices; fewer if the stream ends. */
  async function take(stream: AsyncGenerator<StockNotice>, count: number): Promise<StockNotice[]> {
    const notices: StockNotice[] = [];
    for (; notices.length < count; ) {
      const next = await stream.next();
      if (next.done === true) break;
      notices.push(next.value);
    }
    return notices;
  }
  async function next(stream: AsyncGenerator<StockNotice>): Promise<StockNotice> {
    const [notice] = await take(stream, 1);
    if (notice === undefined) throw new Error('the stream has ended');
    return notice;
  }
  function add(sku: string, delta: bigint, instance: Instance = one) {
    return instance.items.adjust({ sku, delta, reason: 'count', requestId: randomUUID() }, olga);
  }
  const numbers = (notices: StockNotice[]) => notices.map(({ onHand, reserved }) => [onHand, reserved]);

  it('begins with the snapshot, then sends each change, made by this or another instance', async () => {
    const { sku } = await stockUp(one, 10n);
    const stream = watch(one, [sku]);
    expect(numbers([await next(stream)])).to.deep.equal([[10n, 0n]]);
    await add(sku, 5n, other);
    const order = { lines: [{ sku, quantity: 4n }], timeToLive: undefined };
    const first = await other.reservations.reserve({ ...order, requestId: randomUUID() }, alice);
    const second = await one.reservations.reserve({ ...order, requestId: randomUUID() }, alice);
    await other.reservations.commit({ reservationId: first.reservationId, requestId: randomUUID() }, olga);
    await one.reservations.release({ reservationId: second.reservationId, requestId: randomUUID() }, alice);
    expect(numbers(await take(stream, 5))).to.deep.equal([
      [15n, 0n],
      [15n, 4n],
      [15n, 8n],
      [11n, 4n],
      [11n, 0n],
    ]);
    await stream.return();
  });

  it('sends only changes of the watched items', async () => {
    const [{ sku: watched }, { sku: ignored }] = [await stockUp(one, 1n), await stockUp(one, 1n)];
    const stream = watch(one, [watched]);
    await next(stream);
    await add(ignored, 1n);
    await add(watched, 1n);
    expect((await next(stream)).sku).to.equal(watched);
    await stream.return();
  });

  it('sends a new item to a watcher of all items', async () => {
    const stream = watch(one, []);
    const created = next(stream).then(async (first) => {
      for (let notice = first; ; notice = await next(stream))
        if (notice.sku.startsWith('ZZZ-NEW')) return notice;
    });
    await sleep(50);
    const { sku } = await stockUp(other, 7n, newSku('ZZZ-NEW'));
    expect(await created).to.include({ sku, onHand: 7n, reserved: 0n });
    await stream.return();
  });

  it('resumes after any notice, in another instance, without the snapshot', async () => {
    const { sku } = await stockUp(one, 0n);
    const stream = watch(one, [sku]);
    const seen = [await next(stream)];
    for (let count = 0; count < 6; count += 1) await add(sku, 1n);
    seen.push(...(await take(stream, 6)));
    await stream.return();
    await add(sku, 1n);
    for (const [index, { resumeToken }] of seen.entries()) {
      const resumed = watch(other, [sku], resumeToken);
      const rest = await take(resumed, 7 - index);
      await resumed.return();
      const expected = Array.from({ length: 7 - index }, (_, offset) => BigInt(index + 1 + offset));
      expect(rest.map(({ onHand }) => onHand)).to.deep.equal(expected);
    }
  });

  it('ends when the signal is aborted while it waits', async () => {
    const { sku } = await stockUp(one, 1n);
    const call = new AbortController();
    const stream = watch(one, [sku], '', call.signal);
    await next(stream);
    const waiting = stream.next();
    call.abort();
    expect(await waiting).to.deep.equal({ done: true, value: undefined });
  });

  it('sends every change once under concurrent writers, to readers that stop and resume at any notice', async function () {
    this.timeout(180_000);
    const count = SNAPSHOT_PAGE_SIZE + 20;
    const skus = await Promise.all(
      Array.from(
        { length: count },
        async (_, index) => (await stockUp(one, 0n, newSku(`W${index % 10}`))).sku,
      ),
    );
    let isWriting = true;
    const written = new Map<string, bigint>(skus.map((sku) => [sku, 0n]));
    const write = async (instance: Instance, mine: string[]) => {
      for (let round = 0; isWriting; round += 1) {
        const sku = mine[(round * 7) % mine.length] ?? '';
        // Some transactions are rolled back after they have drawn an id, which leaves gaps.
        if (round % 5 === 0) await rollBackOne(instance, sku);
        await add(sku, 1n, instance);
        written.set(sku, (written.get(sku) ?? 0n) + 1n);
      }
    };
    const rollBackOne = (instance: Instance, sku: string) =>
      instance.store
        .changeReservations(async (transaction) => {
          await transaction.lockItems([sku]);
          const deltas = [{ sku, onHand: 1n, reserved: 0n }];
          await transaction.move({
            kind: 'ADJUSTED',
            actor: undefined,
            reason: '',
            reservationId: undefined,
            deltas,
          });
          throw new Error('rolled back on purpose');
        })
        .catch(() => {});
    /** Follows all items. Leaves the stream and resumes after at most `patience` notices. */
    const follow = async (instance: Instance, patience: number, stop: AbortSignal) => {
      const state = new Map<string, StockNotice>();
      let resumeToken = '';
      let resumptions = 0;
      while (!stop.aborted) {
        let left = 1 + Math.floor(Math.random() * patience);
        for await (const notice of watch(instance, [], resumeToken, stop)) {
          const known = state.get(notice.sku);
          if (known !== undefined) {
            expect(notice.changeId > known.changeId, 'a change twice or out of order').to.equal(true);
            expect(notice.onHand, 'a change was skipped').to.equal(known.onHand + 1n);
          }
          state.set(notice.sku, notice);
          resumeToken = notice.resumeToken;
          left -= 1;
          if (left === 0) break;
        }
        resumptions += 1;
      }
      return { state, resumptions };
    };
    const chunk = Math.ceil(count / 4);
    const writers = [one, other, one, other].map((instance, index) =>
      write(instance, skus.slice(index * chunk, (index + 1) * chunk)),
    );
    await sleep(100);
    const stop = new AbortController();
    const readers = [
      follow(one, 1e9, stop.signal),
      follow(other, 1e9, stop.signal),
      follow(one, 40, stop.signal),
      follow(other, 300, stop.signal),
    ];
    await sleep(2_500);
    isWriting = false;
    await Promise.all(writers);
    await sleep(1_500);
    stop.abort();
    for (const { state } of await Promise.all(readers)) {
      for (const sku of skus) expect(state.get(sku)?.onHand, sku).to.equal(written.get(sku));
    }
  });

  it('does not wait for a slow reader, and still sends it every change', async () => {
    const { sku } = await stockUp(one, 0n);
    const [slow, fast] = [watch(one, [sku]), watch(one, [sku])];
    await Promise.all([next(slow), next(fast)]);
    for (let count = 0; count < 50; count += 1) await add(sku, 1n);
    expect((await take(fast, 50)).at(-1)?.onHand).to.equal(50n);
    expect((await take(slow, 50)).map(({ onHand }) => onHand)).to.deep.equal(
      Array.from({ length: 50 }, (_, index) => BigInt(index + 1)),
    );
    await Promise.all([slow.return(), fast.return()]);
  });

  it('rejects invalid lists of items', async () => {
    const { sku } = await stockUp(one, 1n);
    expect(await violatedFieldsOf(next(watch(one, ['a', sku, sku])))).to.deep.equal(['skus[0]', 'skus[2]']);
    const many = Array.from({ length: 201 }, (_, index) => `S-${index}`);
    expect(await violatedFieldsOf(next(watch(one, many)))).to.deep.equal(['skus']);
    expect(await codeOf(next(watch(one, [sku, newSku()])))).to.equal('NOT_FOUND');
  });

  it('rejects resume tokens that no notice of the same items carried', async () => {
    const { sku } = await stockUp(one, 1n);
    const stream = watch(one, [sku]);
    await next(stream);
    await add(sku, 1n);
    const { resumeToken } = await next(stream);
    await stream.return();
    const forged = (change: (text: string) => string) =>
      Buffer.from(change(Buffer.from(resumeToken, 'base64url').toString())).toString('base64url');
    const bad = [
      'x',
      '💥',
      `${resumeToken}=`,
      'A'.repeat(1_000_000),
      forged((text) => `0${text}`),
      forged((text) => `-${text}`),
      forged((text) => text.replace(/^[0-9]+/, '9'.repeat(18))),
      forged((text) => text.replace(/^[0-9]+/, '9'.repeat(30))),
      forged((text) => `${text} a\0`),
    ];
    for (const token of bad) {
      expect(await violatedFieldsOf(next(watch(one, [sku], token))), token.slice(0, 40)).to.deep.equal([
        'resume_token',
      ]);
    }
    expect(await violatedFieldsOf(next(watch(one, [], resumeToken)))).to.deep.equal(['resume_token']);
  });

  describe('with a history in memory', () => {
    /** A history in memory. Writes happen wherever the watcher waits; `random` decides which. */
    function createHistory(random: () => number) {
      const changes: StockLevel[] = [];
      const levels = new Map<string, StockLevel>();
      const write = (sku: string) => {
        const changeId = BigInt(changes.length + 1);
        const onHand = (levels.get(sku)?.onHand ?? 0n) + 1n;
        const level = { changeId, sku, onHand, reserved: 0n, changeTime: new Date(0) };
        levels.set(sku, level);
        changes.push(level);
      };
      const skuOf = (index: number) => `S${String(index).padStart(4, '0')}`;
      const writeSome = () => {
        const count = Math.floor(random() * 4);
        for (let done = 0; done < count; done += 1) write(skuOf(Math.floor(random() * 1_000)));
      };
      for (let index = 0; index < 1_000; index += 2) write(skuOf(index));
      const position = () => BigInt(changes.length);
      const feed: ChangeFeed = {
        attach: () => () => {},
        wake: () => {},
        close: async () => {},
        reach: async (changeId) => {
          writeSome();
          while (position() < changeId) write(skuOf(Math.floor(random() * 1_000)));
          return position();
        },
        read: async ({ after, upTo }) => {
          writeSome();
          const until = upTo - after > 7n ? after + 7n : upTo;
          return { changes: changes.slice(Number(after), Number(until)), upTo: until };
        },
      };
      const store: WatchStore = {
        levels: async ({ afterSku, limit }) => {
          writeSome();
          const sorted = [...levels.values()].sort((a, b) => (a.sku < b.sku ? -1 : 1));
          const page = sorted.filter(({ sku }) => sku > afterSku).slice(0, limit);
          writeSome();
          return page;
        },
        existingSkus: async (skus) => skus,
        isChange: async (changeId) => changeId <= position(),
      };
      return { changes, feed, store };
    }

    /** Evenly distributed numbers from 0 to 1 (mulberry32); the same seed yields the same numbers. */
    function uniform(seed: number): () => number {
      let state = seed;
      return () => {
        state = (state + 0x6d2b79f5) | 0;
        let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
        mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
        return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
      };
    }

    /** For each change, the previous change of the same item; 0 for the first. */
    function predecessors(changes: readonly StockLevel[]): Map<bigint, bigint> {
      const last = new Map<string, bigint>();
      const before = new Map<bigint, bigint>();
      for (const { changeId, sku } of changes) {
        before.set(changeId, last.get(sku) ?? 0n);
        last.set(sku, changeId);
      }
      return before;
    }

    it('sends every state after the first of each item, once and in order, wherever the stream stops', async () => {
      const patience = fc.integer({ min: 1, max: 400 });
      const holds = fc.asyncProperty(fc.integer(), patience, async (seed, most) => {
        const draw = uniform(seed);
        const { changes, feed, store } = createHistory(draw);
        const received: StockNotice[] = [];
        let resumeToken = '';
        while (received.length < 1_500) {
          const stream = createStockWatch({ feed, store }).watch(
            { skus: [], resumeToken },
            new AbortController().signal,
          );
          const notices = await take(stream, 1 + Math.floor(draw() * most));
          await stream.return();
          received.push(...notices);
          resumeToken = notices.at(-1)?.resumeToken ?? resumeToken;
        }
        const before = predecessors(changes);
        const known = new Map<string, bigint>();
        for (const { sku, changeId } of received) {
          const previous = known.get(sku);
          if (previous !== undefined) expect(before.get(changeId), sku).to.equal(previous);
          known.set(sku, changeId);
        }
        // Every change before the last notice must have been sent, for the items that the snapshot has reached.
        const [reached = '0', , pictureSku = 'Z'] = Buffer.from(resumeToken, 'base64url')
          .toString()
          .split(' ');
        for (const { sku, changeId } of changes.slice(0, Number(reached))) {
          if (sku <= pictureSku) expect((known.get(sku) ?? 0n) >= changeId, sku).to.equal(true);
        }
      });
      await fc.assert(holds, { numRuns: 40 });
    });
  });
});
