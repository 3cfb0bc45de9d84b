/** Which networks count as known, for how long, and how many. */

import { expect } from 'chai';
import { KNOWN_NETWORK_MS, KnownNetworks } from '../../../interceptors/src/server/known-networks.js';
import { SetClock } from '../tokens-support.js';

const NETWORKS_MAX = 10_000;

describe('known networks', () => {
  it('are known for an hour after the last verified token', () => {
    const clock = new SetClock();
    const networks = new KnownNetworks(clock);
    expect(networks.has('one')).to.equal(false);
    networks.add('one');
    clock.pass(KNOWN_NETWORK_MS - 1);
    expect([networks.has('one'), networks.has('two')]).to.deep.equal([true, false]);
    networks.add('one');
    clock.pass(KNOWN_NETWORK_MS - 1);
    expect(networks.has('one')).to.equal(true);
    clock.pass(1);
    expect(networks.has('one')).to.equal(false);
    expect(KNOWN_NETWORK_MS).to.equal(3_600_000);
  });

  it('are ten thousand at most; the one whose last token is the oldest leaves', () => {
    const networks = new KnownNetworks(new SetClock());
    for (let index = 0; index < NETWORKS_MAX; index += 1) networks.add(`network ${index}`);
    networks.add('network 0');
    expect([networks.has('network 0'), networks.has('network 1')]).to.deep.equal([true, true]);
    networks.add('one more');
    expect([networks.has('network 0'), networks.has('network 1'), networks.has('one more')]).to.deep.equal([
      true,
      false,
      true,
    ]);
    expect(networks.has('network 2')).to.equal(true);
  });
});
