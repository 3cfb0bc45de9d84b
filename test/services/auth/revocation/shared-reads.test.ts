/** Shared reads: one read answers many requests, but only requests that arrived before it began. */

import { systemTimers } from '@portcullis/guard/clock';
import { expect } from 'chai';
import {
  CONCURRENT_READS_MAX,
  createSharedReads,
} from '../../../../services/auth/revocation/shared-reads.js';

/** A read that ends when the test decides. */
interface HeldRead {
  readonly requests: readonly string[];
  finish(answer?: (request: string) => string): void;
  fail(error: Error): void;
}

const BLOCKING_MS_MAX = 20;

function createHeldReads() {
  const held: HeldRead[] = [];
  const reads = createSharedReads<string, string>(
    (requests) =>
      new Promise((resolve, reject) => {
        const number = held.length;
        held.push({
          requests,
          finish: (answer = (request) => `${request} by read ${number}`) => resolve(answer),
          fail: reject,
        });
      }),
    BLOCKING_MS_MAX,
  );
  return { held, reads };
}

describe('shared reads', () => {
  it('begin at once when no read is under way', () => {
    const { held, reads } = createHeldReads();
    void reads.read('a');
    expect(held.map(({ requests }) => requests)).to.deep.equal([['a']]);
  });

  it('serve no request from a read that began before the request arrived', async () => {
    const { held, reads } = createHeldReads();
    const first = reads.read('a');
    const later = [reads.read('b'), reads.read('c')];
    held[0]?.finish();
    expect(await first).to.equal('a by read 0');
    await new Promise(setImmediate);
    expect(held[1]?.requests).to.deep.equal(['b', 'c']);
    held[1]?.finish();
    expect(await Promise.all(later)).to.deep.equal(['b by read 1', 'c by read 1']);
  });

  it('keep their distance, and then serve all that have waited', async () => {
    const due: (() => void)[] = [];
    const after = (_: number, work: () => void) => {
      due.push(work);
      return () => {};
    };
    const served: number[] = [];
    const read = async (requests: readonly string[]) => {
      served.push(requests.length);
      return (request: string) => request;
    };
    const reads = createSharedReads<string, string>(read, BLOCKING_MS_MAX, { ...systemTimers, after }, 100);
    expect(await reads.read('a')).to.equal('a');
    const later = [reads.read('b'), reads.read('c')];
    await new Promise(setImmediate);
    expect(served).to.deep.equal([1]);
    due[0]?.();
    expect(await Promise.all(later)).to.deep.equal(['b', 'c']);
    expect(served).to.deep.equal([1, 2]);
  });

  it('reject the requests of a read that fails, and no others', async () => {
    const { held, reads } = createHeldReads();
    const first = reads.read('a').catch((error: Error) => error.message);
    const second = reads.read('b');
    held[0]?.fail(new Error('the database is away'));
    expect(await first).to.equal('the database is away');
    held[1]?.finish();
    expect(await second).to.equal('b by read 1');
  });

  it('reject only the request whose answer throws', async () => {
    const { held, reads } = createHeldReads();
    void reads.read('first');
    const both = [reads.read('good'), reads.read('bad').catch(() => 'refused')];
    held[0]?.finish();
    await new Promise(setImmediate);
    held[1]?.finish((request) => {
      if (request === 'bad') throw new Error('this one lags');
      return request;
    });
    expect(await Promise.all(both)).to.deep.equal(['good', 'refused']);
  });

  it('continue when a read hangs, with a bounded number of concurrent reads', async () => {
    const { held, reads } = createHeldReads();
    for (let read = 0; read < CONCURRENT_READS_MAX; read++) {
      void reads.read(`${read}`);
      if (read > 0) await new Promise((resolve) => setTimeout(resolve, BLOCKING_MS_MAX * 3));
      expect(held).to.have.length(read + 1);
    }
    const last = reads.read('last');
    await new Promise((resolve) => setTimeout(resolve, BLOCKING_MS_MAX * 3));
    expect(held).to.have.length(CONCURRENT_READS_MAX);
    held[0]?.finish();
    await new Promise(setImmediate);
    held[CONCURRENT_READS_MAX]?.finish();
    expect(await last).to.equal(`last by read ${CONCURRENT_READS_MAX}`);
  });
});
