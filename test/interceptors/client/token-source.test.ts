/** Token sources: one fetch for all callers, early enough, and again after a failure. */

import { expect } from 'chai';
import { createTokenSource, type FetchedToken } from '../../../interceptors/src/client/token-source.js';
import { rejectionOf } from '../../support/outcomes.js';
import { SetClock } from '../tokens-support.js';

/** A source whose fetches the test answers. */
function createHeldSource(clock = new SetClock()) {
  const fetches: { answer: (token: FetchedToken) => void; fail: (error: Error) => void }[] = [];
  const source = createTokenSource(
    () => new Promise((answer, fail) => fetches.push({ answer, fail })),
    clock,
  );
  return { clock, fetches, source };
}

/** A source that fetches `t1`, `t2` and so on at once, each valid for `lifeMs`. */
function createCountingSource(lifeMs: number, clock = new SetClock()) {
  const fetched: string[] = [];
  const source = createTokenSource(async () => {
    const token = `t${fetched.length + 1}`;
    fetched.push(token);
    return { token, expireTimeMs: clock.wall + lifeMs };
  }, clock);
  return { clock, fetched, source };
}

describe('a token source', () => {
  it('fetches nothing before the first get', () => {
    expect(createHeldSource().fetches).to.have.length(0);
  });

  it('fetches once for concurrent callers', async () => {
    const { clock, fetches, source } = createHeldSource();
    const waiting = [source.get(), source.get(), source.get()];
    expect(fetches).to.have.length(1);
    fetches[0]?.answer({ token: 't1', expireTimeMs: clock.wall + 300_000 });
    expect(await Promise.all(waiting)).to.deep.equal(['t1', 't1', 't1']);
    expect(await source.get()).to.equal('t1');
    expect(fetches).to.have.length(1);
  });

  it('renews a token thirty seconds before it expires', async () => {
    const { clock, fetched, source } = createCountingSource(300_000);
    expect(await source.get()).to.equal('t1');
    clock.pass(269_999);
    expect(await source.get()).to.equal('t1');
    clock.pass(1);
    expect(await source.get()).to.equal('t2');
    expect(fetched).to.have.length(2);
  });

  it('renews a short-lived token when a fifth of its lifetime is left', async () => {
    const { clock, source } = createCountingSource(10_000);
    await source.get();
    clock.pass(7999);
    expect(await source.get()).to.equal('t1');
    clock.pass(1);
    expect(await source.get()).to.equal('t2');
  });

  it('fetches again at every get when tokens arrive expired', async () => {
    for (const lifeMs of [0, -1000]) {
      const { source } = createCountingSource(lifeMs);
      expect([await source.get(), await source.get()]).to.deep.equal(['t1', 't2']);
    }
  });

  it('rejects all concurrent callers when the fetch fails, and fetches again at the next get', async () => {
    const { clock, fetches, source } = createHeldSource();
    const waiting = [rejectionOf(source.get()), rejectionOf(source.get())];
    const why = new Error('the issuer is away');
    fetches[0]?.fail(why);
    expect(await Promise.all(waiting)).to.deep.equal([why, why]);
    const again = source.get();
    expect(fetches).to.have.length(2);
    fetches[1]?.answer({ token: 't2', expireTimeMs: clock.wall + 300_000 });
    expect(await again).to.equal('t2');
  });

  it('rejects when the fetch throws synchronously', async () => {
    const source = createTokenSource(() => {
      throw new Error('no key');
    }, new SetClock());
    expect(await rejectionOf(source.get())).to.have.property('message', 'no key');
    expect(await rejectionOf(source.get())).to.have.property('message', 'no key');
  });

  it('returns the old token until it expires when a renewal fails', async () => {
    const { clock, fetches, source } = createHeldSource();
    const first = source.get();
    fetches[0]?.answer({ token: 't1', expireTimeMs: clock.wall + 300_000 });
    await first;
    clock.pass(280_000);
    const renewed = source.get();
    fetches[1]?.fail(new Error('the issuer is away'));
    expect(await renewed).to.equal('t1');
    clock.pass(20_000);
    const expired = rejectionOf(source.get());
    fetches[2]?.fail(new Error('the issuer is away'));
    expect(await expired).to.have.property('message', 'the issuer is away');
  });

  it('does not return a token again that a server rejected', async () => {
    const { source } = createCountingSource(300_000);
    await source.get();
    source.reject('t1');
    expect(await source.get()).to.equal('t2');
  });

  it('does not return a rejected token when the renewal fails', async () => {
    const { clock, fetches, source } = createHeldSource();
    const first = source.get();
    fetches[0]?.answer({ token: 't1', expireTimeMs: clock.wall + 300_000 });
    await first;
    source.reject('t1');
    const renewed = rejectionOf(source.get());
    fetches[1]?.fail(new Error('the issuer is away'));
    expect(await renewed).to.have.property('message', 'the issuer is away');
  });

  it('keeps its token when another one was rejected', async () => {
    const { fetched, source } = createCountingSource(300_000);
    await source.get();
    source.reject('t0');
    expect(await source.get()).to.equal('t1');
    expect(fetched).to.deep.equal(['t1']);
  });

  it('keeps a token that was fetched while the one before it was rejected', async () => {
    const { clock, fetches, source } = createHeldSource();
    const first = source.get();
    fetches[0]?.answer({ token: 't1', expireTimeMs: clock.wall + 300_000 });
    await first;
    source.reject('t1');
    const second = source.get();
    source.reject('t1');
    fetches[1]?.answer({ token: 't2', expireTimeMs: clock.wall + 300_000 });
    expect(await second).to.equal('t2');
    source.reject('t1');
    expect(await source.get()).to.equal('t2');
    expect(fetches).to.have.length(2);
  });
});
