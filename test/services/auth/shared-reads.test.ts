/** One read answers many requests, but only those that had arrived before it began. */

import { expect } from 'chai';
import { createNextRead, READS_MAX } from '../../../services/auth/shared-reads.js';

/** A read that ends when the test says so. */
interface HeldRead {
  readonly requests: readonly string[];
  finish(answer?: (request: string) => string): void;
  fail(error: Error): void;
}

const PATIENCE_MS = 20;

function createHeldReads() {
  const held: HeldRead[] = [];
  const reads = createNextRead<string, string>(
    (requests) =>
      new Promise((resolve, reject) => {
        const number = held.length;
        held.push({
          requests,
          finish: (answer = (request) => `${request} by read ${number}`) => resolve(answer),
          fail: reject,
        });
      }),
    PATIENCE_MS,
  );
  return { held, reads };
}

describe('the next read', () => {
  it('begins at once when no read is under way', () => {
    const { held, reads } = createHeldReads();
    void reads.ask('a');
    expect(held.map(({ requests }) => requests)).to.deep.equal([['a']]);
  });

  it('never serves a request that arrived after it began', async () => {
    const { held, reads } = createHeldReads();
    const first = reads.ask('a');
    const later = [reads.ask('b'), reads.ask('c')];
    held[0]?.finish();
    expect(await first).to.equal('a by read 0');
    await new Promise(setImmediate);
    expect(held[1]?.requests).to.deep.equal(['b', 'c']);
    held[1]?.finish();
    expect(await Promise.all(later)).to.deep.equal(['b by read 1', 'c by read 1']);
  });

  it('refuses its own requests when it fails, and no others', async () => {
    const { held, reads } = createHeldReads();
    const first = reads.ask('a').catch((error: Error) => error.message);
    const second = reads.ask('b');
    held[0]?.fail(new Error('the database is away'));
    expect(await first).to.equal('the database is away');
    held[1]?.finish();
    expect(await second).to.equal('b by read 1');
  });

  it('refuses one request alone when the answer to that one throws', async () => {
    const { held, reads } = createHeldReads();
    void reads.ask('first');
    const both = [reads.ask('good'), reads.ask('bad').catch(() => 'refused')];
    held[0]?.finish();
    await new Promise(setImmediate);
    held[1]?.finish((request) => {
      if (request === 'bad') throw new Error('this one lags');
      return request;
    });
    expect(await Promise.all(both)).to.deep.equal(['good', 'refused']);
  });

  it('is not held up for ever by one that hangs, and is not begun without bound', async () => {
    const { held, reads } = createHeldReads();
    for (let read = 0; read < READS_MAX; read++) {
      void reads.ask(`${read}`);
      if (read > 0) await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS * 3));
      expect(held).to.have.length(read + 1);
    }
    const last = reads.ask('last');
    await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS * 3));
    expect(held).to.have.length(READS_MAX);
    held[0]?.finish();
    await new Promise(setImmediate);
    held[READS_MAX]?.finish();
    expect(await last).to.equal(`last by read ${READS_MAX}`);
  });
});
