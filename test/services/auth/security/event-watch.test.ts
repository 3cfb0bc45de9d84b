/** How many watches of security events one process serves, and one user has. */

import { setMaxListeners } from 'node:events';
import { expect } from 'chai';
import { createEventWatch } from '../../../../services/auth/security/event-watch.js';
import { codeOf } from '../../../support/outcomes.js';

const PER_USER = 10;
const PER_PROCESS = 100;

describe('watches of security events', () => {
  let stop: AbortController;
  let watches: ReturnType<typeof watchOf>[];
  let watch: ReturnType<typeof createEventWatch>;

  beforeEach(() => {
    stop = new AbortController();
    setMaxListeners(0, stop.signal);
    watches = [];
    watch = createEventWatch({
      place: async () => 1n,
      eventsAfter: async () => ({ events: [], upTo: 1n }),
    });
  });
  afterEach(async () => {
    stop.abort();
    await Promise.all(watches);
  });

  function watchOf(caller: string, signal = stop.signal): Promise<IteratorResult<unknown>> {
    return watch({ caller, filter: {}, resumeToken: '' }, signal).next();
  }

  it('are limited for each user, and a user who has too many does not take those of others', async () => {
    for (let count = 0; count < PER_USER; count += 1) watches.push(watchOf('mallory'));
    expect(await codeOf(watchOf('mallory'))).to.equal('RATE_LIMITED');
    watches.push(watchOf('olga'));
    const other = await Promise.race([
      watches.at(-1),
      new Promise((resolve) => setImmediate(resolve, 'open')),
    ]);
    expect(other).to.equal('open');
  });

  it('are limited for the process', async () => {
    for (let user = 0; user < PER_PROCESS / PER_USER; user += 1)
      for (let count = 0; count < PER_USER; count += 1) watches.push(watchOf(`user-${user}`));
    expect(await codeOf(watchOf('olga'))).to.equal('RATE_LIMITED');
  });

  it('make room when they end', async () => {
    const leaving = new AbortController();
    const left = watchOf('mallory', leaving.signal);
    for (let count = 1; count < PER_USER; count += 1) watches.push(watchOf('mallory'));
    expect(await codeOf(watchOf('mallory'))).to.equal('RATE_LIMITED');
    leaving.abort();
    expect((await left).done).to.equal(true);
    watches.push(watchOf('mallory'));
    const again = await Promise.race([
      watches.at(-1),
      new Promise((resolve) => setImmediate(resolve, 'open')),
    ]);
    expect(again).to.equal('open');
  });
});
